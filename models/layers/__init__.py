"""Layers in plain torch that the families share."""
