"""The service: the process, the story of a request (tasks.py), and what stands around it."""

__version__ = "0.1.0"  # pyproject.toml reads it here
