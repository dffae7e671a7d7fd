"""Recurrent layers as a stage of training in machine code.

Inside the steps lie first, [T, N, ...]: a step's states are one block. The inputs' share of the
gates of all steps comes from one product; then step by step the states' share is added. Before the
first step and after the last one the states are zero.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.kernels import elementwise, gradients, layouts, recurrence, training
from llmbol_core.nn.flows import Flow, room
from llmbol_core.nn.layers.dropout import draw_kept
from llmbol_core.nn.layers.recurrent import GRU, LSTM, RNN, Recurrent
from llmbol_core.nn.stages import NO_LIMIT, NOTHING, Stage, limit_gradient, padded

Array = NDArray[Any]


class _Sequence:
    """Rows of a sequence: where step 0 of sample 0 is, and the numbers to the next of each."""

    def __init__(self, base: Array, start: int, step: int, sample: int, width: int) -> None:
        self._base, self._start = base, start
        self.step, self.sample, self.width = step, sample, width

    @property
    def array(self) -> Array:
        """The rows from step 0 on."""
        return self._base[self._start :]

    def at(self, step: int) -> Array:
        """Return the rows of a step, which may be the one before the first."""
        return self._base[self._start + step * self.step :]

    def columns(self, start: int) -> _Sequence:
        """Return the same rows from a column on."""
        place, width = self._start + start, self.width - start
        return _Sequence(self._base, place, self.step, self.sample, width)


class RecurrentStage(Stage):
    """A recurrent layer of any depth, in one direction or both."""

    def __init__(self, layer: Recurrent, source: Flow, result: Flow, batch: int) -> None:
        super().__init__()
        self.layer, self.batch, self.steps = layer, batch, source.shape[0]
        self.size = layer.hidden_size
        self.backs: list[Any] = []
        self._masks: list[Array] = []
        width = source.shape[1]
        x = _Sequence(source.value, 0, width, self.steps * width, width)
        dx = None
        if source.gradient is not None:
            dx = _Sequence(source.gradient, 0, width, self.steps * width, width)
        ways = ("", "_reverse") if layer.bidirectional else ("",)
        wide = self.size * len(ways)
        for number in range(layer.num_layers):
            hidden = self.sequence(wide)
            along = self.sequence(wide)
            for way, suffix in enumerate(ways):
                parts = (hidden.columns(way * self.size), along.columns(way * self.size))
                made = _DIRECTIONS[type(layer)](self, x, *parts, f"_l{number}{suffix}", bool(way))
                made.go_forward()
                self.backs.append(made.way_back(dx))
            x, dx = hidden, along
            if layer.dropout and number < layer.num_layers - 1:
                x, dx = self._dropped(hidden, along)
        self._finish(x, dx, result, len(ways))
        for list_ in reversed(self.backs):
            self.backward += list_
        if source.limited and source.gradient is not None:
            limit_gradient(self, source)

    def begin(self) -> None:
        """Draw the masks between layers, in their order."""
        for mask in self._masks:
            wide = len(mask) // (self.batch * self.steps)
            shape = (self.batch, self.steps, wide)
            drawn = draw_kept(self.layer._stream, shape, self.layer.dropout, np.float32)
            mask.reshape(self.steps, self.batch, wide)[...] = drawn.swapaxes(0, 1)

    def _dropped(self, hidden: _Sequence, along: _Sequence) -> tuple[_Sequence, _Sequence]:
        """Append dropout of states, and of their gradients; return the states after it."""
        rows, wide = self.steps * self.batch, hidden.width
        x, dx, mask = self.sequence(wide), self.sequence(wide), room(rows * wide)
        self._masks.append(mask)
        sizes, back = (wide, wide, wide, wide, 0), list[Any]()
        self.add(self.forward, training.masked, rows, hidden.array, mask, x.array, *sizes)
        self.add(back, training.masked, rows, dx.array, mask, along.array, *sizes)
        self.backs.append(back)
        return x, dx

    def sequence(self, width: int) -> _Sequence:
        """Return room for a sequence, steps first, with zeros around it."""
        step = self.batch * width
        return _Sequence(room((self.steps + 2) * step), step, step, width, width)

    def _finish(self, hidden: _Sequence, along: Any, result: Flow, ways: int) -> None:
        """Append the copies of the last layer's states and gradients to where others want them."""
        size, last = self.size, self.steps - 1
        back: list[Any] = []
        inner = (hidden.sample, hidden.step)
        if self.layer.sequence:
            outer = (self.steps * hidden.width, hidden.width)
            whole = (self.steps, hidden.width)
            there = (hidden.array, *inner, result.value, *outer, *whole)
            self.add(self.forward, recurrence.copy_rows, self.batch, *there)
            self.add(back, recurrence.copy_rows, self.batch, result.gradient, *outer,
                     along.array, *inner, *whole)  # fmt: skip
        else:
            zeros = room(along.step)
            for step in range(self.steps):
                self.add(back, layouts.copy, 1, zeros, along.at(step), along.step)
            for way in range(ways):
                at = (last, 0)[way]
                place, to = hidden.at(at)[way * size :], along.at(at)[way * size :]
                outer = (size * ways, 0)
                given = (place, hidden.sample, 0, result.value[way * size :], *outer, 1, size)
                self.add(self.forward, recurrence.copy_rows, self.batch, *given)
                assert result.gradient is not None
                given = (result.gradient[way * size :], *outer, to, hidden.sample, 0, 1, size)
                self.add(back, recurrence.copy_rows, self.batch, *given)
        self.backs.append(back)


