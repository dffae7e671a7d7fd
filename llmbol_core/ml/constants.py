"""The constants of a graph: its weights, and all that is computed from them alone."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.derived import derived_numbers, in_slabs, is_shared, shared
from llmbol_core.ml.dtypes import F32
from llmbol_core.ml.graph import Step
from llmbol_core.ml.ops import OPS
from llmbol_core.ml.ops.quantized import multiplied
from llmbol_core.ml.quantization import dequantize
from llmbol_core.ml.tensor import Tensor

Array = NDArray[Any]
Held = Array | Tensor | None

_PRODUCTS = ("linear", "mul_mat")


class Constants:
    """The constant values of a graph by number, each in the forms in which operations take them."""

    def __init__(self, tensors: dict[int, Tensor]) -> None:
        self._tensors = tensors
        self._expanded: dict[int, Array] = {}
        self._made: list[Array] = []

    def __contains__(self, index: int) -> bool:
        return index in self._tensors

    def value(self, index: int, packed: bool) -> Array | Tensor:
        """Return a value as blocks, if it has any and they can be taken, or as float32."""
        tensor = self._tensors[index]
        if packed and tensor.dtype.is_blocked:
            return tensor
        if index not in self._expanded:
            self._expanded[index] = self._noted(expanded(tensor), tensor.data)
        return self._expanded[index]

    def stored(self, index: int) -> Tensor | None:
        """Return a value as it was given or computed; None if it is not constant."""
        return self._tensors.get(index)

    def inputs(self, step: Step) -> tuple[Held, ...]:
        """Return for each input of a step its value if it is held, else None."""
        row = OPS[step.op]
        return tuple(
            self.value(value.index, name.rstrip("?") in row.packed) if value.index in self else None
            for name, value in zip(row.inputs, step.inputs, strict=False)
        )

    def compute(self, step: Step) -> None:
        """Run a step whose inputs are all held, and hold its result."""
        row, given = OPS[step.op], self.inputs(step)

        def result() -> Array:
            return np.asarray(row.run(*given, **step.attributes), order="C")

        sources = [x.data if isinstance(x, Tensor) else x for x in given if x is not None]
        if row.is_view or step.output.dtype is not F32:
            found = result()
        else:
            how = (step.op, *sorted(step.attributes.items()))
            found = derived_numbers(how, sources, step.output.shape, result)
        self._tensors[step.output.index] = Tensor(self._noted(found, *sources))

    def pack(self, steps: list[Step]) -> None:
        """Pack the quantized matrices that products read, so that no run has to."""
        from llmbol_core.ml.packed import packed_weights

        for step in steps:
            for value in step.inputs if step.op in _PRODUCTS else ():
                tensor = self._tensors.get(value.index)
                if tensor is None or not tensor.dtype.is_blocked:
                    continue
                if step.op == "mul_mat" or multiplied(tensor) is tensor:
                    packed_weights(tensor)

    @property
    def bytes(self) -> int:
        """How many bytes were made from the weights that were given, and are not shared."""
        packed = [tensor.packed for tensor in self._tensors.values() if tensor.packed is not None]
        own: int = sum(p.nbytes for p in packed if not p.is_shared)
        own += sum(t.expanded.nbytes for t in self._tensors.values() if t.expanded is not None)
        return own + sum(x.nbytes for x in self._made)

    def _noted(self, array: Array, *sources: Array) -> Array:
        """Return an array, its bytes counted if it has any of its own."""
        if not is_shared(array) and not any(np.may_share_memory(array, x) for x in sources):
            self._made.append(array)
        return array


def expanded(tensor: Tensor) -> Array:
    """Return a tensor's numbers as float32 in rows, shared if it is a large one of a file."""
    found = shared_expansion(tensor)
    return np.asarray(dequantize(tensor), order="C") if found is None else found


def shared_expansion(tensor: Tensor) -> Array | None:
    """Return a tensor's numbers as float32 if they lie in a file that processes share."""
    kind, blocks = tensor.dtype, tensor.data.reshape(-1)
    if kind is F32:
        return tensor.data if is_shared(tensor.data) and tensor.data.flags.c_contiguous else None
    item = 4 * kind.elements

    def make(first: int, room: Array) -> Array:
        part = blocks[first : first + len(room) // item]
        room.view(np.float32)[...] = dequantize(Tensor(part, kind)).reshape(-1)
        return part

    how = ("float32", kind.name)
    write_all = partial(in_slabs, len(blocks), item, make)
    found = shared(how, [blocks], 4 * tensor.size, write_all)
    return None if found is None else found.view(np.float32).reshape(tensor.shape)
