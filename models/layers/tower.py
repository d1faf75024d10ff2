"""What the loader needs of a tower, whatever its family."""

from __future__ import annotations

from torch import nn


class Tower(nn.Module):
    """A vision encoder: normalised pixels `(images, 3, height, width)` -> features `(images, tokens, width)`.

    Towers with the same `repr(config)` and the same parameters are the same tower, and one copy serves them all."""

    config: object
