"""Where results go: one writer a format, each with its way to know what an earlier run has written."""
