"""Which dtype each part computes in. Weights and activations of the big matrix products are in the serving dtype;
normalisation, embeddings and heads are exact: their weights stay float32, whatever the serving dtype."""

from __future__ import annotations

import torch
from torch import nn

from models.layers.linear import Head


class Served(nn.Module):
    """A network whose big matrix products have the serving dtype."""

    dtype = torch.float32


def serving_dtype(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Convert the big matrix products of `module` to the serving dtype, and all else to float32, in place."""
    module.float()
    for part in module.modules():
        if isinstance(part, Served):
            part.dtype = dtype
        if isinstance(part, nn.Linear | nn.Conv2d) and not isinstance(part, Head):
            part.to(dtype)
    return module
