import subprocess
import sys

import numpy as np
import pytest

from llmbol_core import Quantization, create_ml_module
from llmbol_core.errors import DtypeError, ShapeError, UsageError
from llmbol_core.ml.ops import OPS
from llmbol_core.ml.tensor import Tensor


def test_every_operation_is_a_method(rng):
    ml = create_ml_module()
    assert set(OPS) <= set(dir(ml))
    for name, row in OPS.items():
        inputs, attributes = row.example(rng)
        result = getattr(ml, name)(*map(Tensor, inputs), **attributes)
        np.testing.assert_array_equal(result.numpy(), row(*inputs, **attributes))


def test_the_front_page_example():
    ml = create_ml_module()
    a = ml.create_tensor([[1, 2], [3, 4]])
    b = ml.create_tensor([[1, 0], [0, 1]])
    c = ml.softmax(ml.relu(ml.add(ml.matmul(a, b), [1, -9])))
    assert c.shape == (2, 2)
    np.testing.assert_allclose(c.numpy().sum(1), 1, rtol=1e-6)
    with pytest.raises(ShapeError, match="matmul"):
        ml.matmul(a, [[1, 2, 3]])
    with pytest.raises(AttributeError, match=r"no operation is named 'softmx' \(did you mean"):
        ml.softmx(a)


def test_quantization(rng):
    x = rng.normal(size=(4, 64)).astype(np.float32)
    tensor = Quantization.quantize(x, type="q8_0", block_size=32)
    assert repr(tensor) == "Tensor(4x64, Q8_0)"
    assert np.abs(Quantization.dequantize(tensor) - x).max() < 0.03
    with pytest.raises(UsageError, match="Q8_0 has blocks of 32 weights, not of 64"):
        Quantization.quantize(x, block_size=64)


def test_reading_gguf_loads_nothing_heavier_than_numpy():
    heavy = "{'threadpoolctl', 'llmbol_core.ml.ops', 'numba', 'gguf', 'yaml', 'dask'}"
    code = f"import sys, llmbol_core.ml.gguf; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert result.stdout.strip() == b"[]"


def test_arrays_count_as_tensors():
    assert Quantization.dequantize(np.ones(3)).tolist() == [1, 1, 1]
    with pytest.raises(UsageError, match="not of '32'"):
        Quantization.quantize(np.ones(32), block_size="32")  # type: ignore[arg-type]


def test_masks_and_lists_of_rows_are_taken(rng):
    ml, x = create_ml_module(), rng.normal(size=(4, 6)).astype(np.float32)
    np.testing.assert_array_equal(ml.where(x > 0, x, 0.0).numpy(), np.maximum(x, 0))
    np.testing.assert_array_equal(ml.get_rows(x, [3, 0]).numpy(), x[[3, 0]])
    np.testing.assert_array_equal(ml.get_rows(x, 2).numpy(), x[2])
    for bad in ([0.5], [[1], [2, 3]], "a", [2**70]):
        with pytest.raises((DtypeError, ShapeError)):
            ml.get_rows(x, bad)


def test_whole_numbers_become_integers_if_they_fit(rng):
    ml = create_ml_module()
    for given, kind in (
        ([[1, 127]], "i8"),
        ([16777217], "i32"),
        (np.array([2**31 - 1, -(2**31)], np.float64), "i32"),
        (np.array([2**62 + 1]), "i64"),
        (ml.create_tensor([1, 2], "bf16"), "u8"),
        (np.array([-3], np.int8), "i16"),
    ):
        made = ml.create_tensor(given, kind)
        plain = [1, 2] if isinstance(given, Tensor) else given
        assert made.dtype.name == kind.upper()
        np.testing.assert_array_equal(made.numpy(), plain)
    for bad, kind, why in (
        ([1, 300], "i8", r"I8: cannot hold 300 \(at \[1\]\): whole numbers from -128 to 127"),
        ([[1.5]], "u8", r"U8: cannot hold 1.5 \(at \[0, 0\]\)"),
        ([np.nan], "i32", "cannot hold nan"),
        (np.array([2**31], np.float32), "i32", "cannot hold 2147483648"),
        (np.array([2**63], np.float64), "i64", "cannot hold 9.22"),
    ):
        with pytest.raises(DtypeError, match=why):
            ml.create_tensor(bad, kind)


def test_inputs_larger_than_memory_are_refused():
    vast = np.broadcast_to(np.float32(0), (1 << 46,))
    with pytest.raises(ShapeError, match=r"no memory for inputs of shape \(70368744177664,\)"):
        OPS["argmax"](vast)


def test_a_type_has_a_name():
    with pytest.raises(DtypeError, match="a storage type has a name such as 'Q8_0', not 3"):
        Quantization.quantize(np.ones(32), type=3)  # type: ignore[arg-type]
