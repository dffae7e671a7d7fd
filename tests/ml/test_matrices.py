"""Products by kernels against NumPy's, as matrices lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llmbol_core.ml.kernels.target import target
from llmbol_core.ml.matrices import multiply
from llmbol_core.ml.ops.tiles import product, product_by_definition

pytestmark = pytest.mark.skipif(target() is None, reason="there are no kernels here")

CHOSEN: Any = target()
SIZES = [(1, 1, 1), (5, 33, 7), (1, 784, 128), (9, 600, 130), (2, 70, 1500), (33, 1100, 41),
         (150, 2100, 9), (1, 300, 1025), (8, 64, 64), (40, 1, 300)]  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("turned", [False, True])
def test_products_of_all_sizes(size, turned, rng):
    m, k, n = size
    x = rng.normal(size=(m, k)).astype("f4")
    y = rng.normal(size=(n, k)).astype("f4").T if turned else rng.normal(size=(k, n)).astype("f4")
    out = np.full((m, n), np.nan, np.float32)
    expected = x.astype("f8") @ y
    assert multiply(x, y, out, target() or CHOSEN) is out
    np.testing.assert_allclose(out, expected, atol=3e-6 * np.abs(expected).max())
    np.testing.assert_allclose(out, product_by_definition(x, y, np.empty_like(out)), atol=1e-3)
    order = rng.permutation(m)
    assert product(x[order], y).tobytes() == out[order].tobytes()
    assert product(x[:1], y).tobytes() == out[:1].tobytes()


def test_parts_of_larger_matrices(rng):
    x, y = rng.normal(size=(20, 50)).astype("f4"), rng.normal(size=(60, 80)).astype("f4")
    for left, right in (
        (x[:, 3:33], y[5:35, 7:40]),
        (x[::2, :30], y[:60:2]),
        (x.T[:20], y[:20, ::-1]),
        (x[:, ::2], y[:25].T[:25, :25]),
        (np.broadcast_to(x[0], (4, 50)), y[:50]),
    ):
        out = np.zeros((len(left), right.shape[1]), np.float32)
        expected = left.astype("f8") @ right.astype("f8")
        np.testing.assert_allclose(multiply(left, right, out, CHOSEN), expected, atol=1e-4)


def test_nothing_to_multiply():
    for m, k, n in ((0, 3, 2), (3, 0, 2), (3, 2, 0)):
        out = product(np.ones((m, k), np.float32), np.ones((k, n), np.float32))
        assert out.shape == (m, n)
        assert not out.any()


def test_other_numbers_are_left_to_numpy(rng):
    x, y = rng.normal(size=(3, 4)), rng.normal(size=(4, 5))
    assert product(x, y).dtype == np.float64
    np.testing.assert_allclose(product(x, y), x @ y)


@pytest.mark.slow
@pytest.mark.parametrize("chosen", ["avx2", "sse4", "generic", "neon"])
def test_every_instruction_set_gives_the_same(chosen, monkeypatch, rng):
    from llmbol_core.ml.kernels.target import TARGETS
    from llmbol_core.native.cpu import host_processor

    if not TARGETS[chosen].fits(host_processor()):
        pytest.skip("not on this machine")
    monkeypatch.setenv("LLMBOL_KERNELS", chosen)
    for size in SIZES:
        for turned in (False, True):
            test_products_of_all_sizes(size, turned, rng)
