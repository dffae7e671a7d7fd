"""Quantization against ggml's C code (data/ggml, made from it) and against the gguf package."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest

from llmbol_core.errors import DtypeError, ShapeError
from llmbol_core.ml.codecs import DECODABLE, ENCODERS, decode, encode_activations
from llmbol_core.ml.dtypes import TYPES
from llmbol_core.ml.kquants import K_TYPES
from llmbol_core.ml.kquants import encode_activations as encode_k_activations
from llmbol_core.ml.quantization import dequantize, quantization_error, quantize
from llmbol_core.ml.tensor import Tensor

VECTORS = Path(__file__).parent / "data" / "ggml"
BLOCKED = [name for name in ENCODERS if TYPES[name].is_blocked]
CASES = json.loads((VECTORS / "meta.json").read_text())

# Largest error of a weight in units of the largest magnitude (x_0) or the range (x_1) of its block.
BOUNDS = {
    "Q4_0": 0.1254,
    "Q4_1": 0.034,
    "Q5_0": 0.0628,
    "Q5_1": 0.0167,
    "Q8_0": 0.00443,
    "Q4_K": 0.12,
    "Q5_K": 0.065,
    "Q6_K": 0.021,
}


def vector(name: str) -> np.ndarray:
    return np.asarray(np.load(VECTORS / f"{name}.npy"))


def file_name(kind: str) -> str:
    return kind.lower().replace("_k", "_K")


@pytest.fixture(scope="module")
def finite():
    return vector("input_f32")[: CASES["finite_cases"]]


@pytest.mark.parametrize("name", BLOCKED)
def test_encoders_equal_ggml_in_every_case(name, finite):
    expected = vector(f"{file_name(name)}_ref")
    for case, x, theirs in zip(CASES["case_names"], finite, expected, strict=False):
        assert quantize(x, name).tobytes() == theirs.tobytes(), case


def test_activations_equal_ggml_at_run_time(finite):
    expected = vector("q8_0_x86simd")
    for case, x, theirs in zip(CASES["case_names"], finite, expected, strict=False):
        assert encode_activations(x.reshape(-1, 32)).tobytes() == theirs.tobytes(), case
    whole = encode_k_activations(vector("mm_A").reshape(-1, 256))
    assert whole.tobytes() == vector("mm_q8_K_aq").tobytes()
    a = vector("mm_A").reshape(-1, 32)
    assert encode_activations(a).tobytes() == vector("mm_q8_0_aq").tobytes()
    assert encode_activations(a, with_sums=True).tobytes() == vector("mm_q8_1_aq").tobytes()


@pytest.mark.parametrize("name", [n for n in ENCODERS if n not in ("F64", "Q8_1", *K_TYPES)])
def test_encoders_equal_the_gguf_package(name, rng):
    x = rng.normal(size=(300, 256)).astype(np.float32) * rng.uniform(0, 3, (300, 1)).astype("f4")
    theirs = gguf.quants.quantize(x, gguf.GGMLQuantizationType[name])
    assert quantize(x, name).tobytes() == theirs.tobytes()


@pytest.mark.parametrize("name", sorted(DECODABLE - {"U8", "Q8_1", "Q8_K"}))
def test_decoders_equal_the_gguf_package(name, rng):
    kind = TYPES[name]
    blocks = np.frombuffer(rng.bytes(kind.block_bytes * 500), kind.layout).copy()
    for field in {"d", "m", "dmin"} & set(kind.layout.names or ()):
        blocks[field] = rng.normal(size=500)
    if kind.is_blocked or name in ("F32", "F16", "BF16"):
        rows = blocks.view(np.uint8).reshape(1, -1)
        rows = rows.view(blocks.dtype) if name in ("F32", "F16") else rows
        theirs = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType[name])
    else:
        with np.errstate(over="ignore"):
            theirs = blocks.astype(np.float32)
    ours = dequantize(Tensor(blocks, kind))
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours.reshape(-1), theirs.reshape(-1))


@pytest.mark.parametrize("name", ["Q4_K", "Q6_K"])
def test_k_encoders_equal_ggml_on_a_matrix(name):
    expected = vector(f"mm_{file_name(name)}_wq")
    assert quantize(vector("mm_W"), name).tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", sorted(ENCODERS.keys() & K_TYPES))
def test_k_levels_survive_another_round(name, rng):
    """What was decoded is near its own encoding; zeros stay zeros."""
    x = np.zeros((3, 512), np.float32)
    assert not dequantize(quantize(x, name)).any()
    once = dequantize(quantize(rng.normal(size=(8, 512)), name))
    twice = dequantize(quantize(once, name))
    assert np.abs(once - twice).max() < 2 * BOUNDS[name] * np.abs(once).max()


def test_q8_k_and_q8_1_decode(rng):
    blocks = np.zeros(2, TYPES["Q8_K"].layout)
    blocks["d"], blocks["qs"][:, 3] = [0.5, 2], [7, -128]
    assert decode("Q8_K", blocks)[:, 3].tolist() == [3.5, -256]
    x = rng.normal(size=(4, 32)).astype(np.float32)
    same = quantize(x, "Q8_0")
    np.testing.assert_array_equal(dequantize(quantize(x, "Q8_1")), dequantize(same))


@pytest.mark.parametrize("name", BOUNDS)
def test_error_stays_within_the_bound(name, rng):
    x = rng.normal(size=(64000 // TYPES[name].elements, TYPES[name].elements)).astype("f4")
    error = np.abs(dequantize(quantize(x, name)) - x).max(axis=1)
    scale = np.ptp(x, axis=1) if name.endswith("_1") else np.abs(x).max(axis=1)
    assert (error <= BOUNDS[name] * scale).all()


@pytest.mark.parametrize("name", ENCODERS)
def test_chunks_and_layout_of_the_input_do_not_matter(name, rng):
    x = rng.normal(size=(96, 1024 if name in K_TYPES else 1600)).astype(np.float32)
    whole = quantize(x, name)
    assert whole.shape == x.shape
    assert quantize(np.asfortranarray(x), name).tobytes() == whole.tobytes()
    rows = b"".join(quantize(row, name).tobytes() for row in x)
    assert rows == whole.tobytes()


def test_bfloat16_rounds_to_even_and_keeps_nan():
    x = np.array([1.00390625, 1.01171875, np.nan, np.inf, -np.inf, 3.4e38], np.float32)
    assert dequantize(quantize(x, "BF16")).tolist()[:2] == [1.0, 1.015625]
    assert np.isnan(dequantize(quantize(x, "BF16"))[2])
    assert np.isinf(dequantize(quantize(x, "BF16"))[3:]).all()


@pytest.mark.parametrize("name", BLOCKED)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_with_their_place(name, bad):
    x = np.zeros((3, 2 * TYPES[name].elements), np.float32)
    x[2, 5] = bad
    with pytest.raises(DtypeError, match=rf"{name}: cannot hold {bad} \(at \[2, 5\]\)"):
        quantize(x, name)


def test_other_refusals():
    with pytest.raises(ShapeError, match="Q4_0: a row of 33 is no multiple of the block of 32"):
        quantize(np.zeros((2, 33)), "q4_0")
    with pytest.raises(ShapeError, match="Q4_K: a row of 128 is no multiple of the block of 256"):
        quantize(np.zeros((2, 128)), "q4_K")
    with pytest.raises(DtypeError, match="IQ4_XS: weights cannot be converted to this type, only"):
        quantize(np.zeros((2, 256)), "iq4_xs")
    with pytest.raises(DtypeError, match="IQ1_S: the blocks of this type cannot be read"):
        dequantize(Tensor(np.zeros(1, TYPES["IQ1_S"].layout), "IQ1_S"))


def test_from_one_type_to_another(rng):
    x = rng.normal(size=(4, 64)).astype(np.float32)
    q8 = quantize(x, "q8_0")
    assert quantize(q8, "Q8_0") is q8
    assert quantize(q8, "q4_0").tobytes() == quantize(dequantize(q8), "q4_0").tobytes()
    assert dequantize(Tensor(x)) is x


def test_quantization_error(rng):
    x = rng.normal(size=(64, 3200)).astype(np.float32)
    error = quantization_error(x, quantize(x, "Q4_0"))
    difference = (dequantize(quantize(x, "Q4_0")) - x).astype(np.float64)
    assert error.root_mean_square == pytest.approx(np.sqrt((difference**2).mean()))
    assert error.root_mean_square == pytest.approx(0.0859, rel=0.02)
    assert error.maximum == np.abs(difference).max()
    assert error.signal_to_noise == pytest.approx(21.3, abs=0.3)
    assert quantization_error(x, Tensor(x)).signal_to_noise == float("inf")
