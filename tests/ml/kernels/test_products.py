"""Products with packed weights against their definition, on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest

from llmbol_core.ml import gguf, kquants
from llmbol_core.ml.codecs import encode_activations
from llmbol_core.ml.dtypes import TYPES
from llmbol_core.ml.kernels import blocks
from llmbol_core.ml.kernels.forms import FORMS
from llmbol_core.ml.kernels.products import quantize_activations
from llmbol_core.ml.kernels.products_k import quantize_activations_k
from llmbol_core.ml.kernels.superblocks import SUPER_FORMS
from llmbol_core.ml.kernels.superdots import STARTS, SUMS
from llmbol_core.ml.ops.quantized import product_by_definition, quantized_product
from llmbol_core.ml.packed import packed_weights
from llmbol_core.ml.quantization import quantize
from llmbol_core.ml.tensor import Tensor
from tests.ml.kernels.conftest import RUNNABLE

RNG = np.random.default_rng

TYPES_PACKED = [*FORMS, *SUPER_FORMS]
FEW = ("Q8_0", "Q5_1", "Q6_K")
"""What is tried on instruction sets that lie between others."""
CASES = [
    (target, name)
    for target in RUNNABLE
    for name in (TYPES_PACKED if target in ("avx512", "avx2", "generic") else FEW)
]


def weights(name, rows, columns, rng):
    """Return weights of a type, from all of its bit patterns if nothing can encode it."""
    if name in blocks.ENCODERS:
        return quantize(rng.normal(size=(rows, columns)).astype(np.float32), name)
    kind = TYPES[name]
    size = columns // kind.elements * kind.block_bytes
    found = rng.integers(0, 256, (rows, size), dtype=np.uint8).view(kind.layout)
    for field in {"d", "dmin"} & set(kind.layout.names or ()):
        found[field] = rng.uniform(0.2, 1, size=found.shape).astype(np.float16)
    return Tensor(found, kind)


def by_definition(x, weight, bias=None):
    return product_by_definition(x, weight, np.empty((len(x), weight.shape[0]), np.float32), bias)


@pytest.mark.parametrize(("target", "name"), CASES, indirect=["target"])
@pytest.mark.parametrize("size", [(1, 16, 1), (1, 299, 2), (3, 33, 2), (7, 50, 3), (133, 70, 2)])
def test_products_are_those_of_the_definition(target, name, size):
    batch, rows, columns = size
    columns *= TYPES[name].elements
    rng = RNG(rows)
    weight = weights(name, rows, columns, rng)
    x = rng.normal(size=(batch, columns)).astype(np.float32)
    x[0, :32] = 0
    wanted = by_definition(x, weight)
    found = quantized_product(x, weight)
    assert weight.packed is not None
    np.testing.assert_array_equal(found, wanted)
    bias = rng.normal(size=rows).astype(np.float32)
    np.testing.assert_array_equal(quantized_product(x, weight, bias=bias), found + bias)


@pytest.mark.parametrize(("target", "name"), CASES, indirect=["target"])
def test_a_row_does_not_depend_on_the_batch(target, name):
    rng = RNG(5)
    weight = weights(name, 147, 256, rng)
    x = rng.normal(size=(19, 256)).astype(np.float32)
    whole = quantized_product(x, weight)
    for count in range(1, 12):
        part = quantized_product(np.ascontiguousarray(x[3 : 3 + count]), weight)
        assert part.tobytes() == whole[3 : 3 + count].tobytes()


@pytest.mark.parametrize("name", ["Q4_0", "Q8_0"])
def test_extreme_integers_do_not_overflow(target, name):
    weight = quantize(np.tile(np.array([1, -1], np.float32), (32, 64)), name)
    weight.data["qs"] = 0x0F if name == "Q4_0" else -128
    x = np.tile(np.array([127, -127], np.float32), (9, 64))
    for rows in (x, np.abs(x), -np.abs(x)):
        wanted = by_definition(rows, weight)
        np.testing.assert_allclose(quantized_product(rows, weight), wanted, rtol=1e-5)


def test_activations_are_quantized_as_by_definition(target):
    rng = RNG(6)
    x = rng.normal(size=(300, 32)).astype(np.float32) * np.float32(10) ** rng.integers(-9, 9, 300)[
        :, None
    ].astype(np.float32)
    x[0], x[1], x[2] = 0, -0.0, np.float32(1e-45)
    x[3] = np.tile(np.array([127, 0.5, 1.5, 2.5], np.float32), 8)
    levels, start = np.zeros((300, 32), np.int8), np.zeros(300, np.int32)
    d, s = np.zeros((2, 300), np.float32)
    quantize_activations.run(300, x, levels, d, s, start, 8)
    wanted = encode_activations(x, with_sums=True)
    np.testing.assert_array_equal(levels, wanted["qs"])
    np.testing.assert_array_equal(d, wanted["d"].astype(np.float32))
    np.testing.assert_array_equal(s, wanted["s"].astype(np.float32))
    np.testing.assert_array_equal(start, -8 * wanted["qs"].sum(axis=1, dtype=np.int32))


def test_activations_for_super_blocks_are_quantized_as_by_definition(target):
    rng = RNG(11)
    powers = 10.0 ** rng.integers(-44, 36, (200, 1))
    x = (rng.normal(size=(200, 256)) * powers).astype(np.float32)
    x[0], x[1], x[2, 17] = 0, -0.0, 1e38
    x[3, 5], x[3, 200] = -1e38, 1e38
    levels, d = np.zeros((200, 256), np.int8), np.zeros(200, np.float32)
    sums = np.zeros((200, SUMS), np.int32)
    starts = np.zeros((200, STARTS), np.int32)
    quantize_activations_k.run(200, x, levels, d, sums, starts, 32)
    wanted = kquants.encode_activations(x)
    np.testing.assert_array_equal(levels, wanted["qs"])
    np.testing.assert_array_equal(d, wanted["d"])
    np.testing.assert_array_equal(starts, -32 * wanted["bsums"].astype(np.int32))
    small = wanted["bsums"].astype(np.int16)
    large = small.reshape(200, 8, 2).sum(axis=2, dtype=np.int16)
    pairs = np.concatenate([large, small], axis=1).reshape(200, 6, 2, 2).swapaxes(2, 3)
    np.testing.assert_array_equal(sums.view(np.int16).reshape(200, 24), pairs.reshape(200, 24))


def test_without_kernels_nothing_is_packed(monkeypatch):
    monkeypatch.setenv("LLMBOL_KERNELS", "none")
    weight = weights("Q4_0", 20, 32, RNG(7))
    x = np.ones((2, 32), np.float32)
    np.testing.assert_array_equal(quantized_product(x, weight), by_definition(x, weight))
    assert packed_weights(weight) is None
    assert weight.packed is None


def test_empty_products_are_their_bias(target):
    weight = weights("Q8_0", 20, 32, RNG(8))
    bias = np.arange(20, dtype=np.float32)
    assert quantized_product(np.zeros((0, 32), np.float32), weight, bias=bias).shape == (0, 20)


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Return a file with a large quantized matrix, and the directory of the cache."""
    monkeypatch.setenv("LLMBOL_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "weights.gguf"
    x = RNG(9).normal(size=(1100, 1024)).astype(np.float32)
    gguf.write(path, {}, {"w": quantize(x, "Q8_0")})
    return path, tmp_path / "cache" / "shared"


def test_large_matrices_of_files_are_packed_once_for_all(stored):
    path, folder = stored
    x = RNG(10).normal(size=(3, 1024)).astype(np.float32)
    first = gguf.read(path).tensors["w"]
    wanted = quantized_product(x, first)
    assert first.packed.is_shared
    assert first.packed.nbytes <= 1.02 * first.nbytes
    (kept,) = folder.iterdir()
    before = kept.stat().st_ino
    second = gguf.read(path).tensors["w"]
    np.testing.assert_array_equal(quantized_product(x, second), wanted)
    assert [entry.stat().st_ino for entry in folder.iterdir()] == [before]
    np.testing.assert_allclose(wanted, by_definition(x, second), rtol=1e-5, atol=1e-3)


def test_a_changed_file_is_packed_again(stored):
    path, folder = stored
    quantized_product(np.ones((1, 1024), np.float32), gguf.read(path).tensors["w"])
    other = quantize(np.ones((1100, 1024), np.float32), "Q8_0")
    gguf.write(path, {}, {"w": other})
    found = quantized_product(np.ones((1, 1024), np.float32), gguf.read(path).tensors["w"])
    np.testing.assert_allclose(found, 1024, rtol=1e-3)
    assert len(list(folder.iterdir())) == 2


def test_a_cache_that_cannot_be_used_costs_nothing_but_memory(stored):
    path, folder = stored
    folder.parent.mkdir()
    folder.write_text("in the way")
    weight = gguf.read(path).tensors["w"]
    x = np.ones((1, 1024), np.float32)
    np.testing.assert_allclose(
        quantized_product(x, weight), by_definition(x, weight), rtol=1e-5, atol=1e-3
    )
    assert not weight.packed.is_shared
