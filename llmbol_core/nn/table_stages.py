"""Stages between the paths of a network: where a value goes several ways, and where ways meet.

    fork       one value for several layers; their gradients are added up
    slices     those of a value along an axis          joined     parts along an axis, as one value
    combined   the sum or the product of two values    shared     one layer for several values

Values are vectors or channels that lie together; each is read and written where it is.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from llmbol_core.ml.kernels.elementwise import PAIR_KERNELS
from llmbol_core.nn.flows import Flow, room
from llmbol_core.nn.module import Module
from llmbol_core.nn.stages import (
    NO_LIMIT,
    Place,
    Sizes,
    Stage,
    add_strided,
    gradient_of,
    limit_gradient,
    sizes_of,
    value_of,
)


class ReluStage(Stage):
    """A ReLU that stands alone: who takes its result makes the gradient that before it."""

    def __init__(self, source: Flow, result: Flow) -> None:
        super().__init__()
        sizes = sizes_of(source)
        add_strided(self.forward, "copy", sizes, value_of(source), value_of(result), low=0.0)
        if source.gradient is not None:
            _pass_gradient(self, sizes, gradient_of(result), source)


class ForkStage(Stage):
    """One value for several ways; their gradients are added up when all are there."""

    def __init__(self, source: Flow, count: int) -> None:
        super().__init__()
        self.source = source
        needs, size = source.gradient is not None, source.gradient_grid.size
        self.ways = [
            replace(source, gradient=room(size) if needs else None, limited=False)
            for _ in range(count)
        ]
        for way in self.ways:
            way.is_free = needs

    def finish(self) -> None:
        """Append the sum of the gradients, which are all known now."""
        source = self.source
        if source.gradient is None:
            return
        sizes, to = sizes_of(source), gradient_of(source)
        total, *others = map(gradient_of, self.ways)
        for other in others[:-1]:
            add_strided(self.backward, "add", sizes, total, other, to)
            total = to
        if source.limited:
            add_strided(self.backward, "add_keep", sizes, total, others[-1], value_of(source), to)
        else:
            add_strided(self.backward, "add", sizes, total, others[-1], to)


@dataclass(frozen=True)
class _Piece:
    """A part of a whole along an axis: how to go through it, and its steps in both."""

    sizes: Sizes
    part: Flow
    whole: Flow
    start: int
    line: int
    """Numbers from line to line of the whole, if both are vectors."""

    def values(self) -> tuple[Place, Place]:
        """Return where the values of part and whole lie."""
        return self._pair(value_of(self.part), value_of(self.whole))

    def gradients(self) -> tuple[Place, Place]:
        """Return where the gradients of part and whole lie."""
        return self._pair(gradient_of(self.part), gradient_of(self.whole))

    def _pair(self, part: Place, whole: Place) -> tuple[Place, Place]:
        own, steps = part[1], whole[1]
        if self.part.is_vector:
            own, steps = (0, self.sizes[3], 0), (0, self.line, 0)
        return (part[0], own), (whole[0][self.start :], steps)


def _piece(part: Flow, whole: Flow, axis: int, start: int, length: int) -> _Piece:
    """Return a part that takes so much of an axis of the whole, counted without the batch."""
    if not part.is_vector:
        return _Piece(sizes_of(part), part, whole, start, 0)
    inner = math.prod(whole.shape[axis + 1 :])
    width = length * inner
    sizes = (1, part.grid.size // width, 1, width)
    return _Piece(sizes, part, whole, start * inner, whole.shape[axis] * inner)


class SlicesStage(Stage):
    """The slices of a vector along an axis."""

    def __init__(self, source: Flow, slices: Sequence[Flow], axis: int) -> None:
        super().__init__()
        for number, part in enumerate(slices):
            piece = _piece(part, source, axis, number, 1)
            own, whole = piece.values()
            add_strided(self.forward, "copy", piece.sizes, whole, own)
            if source.gradient is not None:
                add_strided(self.backward, "copy", piece.sizes, *piece.gradients())
        if source.gradient is not None and source.limited:
            limit_gradient(self, source)


class JoinedStage(Stage):
    """Parts along an axis as one value, followed by its ReLU."""

    def __init__(self, parts: Sequence[Flow], result: Flow, axis: int) -> None:
        super().__init__()
        start, low = 0, 0.0 if result.limited else NO_LIMIT
        for part in parts:
            length = part.shape[axis]
            piece = _piece(part, result, axis, start, length)
            add_strided(self.forward, "copy", piece.sizes, *piece.values(), low=low)
            if part.gradient is not None:
                own, whole = piece.gradients()
                if part.limited:
                    mask = piece.values()[0]
                    add_strided(self.backward, "keep", piece.sizes, whole, mask, own)
                else:
                    add_strided(self.backward, "copy", piece.sizes, whole, own)
            start += length


class SumStage(Stage):
    """The sum of two values, followed by its ReLU.

    Its gradient is that of both: who can take it as it is shares it.
    """

    def __init__(self, pair: tuple[Flow, Flow], result: Flow) -> None:
        super().__init__()
        sizes, places = sizes_of(result), map(value_of, (*pair, result))
        low = 0.0 if result.limited else NO_LIMIT
        add_strided(self.forward, "add", sizes, *places, low=low)
        for part in pair:
            if part.gradient is None or part.gradient is result.gradient:
                continue
            if part.is_free and result.gradient is not None:
                part.gradient, part.gradient_border = result.gradient, result.gradient_border
            else:
                _pass_gradient(self, sizes, gradient_of(result), part)


class ProductStage(Stage):
    """The product of two values, followed by its ReLU."""

    def __init__(self, pair: tuple[Flow, Flow], result: Flow) -> None:
        super().__init__()
        sizes, places = sizes_of(result), [value_of(part) for part in pair]
        low = 0.0 if result.limited else NO_LIMIT
        add_strided(self.forward, "mul", sizes, *places, value_of(result), low=low)
        for part, other in zip(pair, places[::-1], strict=True):
            if part.gradient is not None:
                given = (gradient_of(result), other, gradient_of(part))
                add_strided(self.backward, "mul", sizes, *given)
                if part.limited:
                    limit_gradient(self, part)


class SharedStage(Stage):
    """One layer for several values: a copy for each, whose gradients are added up in the end."""

    def __init__(self, layer: Module, count: int) -> None:
        super().__init__()
        self.copies = [_copy(layer) for _ in range(count)]
        self._pairs = [
            (own, other)
            for member in self.copies
            for own, other in zip(layer.list_modules(), member.list_modules(), strict=True)
        ]
        for own in layer.list_modules():
            members = [other for first, other in self._pairs if first is own]
            for name, total in own.grads.items():
                first, *others = (member.grads[name] for member in members)
                for other in others or [np.zeros_like(total)]:
                    given = (first, other, total, 1)
                    self.add(self.backward, PAIR_KERNELS["add"], total.size, *given)
                    first = total

    def begin(self) -> None:
        """Let the copies draw from the layer's own stream, in its mode."""
        for own, other in self._pairs:
            other._stream, other.train = own._stream, own.train


def _copy(layer: Module) -> Module:
    """Return a layer with the parameters and buffers of another, and gradients of its own."""
    made = copy.copy(layer)
    grads = {name: np.zeros_like(value) for name, value in layer.params.items()}
    vars(made).update(params=layer.params, buffers=layer.buffers, grads=grads)
    if layer.children():
        vars(made)["layers"] = [_copy(child) for child in layer.children()]
    return made


def _pass_gradient(stage: Stage, sizes: Sizes, given: Place, source: Flow) -> None:
    """Append that a gradient becomes a source's, 0 where the source is limited."""
    to = gradient_of(source)
    if source.limited:
        add_strided(stage.backward, "keep", sizes, given, value_of(source), to)
    else:
        add_strided(stage.backward, "copy", sizes, given, to)
