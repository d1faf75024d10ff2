"""Linear layers and normalisation. Heads and norms are exact; the big matrix products are done as CPUs do them fastest:
by oneDNN, through torch, with weights packed for it once.

In int8 (W8A8) each row of weights has a scale, and activations are quantised as they come, each token by itself, so
that an answer does not depend on what else is in the batch. Source: Dettmers et al. 2022 (LLM.int8()), section 2
(vector-wise)."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.device import has_onednn, instructions
from models.layers.quantization import largest

USUAL_TOKENS = 16  # of a product: what the order of packed weights is chosen for
ACTIVATION_LEVELS = 127  # steps from zero to a token's largest activation
M = TypeVar("M", bound=nn.Module)
ZERO_POINT = 128  # of a level, which is unsigned
SMALLEST = 1e-30  # of a token's largest activation: all zeros stay zeros


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


def weight_levels() -> int:
    """Steps from zero to the largest weight. CPUs without VNNI add two products in 16 bits, and 255 x 64 x 2 is what
    fits. Weights have the smaller spread: they lose less by it than activations would."""
    return 127 if instructions().vnni else 64


class PackedLinear(nn.Linear):
    """A linear layer whose weights, once packed, lie in the order in which oneDNN reads them, where it has the dtype:
    same products, up to twice as fast for few tokens. On other devices it stays as it is."""

    _packed: Tensor | None = None

    def pack(self) -> None:
        if not self.weight.is_cpu or self.weight.dtype not in instructions().packed:
            return
        self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), USUAL_TOKENS)
        self.weight = nn.Parameter(self.weight.new_empty(0), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        if self._packed is None:
            return super().forward(x)
        if x.requires_grad:
            product: Tensor = _PackedProduct.apply(x, self._packed, self.bias)  # type: ignore[no-untyped-call]
            return product
        return onednn_product(x, self._packed, self.bias)


class _PackedProduct(torch.autograd.Function):
    """oneDNN's product, with a derivative by its input: it has none itself, and torch would go on with zeros."""

    @staticmethod
    def forward(context: Any, x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
        context.packed = packed  # not among the saved tensors: those cannot have this layout
        return onednn_product(x, packed, bias)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient @ context.packed.to_dense(), None, None


class Int8Linear(nn.Linear):
    """A linear layer that computes in int8 once it is packed: `(..., in)` -> `(..., out)` in the dtype of its input."""

    def pack(self) -> None:
        """Give up the weights for their int8 form, once they are loaded."""
        weight = self.weight.float()
        scale = weight.abs().amax(1).clamp_min(SMALLEST) / weight_levels()
        levels = (weight / scale[:, None]).round_().to(torch.int8)
        self._packed = torch.ops.onednn.qlinear_prepack(levels, None)
        self._scale, self._zeros = scale, torch.zeros(len(scale), dtype=torch.int64)
        self.weight = nn.Parameter(weight.new_empty(0), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.reshape(-1, self.in_features)
        # Rounded to the input's dtype before levels are counted in it: so it is the same step on both sides.
        step = largest(tokens).clamp_min_(SMALLEST) / ACTIVATION_LEVELS  # (tokens, 1)
        scaled = tokens.to(torch.float32, copy=True).mul_(step.float().reciprocal())  # in place: new pages cost more
        # Signed first, and then from -128 to 0: a conversion to unsigned integers takes torch eight times as long.
        levels = scaled.round_().to(torch.int8).view(torch.uint8).bitwise_xor_(ZERO_POINT)
        product = self.product(levels, torch.bfloat16 if x.dtype == torch.bfloat16 else torch.float32)
        product = product.mul_(step) if self.bias is None else torch.addcmul(self.bias, product, step)
        return product.view(*x.shape[:-1], self.out_features).to(x.dtype)

    def product(self, levels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """The integer product alone: unsigned `levels` `(tokens, in)` -> `(tokens, out)` in `dtype`, in their unit."""
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            levels, 1.0, ZERO_POINT, self._packed, self._scale, self._zeros, None,
            1.0, 0, dtype, "none", [], "",
        )  # fmt: skip
        return product


def with_products(module: M, kind: type[PackedLinear | Int8Linear]) -> M:
    """Every big matrix product of `module` that is not of another kind yet becomes one of this, which is still to be
    loaded and packed, in place. Heads and embeddings stay exact."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                weight = child.weight
                product = kind(
                    child.in_features,
                    child.out_features,
                    child.bias is not None,
                    device=weight.device,
                    dtype=weight.dtype,
                )
                setattr(parent, name, product)
    return module


def pack(part: nn.Module) -> None:
    """For what is loaded part by part: never more than one layer is there in both forms."""
    if isinstance(part, PackedLinear | Int8Linear):
        part.pack()


def saved_bytes(module: nn.Module) -> int:
    """How much smaller its int8 products will be once packed; each row keeps a scale and a zero point."""
    layers = [part for part in module.modules() if isinstance(part, Int8Linear)]
    return sum(one.weight.nbytes - one.weight.numel() - 12 * one.out_features for one in layers)
