"""Before the service starts: flags, variables, and what can fail at once. Imports nothing that is slow."""
