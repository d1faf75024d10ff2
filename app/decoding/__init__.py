"""Pictures are decoded here: in a few processes, each of which can be killed."""
