"""Tensors as Dis programs hold them: references to arrays that the host keeps.

The bytes of an array count against the machine's memory limit from before it is made until its last
reference dies. What shares another's memory (a view of a tensor, of a Dis array, of the payload)
costs nothing and keeps the other alive. A symbol stands for the result of an operation that has not
been computed: it belongs to the trace of a network, see ``plans.py``.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from llmbol_core.builtins.binding import Binding, Pending
from llmbol_core.errors import LlmbolError, Trap
from llmbol_core.ml.dtypes import F32, StorageType
from llmbol_core.ml.tensor import Shape, Tensor
from llmbol_core.native.threads import single_threaded_blas, thread_count
from llmbol_core.vm import traps
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.handles import new_handle, replace
from llmbol_core.vm.host import HostCall, Until
from llmbol_core.vm.objects import Heap
from llmbol_core.vm.process import TYPE

if TYPE_CHECKING:
    from llmbol_core.builtins.ml.plans import Symbol

NAME = "Ml"
binding = Binding(
    NAME,
    """
    FD: adt { fd: int; };
    Tensor: adt { rank: int; size: int; };
    Plan: adt { operations: int; weights: int; };
    Samples: adt { count: int; taken: int; };
    """,
)

FAILURES = (LlmbolError, ArithmeticError, LookupError, TypeError, ValueError)
"""What operations raise for arguments that do not fit."""
_MOST_WORD = 0x7FFFFFFF
OPERATIONS_INLINE = 50_000_000
"""Calls that take more floating-point operations leave the machine's thread, so that its time limit
and its other processes need not wait for them."""


class Slot:
    """What the host keeps for a ``ref Tensor``: an array and its storage type, or else a symbol.

    ``kind`` is one number for all slots of a shape and a type. ``keeps`` is a reference to the
    object whose memory the array shares.
    """

    __slots__ = ("array", "dtype", "heap", "is_plain", "keeps", "kind", "name", "symbol")

    def __init__(self, array: Any, dtype: StorageType, kind: int) -> None:
        self.array, self.dtype, self.kind = array, dtype, kind
        self.symbol: Symbol | None = None
        self.heap: Heap | None = None
        self.keeps = NIL
        self.is_plain = True
        """Whether there is nothing but the array to let go of."""
        self.name = ""
        """Of a weight from the payload."""

    @property
    def tensor(self) -> Tensor | None:
        """The tensor, unless the slot is a symbol's."""
        return None if self.array is None else Tensor(self.array, self.dtype)

    def close(self) -> None:
        """Let go of what the tensor needs; its last reference is gone."""
        if self.symbol is not None:
            self.symbol.trace.release()
        if self.heap is not None:
            self.heap.release(self.keeps)


_kinds: dict[tuple[Shape, StorageType], int] = {}
_numbers = itertools.count(1)
_MOST_KINDS = 4096


def kind_of(shape: Shape, dtype: StorageType) -> int:
    """Return the number of a shape and a type, a new one if it has been forgotten."""
    kind = _kinds.get((shape, dtype))
    if kind is None:
        if len(_kinds) >= _MOST_KINDS:
            _kinds.clear()
        kind = _kinds[shape, dtype] = next(_numbers)
    return kind


NOTHING = Slot(None, F32, 0)
"""What stands for nil."""


def fault(error: Exception, what: str = "") -> Trap:
    """Return the exception that a program gets for what went wrong."""
    if isinstance(error, Trap):
        return error
    if isinstance(error, MemoryError):
        return Trap(traps.HEAP_FULL)
    why = str(error) or type(error).__name__
    return Trap(f"ml: {what}: {why}" if what and not why.startswith(what) else f"ml: {why}")


def described(slot: Slot | Tensor) -> str:
    """Return a tensor's shape and storage type, as error texts give them."""
    if isinstance(slot, Slot) and slot.symbol is not None:
        return f"{_times(slot.symbol.value.shape)} symbol"
    tensor = slot.tensor if isinstance(slot, Slot) else slot
    assert tensor is not None
    return f"{_times(tensor.shape)} {tensor.dtype.name}"


