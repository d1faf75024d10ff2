"""A demo that knows drawn things: pictures of emoji, scenes of them, and how its models are trained."""
