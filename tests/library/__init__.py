"""Checkpoints of the library's families, tiny and random, and what the library itself computes with them."""
