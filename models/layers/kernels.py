"""Which kernel computes a matrix product on this CPU. Instructions, cores and sizes do not tell which is the fastest:
each class of shapes is tried for a moment when weights are packed, once a process.

A kernel is here only if a token's product does not depend on what else is in the batch."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.device import INT8, choose_dtype, instructions

AUTO, TORCH, ONEDNN, FBGEMM = "auto", "torch", "onednn", "fbgemm"  # torch: by its BLAS, which is MKL on x86
USUAL_TOKENS = 16  # of a product: what the order of packed weights is chosen for
ZERO_POINT = 128  # of oneDNN's and FBGEMM's levels, which are unsigned
FBGEMM_LIMIT = "FBGEMM_ENABLE_INSTRUCTIONS"
FBGEMM_VNNI = frozenset({"AVX512_E1", "AVX512_E1_256"})  # its names for what has it

LEAST_ROUNDS, TRIAL_SECONDS = 6, 0.15  # of the trial of a class of shapes
WORTH = 0.9  # of the usual kernel's time: what another must stay below, on a machine that may be busy
Product = Callable[[Tensor], Tensor]
Int8Product = Callable[[Tensor, torch.dtype], Tensor]
Trial = Callable[["Shape", str], Callable[[], object]]  # of a kernel: makes its layer, and returns a call of it


class Shape(StrEnum):
    """Products that are alike to a kernel."""

    TOWER = "tower"  # with all tokens of an image
    TEXT = "text"  # with few tokens, such as a step's
    HEAD = "head"  # with few tokens, to a whole vocabulary


class Sizes(NamedTuple):
    """Of products: BLIP-base's; of its vocabulary a part, which is no longer than a CPU's cache is."""

    tokens: tuple[int, ...]  # one product of each
    width: int
    out: int


SIZES: Mapping[Shape, Sizes] = {
    Shape.TOWER: Sizes((577,), 768, 768),
    Shape.TEXT: Sizes((2, 16, 64), 768, 3072),  # a lone step's, one with rows to share it, texts to be read
    Shape.HEAD: Sizes((2, 16), 768, 8192),
}


class Packs(nn.Module):
    """A layer that chooses its kernel, and packs its weights for it, once they are loaded."""

    shape = Shape.TEXT
    kernel: str | None = None  # its name; None: as on other devices

    def pack(self, kernels: Kernels) -> None:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Int8Kernel:
    """`levels`: from tokens in units of their step, float32 `(tokens, in)`, which it may write over, to what its
    products take. `pack`: from weights int8 `(out, in)` and their scale `(out,)` to their product, `(tokens, out)` in
    units of the step: in the dtype that is named, bf16 or float32, or in float32."""

    levels: Product
    pack: Callable[[Tensor, Tensor], Int8Product]


def exact_candidates(dtype: torch.dtype, packed: frozenset[torch.dtype]) -> tuple[str, ...]:
    """The usual one first. `packed`: the dtypes that oneDNN takes. In torch half precision is oneDNN's, too."""
    if dtype not in packed:
        return (TORCH,)
    return (ONEDNN, TORCH) if dtype is torch.float32 else (ONEDNN,)


def int8_candidates(shape: Shape, *, vnni: bool, fbgemm: bool, fbgemm_vnni: bool) -> tuple[str, ...]:
    """The usual one first: without VNNI oneDNN packs weights anew in every call, which few tokens do not pay back.
    With VNNI weights have more levels than FBGEMM can add in 16 bits, should it not use VNNI itself."""
    if not fbgemm or (vnni and not fbgemm_vnni):
        return (ONEDNN,)
    return (ONEDNN, FBGEMM) if vnni or shape is Shape.TOWER else (FBGEMM, ONEDNN)


def fastest(seconds: Mapping[str, float]) -> str:
    """The usual one, which is the first, unless another is worth it."""
    usual = next(iter(seconds))
    best = min(seconds, key=lambda name: seconds[name])
    return best if seconds[best] < WORTH * seconds[usual] else usual


@dataclass(frozen=True, slots=True)
class Kernels:
    """The choice. `named`: by the operator, for every class of shapes for which it is a candidate."""

    named: str = AUTO

    def exact(self, shape: Shape, dtype: torch.dtype) -> str:
        """Of products in this dtype."""
        return self._choose(shape, exact_candidates(dtype, instructions().packed), _exact_trial)

    def head(self, weight: Tensor) -> str | None:
        """Of products in float32 with a whole vocabulary, with weights as they are, where this one is."""
        return self.exact(Shape.HEAD, torch.float32) if weight.is_cpu else None

    def int8(self, shape: Shape) -> str:
        has = {"vnni": instructions().vnni, "fbgemm": has_fbgemm(), "fbgemm_vnni": fbgemm_has_vnni()}
        return self._choose(shape, int8_candidates(shape, **has), _int8_trial)

    def _choose(self, shape: Shape, names: tuple[str, ...], trial: Trial) -> str:
        if self.named in names:
            return self.named
        if len(names) == 1 or self.named != AUTO:  # who names a kernel wants the same one everywhere, and no trial
            return names[0]
        return _tried(shape, names, trial, torch.get_num_threads())

    def pack(self, part: nn.Module) -> None:
        """For what is loaded part by part: never more than one layer is there in both forms."""
        if isinstance(part, Packs):
            part.pack(self)


