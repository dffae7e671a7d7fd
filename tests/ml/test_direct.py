"""Operations on whole arrays in machine code: arrays as they may lie, against NumPy."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from llmbol_core.ml import ops
from llmbol_core.ml.api import create_ml_module
from llmbol_core.ml.kernels.target import target
from llmbol_core.ml.ops import OPS
from llmbol_core.ml.ops.direct import in_rows

pytestmark = pytest.mark.skipif(target() is None, reason="there are no kernels here")

LENGTHS = (1, 2, 3, 5, 17, 40)


def lying_somehow(rng, shape):
    """Return an array whose axes are in any order in memory, with gaps, or backwards."""
    order, gaps = rng.permutation(len(shape)), rng.integers(1, 4, len(shape))
    whole = rng.normal(size=[shape[i] * gaps[i] for i in order]).astype(np.float32)
    parts = [
        (slice(n), slice(None, None, gap), slice(n * gap - 1, n * gap - 1 - n or None, -1))
        for n, gap in zip(shape, gaps, strict=True)
    ]
    x = whole.transpose(np.argsort(order))[tuple(ways[rng.integers(2)] for ways in parts)]
    x = x[::-1] if x.ndim and rng.integers(3) == 0 else x
    way = rng.integers(4)
    return np.ascontiguousarray(x) if way == 0 else np.asfortranarray(x) if way == 1 else x


def some_shape(rng, most=4000):
    shape = [int(n) for n in rng.choice(LENGTHS, rng.integers(1, 6))]
    while math.prod(shape) > most:
        shape.pop()
    return shape


def part_of(rng, shape):
    """Return a shape that broadcasts to another one."""
    kept = [1 if rng.integers(4) == 0 else n for n in shape]
    return kept[rng.integers(len(kept)) :] if rng.integers(3) == 0 else kept


def test_arrays_of_all_kinds_broadcast(rng):
    for _ in range(400):
        shape = some_shape(rng)
        x, y, z = (lying_somehow(rng, part_of(rng, shape)) for _ in range(3))
        condition = (x > 0).astype(np.float32)
        for made, expected in (
            (ops.neg(x), -x),
            (ops.sub(x, y), x - y),
            (ops.less(y, x), y < x),
            (ops.where(condition, y, z), np.where(condition != 0, y, z)),
        ):
            assert made.dtype == np.float32
            np.testing.assert_array_equal(made, expected)
            assert not any(np.shares_memory(made, array) for array in (x, y, z))


@pytest.mark.parametrize(
    "name", ["sum", "mean", "max", "min", "sum_squares", "cumsum", "softmax", "log_softmax"]
)
def test_folds_along_any_axis(name, rng):
    row = OPS[name]
    for _ in range(150):
        x = lying_somehow(rng, some_shape(rng))
        axis = int(rng.integers(-x.ndim, x.ndim))
        if rng.integers(4) == 0:
            x = x.copy()
            x.flat[rng.integers(x.size)] = np.nan
        made, exact = row.run(x, axis=axis), row.definition(x.astype(np.float64), axis=axis)
        assert made.shape == exact.shape
        if len(row.attributes) > 1:
            kept = row.run(x, axis, True)
            assert kept.shape == tuple(
                1 if i == axis % x.ndim else n for i, n in enumerate(x.shape)
            )
            assert kept.tobytes() == made.tobytes()
        np.testing.assert_allclose(made, exact, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "sum_squares", "cumsum"])
def test_long_rows(name, rng):
    x = rng.normal(size=(3, 100_003)).astype(np.float32)
    made = OPS[name].run(x)
    np.testing.assert_allclose(
        made, OPS[name].definition(x.astype(np.float64)), rtol=2e-6, atol=1e-3
    )
    assert OPS[name].run(x[1]).tobytes() == made[1].tobytes()
    assert OPS[name].run(np.repeat(x, 2, axis=1)[:, ::2]).shape == made.shape


@pytest.mark.parametrize("shape", [(40, 70), (3, 33, 50), (2, 3, 20, 18), (64, 64), (1, 5), (7, 1)])
def test_copies_in_rows(shape, rng):
    x = rng.normal(size=shape).astype(np.float32)
    for axes in itertools.permutations(range(len(shape))):
        for given in (x.transpose(axes), x[..., ::2].transpose(axes), x[::-1].transpose(axes)):
            made = in_rows(given)
            assert made.flags.c_contiguous
            np.testing.assert_array_equal(made, given)
            np.testing.assert_array_equal(ops.permute(x, axes), x.transpose(axes))


def test_a_result_does_not_depend_on_threads():
    code = (
        "import numpy as np, hashlib; from llmbol_core.ml import ops;"
        "x = np.random.default_rng(0).normal(size=(300, 2011)).astype(np.float32);"
        "made = [ops.gelu(x), x.T + 0, ops.add(x, x[0]), ops.mul(x, x[:, :1]), ops.sum(x),"
        " ops.sum(x.reshape(-1)), ops.mean(x, axis=0), ops.softmax(x, axis=0), ops.cumsum(x)];"
        "print(hashlib.sha256(b''.join(y.tobytes() for y in made)).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "LLMBOL_THREADS": count},
            capture_output=True, check=True,
        ).stdout
        for count in ("1", "2", "3")
    }  # fmt: skip
    assert len(found) == 1


def test_what_machine_code_does_not_take_is_left_to_the_definition(rng, tmp_path):
    x = rng.normal(size=(5, 7))
    np.testing.assert_array_equal(ops.add(x, x), x + x)
    np.testing.assert_array_equal(ops.relu(np.float32(-1)), 0)
    assert ops.sum(x[:0].astype(np.float32)).shape == (0,)
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=(4, 4))
    mapped[...] = 3
    assert type(ops.neg(mapped)) is np.ndarray
    swapped = x.astype(">f4")
    np.testing.assert_array_equal(ops.neg(swapped), -swapped)
    wide = np.lib.stride_tricks.as_strided(x.astype(np.float32), (2,) * 7, (0,) * 7)
    assert ops.neg(wide).shape == (2,) * 7
    for axis in (2, -3, 1 << 70):
        with pytest.raises((ValueError, OverflowError)):
            ops.sum(x.astype(np.float32), axis=axis)
    with pytest.raises(ValueError, match="broadcast"):
        ops.add(np.ones(3, np.float32), np.ones(4, np.float32))


def test_attributes_in_any_form(rng):
    x = rng.normal(size=(3, 5)).astype(np.float32)
    for made in (
        ops.clamp(x, 0, 1),
        ops.clamp(x, low=0.0),
        ops.clamp(x, 0.0, high=1),
        create_ml_module().clamp(x, low=0).numpy(),
        ops.clamp(x, 0, out=np.empty_like(x)),
    ):
        np.testing.assert_array_equal(made, np.clip(x, 0, 1))
    with pytest.raises(TypeError, match="unexpected keyword"):
        ops.clamp(x, least=0)
    assert create_ml_module().sum(x, axis=0, keepdims=True).shape == (1, 5)
