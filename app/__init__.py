"""The service: the process, the story of a request (tasks.py), and what stands around it."""
