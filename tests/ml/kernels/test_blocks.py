"""Encoders and decoders of blocks against their definition, on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest

from llmbol_core.errors import DtypeError
from llmbol_core.ml import conversion
from llmbol_core.ml.codecs import ENCODERS, decode
from llmbol_core.ml.dtypes import TYPES
from llmbol_core.ml.kernels import blocks
from llmbol_core.ml.kernels.encoders_k import SUPER_ENCODERS
from llmbol_core.ml.kernels.forms import BLOCK, FORMS
from llmbol_core.ml.kernels.superblocks import COLUMNS, SUPER_DECODERS, SUPER_FORMS
from llmbol_core.ml.quantization import dequantize, quantization_error, quantize
from llmbol_core.ml.tensor import Tensor


def samples():
    """Return blocks of many kinds, by what they are."""
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(3000, 32))
    powers = 10.0 ** rng.integers(-44, 38, (3000, 1))
    zeros = rng.choice([0.0, -0.0], (300, 32))
    few = rng.integers(-2, 3, (3000, 32))
    halves = rng.integers(-254, 255, (3000, 32)) / 2
    halves[:, 5] = 127
    lonely = zeros.copy()
    lonely[:, 7] = rng.normal(size=300) * 1e-41
    groups = {"normal": normal, "magnitudes": normal * powers, "zeros": zeros, "few": few,
              "halves": halves, "lonely": lonely, "large": normal * 1e37,
              "vast": normal * 1e38}  # fmt: skip
    with np.errstate(over="ignore"):
        found = {name: x.astype(np.float32) for name, x in groups.items()}
    return {name: x[np.isfinite(x).all(axis=1)] for name, x in found.items()}


SAMPLES = samples()


def test_blocks_are_laid_out_as_the_table_of_types_says():
    sizes = blocks.SIZES | {name: form.bytes for name, form in SUPER_FORMS.items()}
    assert sizes == {name: TYPES[name].block_bytes for name in sizes}
    elements = dict.fromkeys(FORMS, BLOCK) | dict.fromkeys(SUPER_FORMS, COLUMNS)
    assert elements == {name: TYPES[name].elements for name in elements}
    for name, form in SUPER_FORMS.items():
        fields = TYPES[name].layout.fields
        assert fields is not None
        assert form.d == fields["d"][1]


@pytest.mark.parametrize("name", blocks.ENCODERS)
@pytest.mark.parametrize("sample", SAMPLES)
def test_encoders_are_the_definition_bit_for_bit(target, name, sample):
    x = np.ascontiguousarray(SAMPLES[sample])
    made = np.zeros(len(x), TYPES[name].layout)
    assert conversion.encode_blocks(name, x, made) == 0
    with np.errstate(all="ignore"):
        wanted = ENCODERS[name](name, x)
    assert made.tobytes() == wanted.tobytes()


def rows_of_super_blocks(sample):
    """Return the numbers of samples in rows of 256, an odd number of them; some are mixed."""
    flat = SAMPLES[sample].reshape(-1)
    rows = len(flat) // 256
    x = flat[: (rows - 1 + rows % 2) * 256].reshape(-1, 256).copy()
    x[1::7, 100] = 3.9e4
    x[2::7, 32:64] = x[2::7, :1]
    x[3::7] = np.abs(x[3::7])
    return x


@pytest.mark.parametrize("name", SUPER_ENCODERS)
@pytest.mark.parametrize("sample", SAMPLES)
def test_encoders_of_super_blocks_are_the_definition_bit_for_bit(target, name, sample):
    x = rows_of_super_blocks(sample)
    made = np.zeros(len(x), TYPES[name].layout)
    assert conversion.encode_blocks(name, x, made) == 0
    assert made.tobytes() == ENCODERS[name](name, x).tobytes()


@pytest.mark.parametrize("name", SUPER_ENCODERS)
def test_kernels_encode_all_but_strange_super_blocks(target, name, monkeypatch):
    x = rows_of_super_blocks("normal")[:31]
    x[7, 3], x[20, 200] = 5e4, -1e30
    given = []

    def encode(name, rows):
        given.append(rows)
        return ENCODERS[name](name, rows)

    monkeypatch.setattr(conversion, "ENCODERS", {name: encode})
    made = np.zeros(31, TYPES[name].layout)
    assert conversion.encode_blocks(name, x, made) == 0
    assert made.tobytes() == ENCODERS[name](name, x).tobytes()
    assert {7, 20} <= {int((x == row).all(axis=1).argmax()) for row in given[0]} <= {6, 7, 20, 21}


@pytest.mark.parametrize("name", blocks.DECODERS)
def test_decoders_are_the_definition_bit_for_bit(target, name):
    kind = TYPES[name]
    raw = np.random.default_rng(1).integers(0, 256, (5000, kind.block_bytes), dtype=np.uint8)
    stored = raw.view(kind.layout)[:, 0]
    found = np.zeros((5000, 32), np.float32)
    assert conversion.decode_blocks(name, stored, found)
    wanted = decode(name, stored)
    number = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.isnan(found), ~number)
    np.testing.assert_array_equal(found[number].view("u4"), wanted[number].view("u4"))


@pytest.mark.parametrize("name", SUPER_DECODERS)
def test_super_blocks_are_decoded_bit_for_bit(target, name):
    kind = TYPES[name]
    raw = np.random.default_rng(3).integers(0, 256, (1200, kind.block_bytes), dtype=np.uint8)
    stored = raw.view(kind.layout)[:, 0]
    found = np.zeros((1200, 256), np.float32)
    assert conversion.decode_blocks(name, stored, found)
    wanted = decode(name, stored)
    number = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.isnan(found), ~number)
    np.testing.assert_array_equal(found[number].view("u4"), wanted[number].view("u4"))


@pytest.mark.parametrize("name", ["F16", "BF16"])
def test_half_floats_are_widened(target, name):
    bits = np.arange(1 << 16, dtype=np.uint16)[:-3]
    tensor = Tensor(bits.view(TYPES[name].layout), name)
    found, wanted = dequantize(tensor), decode(name, tensor.data)[:, 0]
    number = ~np.isnan(wanted)
    np.testing.assert_array_equal(found[number].view("u4"), wanted[number].view("u4"))
    assert np.isnan(found[~number]).all()


@pytest.mark.parametrize("name", [*blocks.ERRORS, *SUPER_DECODERS, "F16", "BF16"])
def test_errors_are_measured(target, name, monkeypatch):
    x = np.random.default_rng(2).normal(size=(130, 512)).astype(np.float32)
    stored = Tensor(np.zeros(TYPES[name].block_shape(x.shape), TYPES[name].layout), name)
    if name in ENCODERS:
        stored = quantize(x, name)
    found = quantization_error(x, stored)
    monkeypatch.setenv("LLMBOL_KERNELS", "none")
    wanted = quantization_error(x, stored)
    assert found.root_mean_square == pytest.approx(wanted.root_mean_square, rel=1e-5)
    assert found.signal_to_noise == pytest.approx(wanted.signal_to_noise, rel=1e-5)
    assert found.maximum == pytest.approx(wanted.maximum, rel=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", [*blocks.ENCODERS, *SUPER_ENCODERS])
def test_numbers_that_are_not_finite_are_found(target, name, bad):
    x = np.zeros((3, 256), np.float32)
    x[1, 40] = bad
    with pytest.raises(DtypeError, match=r"at \[1, 40\]"):
        quantize(x, name)


@pytest.mark.parametrize("name", [*blocks.ENCODERS, *SUPER_ENCODERS])
def test_all_instruction_sets_can_be_left_out(name, monkeypatch):
    x = SAMPLES["normal"].reshape(-1, 256)
    made = quantize(x, name)
    monkeypatch.setenv("LLMBOL_KERNELS", "none")
    assert quantize(x, name).tobytes() == made.tobytes()
    assert dequantize(made).tobytes() == decode(name, made.data.reshape(-1)).tobytes()
