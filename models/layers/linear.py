"""Linear layers and normalisation. Heads and norms are exact; the big matrix products are done as the CPU does them
fastest, with weights packed once for the kernel that it was found to be.

In int8 (W8A8) each row of weights has a scale, and activations are quantised as they come, each token by itself, so
that an answer does not depend on what else is in the batch. Source: Dettmers et al. 2022 (LLM.int8()), section 2
(vector-wise)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from models.device import instructions
from models.layers.kernels import (
    FBGEMM,
    INT8_KERNELS,
    ONEDNN,
    Kernels,
    Packs,
    Product,
    Shape,
    exact_product,
    fbgemm_fp16,
    onednn_packed,
    onednn_product,
)
from models.layers.quantization import largest

ACTIVATION_LEVELS = 127  # steps from zero to a token's largest activation
INT8_ROW_BYTES = 12  # of a scale and a zero point
SMALLEST = 1e-30  # of a token's largest activation: all zeros stay zeros
M = TypeVar("M", bound=nn.Module)


class LayerNorm(nn.LayerNorm):
    """Layer normalisation in float32; the result has the dtype of the input."""

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cpu:  # its kernel takes half-precision input with float32 weights, and computes in float32
            return super().forward(x)
        return super().forward(x.float()).to(x.dtype)


class Head(nn.Linear, Packs):
    """A projection in float32, whatever the dtype of its input: `(..., in)` -> `(..., out)` float32."""

    shape = Shape.HEAD

    def pack(self, kernels: Kernels) -> None:
        """The weights stay as they are."""
        self.kernel = kernels.head(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return head_product(x, self.weight, self.bias, self.kernel)


def head_product(x: Tensor, weight: Tensor, bias: Tensor | None, kernel: str | None) -> Tensor:
    """In float32: `(..., in)` times `weight` `(out, in)` -> `(..., out)`."""
    return exact_product(x.float(), weight, bias, kernel if torch.is_inference_mode_enabled() else None)


def weight_levels() -> int:
    """Steps from zero to the largest weight. CPUs without VNNI add two products in 16 bits, and 255 x 64 x 2 is what
    fits. Weights have the smaller spread: they lose less by it than activations would."""
    return 127 if instructions().vnni else 64


class PackedLinear(nn.Linear, Packs):
    """A linear layer with weights in the order in which its kernel reads them: for oneDNN in its own. Same products,
    up to twice as fast for few tokens. On other devices it stays as it is."""

    _packed: Tensor | None = None

    def pack(self, kernels: Kernels) -> None:
        if not self.weight.is_cpu:
            return
        self.kernel = kernels.exact(self.shape, self.weight.dtype)
        if self.kernel == ONEDNN:
            self._packed = onednn_packed(self.weight.detach())
            self.weight = nn.Parameter(self.weight.new_empty(0), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        if self._packed is None:
            return super().forward(x)
        if x.requires_grad:
            return differentiable(x, self._product, self._packed.to_dense)
        return self._product(x)

    def _product(self, x: Tensor) -> Tensor:
        assert self._packed is not None
        return onednn_product(x, self._packed, self.bias)


class _Differentiable(torch.autograd.Function):
    """A kernel's product, with a derivative by its input: it has none itself, and torch would go on with zeros."""

    @staticmethod
    def forward(context: Any, x: Tensor, product: Product, weight: Callable[[], Tensor]) -> Tensor:
        context.weight = weight  # not among the saved tensors: those cannot have a kernel's layout
        return product(x)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient @ context.weight(), None, None


def differentiable(x: Tensor, product: Product, weight: Callable[[], Tensor]) -> Tensor:
    """`product` of `x`; `weight`: unpacks it."""
    made: Tensor = _Differentiable.apply(x, product, weight)  # type: ignore[no-untyped-call]
    return made


