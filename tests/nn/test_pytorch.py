"""Layers against PyTorch 2.13: outputs and all gradients of the same numbers.

``data/pytorch.npz`` holds for each case what went in (x0, g, p/NAME) and what came out (y, dx0,
dp/NAME), all as one vector with an index of names and shapes in JSON.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from llmbol_core.nn.joins import Bilinear
from llmbol_core.nn.layers.activation import PReLU
from llmbol_core.nn.layers.attention import MultiHeadAttention, TransformerEncoderLayer
from llmbol_core.nn.layers.convolution import ConvTranspose2d
from llmbol_core.nn.layers.normalization import GroupNorm
from llmbol_core.nn.layers.pooling import AdaptiveAvgPool2d, AvgPool1d, AvgPool2d, MaxPool2d
from llmbol_core.nn.layers.recurrent import GRU, LSTM, RNN
from llmbol_core.nn.layers.shape import Upsample

ENCODER: dict[str, Any] = {"feedforward": 12, "dropout": 0.0}
CASES = {
    "LSTM": LSTM(5, 4, num_layers=2, bidirectional=True),
    "GRU": GRU(5, 4, num_layers=2, bidirectional=True),
    "RNN": RNN(5, 4, num_layers=2, nonlinearity="relu"),
    "MHA": MultiHeadAttention(8, 2),
    "TEL": TransformerEncoderLayer(8, 2, **ENCODER),
    "TELn": TransformerEncoderLayer(8, 2, **ENCODER, activation="gelu", norm_first=True),
    "AP1": AvgPool1d(3, 2, 1, ceil_mode=True, count_include_pad=False),
    "AP2": AvgPool2d(3, 2, 1, ceil_mode=True),
    "MP2": MaxPool2d(3, 2, 1, ceil_mode=True),
    "AA2": AdaptiveAvgPool2d(3),
    "CT2": ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=2),
    "BI": Bilinear(4, 3, 5),
    "GN": GroupNorm(2, 4),
    "PR": PReLU(4),
    "UPn": Upsample(2),
    "UPl": Upsample(3, "linear"),
}


def assert_close(got: Any, expected: np.ndarray) -> None:
    """Hold float32 numbers against float32 numbers."""
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-5)


@pytest.fixture(scope="module")
def stored():
    """Return the arrays by case and name."""
    with np.load("tests/nn/data/pytorch.npz") as file:
        values, index = file["values"], json.loads(file["index"].tobytes())
    cases: dict[str, dict[str, np.ndarray]] = {}
    start = 0
    for path, shape in index.items():
        case, _, name = path.partition("/")
        end = start + math.prod(shape)
        cases.setdefault(case, {})[name] = values[start:end].reshape(shape)
        start = end
    return cases


def test_every_case_is_tried(stored):
    assert set(stored) == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_are_pytorchs(name, stored):
    layer, case = CASES[name], stored[name]
    layer.load_state({key[2:]: value for key, value in case.items() if key.startswith("p/")})
    layer.zero_grad_parameters()
    x = (case["x0"], case["x1"]) if "x1" in case else case["x0"]
    assert_close(layer.forward(x), case["y"])
    along = layer.backward(x, case["g"])
    for number, gradient in enumerate(along if isinstance(along, tuple) else (along,)):
        assert_close(gradient, case[f"dx{number}"])
    for key, gradient in layer.grads.items():
        assert_close(gradient, case[f"dp/{key}"])
