import sys

import numpy as np
import pytest

from llmbol_core.errors import DtypeError, ShapeError
from llmbol_core.ml.dtypes import TYPES
from llmbol_core.ml.quantization import dequantize, quantize
from llmbol_core.ml.tensor import Tensor, zeros


def test_views_share_memory():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    tensor = Tensor.of(array)
    views = [tensor.numpy(), tensor[1:].numpy(), tensor.reshape(2, -1).numpy(), tensor[2].numpy()]
    assert all(np.shares_memory(array, view) for view in [*views, tensor.transpose().numpy()])
    assert np.shares_memory(np.from_dlpack(tensor), array)
    assert np.shares_memory(np.asarray(tensor), array)
    assert tensor.strides == (16, 4)
    assert tensor.transpose().shape == (4, 3)
    assert tensor.reshape(2, -1).shape == tensor.reshape((2, 6)).shape == (2, 6)
    for wrong in ((5, 5), (-1, -1), (-2, -6)):
        with pytest.raises(ShapeError):
            tensor.reshape(*wrong)


def test_blocks_keep_the_logical_shape(rng):
    tensor = quantize(rng.normal(size=(4, 64)), "Q4_0")
    assert (tensor.shape, tensor.ndim, tensor.size, tensor.nbytes) == ((4, 64), 2, 256, 4 * 36)
    assert repr(tensor) == "Tensor(4x64, Q4_0)"
    assert tensor[1:3].shape == (2, 64)
    assert tensor[0].shape == (64,)
    assert tensor.reshape(2, 128).tobytes() == tensor.tobytes()
    assert len(tensor) == 4
    with pytest.raises(ShapeError, match="row of 16 is no multiple"):
        tensor.reshape(16, 16)
    with pytest.raises(DtypeError, match="Q4_0 blocks cannot become columns"):
        tensor.transpose()
    with pytest.raises(DtypeError, match="NumPy has no Q4_0"):
        np.asarray(tensor)


def test_from_buffer_is_a_view():
    blocks = bytearray(TYPES["Q8_0"].block_bytes * 4 + 3)
    tensor = Tensor.from_buffer(memoryview(blocks), "q8_0", (2, 64), 3)
    blocks[3 + 2] = 5
    assert tensor.data["qs"][0, 0, 0] == 5


def test_lists_become_f32():
    assert Tensor.of([[1, 2], [3, 4]]).dtype is TYPES["F32"]
    assert Tensor.of(np.arange(3)).dtype is TYPES["I64"]


def test_truth_values_and_other_orders_of_bytes():
    mask = np.array([True, False])
    assert Tensor.of(mask).dtype is TYPES["U8"]
    assert np.shares_memory(Tensor.of(mask).data, mask)
    other = np.array([1.5, -2], ">f4" if sys.byteorder == "little" else "<f4")
    assert Tensor.of(other).numpy().tolist() == [1.5, -2]
    assert Tensor.of(other).dtype is TYPES["F32"]


@pytest.mark.parametrize("bad", [[[1], [2, 3]], ["a"], None, {}])
def test_lists_must_hold_numbers(bad):
    with pytest.raises(ShapeError, match="tensor: lists must hold numbers"):
        Tensor.of(bad)


def test_refusals():
    with pytest.raises(DtypeError, match="blocks are"):
        Tensor(np.zeros(4, np.float32), "Q8_0")
    with pytest.raises(DtypeError, match="complex64"):
        Tensor.of(np.zeros(4, np.complex64))
    with pytest.raises(ShapeError, match=r"\(2, 3\) does not fit into \(4, -1\)"):
        zeros((2, 3)).reshape(4, -1)
    with pytest.raises(ShapeError, match="does not fit"):
        zeros((2, 3)).reshape(-1, -1)
    with pytest.raises(ShapeError, match="no rows"):
        zeros((64,), "Q8_0")[0]


@pytest.mark.parametrize("name", TYPES)
def test_zeros(name):
    assert zeros((2, 256), name).shape == (2, 256)


def test_what_other_libraries_refuse_to_share_is_told():
    class Foreign:
        def __init__(self, refusal):
            self.refusal = refusal

        def __dlpack__(self, **options):
            raise self.refusal

        def __dlpack_device__(self):
            return (1, 0)

    for kind in (BufferError, RuntimeError, TypeError, ValueError):
        refusal = kind("needs a gradient")
        with pytest.raises(DtypeError, match="dlpack: needs a gradient"):
            Tensor.of(Foreign(refusal))  # type: ignore[arg-type]


def test_of_blocks_whole_rows_are_viewed(rng):
    blocks = quantize(rng.normal(size=(3, 64)), "q8_0")
    assert blocks[1:].shape == (2, 64)
    with pytest.raises(ShapeError, match="of Q8_0 blocks only whole rows can be viewed"):
        blocks[:, :32]
    assert Tensor.of(np.ones((3, 4)))[:, 1:].shape == (3, 3)


class Owner:
    """Numbers of another library: it has no other way to hand them out."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __dlpack__(self, **options):
        return self.tensor.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()


def test_bfloat16_is_shared_with_other_libraries(rng):
    stored = quantize(rng.normal(size=(3, 4, 5)).astype(np.float32), "BF16")
    for given in (stored, stored[1:], stored[:, ::2], stored.transpose(), stored[:0]):
        found = Tensor.of(Owner(given))  # type: ignore[arg-type]
        assert (found.dtype.name, found.shape) == ("BF16", given.shape)
        assert np.array_equal(found.data, given.data)
        assert not given.size or np.shares_memory(found.data, stored.data)
    del stored, given
    assert np.isfinite(dequantize(found)).all()
    with pytest.raises((BufferError, RuntimeError)):  # it has no such type
        np.from_dlpack(quantize(np.ones(3, np.float32), "BF16"))
