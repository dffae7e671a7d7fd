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
