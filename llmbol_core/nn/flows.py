"""What flows between layers while a model learns in machine code: values, and their gradients.

    vector     rows of numbers as PyTorch lays them out, [N, *shape]
    channels   positions of channels, [N, lines, rows, channels], zeros around them if a border

A border lets windows hang over the edge: the zeros are there, and nobody ever writes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]

_PAD = 64
"""Numbers behind an array that may be read, not used."""


@dataclass(frozen=True)
class Grid:
    """Positions in memory: samples of lines of rows of channels, and the border around them."""

    samples: int
    lines: int
    rows: int
    channels: int
    border: int = 0
    is_image: bool = False

    @property
    def row(self) -> int:
        """Numbers from one position to the next."""
        return self.channels

    @property
    def line(self) -> int:
        """Numbers from one line to the next."""
        return (self.rows + 2 * self.border) * self.channels

    @property
    def sample(self) -> int:
        """Numbers from one sample to the next."""
        return (self.lines + 2 * self.border * self.is_image) * self.line

    @property
    def start(self) -> int:
        """Where the first position lies."""
        return self.border * (self.line * self.is_image + self.channels)

    @property
    def size(self) -> int:
        """All numbers, the border counted in."""
        return self.samples * self.sample

    @property
    def positions(self) -> int:
        """How many positions there are, without the border."""
        return self.samples * self.lines * self.rows

    @property
    def steps(self) -> tuple[int, int, int]:
        """Numbers from sample to sample, line to line and row to row."""
        return self.sample, self.line, self.row

    def with_border(self, border: int) -> Grid:
        """Return the same positions with another border."""
        sizes = (self.samples, self.lines, self.rows, self.channels)
        return Grid(*sizes, border, self.is_image)

    def places(self) -> NDArray[np.int64]:
        """Return where each number of one sample lies, in PyTorch's order: channels first."""
        at = np.arange(self.lines)[:, None] * self.line + np.arange(self.rows) * self.row
        order = np.arange(self.channels)[:, None, None] + at + self.start
        return np.ascontiguousarray(order.reshape(-1))


def room(count: int) -> Array:
    """Return zeros that begin with a cache line, and may be read a little beyond their end."""
    memory = np.zeros(count + _PAD + 16, np.float32)
    start = -(memory.ctypes.data // 4) % 16
    return memory[start : start + count]


@dataclass(eq=False)
class Flow:
    """A value with its gradient. The gradient's border may differ from the value's."""

    shape: Shape
    """Of one sample, as PyTorch has it."""
    grid: Grid
    value: Array
    gradient: Array | None = None
    """None if nobody needs it."""
    gradient_border: int = 0
    is_vector: bool = True
    limited: bool = False
    """Whether negative values were made 0: the gradient is that before, 0 where the value is."""
    passing: bool = False
    """Whether the gradient is there for one part of the batch at a time."""
    is_free: bool = False
    """Whether nobody has said yet that it writes the gradient: that may become another array."""

    @classmethod
    def vector(cls, batch: int, shape: Shape, needs: bool) -> Flow:
        """Return rows of the last axis."""
        rows = batch * math.prod(shape[:-1])
        grid = Grid(1, 1, rows, shape[-1] if shape else 1)
        return cls(shape, grid, room(grid.size), room(grid.size) if needs else None)

    @classmethod
    def channels(cls, batch: int, shape: Shape, needs: bool, border: int, outer: int) -> Flow:
        """Return [C, L] or [C, H, W] with channels together and borders for value and gradient."""
        is_image = len(shape) == 3
        lines = shape[1] if is_image else 1
        grid = Grid(batch, lines, shape[-1], shape[0], border, is_image)
        gradient = room(grid.with_border(outer).size) if needs else None
        return cls(shape, grid, room(grid.size), gradient, outer, is_vector=False)

    @property
    def gradient_grid(self) -> Grid:
        """How the gradient lies."""
        return self.grid.with_border(self.gradient_border)

    def part(self, first: int, count: int, batch: int) -> Flow:
        """Return some samples of a batch; they lie in the same memory."""
        if self.is_vector:
            step = around = self.grid.size // batch
            grid = replace(self.grid, rows=self.grid.rows * count // batch)
        else:
            step, around = self.grid.sample, self.gradient_grid.sample
            grid = replace(self.grid, samples=count)
        around = 0 if self.passing else around
        along = None if self.gradient is None else self.gradient[first * around :]
        return replace(self, grid=grid, value=self.value[first * step :], gradient=along)

    def keep_gradient_of(self, most: int, batch: int) -> None:
        """Make the gradient one of a part, which has so many samples at most."""
        if self.gradient is not None:
            grid = self.gradient_grid
            self.gradient, self.passing = room(grid.size // batch * most), True

    def values(self) -> Array:
        """Return the value from its first position on."""
        return self.value[self.grid.start :]

    def gradients(self) -> Array:
        """Return the gradient from its first position on."""
        assert self.gradient is not None
        return self.gradient[self.gradient_grid.start :]
