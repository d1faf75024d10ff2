"""Folders in, captions out: the commands that ask about many pictures. Imports neither torch nor the service, but for
`backend`, which starts it in this process."""
