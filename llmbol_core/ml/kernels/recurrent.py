"""Recurrent layers over a sequence: products, gates and states in one go.

Hidden units are taken in groups of a vector. The gates of a group stand side by side: in the
projected inputs as they are given and in the packed weights [groups, depth, gates, lanes]. Sums of
all gates of a group stay in registers until they have become a state.

    lstm  gates input, forget, cell, output:  c' = s(f) c + s(i) tanh(g);  h' = s(o) tanh(c')
    gru   gates reset, update, new:           n = tanh(x + s(r) h);  h' = (1 - s(z)) n + s(z) h
    rnn   h' = tanh(x + h), or relu

The sigmoid s(x) is tanh(x / 2) / 2 + 1/2, with an absolute error of 1e-7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmbol_core.ml.kernels.declaration import Group, Kernel
from llmbol_core.ml.kernels.functions import tanh, tanh_parts
from llmbol_core.ml.kernels.kinds import f32, i64
from llmbol_core.ml.kernels.tiles import accumulate, lesser_number, most_rows, rows_in_turn

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}

_whole = {kind: Group(f"recurrent_{kind}") for kind in GATES}
_single = {kind: Group(f"recurrent_{kind}_steps") for kind in GATES}

_PARAMETERS = (
    "px:f32* w:f32* extra:f32* out:f32* states:f32* carry:f32* steps:i64 size:i64 reverse:i64"
)


def _most(k: Builder, gates: int) -> int:
    """Return how many rows of all gates of a group fit into the registers."""
    return max(1, 2 * most_rows(k) // gates) if gates > 1 else most_rows(k)


def _sigmoid(k: Builder, x: Value) -> Value:
    return k.fma(tanh(k, x * 0.5), k.value(0.5, f32, x.lanes), k.value(0.5, f32, x.lanes))


def _sigmoid_parts(k: Builder, x: Value) -> tuple[Value, Value]:
    """Return numerator and denominator of the sigmoid."""
    above, below = tanh_parts(k, x * 0.5)
    return above + below, below + below


class _Layer:
    """The code of one kind of layer; items are samples.

    px      [N, T, groups * gates * lanes] projections with all biases but ``extra``
    out     [N, T, size]
    states  [N, 2, groups * lanes] the states of this step and the one before
    carry   [N, groups * lanes] an LSTM's cells
    """

    def __init__(
        self, k: Builder, kind: str, px: Pointer, w: Pointer, extra: Pointer, out: Pointer,
        states: Pointer, carry: Pointer, steps: Value, size: Value, reverse: Value,
    ) -> None:  # fmt: skip
        self.k, self.kind, self.gates = k, kind, GATES[kind]
        self.px, self.w, self.extra, self.out = px, w, extra, out
        self.states, self.carry = states, carry
        self.steps, self.size, self.reverse = steps, size, reverse
        self.groups = (size + (k.lanes - 1)) // k.lanes
        self.pitch = self.groups * k.lanes

    def write(self) -> None:
        """Write the code for all steps of samples, which are the items."""
        k = self.k
        self.clear()
        for step in k.range(self.steps):
            self.step(step, k.begin, k.end, k.value(0, i64), self.groups)

    def step(self, step: Value, first: Value, last: Value, begin: Value, end: Value) -> None:
        """Write the code for one step of some samples and groups of units."""
        k = self.k
        most = _most(k, self.gates)
        at = k.select(self.reverse.differs(0), self.steps - 1 - step, step)
        now = (step + 1) % 2
        for unit in k.range(begin, end):
            rows_in_turn(
                k, first, last, most, lambda row, n: self._tile(row, n, unit, at, now)
            )  # fmt: skip

    def clear(self) -> None:
        """Write the code that begins the states of samples, which are the items."""
        k = self.k
        zero = k.zeros(f32, k.lanes)
        for i in k.range(k.begin * self.pitch * 2, k.end * self.pitch * 2, k.lanes):
            self.states.store(zero, i)
        if self.kind == "lstm":
            for i in k.range(k.begin * self.pitch, k.end * self.pitch, k.lanes):
                self.carry.store(zero, i)

    def _tile(self, row: Value, count: int, unit: Value, at: Value, now: Value) -> None:
        """Write the code for some samples and one group of units."""
        k, lanes, gates = self.k, self.k.lanes, self.gates
        before = 1 - now
        old = [self.states.at(((row + r) * 2 + before) * self.pitch) for r in range(count)]
        new = [self.states.at(((row + r) * 2 + now) * self.pitch) for r in range(count)]
        width = self.pitch * gates
        given = [
            self.px.at(((row + r) * self.steps + at) * width + unit * (gates * lanes))
            for r in range(count)
        ]
        start = [[p.load(g * lanes, lanes) for g in range(gates)] for p in given]
        for place in given:
            for g in range(gates):
                place.prefetch((gates + g) * lanes)  # the next group, or the next step
        if self.kind == "gru":
            for line in start:
                line[2] = self.extra.load(unit * lanes, lanes)
        weights = self.w.at(unit * (gates * lanes) * self.size)
        sums = accumulate(k, old, [weights], gates, start, self.size)
        left = lesser_number(k, self.size - unit * lanes, k.value(lanes, i64))
        for r, line in enumerate(sums):
            state = self._state(row + r, unit, line, given[r], old[r])
            new[r].store(state, unit * lanes)
            place = self.out.at(((row + r) * self.steps + at) * self.size)
            place.store_some(state, left, unit * lanes)

    def _state(self, row: Value, unit: Value, line: Any, given: Pointer, old: Pointer) -> Value:
        k, lanes = self.k, self.k.lanes
        if self.kind == "rnn_tanh":
            return tanh(k, line[0])
        if self.kind == "rnn_relu":
            return k.select(line[0] < 0.0, k.zeros(f32, lanes), line[0])
        if self.kind == "gru":
            reset, update = _sigmoid(k, line[0]), _sigmoid(k, line[1])
            fresh = tanh(k, k.fma(reset, line[2], given.load(2 * lanes, lanes)))
            return k.fma(update, old.load(unit * lanes, lanes) - fresh, fresh)
        cell = self.carry.at(row * self.pitch + unit * lanes)
        # Quotients over one denominator: divisions are what takes time here.
        (i, below_i), (f, below_f), (o, below_o) = (_sigmoid_parts(k, line[g]) for g in (0, 1, 3))
        g, below_g = tanh_parts(k, line[2])
        added, below = i * g, below_i * below_g
        kept = f * cell.load(0, lanes)
        now = k.fma(kept, below, added * below_f) / (below_f * below)
        cell.store(now)
        squashed, below_now = tanh_parts(k, now)
        return o * squashed / (below_o * below_now)


def _kernel(kind: str) -> Kernel:
    def author(k: Builder, *given: Any) -> None:
        _Layer(k, kind, *given).write()

    return _whole[kind].kernel(_PARAMETERS, kind)(author)


def _project(kind: str) -> Kernel:
    gates = GATES[kind]

    def author(
        k: Builder, x: Pointer, w: Pointer, bias: Pointer, px: Pointer, depth: Value, groups: Value
    ) -> None:  # fmt: skip
        panel = gates * k.lanes
        for unit in k.range(groups):
            start = [bias.load(unit * panel + k.lanes * g, k.lanes) for g in range(gates)]

            def tile(row: Value, count: int, unit: Value = unit, start: Any = start) -> None:
                lines = [x.at((row + r) * depth) for r in range(count)]
                weights = w.at(unit * panel * depth)
                sums = accumulate(k, lines, [weights], gates, [start] * count, depth, ahead=False)
                for r, line in enumerate(sums):
                    place = px.at(((row + r) * groups + unit) * panel)
                    for g, value in enumerate(line):
                        place.store(value, g * k.lanes)

            rows_in_turn(k, k.begin, k.end, _most(k, gates), tile)

    parameters = "x:f32* w:f32* bias:f32* px:f32* depth:i64 groups:i64"
    return _whole[kind].kernel(parameters, f"{kind}_project")(author)


def _clear(kind: str) -> Kernel:
    def author(k: Builder, *given: Any) -> None:
        _Layer(k, kind, *given).clear()

    return _single[kind].kernel(_PARAMETERS, f"{kind}_clear")(author)


def _step(kind: str) -> Kernel:
    def author(k: Builder, *given: Any) -> None:
        *layer, step, rows = given
        _Layer(k, kind, *layer).step(step, k.value(0, i64), rows, k.begin, k.end)

    return _single[kind].kernel(f"{_PARAMETERS} step:i64 rows:i64", f"{kind}_step")(author)


LAYERS = {kind: _kernel(kind) for kind in GATES}
"""By the operation's name: all steps of samples."""
PROJECTS = {kind: _project(kind) for kind in GATES}
"""Projections of inputs [rows, depth] with packed weights; items are rows."""
CLEARS = {kind: _clear(kind) for kind in GATES}
"""The beginning of what ``STEPS`` go on with; items are samples."""
STEPS = {kind: _step(kind) for kind in GATES}
"""One step of so many samples; items are groups of units."""
