"""Weights packed for products: made once for a tensor, by machine code, and kept with it.

The packed form of a large tensor of a mapped file is itself kept on disk and mapped, so that all
processes share it and a later one finds it ready; the pages of the blocks that it was made from are
given back. Other packed forms are arrays in memory.
"""

from __future__ import annotations

import mmap
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.kernels.declaration import Kernel
from llmbol_core.ml.kernels.forms import BLOCK, FORMS, GROUPS, ROWS, Form
from llmbol_core.ml.kernels.library import Operation, Program, kernel_digest
from llmbol_core.ml.kernels.products import PRODUCTS, quantize_activations
from llmbol_core.ml.kernels.repack import REPACKS
from llmbol_core.ml.kernels.target import target
from llmbol_core.ml.kquants import K_TYPES
from llmbol_core.ml.mapped import mapping_of, release
from llmbol_core.ml.tensor import Tensor
from llmbol_core.native.shared import Write, kept
from llmbol_core.native.team import team

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.superblocks import SuperForm

Array = NDArray[Any]

_LARGE = 1 << 20
"""Bytes from which a packed form is kept on disk."""
_SLAB = 2 << 20
"""Bytes that are packed at a time."""
_PANEL = ROWS * GROUPS
_SIZES = 4
"""For how many sizes of batch plans are kept."""
_LINE = 64


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
        packing = _Packing(tensor, packer, self.blocks * self.form.unit, self.panels)
        self.data, self.is_shared = packing.result(size, (self.form.name, self.shift))
        self._plans: dict[int, list[_Plan]] = {}
        self._lock = threading.Lock()

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
            chunk=_share(weights.panels, work, threads),
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
    """Return what quantizes a batch, and the arrays that it fills."""
    blocks = batch * weights.blocks
    levels = np.empty((batch, weights.columns), np.int8)
    d = np.empty((batch, weights.blocks), np.float32)
    chunk = _share(blocks, 6 * weights.form.columns / BLOCK, threads)
    given: tuple[Array, ...]
    if isinstance(weights.form, Form):
        given = (levels, d, np.empty_like(d), np.empty(d.shape, np.int32))
        shift = weights.shift
        return quantize_activations.operation(blocks, None, *given, shift, chunk=chunk), given
    from llmbol_core.ml.kernels.products_k import SUMS, quantize_activations_k

    given = (levels, d, np.empty((*d.shape, SUMS), np.int32))
    return quantize_activations_k.operation(blocks, None, *given, chunk=chunk), given


def _share(items: int, nanoseconds: float, threads: int) -> int:
    """Return how many items a thread takes at a time; 0 is all of them."""
    if threads == 1 or items * nanoseconds < 12_000:
        return 0
    return max(1, int(6_000 / nanoseconds), items // (8 * threads))


def packed_weights(tensor: Tensor) -> PackedWeights | None:
    """Return a tensor's packed form, made now if it has to be; None if there is none here."""
    if target() is None:
        return None
    known = tensor.dtype.name in FORMS or tensor.dtype.name in K_TYPES
    if tensor.packed is None and known and tensor.ndim == 2 and tensor.size:
        tensor.packed = PackedWeights(tensor)
    packed: PackedWeights | None = tensor.packed
    return packed


# ---- packing ----


def _of_type(name: str) -> tuple[Form | SuperForm, Kernel, Kernel]:
    """Return the packed form of a storage type, its product and its packer."""
    if name in FORMS:
        return FORMS[name], PRODUCTS[name], REPACKS[name]
    from llmbol_core.ml.kernels.products_k import SUPER_PRODUCTS
    from llmbol_core.ml.kernels.superblocks import SUPER_FORMS, SUPER_PACKERS

    return SUPER_FORMS[name], SUPER_PRODUCTS[name], SUPER_PACKERS[name]


class _Packing:
    """A tensor that is being packed, panel after panel of so many bytes."""

    def __init__(self, tensor: Tensor, packer: Kernel, panel: int, panels: int) -> None:
        self._tensor, self._packer, self._panel, self._panels = tensor, packer, panel, panels

    def result(self, size: int, form: tuple[object, ...]) -> tuple[Array, bool]:
        """Return a tensor's packed bytes, and whether other processes share them."""
        source = mapping_of(self._tensor.data)
        if source is not None and size >= _LARGE:
            mapping, offset = source
            parts = (mapping.identity, offset, *form, self._tensor.shape, kernel_digest())
            found = kept(parts, size, self._write_all)
            if found is not None:
                return np.frombuffer(found, np.uint8), True
        packed = _room(size)

        def write(offset: int, data: memoryview) -> None:
            packed[offset : offset + len(data)] = data

        self._write_all(write)
        return packed, False

    def _write_all(self, write: Write) -> None:
        """Pack some panels after the other, and give their mapped pages back.

        Each thread packs and writes panels of its own: fresh memory takes longer than packing.
        """
        step = max(1, min(_SLAB // self._panel, self._panels))
        data = np.ascontiguousarray(self._tensor.data)
        firsts = range(0, self._panels, step)
        local = threading.local()

        def work(first: int) -> None:
            if not hasattr(local, "room"):
                local.room = _room(step * self._panel)
            here = min(step, self._panels - first)
            part = data[first * _PANEL : (first + here) * _PANEL]
            self._packer.run(here, part, local.room, data.shape[1], len(part))
            write(first * self._panel, local.room.data[: here * self._panel])
            release(part)

        threads = min(team().threads, len(firsts))
        if threads < 2:
            deque(map(work, firsts), 0)
            return
        with ThreadPoolExecutor(threads) as pool:
            deque(pool.map(work, firsts), 0)


def _room(size: int) -> Array:
    """Return bytes that begin a cache line, in large pages if there are many."""
    if size >= 4 * _LARGE and hasattr(mmap, "MADV_HUGEPAGE"):
        memory = mmap.mmap(-1, size)
        memory.madvise(mmap.MADV_HUGEPAGE)
        return np.frombuffer(memory, np.uint8)
    raw = np.empty(size + _LINE, np.uint8)
    return raw[-raw.ctypes.data % _LINE :][:size]
