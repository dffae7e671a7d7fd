"""A tensor: an array of elements or of blocks, its storage type, and its logical shape."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmbol_core.errors import DtypeError, ShapeError
from llmbol_core.ml.dlpack import as_bfloat16, bfloat16_words
from llmbol_core.ml.dtypes import BF16, F32, StorageType, storage_type, storage_type_of

Shape = tuple[int, ...]


class Tensor:
    """Weights in one of the storage types; rows lie along the last axis.

    ``data`` has the tensor's shape for plain types and one structured element for each block for
    the others, so that it may be a view of a mapped file. Nothing is copied.
    """

    __slots__ = ("data", "dtype", "expanded", "packed", "shape")

    def __init__(self, data: NDArray[Any], dtype: str | StorageType | None = None) -> None:
        """Wrap an array; its element type must be the layout of the storage type given."""
        self.data = data
        self.packed: Any = None
        self.expanded: Any = None
        """Other forms of the same weights, made and kept here by what multiplies with them."""
        self.dtype = storage_type_of(data.dtype) if dtype is None else storage_type(dtype)
        if data.dtype != self.dtype.layout:
            why = f"blocks are {self.dtype.layout}, not {data.dtype}"
            raise DtypeError(self.dtype.name, why)
        self.shape: Shape = data.shape
        if self.dtype.is_blocked:
            if not data.ndim:
                raise ShapeError(self.dtype.name, "a single block has no row to lie in")
            self.shape = (*data.shape[:-1], data.shape[-1] * self.dtype.elements)

    @classmethod
    def of(cls, array: ArrayLike | Tensor) -> Tensor:
        """Wrap an array, anything with ``__dlpack__`` without copying, or nested lists of numbers.

        Lists become F32 tensors, as a list of Python floats has no type to keep. Truth values are
        U8; an array whose bytes are in another order than the machine's is copied.
        """
        if isinstance(array, Tensor):
            return array
        if isinstance(array, np.ndarray | np.generic):
            given = np.asarray(array)
            if given.dtype == np.bool_:
                return cls(given.view(np.uint8))
            return cls(given if given.dtype.isnative else given.astype(given.dtype.newbyteorder()))
        if hasattr(array, "__dlpack__"):
            try:
                words = bfloat16_words(array)
                if words is not None:
                    return cls(words, BF16)
                return cls.of(np.from_dlpack(array))  # type: ignore[arg-type]  # NumPy's protocol
            except (BufferError, RuntimeError, TypeError, ValueError) as error:
                raise DtypeError("dlpack", str(error)) from error
        try:
            numbers = np.asarray(array)
        except ValueError:
            numbers = np.empty(0, object)
        if numbers.dtype.kind not in "biuf":
            raise ShapeError("tensor", "lists must hold numbers, in rows of equal length")
        return cls(numbers.astype(np.float32))

    @classmethod
    def from_buffer(
        cls, buffer: memoryview | bytes, dtype: str | StorageType, shape: Shape, offset: int = 0
    ) -> Tensor:
        """View the bytes of a tensor where they lie; the buffer must be long enough."""
        kind = storage_type(dtype)
        blocks = kind.block_shape(shape)
        count = int(np.prod(blocks, dtype=np.int64))
        return cls(np.frombuffer(buffer, kind.layout, count, offset).reshape(blocks), kind)

    @property
    def ndim(self) -> int:
        """How many axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many weights."""
        return self.data.size * self.dtype.elements

    @property
    def nbytes(self) -> int:
        """How many bytes the weights take."""
        return self.data.nbytes

    @property
    def strides(self) -> Shape:
        """Bytes from one element, or block, to the next along each axis."""
        return self.data.strides

    def reshape(self, *lengths: int | Shape) -> Tensor:
        """View the tensor in another shape, one length or all; rows of blocks stay whole blocks."""
        shape = tuple(
            n for given in lengths for n in (given if isinstance(given, tuple) else (given,))
        )
        wanted = shape
        if -1 in shape:
            rest = int(np.prod([n for n in shape if n != -1], dtype=np.int64))
            wanted = tuple(self.size // rest if n == -1 and rest else n for n in shape)
        if (
            shape.count(-1) > 1
            or min(shape, default=0) < -1
            or int(np.prod(wanted, dtype=np.int64)) != self.size
        ):
            raise ShapeError("reshape", f"{self.shape} does not fit into {shape}")
        return Tensor(self.data.reshape(self.dtype.block_shape(wanted)), self.dtype)

    def transpose(self) -> Tensor:
        """View a plain tensor with its axes reversed."""
        if self.dtype.is_blocked:
            raise DtypeError("transpose", f"rows of {self.dtype.name} blocks cannot become columns")
        return Tensor(self.data.T, self.dtype)

    def __getitem__(self, index: int | slice | tuple[int | slice, ...]) -> Tensor:
        """View some of the rows, or of a plain tensor what NumPy would."""
        if self.ndim < 1 or (self.dtype.is_blocked and self.ndim < 2):
            raise ShapeError("index", f"a tensor of shape {self.shape} has no rows to choose from")
        if self.dtype.is_blocked and isinstance(index, tuple):
            raise ShapeError("index", f"of {self.dtype.name} blocks only whole rows can be viewed")
        return Tensor(np.asarray(self.data[index]), self.dtype)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a single number has no length")
        return self.shape[0]

    def numpy(self) -> NDArray[Any]:
        """Hand out the elements of a plain tensor without copying; blocks and BF16 have none."""
        if self.dtype.is_blocked or self.dtype is BF16:
            raise DtypeError("numpy", f"NumPy has no {self.dtype.name}; dequantize it first")
        return self.data

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Let NumPy functions take plain tensors."""
        if copy is None:
            return np.asarray(self.numpy(), dtype)
        return np.array(self.numpy(), dtype, copy=copy)

    def __dlpack__(self, **options: Any) -> Any:
        """Let other array libraries share a plain tensor."""
        if self.dtype is BF16:
            return as_bfloat16(self.data.__dlpack__(**options))
        return self.numpy().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Say where the tensor lies: in the processor's memory."""
        kind, number = self.data.__dlpack_device__()
        return int(kind), int(number)

    def tobytes(self) -> bytes:
        """Return the bytes as a file holds them, row after row."""
        return self.data.tobytes()

    def __repr__(self) -> str:
        return f"Tensor({'x'.join(map(str, self.shape)) or 'scalar'}, {self.dtype.name})"


def zeros(shape: Shape, dtype: str | StorageType = F32) -> Tensor:
    """Make a tensor whose bytes are all zero, which is the number zero in every type."""
    kind = storage_type(dtype)
    return Tensor(np.zeros(kind.block_shape(shape), kind.layout), kind)
