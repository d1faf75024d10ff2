"""Images by URL: which may be fetched, from which addresses, and how."""
