"""The tower in other runtimes: where those are installed, it computes what ours does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from bench.peers.towers import onnx_runtime, openvino, towers
from models.layers.vit import ViT, ViTConfig

TINY = ViTConfig(32, 16, 64, 2, 2, 128, 1e-6)
PIXELS = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def expected() -> np.ndarray[Any, Any]:
    torch.manual_seed(0)
    with torch.inference_mode():
        return ViT(TINY).eval()(PIXELS).numpy()


def test_onnx_runtime(expected: np.ndarray[Any, Any]) -> None:
    pytest.importorskip("onnxruntime")
    features: Any = onnx_runtime(TINY, "fp32")(PIXELS)
    np.testing.assert_allclose(features[0], expected, atol=1e-4)
    quantized: Any = onnx_runtime(TINY, "int8")(PIXELS)
    np.testing.assert_allclose(quantized[0], expected, atol=0.1)
    assert np.abs(quantized[0] - expected).max() > 1e-4


def test_openvino(expected: np.ndarray[Any, Any]) -> None:
    pytest.importorskip("openvino")
    features: Any = openvino(TINY, "fp32")(PIXELS)
    np.testing.assert_allclose(features[0], expected, atol=1e-4)
    quantized: Any = openvino(TINY, "int8")(PIXELS)
    np.testing.assert_allclose(quantized[0], expected, atol=0.2)
    assert np.abs(quantized[0] - expected).max() > 1e-4


def test_transformers_has_the_same_shape(expected: np.ndarray[Any, Any]) -> None:
    names = dict(towers(TINY, "fp32"))
    assert list(names) == ["transformers", "ONNX Runtime", "OpenVINO"]
    with torch.inference_mode():
        found: Any = names["transformers"]()(PIXELS)
    assert found.last_hidden_state.shape == expected.shape


def test_what_has_no_such_dtype_is_left_out() -> None:
    assert [name for name, _ in towers(TINY, "int8")] == ["ONNX Runtime", "OpenVINO"]
    assert [name for name, _ in towers(TINY, "bf16")] == ["transformers", "OpenVINO"]
