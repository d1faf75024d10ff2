"""A model without weights: it knows colours, and does what tests tell it to."""
