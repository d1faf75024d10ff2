"""How the demo weights were made, and what they score."""
