"""The models: the seam that the service sees (base.py), what is served (catalog, loader), and their parts."""
