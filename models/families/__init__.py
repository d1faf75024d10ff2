"""The model families: one folder each, and nothing of a family anywhere else."""
