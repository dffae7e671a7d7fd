"""Weights packed for products: made once for a tensor, by machine code, and kept with it."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.derived import derived, in_slabs, is_shared
from llmbol_core.ml.kernels.declaration import Kernel
from llmbol_core.ml.kernels.forms import BLOCK, FORMS, GROUPS, ROWS, Form
from llmbol_core.ml.kernels.library import Operation, Program
from llmbol_core.ml.kernels.products import PRODUCTS, quantize_activations
from llmbol_core.ml.kernels.repack import REPACKS
from llmbol_core.ml.kernels.target import target
from llmbol_core.ml.kquants import K_TYPES
from llmbol_core.ml.tensor import Tensor
from llmbol_core.native.shared import Write
from llmbol_core.native.team import team

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.superblocks import SuperForm

Array = NDArray[Any]

_PANEL = ROWS * GROUPS
_SIZES = 4
"""The number of batch sizes for which plans are kept."""


class PackedWeights:
    """A quantized matrix [N, K], ready for products."""

    def __init__(self, tensor: Tensor) -> None:
        """Pack a tensor; its type must have a form, and this machine kernels."""
        chosen = target()
        assert chosen is not None
        self.form, self.kernel, packer = _of_type(tensor.dtype.name)
        self.rows, self.columns = tensor.shape
        self.blocks = self.columns // self.form.columns
        self.panels = -(-self.rows // _PANEL)
        self.shift = self.form.shift(chosen) if isinstance(self.form, Form) else 0
        """What to subtract from the integers: ``start`` is minus this times their sum."""
        size = self.panels * self.blocks * self.form.unit
        how = ("products", self.form.name, self.shift)
        self.data = derived(how, [tensor.data], size, partial(self._pack, tensor, packer))
        self.is_shared = is_shared(self.data)
        self._plans: dict[int, list[_Plan]] = {}
        self._lock = threading.Lock()

    @property
    def quantizer(self) -> tuple[Kernel, tuple[int, ...]]:
        """The kernel that quantizes activations: given x, arrays to fill, and these numbers."""
        if isinstance(self.form, Form):
            return quantize_activations, (self.shift,)
        from llmbol_core.ml.kernels.products_k import quantize_activations_k

        return quantize_activations_k, (self.form.zero,)

    @property
    def activation_words(self) -> tuple[int, ...]:
        """How many words of 4 bytes each of those arrays takes for a block of activations."""
        if isinstance(self.form, Form):
            return self.form.columns // 4, 1, 1, 1
        from llmbol_core.ml.kernels.superdots import STARTS, SUMS

        return self.form.columns // 4, 1, SUMS, STARTS

    def _pack(self, tensor: Tensor, packer: Kernel, write: Write) -> None:
        """Write the packed form, some panels at a time."""
        panel, data = self.blocks * self.form.unit, np.ascontiguousarray(tensor.data)

        def make(first: int, room: Array) -> Array:
            here = len(room) // panel
            part = data[first * _PANEL : (first + here) * _PANEL]
            packer.run(here, part, room, data.shape[1], len(part))
            return part

        in_slabs(self.panels, panel, make, write)

    @property
    def nbytes(self) -> int:
        """How many bytes the packed form takes."""
        return self.data.nbytes

    def product(self, x: Array, out: Array, bias: Array | None = None) -> Array:
        """Put x W^T, plus a bias for each row of W, into out: [M, K] to [M, N], float32 in rows."""
        if x.size == 0 or not out.size:
            out[...] = 0 if bias is None else bias
            return out
        free = self._plans_for(len(x))
        try:
            plan = free.pop()
        except IndexError:
            plan = _Plan(self, len(x))
        plan.run(x, out, bias)
        free.append(plan)
        return out

    def _plans_for(self, batch: int) -> list[_Plan]:
        """Return the free plans for batches of a size; forget those of an older one."""
        found = self._plans.get(batch)
        if found is None:
            with self._lock:
                while len(self._plans) >= _SIZES:
                    del self._plans[next(iter(self._plans))]
                found = self._plans.setdefault(batch, [])
        return found


class _Plan:
    """A product of a batch of some size, with room for its activations in 8 bits."""

    def __init__(self, weights: PackedWeights, batch: int) -> None:
        threads = team().threads
        self._first, given = _activations(weights, batch, threads)
        work = weights.columns // BLOCK * (8 + 2.8 * (batch - 1))
        self._second: Operation = weights.kernel.operation(
            weights.panels,
            *(weights.data, *given, None, None),
            *(weights.blocks, batch, weights.rows, weights.rows),
            chunk=_share(weights.panels, work, threads, 4 if batch == 1 else 8),
        )
        self._bias = 1 + len(given)
        self._program = Program([self._first, self._second])

    def run(self, x: Array, out: Array, bias: Array | None) -> None:
        """Compute; all arrays are float32 in rows."""
        self._first.arguments[0] = x.__array_interface__["data"][0]
        words, at = self._second.arguments, self._bias
        words[at] = 0 if bias is None else bias.__array_interface__["data"][0]
        words[at + 1] = out.__array_interface__["data"][0]
        self._program.run()


def _activations(
    weights: PackedWeights, batch: int, threads: int
) -> tuple[Operation, tuple[Array, ...]]:
    """Return the call that quantizes a batch, and the arrays that it fills."""
    blocks = batch * weights.blocks
    levels = np.empty((batch, weights.columns), np.int8)
    d = np.empty((batch, weights.blocks), np.float32)
    chunk = _share(blocks, 6 * weights.form.columns / BLOCK, threads)
    more = [np.empty((*d.shape, n), np.int32) for n in weights.activation_words[2:]]
    given: tuple[Array, ...] = (levels, d, *more)
    quantizing, numbers = weights.quantizer
    return quantizing.operation(blocks, None, *given, *numbers, chunk=chunk), given


def _share(items: int, nanoseconds: float, threads: int, times: int = 8) -> int:
    """Return how many items a thread takes at a time; 0 is all of them.

    Memory is read best in long runs; the load is shared best if threads take few at a time.
    """
    if threads == 1 or items * nanoseconds < 12_000:
        return 0
    return max(1, int(6_000 / nanoseconds), items // (times * threads))


def packed_weights(tensor: Tensor) -> PackedWeights | None:
    """Return a tensor's packed form, made now if it has to be; None if there is none here."""
    packed: PackedWeights | None = tensor.packed
    if packed is not None or target() is None:
        return packed
    known = tensor.dtype.name in FORMS or tensor.dtype.name in K_TYPES
    if known and tensor.ndim == 2 and tensor.size:
        packed = tensor.packed = PackedWeights(tensor)
    return packed


# ---- packing ----


def _of_type(name: str) -> tuple[Form | SuperForm, Kernel, Kernel]:
    """Return the packed form of a storage type, its product and its packer."""
    if name in FORMS:
        return FORMS[name], PRODUCTS[name], REPACKS[name]
    from llmbol_core.ml.kernels.products_k import SUPER_PRODUCTS
    from llmbol_core.ml.kernels.superblocks import SUPER_FORMS, SUPER_PACKERS

    return SUPER_FORMS[name], SUPER_PRODUCTS[name], SUPER_PACKERS[name]