class Int8Linear(nn.Linear, Packs):
    """A linear layer that computes in int8 once it is packed: `(..., in)` -> `(..., out)` in the dtype of its input."""

    def pack(self, kernels: Kernels) -> None:
        """Give up the weights for their int8 form, once they are loaded."""
        weight = self.weight.float()
        scale = weight.abs().amax(1).clamp_min(SMALLEST) / weight_levels()
        levels = (weight / scale[:, None]).round_().to(torch.int8)
        self._made = torch.bfloat16 if instructions().bf16 else torch.float32  # of tokens in bf16
        self.kernel = kernels.int8(self.shape)
        self.product = INT8_KERNELS[self.kernel].pack(levels, scale)
        self.weight = nn.Parameter(weight.new_empty(0), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.of(self.quantized(x), x)

    def quantized(self, x: Tensor) -> Quantized:
        """Each token of `x` `(..., in)` by itself."""
        tokens = x.reshape(-1, self.in_features)
        # Rounded to the input's dtype before levels are counted in it: so it is the same step on both sides.
        most = largest(tokens)
        most = most.float() if most.dtype == torch.float16 else most  # which has no step that is small enough
        step = most.clamp_min_(SMALLEST) / ACTIVATION_LEVELS
        scaled = tokens.to(torch.float32, copy=True).mul_(step.float().reciprocal())  # in place: new pages cost more
        return Quantized(INT8_KERNELS[str(self.kernel)].levels(scaled), step)

    def of(self, tokens: Quantized, x: Tensor) -> Tensor:
        """The product of `x`, whose `tokens` are."""
        product = self.product(tokens.levels, self._made if x.dtype == torch.bfloat16 else torch.float32)
        if self.bias is None:
            product.mul_(tokens.step)
        else:
            torch.addcmul(self.bias, product, tokens.step, out=product)
        return product.view(*x.shape[:-1], self.out_features).to(x.dtype)


class Fp16Linear(nn.Linear, Packs):
    """A linear layer with weights in fp16 that computes in float32, once it is packed: for CPUs that do not compute in
    fp16, where half the weights are read in half the time. float32 `(..., in)` -> `(..., out)`."""

    def pack(self, _: Kernels) -> None:
        self.kernel = FBGEMM
        self._packed = fbgemm_fp16(self.weight, self.bias)
        self.weight = nn.Parameter(self.weight.new_empty(0), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            return differentiable(x, self._packed.product, self._packed.weight)
        return self._packed.product(x)


class Vocabulary(Packs):
    """What projects to a whole vocabulary, exactly or in int8."""

    shape = Shape.HEAD

    def __init__(self) -> None:
        super().__init__()
        self.in_int8: Int8Linear | None = None

    def pack(self, _: Kernels) -> None:
        """Nothing: its weight may be an embedding's, which is loaded elsewhere."""

    def prepare(self, weight: Tensor, bias: Tensor | None, kernels: Kernels, *, int8: bool) -> None:
        """Once that is loaded. `weight`, `(vocabulary, width)`, stays as it is, also beside its int8 form."""
        if not int8:
            self.kernel = kernels.head(weight)
            return
        vocabulary, width = weight.shape
        layer = Int8Linear(width, vocabulary, bias is not None, device="meta")
        layer.shape, layer.weight = self.shape, nn.Parameter(weight.detach(), requires_grad=False)
        if bias is not None:
            layer.bias = nn.Parameter(bias.detach(), requires_grad=False)
        layer.pack(kernels)
        self.in_int8 = layer

    def project(self, states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`(..., width)` -> logits float32."""
        if self.in_int8 is not None:
            return self.in_int8(states.float())
        return head_product(states, weight, bias, self.kernel)


@runtime_checkable
class Writes(Protocol):
    """A network that writes text."""

    def vocabulary(self) -> tuple[Vocabulary, Tensor, Tensor | None]:
        """What projects to it, by which weight and bias."""


class Quantized(NamedTuple):
    """Tokens in int8."""

    levels: Tensor  # (tokens, width), as a kernel takes them
    step: Tensor  # (tokens, 1), of a level


def products(x: Tensor, layers: Sequence[nn.Linear]) -> list[Tensor]:
    """Of one `x` with layers of one kind; in int8 they share its levels."""
    if not isinstance(layers[0], Int8Linear):
        return [layer(x) for layer in layers]
    tokens = layers[0].quantized(x)
    return [layer.of(tokens, x) for layer in layers if isinstance(layer, Int8Linear)]


Kind = type[PackedLinear] | type[Int8Linear] | type[Fp16Linear]  # of product


class SourceLinear(nn.Linear):
    """For all tokens of what is looked at, where its neighbours see few."""


def with_products(module: M, kind: Kind, shape: Shape = Shape.TEXT) -> M:
    """Every big matrix product of `module` that is not of another kind yet becomes one of this, which is still to be
    loaded and packed, in place. Heads and embeddings stay exact; so does, in fp16, what is slower there."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and type(child) in (nn.Linear, SourceLinear):
                is_source = type(child) is SourceLinear
                product = (PackedLinear if is_source and kind is Fp16Linear else kind)(
                    child.in_features,
                    child.out_features,
                    child.bias is not None,
                    device=child.weight.device,
                    dtype=child.weight.dtype,
                )
                product.shape = Shape.TOWER if is_source else shape
                setattr(parent, name, product)
    return module


def kernels_of(*modules: nn.Module) -> dict[str, str]:
    """The names of those that compute the products, once they are packed, by what these are for."""
    parts = [part for module in modules for part in module.modules() if isinstance(part, Packs)]
    names = {shape: [part.kernel for part in parts if part.kernel and part.shape is shape] for shape in Shape}
    return {str(shape): "+".join(dict.fromkeys(own)) for shape, own in names.items() if own}


def saved_bytes(module: nn.Module) -> int:
    """How much smaller its products in int8, where each row keeps a scale and a zero point, or fp16 will be once
    packed."""
    layers = [part for part in module.modules() if isinstance(part, Int8Linear)]
    halved = [part.weight for part in module.modules() if isinstance(part, Fp16Linear)]
    return sum(one.weight.nbytes - one.weight.numel() - INT8_ROW_BYTES * one.out_features for one in layers) + sum(
        weight.nbytes - 2 * weight.numel() for weight in halved
    )
