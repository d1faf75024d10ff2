"""Eight-bit products on CPUs (W8A8): each weight an int8, each row of them with a scale; activations are quantised as
they come, each token by itself, so that an answer does not depend on what else is in the batch.

The integer products are oneDNN's, through torch. Source: Dettmers et al. 2022 (LLM.int8()), section 2 (vector-wise)."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from models.layers import Head

ACTIVATION_LEVELS = 127  # steps from zero to a token's largest activation
M = TypeVar("M", bound=nn.Module)
ZERO_POINT = 128  # of a level, which is unsigned
SMALLEST = 1e-30  # of a token's largest activation: all zeros stay zeros


def weight_levels() -> int:
    """Steps from zero to the largest weight. CPUs without VNNI add two products in 16 bits, and 255 x 64 x 2 is what
    fits. Weights have the smaller spread: they lose less by it than activations would."""
    has = torch.cpu.get_capabilities()
    return 127 if any(has.get(unit) for unit in ("avx512_vnni", "avx_vnni", "amx_int8")) else 64


class Int8Linear(nn.Linear):
    """A linear layer that computes in int8 once it is packed: `(..., in)` -> `(..., out)` in the dtype of its input."""

    def pack(self) -> None:
        """Give up the weights for their int8 form, once they are loaded."""
        weight = self.weight.float()
        scale = weight.abs().amax(1).clamp_min(SMALLEST) / weight_levels()
        levels = (weight / scale[:, None]).round_().to(torch.int8)
        self._packed = torch.ops.onednn.qlinear_prepack(levels, None)
        self._scale, self._zeros = scale, torch.zeros(len(scale), dtype=torch.int64)
        self._middle = torch.tensor(ZERO_POINT + 0.5)  # half a step more, as the conversion to integers cuts
        self.weight = nn.Parameter(weight.new_empty(0), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.reshape(-1, self.in_features).float()
        step = tokens.abs().amax(-1, keepdim=True).clamp_min_(SMALLEST) / ACTIVATION_LEVELS  # (tokens, 1)
        levels = torch.addcmul(self._middle, tokens, step.reciprocal()).to(torch.uint8)
        product = self.product(levels)
        product = product * step if self.bias is None else torch.addcmul(self.bias.float(), product, step)
        return product.view(*x.shape[:-1], self.out_features).to(x.dtype)

    def product(self, levels: Tensor) -> Tensor:
        """The integer product alone: unsigned `levels` `(tokens, in)` -> float32 `(tokens, out)`, in their unit."""
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            levels, 1.0, ZERO_POINT, self._packed, self._scale, self._zeros, None,
            1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        return product


def with_int8_products(module: M) -> M:
    """Every big matrix product of `module` becomes an `Int8Linear` that is still to be loaded and packed, in place.
    Heads and embeddings stay exact."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and not isinstance(child, Head):
                weight = child.weight
                quantized = Int8Linear(
                    child.in_features,
                    child.out_features,
                    child.bias is not None,
                    device=weight.device,
                    dtype=weight.dtype,
                )
                setattr(parent, name, quantized)
    return module


def pack(part: nn.Module) -> None:
    """For what is loaded part by part: never more than one layer is there in both forms."""
    if isinstance(part, Int8Linear):
        part.pack()


def saved_bytes(module: nn.Module) -> int:
    """How much smaller its int8 products will be once packed; each row keeps a scale and a zero point."""
    layers = [part for part in module.modules() if isinstance(part, Int8Linear)]
    return sum(one.weight.nbytes - one.weight.numel() - 12 * one.out_features for one in layers)
