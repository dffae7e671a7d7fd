"""What an ONNX graph does, written down as steps of the operation table.

Importers get operands and emit steps. The batch has no fixed size, yet ONNX computes with sizes: so
the graph is followed with a batch of a prime that divides no other size in it. Whatever is a
multiple of the prime then grows with the batch, and nothing else does. A file made for one size of
batch has that written all over it: where a shape or a constant says so the batch takes its place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from llmbol_core.errors import DtypeError, ShapeError
from llmbol_core.ml.dtypes import I32
from llmbol_core.ml.ops import OPS
from llmbol_core.nn.onnx.batches import Batches
from llmbol_core.nn.onnx.operands import Array, Constant, Operand, Shape, Traced, Unsupported

_BROADCASTING = frozenset(
    [
        *("add", "sub", "mul", "div", "power", "maximum", "minimum", "where"),
        *("equal", "less", "less_equal", "greater", "greater_equal"),
    ]
)
"""Operations whose operands are brought to one shape."""


@dataclass(frozen=True)
class TracedStep:
    """One operation, by the names of values and weights."""

    op: str
    inputs: tuple[str, ...]
    attributes: dict[str, Any]
    output: str


@dataclass
class Weight:
    """A tensor that steps use."""

    array: Array
    trained: bool


@dataclass
class Tracer(Batches):
    """The steps so far, the weights that they use, and what is known of each value."""

    steps: list[TracedStep] = field(default_factory=list)
    weights: dict[str, Weight] = field(default_factory=dict)
    values: dict[str, Traced] = field(default_factory=dict)
    hint: str = ""
    """What the next values are called after."""

    # Emitting.

    def op(self, op: str, *operands: Operand, whole: bool = False, **attributes: Any) -> Traced:
        """Append an operation and return its result."""
        row = OPS[op]
        operands = tuple(
            self.indices(x) if name.rstrip("?") in row.indices else self.numbers(x)
            for name, x in zip(row.inputs, operands, strict=False)
        )
        if op in _BROADCASTING:
            operands = tuple(self._beside(x, operands) for x in operands)
        inputs = tuple(self._input(operand) for operand in operands)
        full = row.conform(attributes)
        shapes = [self._shape_of(name) for name in inputs]
        absent = [None] * (len(row.inputs) - len(shapes))
        try:
            shape = row.shape(*shapes, *absent, **full)
        except (ShapeError, DtypeError) as error:
            raise Unsupported(str(error)) from error
        outer = self._outer(operands, shape)
        value = Traced(self._fresh(self.hint or op), shape, whole, row.dtype is I32, outer)
        self.steps.append(TracedStep(op, inputs, full, value.name))
        self.values[value.name] = value
        return value

    def _outer(self, operands: Sequence[Operand], shape: Shape) -> int:
        """Return how the batch lies in its axis: as in the operand with an axis of that size."""
        size = next((n for n in shape if self.is_batched(n)), 0)
        alike = (x.outer for x in operands if isinstance(x, Traced) and size in x.shape)
        return next(alike, 1)

    def indices(self, x: Operand) -> Operand:
        """Return whole numbers as I32."""
        if isinstance(x, Traced) and not x.is_index:
            return self.op("to_indices", x)
        return x

    def numbers(self, x: Operand) -> Operand:
        """Return I32 as float32."""
        if isinstance(x, Traced) and x.is_index:
            return self.op("to_numbers", x, whole=True)
        return x

    def input(self, name: str, shape: Shape, whole: bool) -> Traced:
        """Declare an input of the graph."""
        value = Traced(self._fresh(name), shape, whole)
        self.values[value.name] = value
        return value

    def _input(self, operand: Operand) -> str:
        return operand.name if isinstance(operand, Traced) else self._held(operand)

    def _shape_of(self, name: str) -> Shape:
        return self.weights[name].array.shape if name in self.weights else self.values[name].shape

    def _held(self, constant: Constant) -> str:
        """Return the name of the weight that holds a constant, one for equal constants."""
        array = np.asarray(self.unbatched(constant).array)
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(array, np.float32).reshape(array.shape or (1,))
        trained = bool(constant.name) and not constant.whole
        base = constant.name or "constant"
        for name, weight in self.weights.items():
            is_same = name == base or name.startswith(f"{base}_") or not constant.name
            is_same &= weight.array.shape == array.shape and weight.trained == trained
            if is_same and np.array_equal(weight.array, array, equal_nan=True):
                return name
        name = self._fresh(base)
        self.weights[name] = Weight(array, trained)
        return name

    def _fresh(self, wanted: str) -> str:
        """Return a name that nothing has, printable and as wanted as can be."""
        base = "".join(c if c.isprintable() else "_" for c in wanted).strip("/") or "value"
        name, number = base, 1
        while name in self.values or name in self.weights:
            number += 1
            name = f"{base}_{number}"
        return name

    # What many importers emit.

    def reshape(self, x: Traced, target: Sequence[int]) -> Traced:
        """Reshape to sizes of which one may be -1; sizes of a batch of 1 are made to fit N."""
        wanted = self._of_one(x, list(target))
        if not any(self.is_batched(n) for n in wanted):
            if (moved := self._moved_batch(x, wanted)) is not None:
                return moved
            wanted = self._with_batch(x, wanted)
        elif -1 in wanted:
            rest = math.prod(n for n in wanted if n != -1)
            wanted[wanted.index(-1)] = math.prod(x.shape) // max(rest, 1)
        if math.prod(wanted) != math.prod(x.shape):
            raise Unsupported(f"{self.shown(x.shape)} does not fit into {self.shown(wanted)}")
        if tuple(wanted) == x.shape:
            return x
        sizes = []
        for i, n in enumerate(wanted):
            keeps = self.is_batched(n) and i < len(x.shape) and x.shape[i] == n
            sizes.append(0 if keeps else -1 if self.is_batched(n) else n)
        if sizes.count(-1) > 1:
            raise Unsupported("it spreads the batch over several axes")
        value = self.op("reshape", x, shape=tuple(sizes), whole=x.whole)
        axis = self.batch_axis(value)
        if axis is not None:
            value = replace(value, outer=max(self._before(x) // math.prod(wanted[:axis]), 1))
            self.values[value.name] = value
        return value

    def _moved_batch(self, x: Traced, wanted: list[int]) -> Traced | None:
        """Return x with the batch on another axis, where a file made for a batch of 1 says so.

        An exporter may write the exchange of an axis with one of length 1 as a reshape.
        """
        axis = self.batch_axis(x)
        if axis is None or x.shape[axis] != self.prime or len(wanted) != len(x.shape):
            return None
        order = [i for i in range(len(x.shape)) if i != axis]
        rest = [x.shape[i] for i in order]
        places = [
            i for i, n in enumerate(wanted) if n == 1 and wanted[:i] + wanted[i + 1 :] == rest
        ]
        if not places:
            return None
        place = axis if axis in places else places[0]
        return self.permute(x, [*order[:place], axis, *order[place:]])

    def permute(self, x: Traced, axes: Sequence[int]) -> Traced:
        """Put the axes into another order."""
        if tuple(axes) == tuple(range(len(x.shape))):
            return x
        return self.op("permute", x, axes=tuple(axes), whole=x.whole)

    def squeeze(self, x: Traced, axis: int) -> Traced:
        """Drop an axis of length 1."""
        if x.shape[axis] != 1:
            size = self.shown(x.shape[axis : axis + 1])
            raise Unsupported(f"axis {axis} has the length {size}, not 1")
        return self.op("squeeze", x, axis=axis, whole=x.whole)

    def part(self, x: Traced, axis: int, start: int, stop: int, step: int = 1) -> Traced:
        """Take positions along an axis."""
        if (start, stop, step) == (0, x.shape[axis], 1):
            return x
        self.check_axis(x, axis, "it cuts")
        where = {"axis": axis, "start": start, "stop": stop, "step": step}
        return self.op("slice", x, **where, whole=x.whole)

    def take(self, x: Traced, axis: int, places: Sequence[int]) -> Traced:
        """Take any positions along an axis, in any order and as often as wanted."""
        axis = self.check_axis(x, axis, "it picks from")
        steps = set(np.diff(places).tolist()) if len(places) > 1 else {1}
        if len(steps) == 1 and (step := steps.pop()) > 0:
            return self.part(x, axis, places[0], places[-1] + 1, step)
        chosen = np.zeros((len(places), x.shape[axis]), np.int8)
        chosen[np.arange(len(places)), places] = 1
        order = [i for i in range(len(x.shape)) if i != axis] + [axis]
        picked = self.op("linear", self.permute(x, order), Constant(chosen), whole=x.whole)
        return self.permute(picked, np.argsort(order).tolist())

    def pad(self, x: Traced, widths: Sequence[tuple[int, int]], value: float = 0.0) -> Traced:
        """Add borders of a value; negative widths cut."""
        for axis, (before, after) in enumerate(widths):
            if before or after:
                self.check_axis(x, axis, "it pads")
                x = self.part(x, axis, max(-before, 0), x.shape[axis] - max(-after, 0))
                sides = {"before": max(before, 0), "after": max(after, 0)}
                if any(sides.values()):
                    x = self.op("pad", x, axis=axis, **sides, value=value, whole=x.whole)
        return x

    def repeated(self, constant: Constant, like: Traced) -> Traced:
        """Return a constant repeated for each sample of a batch, along the batch's axis."""
        axis = self.batch_axis(like)
        if axis is None:
            raise Unsupported("nothing in it grows with the batch")
        one = like
        for other in range(len(like.shape)):
            if other != axis:
                one = self.part(one, other, 0, 1)
        return self.op("where", self.op("equal", one, one), constant, constant)

    def chain(self, function: str, operands: Sequence[Operand], **attributes: Any) -> Operand:
        """Combine any number of operands by an operation that takes two."""
        combined = operands[0]
        for operand in operands[1:]:
            whole = combined.whole and operand.whole
            combined = self.op(function, combined, operand, whole=whole, **attributes)
        return combined
