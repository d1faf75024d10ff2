"""BLIP's tower in other runtimes: transformers, ONNX Runtime and OpenVINO, with as many threads as ours. They get our
tower, exported when the bench runs; their packages are for the bench alone (`make bench` installs them)."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BlipVisionConfig, BlipVisionModel

from app.settings import default_threads
from models.device import DTYPES, INT8, choose_dtype, dtype_name
from models.layers.vit import ViT, ViTConfig

Tower = Callable[[Tensor], object]  # pixels (images, 3, size, size) -> features, of whatever kind


def transformers(config: ViTConfig, dtype: str) -> Tower:
    sizes = BlipVisionConfig(
        hidden_size=config.width,
        intermediate_size=config.mlp_width,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        image_size=config.image_size,
        patch_size=config.patch_size,
    )
    model: Any = BlipVisionModel(sizes).to(DTYPES[dtype]).eval()
    return lambda pixels: model(pixel_values=pixels.to(DTYPES[dtype]))


def onnx_runtime(config: ViTConfig, dtype: str) -> Tower:
    """In int8: weights by channel, activations as they come, each tensor with one scale."""
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = default_threads()
    with exported(config) as path:
        session = runtime.InferenceSession(
            _quantized(path) if dtype == INT8 else path, options, providers=["CPUExecutionProvider"]
        )
    return lambda pixels: session.run(None, {"pixels": pixels.numpy()})


def _quantized(path: Path) -> Path:
    quantization = import_module("onnxruntime.quantization")
    target = path.with_suffix(".int8.onnx")
    logging.getLogger().setLevel(logging.ERROR)  # it advises on the root logger
    quantization.quantize_dynamic(
        path, target, weight_type=quantization.QuantType.QInt8, per_channel=True, op_types_to_quantize=["MatMul"]
    )
    return target


def openvino(config: ViTConfig, dtype: str) -> Tower:
    """In int8: weights by channel, activations with scales that were fixed before, and all between products in the half
    precision of the machine, as in ours."""
    core = import_module("openvino").Core()
    half = dtype_name(choose_dtype(dtype, torch.device("cpu")))
    hint = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}[half]
    with exported(config) as path:
        model = core.compile_model(
            core.read_model(_calibrated(path, config) if dtype == INT8 else path),
            "CPU",
            {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": default_threads()},
        )
    return lambda pixels: model(pixels.numpy())


def _calibrated(path: Path, config: ViTConfig) -> Path:
    """By ONNX Runtime's tools, into the form that OpenVINO reads: its own quantiser is a further package."""
    quantization = import_module("onnxruntime.quantization")
    target = path.with_suffix(".calibrated.onnx")
    logging.getLogger().setLevel(logging.ERROR)
    quantization.quantize_static(
        path,
        target,
        _Calibration(config.image_size),
        quant_format=quantization.QuantFormat.QDQ,
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=["MatMul"],
        extra_options={"MatMulConstBOnly": True},  # attention is not quantised in ours, either
    )
    return target


class _Calibration:
    """Two images, one after another; None ends it."""

    def __init__(self, side: int) -> None:
        self._pixels = iter(torch.randn(2, 1, 3, side, side, generator=torch.Generator().manual_seed(1)))

    def get_next(self) -> dict[str, Any] | None:
        pixels = next(self._pixels, None)
        return None if pixels is None else {"pixels": pixels.numpy()}


@contextmanager
def exported(config: ViTConfig) -> Iterator[Path]:
    """Our tower as an ONNX file, with random weights."""
    torch.manual_seed(0)
    side = config.image_size
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        path = Path(folder) / "tower.onnx"
        warnings.simplefilter("ignore")  # the exporter by tracing is old, but needs no further package
        torch.onnx.export(
            ViT(config).eval(),
            (torch.randn(1, 3, side, side),),
            path,
            dynamo=False,
            input_names=["pixels"],
            output_names=["features"],
            dynamic_axes={"pixels": {0: "images"}, "features": {0: "images"}},
        )
        yield path


# By the dtypes that they have.
TOWERS: dict[str, tuple[Callable[[ViTConfig, str], Tower], frozenset[str]]] = {
    "transformers": (transformers, frozenset({"fp32", "bf16"})),
    "ONNX Runtime": (onnx_runtime, frozenset({"fp32", INT8})),
    "OpenVINO": (openvino, frozenset({"fp32", "bf16", INT8})),
}


def towers(config: ViTConfig, dtype: str) -> Iterator[tuple[str, Callable[[], Tower]]]:
    """Name, and how to make it."""
    for name, (make, dtypes) in TOWERS.items():
        if dtype in dtypes:
            yield name, lambda make=make: make(config, dtype)  # type: ignore[misc]
