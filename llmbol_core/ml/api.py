"""The front page of the ML part: operations as methods, and quantization in one call."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmbol_core.errors import UsageError, nearest
from llmbol_core.ml.dtypes import StorageType, storage_type
from llmbol_core.ml.ops import OPS
from llmbol_core.ml.quantization import dequantize, quantize
from llmbol_core.ml.tensor import Tensor
from llmbol_core.native.threads import single_threaded_blas

_MULTIPLYING = ("products", "positions", "convolution", "transposed", "recurrent")
"""Where operations are that may leave products of matrices to NumPy's BLAS."""


class MLModule:
    """Every operation of the table as a method: ``nn ops`` lists them, ``dir`` of a module too.

    Inputs are tensors, arrays or nested lists, computed with as float32; the first axis usually is
    the batch. The result is a Tensor. Methods raise ShapeError and DtypeError for inputs that do
    not fit, TypeError for a wrong number of them and for unknown attributes.

    >>> ml = create_ml_module()
    >>> ml.relu(ml.create_tensor([[-1, 2]])).numpy()
    array([[0., 2.]], dtype=float32)
    """

    def create_tensor(self, data: ArrayLike | Tensor, dtype: str | StorageType = "f32") -> Tensor:
        """Make a tensor of numbers in a storage type, such as "f32", "i32" or "q4_0".

        Rows lie along the last axis, and must divide into the type's blocks: else ShapeError.
        Raises DtypeError for an unknown type, or a number that the type cannot hold.
        """
        kind = storage_type(dtype)
        return quantize(data if kind.is_whole else Tensor.of(data), kind)

    def __getattr__(self, name: str) -> Callable[..., Tensor]:
        """Return the method that runs the operation of this name."""
        if name not in OPS:
            raise AttributeError(f"no operation is named {name!r}{nearest(name, OPS)}")

        operation = OPS[name]
        family = operation.definition.__module__.rpartition(".")[2]
        guard = single_threaded_blas if family in _MULTIPLYING else nullcontext

        def run(*inputs: Any, **attributes: Any) -> Tensor:
            if operation.short and (operation.attributes or not attributes):
                made = operation.short()(*map(_plain, inputs), **attributes)
                if made is not None:
                    return Tensor(made)
            with guard():
                return Tensor(np.asarray(operation(*inputs, **attributes), order="C"))

        run.__name__, run.__doc__ = name, operation.summary
        self.__dict__[name] = run  # found at once from now on
        return run

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *OPS})


def _plain(value: Any) -> Any:
    """Return the array of a tensor that has one; everything else as it is."""
    return value.data if type(value) is Tensor else value


def create_ml_module() -> MLModule:
    """Return the operations of the table as methods."""
    return MLModule()


class Quantization:
    """Weights to a storage type and back."""

    @staticmethod
    def quantize(
        array: ArrayLike | Tensor, type: str | StorageType = "q8_0", block_size: int | None = None
    ) -> Tensor:
        """Convert numbers [..., K] to a storage type, as GGML does, bit for bit.

        The block size may be stated but not chosen: each type has its own. Raises UsageError for
        another block size, DtypeError for an unknown type or a number that is not finite, and
        ShapeError if K does not divide into blocks.

        >>> Quantization.quantize(np.ones((2, 64)), type="q8_0", block_size=32)
        Tensor(2x64, Q8_0)
        """
        kind = storage_type(type)
        if block_size not in (None, kind.elements):
            why = f"{kind.name} has blocks of {kind.elements} weights, not of {block_size!r}"
            raise UsageError(why)
        return quantize(array, kind)

    @staticmethod
    def dequantize(tensor: ArrayLike | Tensor) -> NDArray[np.float32]:
        """Return the weights of a tensor as a float32 array of its shape."""
        return dequantize(Tensor.of(tensor))