class _Direction(ABC):
    """One layer in one direction. A step's row has blocks, each as wide as the states.

    ``inputs`` are gates from one to another and the block where their share begins; ``states`` is
    the block where the states' share of all gates begins; biases of ``shared`` gates are added up.
    """

    blocks: ClassVar[int]
    gates: ClassVar[int]
    shared: ClassVar[int]
    inputs: ClassVar[tuple[tuple[int, int, int], ...]]
    states: ClassVar[int] = 0

    def __init__(
        self, stage: RecurrentStage, x: _Sequence, hidden: _Sequence, along: _Sequence,
        suffix: str, reverse: bool,
    ) -> None:  # fmt: skip
        self.stage, self.x, self.hidden, self.along = stage, x, hidden, along
        self.suffix, self.reverse = suffix, reverse
        self.size, self.batch, self.steps = stage.size, stage.batch, stage.steps
        layer = stage.layer
        self.w_ih, self.w_hh = (layer.params[f"weight_{k}{suffix}"] for k in ("ih", "hh"))
        self.row = self.blocks * self.size
        self.rows = stage.sequence(self.row)
        self.bias = padded(self.gates * self.size)
        self.carried = room(self.batch * self.size)
        self.order = list(range(self.steps))[:: -1 if reverse else 1]

    @property
    def before(self) -> int:
        """How many steps away the step is that comes before."""
        return 1 if self.reverse else -1

    @abstractmethod
    def step(self, t: int) -> None:
        """Append what makes gates and states of a step."""

    @abstractmethod
    def step_back(self, back: list[Any], t: int, fresh: bool) -> None:
        """Append what makes the gradients of what went into the gates of a step."""

    # ---- forward ----

    def go_forward(self) -> None:
        """Append the way through all steps."""
        stage, size, depth = self.stage, self.size, self.x.width
        if stage.layer.bias:
            self.add_biases()
        scratch, share = stage.scratch_for(depth)
        for first, last, block in self.inputs:
            columns = (last - first) * size
            stage.add_panels(
                stage.forward, gradients.ROWS_PRODUCT[False], columns,
                self.x.array, self.x.step, 0, self.x.sample, 0, self.w_ih[first * size :], 1,
                depth, self.rows.at(0)[block * size :], self.rows.step, 0, self.row,
                self.bias[first * size :], self.steps, 1, self.batch, 1, depth, columns,
                NO_LIMIT, NOTHING, scratch, share,
            )  # fmt: skip
        columns = self.gates * size
        panels = room(-(-columns // (2 * stage._lanes)) * 2 * stage._lanes * size)
        given = (self.w_hh, 1, size, size, columns, panels)
        stage.add_panels(stage.forward, gradients.pack, columns, *given)
        for place, t in enumerate(self.order):
            if place:
                self.add_product(
                    stage.forward, self.hidden.at(t + self.before), self.hidden.sample, size,
                    panels, self.rows.at(t)[self.states * size :], self.row, columns,
                )  # fmt: skip
            self.step(t)

    def add_biases(self) -> None:
        """Append the sums of both biases of gates that share them."""
        stage, count = self.stage, self.shared * self.size
        pair = [stage.layer.params[f"bias_{kind}{self.suffix}"] for kind in ("ih", "hh")]
        add = elementwise.PAIR_KERNELS["add"]
        stage.add(stage.forward, add, 1, *pair, self.bias, count)

    def add_product(
        self, where: list[Any], a: Array, a_row: int, depth: int, panels: Array, c: Array,
        c_row: int, columns: int,
    ) -> None:  # fmt: skip
        """Append C += A B for the rows of a batch and packed B."""
        self.stage.add_panels(
            where, gradients.rows_product_added, columns,
            a, 0, 0, a_row, 0, panels, 0, 0, c, 0, 0, c_row, panels,
            1, 1, self.batch, 1, depth, columns, NO_LIMIT, NOTHING, panels, 0,
        )  # fmt: skip

    # ---- backward ----

    def way_back(self, dx: _Sequence | None) -> list[Any]:
        """Return the way back through all steps, to the source if its gradient is wanted."""
        stage, size, depth = self.stage, self.size, self.gates * self.size
        back: list[Any] = []
        panels = room(-(-size // (2 * stage._lanes)) * 2 * stage._lanes * depth)
        stage.add_panels(back, gradients.pack, size, self.w_hh, size, 1, depth, size, panels)
        for place in range(self.steps - 1, -1, -1):
            t = self.order[place]
            self.step_back(back, t, place == self.steps - 1)
            if place:
                self.add_product(
                    back, self.rows.at(t)[self.states * size :], self.row, depth, panels,
                    self.along.at(t + self.before), self.along.sample, size,
                )  # fmt: skip
        self._weights_back(back)
        if dx is not None:
            self._source_back(back, dx)
        return back

    def _weights_back(self, back: list[Any]) -> None:
        """Append the gradients of weights and biases."""
        stage, size, grads = self.stage, self.size, self.stage.layer.grads
        x, hidden, whole = self.x, self.hidden, (self.steps, 1, self.batch)
        biases: list[Any] = [None, None]
        if stage.layer.bias:
            biases = [grads[f"bias_{kind}{self.suffix}"] for kind in ("ih", "hh")]
        w_ih, w_hh = (grads[f"weight_{kind}{self.suffix}"] for kind in ("ih", "hh"))
        for first, last, block in self.inputs:
            sums = None if biases[0] is None else biases[0][first * size :]
            stage.add_outer(
                back, (self.rows.at(0)[block * size :], self.rows.step, 0, self.row),
                (x.array, x.step, 0, x.sample, 0), (w_ih[first * size :], x.width), whole,
                (1, x.width, (last - first) * size), sums,
            )  # fmt: skip
        stage.add_outer(
            back, (self.rows.at(0)[self.states * size :], self.rows.step, 0, self.row),
            (hidden.at(self.before), hidden.step, 0, hidden.sample, 0), (w_hh, size), whole,
            (1, size, self.gates * size), biases[1],
        )  # fmt: skip

    def _source_back(self, back: list[Any], dx: _Sequence) -> None:
        """Append the gradient of the inputs; a second direction adds its own."""
        stage, size, columns = self.stage, self.size, dx.width
        # Directions go back the last one first: that one writes, the first one adds.
        adds = not self.reverse and stage.layer.bidirectional
        for first, last, block in self.inputs:
            depth, weight = (last - first) * size, self.w_ih[first * size :]
            shared = (self.rows.at(0)[block * size :], self.rows.step, 0, self.row, 0)
            to = (dx.array, dx.step, 0, dx.sample)
            sizes = (self.steps, 1, self.batch, 1, depth, columns, NO_LIMIT, NOTHING)
            if adds:
                panels = room(-(-columns // (2 * stage._lanes)) * 2 * stage._lanes * depth)
                matrix = (weight, columns, 1, depth, columns, panels)
                stage.add_panels(back, gradients.pack, columns, *matrix)
                more = (*shared, panels, 0, 0, *to, panels, *sizes, panels, 0)
                stage.add_panels(back, gradients.rows_product_added, columns, *more)
            else:
                scratch, share = stage.scratch_for(depth)
                more = (*shared, weight, columns, 1, *to, padded(columns), *sizes, scratch, share)
                stage.add_panels(back, gradients.ROWS_PRODUCT[False], columns, *more)
            adds = True


class _LstmDirection(_Direction):
    """Blocks input, forget, cell, output."""

    blocks = gates = shared = 4
    inputs = ((0, 4, 0),)

    def __init__(self, stage: RecurrentStage, *given: Any) -> None:
        super().__init__(stage, *given)
        self.cell, self.bent = stage.sequence(self.size), stage.sequence(self.size)

    def step(self, t: int) -> None:
        """Append the cell, its tanh and the state."""
        made = (self.cell.at(t), self.bent.at(t), self.hidden.at(t), self.hidden.sample, self.size)
        given = (self.rows.at(t), self.cell.at(t + self.before), *made)
        self.stage.add(self.stage.forward, recurrence.lstm, self.batch, *given)

    def step_back(self, back: list[Any], t: int, fresh: bool) -> None:
        """Append the gradients, that of the cell carried on."""
        values = (self.rows.at(t), self.cell.at(t + self.before), self.bent.at(t))
        given = (self.along.at(t), self.along.sample, self.carried, self.size, int(fresh))
        self.stage.add(back, recurrence.lstm_gradient, self.batch, *values, *given)


class _GruDirection(_Direction):
    """Blocks new of the inputs, reset, update, new of the states."""

    blocks, gates, shared = 4, 3, 2
    inputs = ((0, 2, 1), (2, 3, 0))
    states = 1

    def go_forward(self) -> None:
        """Begin the last block with its bias."""
        stage, size = self.stage, self.size
        self.own = padded(size)
        if stage.layer.bias:
            bias = stage.layer.params[f"bias_hh{self.suffix}"]
            stage.add(stage.forward, layouts.copy, 1, bias[2 * size :], self.own, size)
        stage.add_panels(
            stage.forward, gradients.ROWS_PRODUCT[False], size,
            NOTHING, 0, 0, 0, 0, NOTHING, 0, 1, self.rows.at(0)[3 * size :], self.rows.step, 0,
            self.row, self.own, self.steps, 1, self.batch, 1, 0, size, NO_LIMIT, NOTHING, NOTHING,
            0,
        )  # fmt: skip
        super().go_forward()

    def add_biases(self) -> None:
        """Append the sums, and the inputs' own bias of the third gate."""
        super().add_biases()
        stage, start = self.stage, 2 * self.size
        bias = stage.layer.params[f"bias_ih{self.suffix}"]
        stage.add(stage.forward, layouts.copy, 1, bias[start:], self.bias[start:], self.size)

    def step(self, t: int) -> None:
        """Append the state."""
        old, row = self.hidden.at(t + self.before), self.hidden.sample
        given = (self.rows.at(t), old, self.hidden.at(t), row, self.size)
        self.stage.add(self.stage.forward, recurrence.gru, self.batch, *given)

    def step_back(self, back: list[Any], t: int, fresh: bool) -> None:
        """Append the gradients, what goes past the gates carried on."""
        old, row = self.hidden.at(t + self.before), self.hidden.sample
        given = (self.along.at(t), self.carried, row, self.size, int(fresh))
        self.stage.add(back, recurrence.gru_gradient, self.batch, self.rows.at(t), old, *given)


class _PlainDirection(_Direction):
    """One block: the states."""

    blocks = gates = shared = 1
    inputs = ((0, 1, 0),)

    def step(self, t: int) -> None:
        """Append the state."""
        given = (self.rows.at(t), self.hidden.at(t), self.hidden.sample, self.size)
        self.stage.add(self.stage.forward, recurrence.PLAIN[self._kind], self.batch, *given)

    def step_back(self, back: list[Any], t: int, fresh: bool) -> None:
        """Append the gradient."""
        given = (self.rows.at(t), self.along.at(t), self.along.sample, self.size)
        self.stage.add(back, recurrence.PLAIN_GRADIENTS[self._kind], self.batch, *given)

    @property
    def _kind(self) -> str:
        return self.stage.layer.operation()


_DIRECTIONS: dict[type, type[_Direction]] = {
    LSTM: _LstmDirection,
    GRU: _GruDirection,
    RNN: _PlainDirection,
}
"""By the layer's class."""
