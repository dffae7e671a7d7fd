"""Borders that repeat what is there: mirrored, the last value again, or from the other end."""

from __future__ import annotations

from typing import Any

import numpy as np

from llmbol_core.errors import ShapeError
from llmbol_core.ml.ops.table import Array, Shape, axis_of, op, sample


def _register(name: str, mode: str, widest: int | None, summary: str) -> None:
    """Make a row: ``mode`` is NumPy's, ``widest`` is added to the length to give the limit."""

    def shape(x: Shape, axis: int, before: int, after: int) -> Shape:
        length = x[axis_of(name, x, axis)]
        limit = (1 << 62 if length else 0) if widest is None else max(length + widest, 0)
        if before < 0 or after < 0:
            raise ShapeError(name, "a border has no negative width")
        if max(before, after) > limit:
            why = f"borders of {before} and {after} are too wide for axis {axis} of {x}"
            raise ShapeError(name, why)
        place = axis % len(x)
        return (*x[:place], before + length + after, *x[place + 1 :])

    def sources(x: Array, axis: int, before: int, after: int) -> Array:
        """Return for each position of the result which of the input's it repeats."""
        return np.pad(np.arange(x.shape[axis]), (before, after), mode=mode)  # type: ignore[call-overload,no-any-return]  # the mode is one of NumPy's

    def run(x: Array, axis: int, before: int, after: int) -> Array:
        if not before and not after:
            return x.copy()
        place, length = axis % x.ndim, x.shape[axis]
        above: tuple[Any, ...] = (slice(None),) * place
        y = np.empty(shape(x.shape, axis, before, after), x.dtype)
        y[(*above, slice(before, before + length))] = x
        first = np.arange(before), np.arange(before + length, before + length + after)
        where = sources(x, axis, before, after)
        for places in first:
            y[(*above, places)] = x[(*above, where[places])]
        return y

    def gradient(g: Array, y: Array, x: Array, axis: int, before: int, after: int) -> tuple[Array]:
        along = np.zeros_like(x)
        where = sources(x, axis, before, after)
        np.add.at(along.swapaxes(0, axis), where, g.swapaxes(0, axis))
        return (along,)

    run.__doc__ = summary
    example = sample((2, 4, 3), axis=1, before=2, after=3)
    op(shape, lambda output, *shapes, **a: 0, example, gradient, name)(run)


_register("pad_reflect", "reflect", -1, "Add borders that mirror the values along an axis.")
_register("pad_replicate", "edge", None, "Add borders that repeat the outermost value of an axis.")
_register("pad_circular", "wrap", 0, "Add borders that continue from the other end of an axis.")
