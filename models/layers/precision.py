"""Which dtype each part computes in. Weights and activations of the big matrix products are in the serving dtype;
normalisation, embeddings and heads are exact: their weights stay float32, whatever the serving dtype."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.device import has_onednn


class LayerNorm(nn.LayerNorm):
    """Layer normalisation in float32; the result has the dtype of the input."""

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cpu:  # its kernel takes half-precision input with float32 weights, and computes in float32
            return super().forward(x)
        return super().forward(x.float()).to(x.dtype)


class Head(nn.Linear):
    """A projection in float32, whatever the dtype of its input: `(..., in)` -> `(..., out)` float32."""

    def forward(self, x: Tensor) -> Tensor:
        return exact_product(x, self.weight, self.bias)


def exact_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """In float32: `(..., in)` times `weight` `(out, in)` -> `(..., out)`.

    On CPUs by oneDNN: with a few tokens and a whole vocabulary, BLAS takes two to four times as long."""
    x = x.float()
    if x.is_cpu and torch.is_inference_mode_enabled() and has_onednn():
        return onednn_product(x, weight, bias)
    return F.linear(x, weight, bias)


def onednn_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear` on a CPU, without gradients; `weight` may be in oneDNN's own layout."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


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
