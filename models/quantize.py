"""Eight-bit weights, by torchao, an optional extra: each weight an int8, each row of them with a float32 scale.

It saves memory, not time: every product turns its weights back into the serving dtype."""

from __future__ import annotations

import logging
from collections.abc import Callable

from torch import nn

from models.layers import Head
from models.weights import CheckpointError


def quantizable(module: nn.Module) -> list[nn.Linear]:
    """The big matrix products: all but heads and embeddings, which stay exact."""
    return [part for part in module.modules() if isinstance(part, nn.Linear) and not isinstance(part, Head)]


def saved_bytes(linear: nn.Linear) -> int:
    """How much smaller it becomes; a row also has an int8 zero point."""
    return linear.weight.nbytes - (linear.weight.numel() + 5 * linear.out_features)


def int8_quantizer() -> Callable[[nn.Linear], None]:
    """What makes a linear layer's weights int8, in place. Raises CheckpointError if torchao is not installed."""
    for warns_of_kernels_for_other_devices in ("torchao", "torch.utils._pytree"):
        logging.getLogger(warns_of_kernels_for_other_devices).setLevel(logging.ERROR)
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError as error:
        raise CheckpointError(f"int8 needs torchao: pip install 'blip-serve[quantize]' ({error})") from error
    # Its settings for torch.compile would also let float32 products be less than that.
    config = Int8WeightOnlyConfig(set_inductor_config=False)
    return lambda linear: quantize_(linear, config)
