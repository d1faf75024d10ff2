"""Who comes in: sockets, the gate, admission, and one exchange of request and answer."""
