"""What the runners of all families share."""
