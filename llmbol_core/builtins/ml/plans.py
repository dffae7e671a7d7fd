"""Networks traced, planned once and run many times, by the engine that ``nn infer`` uses.

    x := ml->input(8 :: 8 :: nil);          a symbol: what stands for a batch of samples
    y := ml->relu(ml->linear(x, w, b));     symbols again: the operations are noted, not computed
    plan := ml->plan(x, y);
    z := ml->run(plan, batch);

What a program gives to operations beside symbols become the network's weights. A trace, its symbols
and plans keep them alive; what they cost the host counts against the machine's memory limit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from llmbol_core.builtins.binding import Direct, settle
from llmbol_core.builtins.ml.scratch import scratch_bytes
from llmbol_core.builtins.ml.tensors import (
    FAILURES,
    NOTHING,
    OPERATIONS_INLINE,
    Slot,
    admit,
    binding,
    compute,
    described,
    fault,
    keep,
    keep_symbol,
    kind_of,
    store,
    tensor_of,
)
from llmbol_core.errors import ShapeError, Trap
from llmbol_core.ml.dtypes import F32, StorageType
from llmbol_core.ml.engine import Engine
from llmbol_core.ml.folding import fold_batch_norm
from llmbol_core.ml.graph import Graph, Step, Value
from llmbol_core.ml.ops import OPS, Op
from llmbol_core.ml.tensor import Shape, Tensor
from llmbol_core.vm import traps
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.handles import replace
from llmbol_core.vm.heaptypes import HANDLE
from llmbol_core.vm.host import RESULT, HostCall, HostResult
from llmbol_core.vm.layout import Frame
from llmbol_core.vm.objects import Heap

_STEP_BYTES = 4096
"""What the host keeps for an operation that was noted, at most."""
_TABLES = 256 << 20
"""Bytes of the host that planning may take in passing, whatever the limit."""
_SIZES = 2
"""For how many sizes of batch the engine keeps what it works in."""
_MOST_SIZES = 64


class Trace:
    """A network while a program puts it together."""

    def __init__(self, heap: Heap, shape: Shape) -> None:
        self.heap, self.graph = heap, Graph()
        self.input = self.graph.input("input", shape)
        self.weights: dict[str, Tensor] = {}
        self._values: dict[int, Value] = {}
        self._kept: list[int] = []
        self._charge = 0
        self._users = 0

    def charge(self) -> None:
        """Count one more operation against the limit. Raises Trap."""
        admit(self.heap, _STEP_BYTES)
        self.heap.reserve(_STEP_BYTES)
        self._charge += _STEP_BYTES

    def use(self) -> None:
        """Count one more symbol or plan of this trace."""
        self._users += 1

    def release(self) -> None:
        """Count one less; with the last one the weights are let go."""
        self._users -= 1
        if not self._users:
            self.heap.reserved -= self._charge
            for ref in self._kept:
                self.heap.release(ref)

    def constant(self, slot: Slot, ref: int) -> Value:
        """Return the value that stands for a tensor, which becomes a weight."""
        tensor = slot.tensor
        assert tensor is not None
        if id(slot) not in self._values:
            name = slot.name if slot.name not in ("", *self.weights) else f"w{len(self.weights)}"
            value = self.graph.weight(name, tensor.shape)
            self.weights[name] = tensor
            self._kept.append(self.heap.retain(ref))
            self._values[id(slot)] = value
        return self._values[id(slot)]

    def network(self, output: Value) -> Graph:
        """Return what leads from the input to an output as a graph of its own."""
        needed, steps = {output.index}, list[Step]()
        for step in reversed(self.graph.steps):
            if step.output.index in needed:
                needed.update(value.index for value in step.inputs)
                steps.append(step)
        graph = Graph()
        values = {self.input.index: graph.input(self.input.name, self.input.shape[1:])}
        for step in reversed(steps):
            for value in step.inputs:
                if value.index not in values:
                    values[value.index] = graph.weight(value.name, value.shape)
            inputs = [values[value.index] for value in step.inputs]
            values[step.output.index] = graph.op(step.op, *inputs, **step.attributes)
        graph.output(values[output.index])
        return graph


class Symbol(NamedTuple):
    """What stands for a result of the network."""

    trace: Trace
    value: Value


def _symbol(trace: Trace, value: Value) -> int:
    """Return a reference to a symbol."""
    ref = keep_symbol(trace.heap, Symbol(trace, value))
    trace.use()
    return ref


def traced(
    heap: Heap, row: Op, slots: Sequence[Slot], refs: Sequence[int], given: dict[str, Any]
) -> int:
    """Note an operation with symbols among its inputs; return the symbol of its result.

    Raises ShapeError, DtypeError and Trap as computing it would.
    """
    traces = {id(s.symbol.trace): s.symbol.trace for s in slots if s.symbol}
    if len(traces) > 1:
        raise Trap(f"ml: {row.name}: symbols of {len(traces)} networks")
    (trace,) = traces.values()
    present = [slot for slot in slots if slot is not NOTHING]
    if any(slot is not NOTHING for slot in slots[len(present) :]):
        raise Trap(f"ml: {row.name}: an input before the last is nil")
    trace.charge()
    values = [
        slot.symbol.value if slot.symbol else trace.constant(slot, ref)
        for slot, ref in zip(present, refs, strict=False)
    ]
    return _symbol(trace, trace.graph.op(row.name, *values, **given))


class _Size(NamedTuple):
    """What a batch of one size takes: bytes and floating-point operations."""

    result: int
    workspace: int
    scratch: int
    """What the neediest operation needs for itself while it runs."""
    operations: int


class _Known(NamedTuple):
    """What a batch of a known kind gives."""

    dtype: StorageType
    result: int
    rank: int
    size: int
    bytes: int
    batch: int


class Plan:
    """A network ready to run."""

    def __init__(self, trace: Trace, output: Value) -> None:
        self._trace = trace
        blocked = {name for name, weight in trace.weights.items() if weight.dtype.is_blocked}
        graph = fold_batch_norm(trace.network(output), blocked)
        heap = trace.heap
        self.engine = Engine(graph, trace.weights, max(heap.limit - heap.used, 0) + _TABLES)
        self.input = trace.input
        self.call = self.engine.function(self.engine.run)
        self.known: dict[int, _Known] = {}
        """What batches give, by their kind."""
        self._sizes: dict[int, _Size] = {}
        self._workspaces: dict[int, int] = {}
        trace.use()

    @property
    def held(self) -> int:
        """Bytes that planning took beside the weights."""
        return int(getattr(self.engine, "held_bytes", 0))

    def size(self, batch: int) -> _Size:
        """Return what a batch takes. Raises ShapeError."""
        found = self._sizes.get(batch)
        if found is None:
            graph = self.engine.graph
            shape = graph.shapes(batch)[graph.outputs[0].index]
            operations = sum(flops for _, flops, _ in graph.costs(batch))
            room = self.engine.workspace_bytes(batch)
            found = _Size(4 * math.prod(shape), room, self._scratch(batch), operations)
            if len(self._sizes) >= _MOST_SIZES:
                self._sizes.clear()
            self._sizes[batch] = found
        return found

    def _scratch(self, batch: int) -> int:
        shapes = self.engine.graph.shapes(batch)
        return max(
            (
                scratch_bytes(
                    OPS[step.op],
                    shapes[step.output.index],
                    [shapes[value.index] for value in step.inputs],
                    step.attributes,
                )
                for step in self.engine.defined_steps
            ),
            default=0,
        )

    def provide(self, batch: int) -> None:
        """Count what the engine keeps to work in, for the last sizes of batch, against the limit.

        Raises Trap.
        """
        if batch in self._workspaces:
            return
        heap, room = self._trace.heap, self.size(batch).workspace
        while len(self._workspaces) >= _SIZES:
            gone = next(iter(self._workspaces))
            heap.reserved -= self._workspaces.pop(gone)
            self.known = {k: known for k, known in self.known.items() if known.batch != gone}
        admit(heap, room)
        heap.reserve(room)
        self._workspaces[batch] = room

    def learn(self, x: Tensor, y: Any, size: _Size) -> None:
        """Remember what batches of a kind give, if nothing speaks against running them at once."""
        if size.operations < OPERATIONS_INLINE and x.dtype is F32 and y.flags.c_contiguous:
            kind = kind_of(y.shape, F32)
            self.known[kind_of(x.shape, F32)] = _Known(F32, kind, y.ndim, y.size, y.nbytes, len(x))

    def close(self) -> None:
        """Let go of it all; the last reference is gone."""
        self._trace.heap.reserved -= sum(self._workspaces.values())
        self._trace.release()


def _plan(heap: Heap, ref: int) -> Plan:
    if ref == NIL:
        raise Trap(traps.NIL_DEREFERENCE)
    plan = heap.handle(ref)
    if not isinstance(plan, Plan):
        raise Trap("ml: no plan: a ref Plan comes from ml->plan")
    return plan


binding.reference("Plan", _plan, lambda heap, made: made)


@binding.function("input: fn(shape: list of int): ref Tensor")
def input_(call: HostCall, shape: list[int]) -> int:
    """Return a symbol for a batch of samples of a shape: the start of a network."""
    if any(n < 1 for n in shape):
        raise Trap(f"ml: input: {shape} is no shape of a sample")
    trace = Trace(call.heap, tuple(shape))
    trace.charge()
    return _symbol(trace, trace.input)


@binding.function("plan: fn(x: ref Tensor, y: ref Tensor): ref Plan")
def plan(call: HostCall, x: int, y: int) -> int:
    """Plan the network that leads from one symbol, its input, to another."""
    heap = call.heap
    first, last = (_traced(heap, ref) for ref in (x, y))
    trace = first.trace
    if last.trace is not trace or first.value is not trace.input:
        raise Trap("ml: plan: expected the input of a network and a result of the same one")
    try:
        made = Plan(trace, last.value)
        ref = heap.new_handle(made, 0, HANDLE)
    except (*FAILURES, MemoryError) as error:
        raise fault(error, "plan") from error
    if made.held > heap.limit - heap.used:
        heap.release(ref)
        left = f"of the machine's limit {max(heap.limit - heap.used, 0)} are left"
        raise Trap(f"ml: plan: out of memory: {made.held} bytes beside the weights, {left}")
    value, _ = heap.hosted[ref]
    heap.reserve(made.held)
    heap.hosted[ref] = (value, made.held)
    heap.words[ref >> 2], heap.words[(ref >> 2) + 1] = len(trace.graph.steps), len(trace.weights)
    return ref


def _traced(heap: Heap, ref: int) -> Symbol:
    slot = heap.handle(ref) if ref != NIL else None
    if not isinstance(slot, Slot) or slot.symbol is None:
        raise Trap("ml: plan: expected symbols: what comes of ml->input")
    return slot.symbol


@binding.direct("run: fn(p: ref Plan, x: ref Tensor): ref Tensor")
def run(layout: Frame) -> Direct:
    """Return the outputs for a batch: the samples along the first axis."""
    plan_at, x_at = (part.offset >> 2 for part in layout.arguments)

    def run(call: HostCall) -> HostResult:
        heap, at = call.heap, call.frame >> 2
        pointers, hosted = heap.pointers, heap.hosted
        try:
            plan = hosted[pointers[at + plan_at]][0]
            slot = hosted[pointers[at + x_at]][0]
            known = plan.known[slot.kind]
        except (KeyError, AttributeError):
            return _run(call, pointers[at + plan_at], pointers[at + x_at])
        try:
            array = plan.call(slot.array)
        except (*FAILURES, MemoryError) as error:
            raise fault(error, "run") from error
        store(heap, pointers[at + (RESULT >> 2)], array, known)
        return None

    return run


def _run(call: HostCall, p: int, x: int) -> HostResult:
    """Run a batch of a kind that has not been seen, or one that takes long."""
    heap, plan = call.heap, _plan(call.heap, p)
    tensor, address = tensor_of(heap, x), heap.pointers[(call.frame + RESULT) >> 2]
    if tensor.shape[1:] != plan.input.shape[1:] or not tensor.ndim:
        shape = "x".join(map(str, ("N", *plan.input.shape[1:])))
        raise Trap(f"ml: run: expected a batch of shape {shape}, given {described(tensor)}")
    try:
        size = plan.size(tensor.shape[0])
        plan.provide(tensor.shape[0])
    except FAILURES as error:
        raise fault(error, "run") from error

    def work() -> Tensor:
        try:
            found = plan.call(tensor.data) if tensor.dtype is F32 else plan.engine.run(tensor)
        except (*FAILURES, MemoryError) as error:
            raise fault(error, "run") from error
        if tensor.data.size and np.may_share_memory(found, tensor.data):
            return Tensor(found.copy())
        plan.learn(tensor, found, size)
        return Tensor(found)

    expanded = 0 if tensor.dtype is F32 else 4 * tensor.size
    room = size.result + size.scratch + expanded
    made = compute(call, work, room, size.operations, lambda tensor: keep(heap, tensor), True)
    return settle(made, lambda ref: replace(heap, address, ref))


def fitting(heap: Heap, plan: Plan, most: int, sample_bytes: int) -> int:
    """Return how many samples to run at a time: at most so many, at least 1, if memory allows."""
    count, free = most, heap.limit - heap.used
    while count > 1:
        try:
            size = plan.size(count)
        except ShapeError:
            break
        if 2 * (size.workspace + size.result + size.scratch + count * sample_bytes) <= free:
            break
        count //= 2
    return count
