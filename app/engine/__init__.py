"""The queue in front of the model runners: what runs next, and the thread that runs it."""
