"""BLIP: Li et al. 2022, as salesforce/BLIP computes it."""
