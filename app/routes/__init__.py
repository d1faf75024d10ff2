"""The HTTP routes, one file a task: they translate only."""
