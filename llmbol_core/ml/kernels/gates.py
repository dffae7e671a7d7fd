"""Weights and biases of recurrent layers in the order in which their kernels read them.

    given    w_ih [gates * size, inside], w_hh [gates * size, size], a bias with each
    packed   [groups, depth, gates, lanes], biases [groups, gates, lanes]

A group is a vector of units; items are the vectors of all gates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbol_core.ml.kernels.declaration import Group
from llmbol_core.ml.kernels.gradients import transposed
from llmbol_core.ml.kernels.kinds import f32, i64
from llmbol_core.ml.kernels.tiles import lesser_number

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("gates")


@group.kernel("w:f32* out:f32* size:i64 depth:i64 gates:i64")
def pack(k: Builder, w: Pointer, out: Pointer, size: Value, depth: Value, gates: Value) -> None:
    """Pack a weight; units that do not exist repeat the last one."""
    lanes = k.lanes
    pitch = gates * lanes
    for item in k.items():
        unit, gate = item // gates, item % gates
        last = size - unit * lanes - 1
        first = w.at((gate * size + unit * lanes) * depth)
        rows = [first.at(lesser_number(k, k.value(r, i64), last) * depth) for r in range(lanes)]
        to = out.at(unit * pitch * depth + gate * lanes)
        whole = depth // lanes * lanes
        for d in k.range(0, whole, lanes):
            for i, value in enumerate(transposed(k, [row.load(d, lanes) for row in rows])):
                to.at((d + i) * pitch).store(value)
        rest = depth - whole
        with k.when(rest > 0):
            square = transposed(k, [row.load_some(rest, lanes, whole) for row in rows])
            for i, value in enumerate(square):
                with k.when(rest > i):
                    to.at((whole + i) * pitch).store(value)


@group.kernel("first:f32* second:f32* out:f32* apart:f32* size:i64 gates:i64 alone:i64")
def add_biases(
    k: Builder, first: Pointer, second: Pointer, out: Pointer, apart: Pointer, size: Value,
    gates: Value, alone: Value,
) -> None:  # fmt: skip
    """Add both biases; of the gate ``alone`` the second goes ``apart``. Either may be nowhere."""
    lanes = k.lanes
    for item in k.items():
        unit, gate = item // gates, item % gates
        start = gate * size + unit * lanes
        left = lesser_number(k, size - unit * lanes, k.value(lanes, i64))
        sums = []
        for bias in (first, second):
            there = k.select(bias.address().differs(0), left, k.value(0, i64))
            sums.append(bias.load_some(there, lanes, start))
        is_alone = gate.equals(alone)
        total = sums[0] + k.select(is_alone, k.zeros(f32, lanes), sums[1])
        out.store(total, item * lanes)
        with k.when(is_alone):
            apart.store(sums[1], unit * lanes)
