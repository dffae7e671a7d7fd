"""LSTM layers as a stage of training in machine code.

Inside the steps lie first, [T, N, ...]: a step's states are one block. Gates of all steps come from
one product with the inputs; then step by step the hidden state's share is added.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.kernels import gradients, layouts, recurrence
from llmbol_core.nn.flows import Flow, room
from llmbol_core.nn.layers.recurrent import LSTM
from llmbol_core.nn.stages import (
    NO_LIMIT,
    Stage,
    limit_gradient,
    padded,
    scratch_for,
)

Array = NDArray[Any]

_NOTHING = np.zeros(16, np.float32)


class _Sequence:
    """Rows of a sequence: where step 0 of sample 0 is, and the numbers to the next of each."""

    def __init__(self, array: Array, step: int, sample: int, width: int) -> None:
        self.array, self.step, self.sample, self.width = array, step, sample, width

    def at(self, step: int) -> Array:
        """Return the rows of a step."""
        return self.array[step * self.step :]

    def columns(self, start: int) -> _Sequence:
        """Return the same rows from a column on."""
        return _Sequence(self.array[start:], self.step, self.sample, self.width - start)


class RecurrentStage(Stage):
    """An LSTM of any number of layers, in one direction or both."""

    def __init__(self, layer: LSTM, source: Flow, result: Flow, batch: int) -> None:
        super().__init__()
        self.layer, self.batch, self.steps = layer, batch, source.shape[0]
        self.size = layer.hidden_size
        self.backs: list[Any] = []
        width = source.shape[1]
        x = _Sequence(source.value, width, self.steps * width, width)
        dx = None
        if source.gradient is not None:
            dx = _Sequence(source.gradient, width, self.steps * width, width)
        ways = ("", "_reverse") if layer.bidirectional else ("",)
        wide = self.size * len(ways)
        for number in range(layer.num_layers):
            hidden = self._sequence(wide)
            along = self._sequence(wide)
            for way, suffix in enumerate(ways):
                parts = (hidden.columns(way * self.size), along.columns(way * self.size))
                self._direction(x, dx, *parts, f"_l{number}{suffix}", way)
            x, dx = hidden, along
        self._finish(x, dx, result, len(ways))
        for list_ in reversed(self.backs):
            self.backward += list_
        if source.limited and source.gradient is not None:
            limit_gradient(self, source)

    def _sequence(self, width: int) -> _Sequence:
        """Return room for a sequence, steps first."""
        array = room(self.steps * self.batch * width)
        return _Sequence(array, self.batch * width, width, width)

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

    def _direction(
        self, x: _Sequence, dx: _Sequence | None, hidden: _Sequence, along: _Sequence, suffix: str,
        way: int,
    ) -> None:  # fmt: skip
        """Append one layer in one direction."""
        n, size, four = self.batch, self.size, 4 * self.size
        w_ih, w_hh = (self.layer.params[f"weight_{kind}{suffix}"] for kind in ("ih", "hh"))
        gates, cell, bent = (self._sequence(w) for w in (four, size, size))
        bias = padded(four)
        if self.layer.bias:
            self._add_biases(suffix, bias)
        scratch, share = scratch_for(x.width)
        self.add_panels(
            self.forward, gradients.ROWS_PRODUCT[False], four,
            x.array, x.step, 0, x.sample, 0, w_ih, 1, x.width, gates.array, gates.step, 0, four,
            bias, self.steps, 1, n, 1, x.width, four, NO_LIMIT, _NOTHING, scratch, share,
        )  # fmt: skip
        panels = room(-(-four // (2 * self._lanes)) * 2 * self._lanes * size)
        self.add_panels(self.forward, gradients.pack, four, w_hh, 1, size, size, four, panels)
        order = list(range(self.steps))[:: -1 if way else 1]
        zeros = room(n * size)
        for place, t in enumerate(order):
            before = zeros
            if place:
                back = order[place - 1]
                before = cell.at(back)
                self._add_product(self.forward, hidden.at(back), hidden.sample, size, panels,
                                  gates.at(t), four, four)  # fmt: skip
            given = (gates.at(t), before, cell.at(t), bent.at(t), hidden.at(t), hidden.sample, size)
            self.add(self.forward, recurrence.lstm, n, *given)
        self.backs.append(
            self._back(x, dx, hidden, along, (gates, cell, bent), (w_ih, w_hh), suffix, order)
        )

    def _add_biases(self, suffix: str, bias: Array) -> None:
        """Append the sum of both biases."""
        from llmbol_core.ml.kernels import elementwise

        params, size = self.layer.params, 4 * self.size
        pair = (params[f"bias_ih{suffix}"], params[f"bias_hh{suffix}"])
        self.add(self.forward, elementwise.PAIR_KERNELS["add"], 1, *pair, bias, size)

    def _add_product(
        self, where: list[Any], a: Array, a_row: int, depth: int, panels: Array, c: Array,
        c_row: int, columns: int,
    ) -> None:  # fmt: skip
        """Append C += A B for the rows of a batch and packed B."""
        self.add_panels(
            where, gradients.rows_product_added, columns,
            a, 0, 0, a_row, 0, panels, 0, 0, c, 0, 0, c_row, panels,
            1, 1, self.batch, 1, depth, columns, NO_LIMIT, _NOTHING, panels, 0,
        )  # fmt: skip

    def _back(
        self, x: _Sequence, dx: _Sequence | None, hidden: _Sequence, along: _Sequence,
        kept: tuple[_Sequence, _Sequence, _Sequence], weights: tuple[Array, Array], suffix: str,
        order: list[int],
    ) -> list[Any]:  # fmt: skip
        """Return the way back through one direction."""
        n, size, four = self.batch, self.size, 4 * self.size
        gates, cell, bent = kept
        w_ih, w_hh = weights
        back: list[Any] = []
        panels = room(-(-size // (2 * self._lanes)) * 2 * self._lanes * four)
        self.add_panels(back, gradients.pack, size, w_hh, size, 1, four, size, panels)
        carried, zeros = room(n * size), room(n * size)
        for place in range(self.steps - 1, -1, -1):
            t = order[place]
            before = cell.at(order[place - 1]) if place else zeros
            fresh = int(place == self.steps - 1)
            given = (gates.at(t), before, bent.at(t), along.at(t), along.sample, carried, size)
            self.add(back, recurrence.lstm_gradient, n, *given, fresh)
            if place:
                to = along.at(order[place - 1])
                self._add_product(back, gates.at(t), four, four, panels, to, along.sample, size)
        self._back_weights(back, x, hidden, gates, suffix, order)
        if dx is not None:
            self._back_source(back, dx, gates, w_ih, order)
        return back

    def _back_weights(
        self, back: list[Any], x: _Sequence, hidden: _Sequence, gates: _Sequence, suffix: str,
        order: list[int],
    ) -> None:  # fmt: skip
        """Append the gradients of weights and biases."""
        n, size, four, grads = self.batch, self.size, 4 * self.size, self.layer.grads
        first = grads[f"bias_ih{suffix}"] if self.layer.bias else None
        self.add_outer(
            back, (gates.array, gates.step, 0, four), (x.array, x.step, 0, x.sample, 0),
            (grads[f"weight_ih{suffix}"], x.width), (self.steps, 1, n), (1, x.width, four), first,
        )  # fmt: skip
        forward = order[0] == 0
        later, earlier = (gates.at(1), hidden.at(0)) if forward else (gates.at(0), hidden.at(1))
        if self.steps > 1:
            self.add_outer(
                back, (later, gates.step, 0, four), (earlier, hidden.step, 0, hidden.sample, 0),
                (grads[f"weight_hh{suffix}"], size), (self.steps - 1, 1, n), (1, size, four), None,
            )  # fmt: skip
        else:
            to = grads[f"weight_hh{suffix}"]
            self.add(back, layouts.copy, 1, room(to.size), to, to.size)
        if first is not None:
            self.add(back, layouts.copy, 1, first, grads[f"bias_hh{suffix}"], four)

    def _back_source(
        self, back: list[Any], dx: _Sequence, gates: _Sequence, w_ih: Array, order: list[int]
    ) -> None:
        """Append the gradient of the inputs; a second direction adds its own."""
        four = 4 * self.size
        shared = (gates.array, gates.step, 0, four, 0)
        to = (dx.array, dx.step, 0, dx.sample)
        sizes = (self.steps, 1, self.batch, 1, four, dx.width, NO_LIMIT, _NOTHING)
        # Directions go back the last one first: that one writes, the first one adds.
        if order[0] != 0 or not self.layer.bidirectional:
            scratch, share = scratch_for(four)
            given = (*shared, w_ih, dx.width, 1, *to, padded(dx.width), *sizes, scratch, share)
            self.add_panels(back, gradients.ROWS_PRODUCT[False], dx.width, *given)
            return
        panels = room(-(-dx.width // (2 * self._lanes)) * 2 * self._lanes * four)
        self.add_panels(back, gradients.pack, dx.width, w_ih, dx.width, 1, four, dx.width, panels)
        given = (*shared, panels, 0, 0, *to, panels, *sizes, panels, 0)
        self.add_panels(back, gradients.rows_product_added, dx.width, *given)
