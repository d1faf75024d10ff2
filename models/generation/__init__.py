"""Token by token: search, KV cache, the loop, and the ranking of candidates."""