@cache
def _tried(shape: Shape, names: tuple[str, ...], trial: Trial, threads: int) -> str:  # noqa: ARG001
    """The fastest by its best time, each in turn. Remembered for this number of threads."""
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        calls = {name: trial(shape, name) for name in names}
        seconds = {name: min(_seconds(call), _seconds(call)) for name, call in calls.items()}  # the first warms up
        until, rounds = time.perf_counter() + TRIAL_SECONDS, 1
        while rounds < LEAST_ROUNDS or time.perf_counter() < until:
            seconds |= {name: min(seconds[name], _seconds(call)) for name, call in calls.items()}
            rounds += 1
    return fastest(seconds)


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _exact_trial(shape: Shape, name: str) -> Callable[[], object]:
    tokens, width, out = SIZES[shape]
    inputs, weight, bias = [torch.rand(number, width) for number in tokens], torch.rand(out, width), torch.rand(out)
    if name == ONEDNN and shape is not Shape.HEAD:  # whose weights embeddings share
        weight = onednn_packed(weight)
    return lambda: [exact_product(x, weight, bias, name) for x in inputs]


def _int8_trial(shape: Shape, name: str) -> Callable[[], object]:
    tokens, width, out = SIZES[shape]
    kernel, inputs = INT8_KERNELS[name], [torch.rand(number, width) * 127 for number in tokens]
    product = kernel.pack(torch.randint(-64, 64, (out, width), dtype=torch.int8), torch.rand(out))
    dtype = choose_dtype(INT8, torch.device("cpu"))
    return lambda: [product(kernel.levels(x.clone()), dtype).to(dtype) for x in inputs]


AUTOMATIC = Kernels()


def exact_product(x: Tensor, weight: Tensor, bias: Tensor | None, kernel: str | None) -> Tensor:
    """`F.linear`. By oneDNN without gradients; `weight` may then be packed."""
    return onednn_product(x, weight, bias) if kernel == ONEDNN else F.linear(x, weight, bias)


def onednn_packed(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, USUAL_TOKENS)
    return packed


def onednn_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


def _onednn_levels(tokens: Tensor) -> Tensor:
    # Signed first, and then from -128 to 0: a conversion to unsigned integers takes torch eight times as long.
    return tokens.round_().to(torch.int8).view(torch.uint8).bitwise_xor_(ZERO_POINT)


def _onednn_int8(levels: Tensor, scale: Tensor) -> Int8Product:
    packed = torch.ops.onednn.qlinear_prepack(levels, None)
    zeros = torch.zeros(len(scale), dtype=torch.int64)

    def product(tokens: Tensor, dtype: torch.dtype) -> Tensor:
        made: Tensor = torch.ops.onednn.qlinear_pointwise(
            tokens, 1.0, ZERO_POINT, packed, scale, zeros, None, 1.0, 0, dtype, "none", [], ""
        )
        return made

    return product


def _fbgemm_int8(levels: Tensor, scale: Tensor) -> Int8Product:
    """It rounds to levels itself."""
    zeros = torch.zeros(len(scale), dtype=torch.int64)
    with _fbgemm():
        tensor = torch._make_per_channel_quantized_tensor(levels, scale.double(), zeros, 0)
        packed = torch.ops.quantized.linear_prepack(tensor, None)

    def product(tokens: Tensor, _: torch.dtype) -> Tensor:
        made: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            tokens, 1.0, ZERO_POINT, packed
        )
        return made

    return product


INT8_KERNELS: Mapping[str, Int8Kernel] = {
    ONEDNN: Int8Kernel(_onednn_levels, _onednn_int8),
    FBGEMM: Int8Kernel(lambda tokens: tokens, _fbgemm_int8),
}


@contextmanager
def _fbgemm() -> Iterator[None]:
    """Weights are packed for FBGEMM. torch announces the end of the tensors that they come in, and warns of it."""
    usual = torch.backends.quantized.engine
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.backends.quantized.engine = "fbgemm"
        try:
            yield
        finally:
            torch.backends.quantized.engine = usual


@cache
def has_fbgemm() -> bool:
    """Whether this build of torch has it, and still all that is called here: seen by doing it."""

    def pack() -> Product:
        product = _fbgemm_int8(torch.full((8, 8), 3, dtype=torch.int8), torch.ones(8))
        return lambda tokens: product(tokens, torch.float32)

    return _works(pack)


def _works(pack: Callable[[], Product]) -> bool:
    """`pack`: of eight by eight weights of 3."""
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        return False
    try:
        with torch.inference_mode():
            return bool((pack()(torch.full((1, 8), 2.0)) == 48).all())
    except (AttributeError, RuntimeError, NotImplementedError):
        return False


@dataclass(frozen=True, slots=True)
class Fp16Weights:
    product: Product
    weight: Callable[[], Tensor]  # float32, unpacked


def fbgemm_fp16(weight: Tensor, bias: Tensor | None) -> Fp16Weights:
    """Of weights in fp16 with inputs and sums in float32. torch announces the end of these, too, and warns of it."""
    with _fbgemm():
        packed = torch.ops.quantized.linear_prepack_fp16(weight.float(), None if bias is None else bias.float())

    def product(x: Tensor) -> Tensor:
        made: Tensor = torch.ops.quantized.linear_dynamic_fp16(x, packed)
        return made

    return Fp16Weights(product, lambda: torch.ops.quantized.linear_unpack_fp16(packed)[0].float())


@cache
def has_fbgemm_fp16() -> bool:
    return _works(lambda: fbgemm_fp16(torch.full((8, 8), 3.0), None).product)


def fbgemm_has_vnni() -> bool:
    """Whether it adds in 32 bits: it knows that of AVX-512 alone, and has a limit of its own."""
    limit = os.environ.get(FBGEMM_LIMIT, "")
    return bool(torch.cpu.get_capabilities().get("avx512_vnni")) and (not limit or limit.upper() in FBGEMM_VNNI)