def _times(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "scalar"


def slot_of(heap: Heap, ref: int) -> Slot | None:
    """Return what the host keeps for a reference, None for nil. Raises Trap for other records."""
    if ref == NIL:
        return None
    slot = heap.handle(ref)
    if not isinstance(slot, Slot):
        raise Trap("ml: no tensor: a ref Tensor comes from a function of $Ml")
    return slot


def tensor_of(heap: Heap, ref: int) -> Tensor:
    """Return the tensor of a reference. Raises Trap for nil, for a symbol and for other records."""
    slot = slot_of(heap, ref)
    if slot is None:
        raise Trap(traps.NIL_DEREFERENCE)
    if slot.array is None:
        raise Trap("ml: no numbers yet: the tensor stands for a result of the network being traced")
    return Tensor(slot.array, slot.dtype)


binding.reference("Tensor", lambda heap, ref: ref, lambda heap, made: made)


def register(heap: Heap, slot: Slot, shape: Shape, size: int, charge: int) -> int:
    """Return a new reference that stands for a slot; ``charge`` bytes count against the limit."""
    return new_handle(heap, slot, charge, len(shape), min(size, _MOST_WORD))


def keep(heap: Heap, tensor: Tensor) -> int:
    """Return a reference to a tensor that owns its bytes."""
    slot = Slot(tensor.data, tensor.dtype, kind_of(tensor.shape, tensor.dtype))
    return register(heap, slot, tensor.shape, tensor.size, tensor.nbytes)


def keep_view(heap: Heap, tensor: Tensor, owner: int = NIL, name: str = "") -> int:
    """Return a reference to a tensor that shares the memory of an object of the heap, if any."""
    slot = Slot(tensor.data, tensor.dtype, kind_of(tensor.shape, tensor.dtype))
    slot.is_plain, slot.name = False, name
    ref = register(heap, slot, tensor.shape, tensor.size, 0)
    slot.heap, slot.keeps = heap, heap.retain(owner)
    return ref


def keep_symbol(heap: Heap, symbol: Symbol) -> int:
    """Return a reference to a symbol, which it takes over."""
    slot = Slot(None, F32, -1)
    slot.is_plain, slot.symbol = False, symbol
    return register(heap, slot, symbol.value.shape, 0, 0)


def store(heap: Heap, address: int, array: Any, kind: Any) -> None:
    """Store a reference to a new array, of a result's kind; the one that was there is released.

    A record that nobody else refers to is used again.
    """
    pointers = heap.pointers
    old = pointers[address >> 2]
    if old != NIL and pointers[(old >> 2) - 4] == 1:
        slot, charge = heap.hosted.get(old, _NONE)
        if charge == kind.bytes and slot.is_plain and type(slot) is Slot:
            slot.array, slot.dtype, slot.kind = array, kind.dtype, kind.result
            words = heap.words
            words[old >> 2], words[(old >> 2) + 1] = kind.rank, kind.size
            return
    slot = Slot(array, kind.dtype, kind.result)
    replace(heap, address, new_handle(heap, slot, kind.bytes, kind.rank, kind.size))


_NONE = (None, -1)


def admit(heap: Heap, size: int) -> None:
    """Raise the trap "out of memory: heap" unless so many bytes may still be taken."""
    if size > heap.limit:
        raise Trap(traps.HEAP_FULL)
    if not heap.reserve(size):
        heap.make_room()
        if not heap.reserve(size):
            raise Trap(traps.HEAP_FULL)
    heap.reserved -= size


def begin(call: HostCall) -> None:
    """Hold BLAS to one thread and NumPy's warnings back for as long as the machine runs."""
    session = call.machine.session
    if NAME not in session.holders:
        session.holders.add(NAME)
        session.enter_context(single_threaded_blas())
        session.enter_context(np.errstate(all="ignore"))


class _Jobs:
    """The calls of one machine that work outside of its thread, and what is held for each.

    That is the bytes set aside, and the objects that it works on. A process may be ended while its
    call works; all that is given back when the call is over.
    """

    def __init__(self) -> None:
        self.held: dict[threading.Event, tuple[int, list[int]]] = {}

    def begin(self, call: HostCall, size: int) -> threading.Event:
        """Set aside so many bytes, and what a call works on, until an event has happened."""
        heap, frame, done = call.heap, call.frame, threading.Event()
        heap.reserve(size)
        places = heap.types[heap.word(frame + TYPE)].pointers
        self.held[done] = size, [heap.retain(heap.pointer(frame + at)) for at in places]
        return done

    def settle(self, heap: Heap) -> None:
        """Give back what is held for calls that are over."""
        for done in [done for done in self.held if done.is_set()]:
            size, refs = self.held.pop(done)
            heap.reserved -= size
            for ref in refs:
                heap.release(ref)


_jobs: weakref.WeakKeyDictionary[Heap, _Jobs] = weakref.WeakKeyDictionary()


def compute(
    call: HostCall,
    work: Callable[[], Tensor],
    size: int,
    operations: int,
    finish: Callable[[Tensor], int],
    is_engine: bool = False,
) -> Any:
    """Compute a tensor of so many bytes at most and return what ``finish`` makes of it.

    Raises Trap before anything is computed if the bytes are not to be had. What takes long is done
    in another thread where a time limit or other processes make that matter. The inference engine
    itself sees to BLAS and to NumPy's warnings.
    """
    heap = call.heap
    admit(heap, size)
    machine = call.machine
    is_alone = machine.limits.seconds is None and len(machine.scheduler.processes) < 2
    if operations < OPERATIONS_INLINE or is_alone:
        if not is_engine:
            begin(call)
        return finish(work())
    jobs = _jobs.setdefault(heap, _Jobs())

    def ready() -> bool:
        jobs.settle(heap)
        return len(jobs.held) < thread_count()

    def start() -> Pending:
        admit(heap, size)
        done = jobs.begin(call, size)
        return Pending(lambda: _outside(work, done, is_engine), lambda tensor: settle(tensor))

    def settle(tensor: Tensor) -> int:
        jobs.settle(heap)
        return finish(tensor)

    return start() if ready() else Until(ready, start)


def _outside(work: Callable[[], Tensor], done: threading.Event, is_engine: bool) -> Tensor:
    """Compute in a thread of its own."""
    try:
        if is_engine:
            return work()
        with single_threaded_blas(), np.errstate(all="ignore"):
            return work()
    finally:
        done.set()
