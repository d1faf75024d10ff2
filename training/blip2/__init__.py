"""How the demo's BLIP-2 was made: `python -m training.blip2.train`."""
