"""The models: the seam that the service sees (base.py, inputs.py, outputs.py), what is served (catalog, loader), and
their parts."""
