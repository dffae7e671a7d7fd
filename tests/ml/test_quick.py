"""Operations that kernels do on many numbers against their definitions, strange values included."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from llmbol_core.ml.kernels.target import target
from llmbol_core.ml.ops import OPS
from llmbol_core.ml.ops.direct import DIRECT

pytestmark = pytest.mark.skipif(target() is None, reason="there are no kernels here")

NORMS = ("batch_norm", "group_norm")
FOLDS = ("sum", "mean", "max", "min", "sum_squares", "cumsum")
UNARY = [name for name in DIRECT if len(OPS[name].inputs) == 1 and name not in FOLDS]
STRANGE = [
    0,
    -0.0,
    np.inf,
    -np.inf,
    np.nan,
    1e-40,
    -1e-40,
    3e38,
    -3e38,
    88,
    -88,
    104,
    -104,
    20,
    -20,
]
ATTRIBUTES: dict[str, dict[str, Any]] = {
    "elu": {"alpha": 0.7},
    "leaky_relu": {"slope": 0.3},
    "group_norm": {"groups": 3},
    "softplus": {"beta": 2.0, "threshold": 3.0},
}


@pytest.mark.parametrize("name", [*NORMS, *UNARY])
def test_as_defined(name, rng):
    row, attributes = OPS[name], OPS[name].conform(ATTRIBUTES.get(name, {}))
    x = rng.normal(scale=3, size=(7, 6, 155)).astype(np.float32)
    x.flat[:: x.size // len(STRANGE)][: len(STRANGE)] = STRANGE
    length = x.shape[1] if name in NORMS else x.shape[-1]
    gains = rng.normal(size=(len(row.inputs) - 1, length)).astype(np.float32)
    for inputs in ((x, *gains), (x[:, ::-1].copy(), *gains[: row.required - 1])):
        with np.errstate(all="ignore"):
            expected = row.definition(*inputs, **attributes)
        made = row.run(*inputs, **attributes)
        assert made.dtype == np.float32
        np.testing.assert_allclose(made, expected, rtol=3e-6, atol=2e-6)
        if row.takes_out:
            out = np.empty_like(x)
            assert row.run(*inputs, **attributes, out=out) is out
            assert out.tobytes() == made.tobytes()
        alone = np.concatenate(
            [row.run(part, *inputs[1:], **attributes) for part in np.split(x, 7)]
        )
        np.testing.assert_allclose(
            alone, row.run(x, *inputs[1:], **attributes), rtol=3e-6, atol=2e-6
        )


def test_what_kernels_cannot_read_is_left_to_the_definition(rng):
    x = rng.normal(size=(80, 90))
    for given in (x, x.astype(np.float16), x[:0].astype(np.float32)):
        with np.errstate(all="ignore"):
            assert OPS["gelu"].run(given).tobytes() == OPS["gelu"].definition(given).tobytes()


def test_error_function_is_exact_near_nothing():
    x = np.concatenate([np.linspace(-3, 3, 6001), 10.0 ** np.arange(-30, 0)]).astype(np.float32)
    exact = np.array([math.erf(value) for value in x.astype(float)])
    for made in (OPS["erf"].run(x), OPS["erf"].definition(x)):
        np.testing.assert_allclose(made, exact, rtol=4e-7)


@pytest.mark.parametrize("k", [1, 4, 29, 30])
def test_top_values_stand_in_order(k, rng):
    x = np.round(rng.normal(size=(20, 30)) * 2).astype(np.float32)
    for rows in (x, x[:, :, None].swapaxes(1, 2)):
        expected = np.argsort(-rows, axis=-1, kind="stable")[..., :k]
        assert np.array_equal(OPS["top_k"](rows, k=k), expected)
    x[3, :9], x[4, :], x[5, 7] = np.nan, np.nan, -np.inf
    assert np.array_equal(OPS["top_k"](x, k=k), np.argsort(-x, axis=-1, kind="stable")[:, :k])
