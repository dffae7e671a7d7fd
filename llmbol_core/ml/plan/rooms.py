"""Where the values of a lowered graph live, and how a sample lies there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]


@dataclass(eq=False)
class Room:
    """A buffer of so many float32 for each sample of a chunk."""

    size: int
    external: int | None = None
    """The number of the input or output of the network that it is, if any."""
    is_kept: bool = False
    """Whether it starts as zeros and is not shared: a border of zeros stays one."""
    first: int = -1
    last: int = -1
    """The operations between which it is in use."""
    is_scratch: bool = False
    """Whether it is room for a thread, whatever the samples."""


@dataclass(frozen=True)
class Last:
    """A sample whose channels lie together at each position, with a border of zeros around."""

    channels: int
    sides: Shape
    border: tuple[tuple[int, int], ...]
    """Before and after each side."""

    @property
    def full(self) -> Shape:
        """The sides with their borders."""
        return tuple(n + a + b for n, (a, b) in zip(self.sides, self.border, strict=True))

    @property
    def size(self) -> int:
        """How many numbers a sample takes."""
        return self.channels * math.prod(self.full)

    @property
    def is_plain(self) -> bool:
        """Whether there is no border."""
        return not any(map(any, self.border))

    def strides(self) -> Shape:
        """Return how many numbers lie between neighbours along each side."""
        found = [self.channels]
        for n in self.full[:0:-1]:
            found.append(found[-1] * n)
        return tuple(found[::-1])

    def places(self) -> Array:
        """Return where each number is: [channels, sides]."""
        rank = len(self.sides)
        place = np.full((1,) * (rank + 1), self.start, np.int64)
        for axis, (count, stride) in enumerate(zip(self.sides, self.strides(), strict=True)):
            shape = [1] * (rank + 1)
            shape[axis + 1] = count
            place = place + (np.arange(count) * stride).reshape(shape)
        return place + np.arange(self.channels).reshape(-1, *(1,) * rank)

    @property
    def start(self) -> int:
        """Where the first position inside the border is."""
        return sum(a * s for (a, _), s in zip(self.border, self.strides(), strict=True))


@dataclass(frozen=True, eq=False)
class Held:
    """A value: where it is, its shape without the batch, and how it lies if not in rows."""

    room: Room
    shape: Shape
    last: Last | None = None
    """Set if channels lie together: the shape is channels and sides."""
    order: Array | None = None
    """Set if the numbers lie in any other order: where in the room each is, in the shape."""

    @property
    def size(self) -> int:
        """How many numbers a sample has."""
        return math.prod(self.shape)

    @property
    def in_rows(self) -> bool:
        """Whether a sample lies in the order of its shape."""
        return self.last is None and self.order is None

    @property
    def is_dense(self) -> bool:
        """Whether the room holds each number once and nothing else."""
        if self.room.size != self.size:
            return False
        if self.order is not None:
            return bool((np.bincount(self.order.reshape(-1), minlength=self.size) == 1).all())
        return self.last is None or self.last.is_plain

    def places(self) -> Array:
        """Return where in the room each number is, in the shape."""
        if self.order is not None:
            return self.order
        if self.last is None:
            return np.arange(self.size, dtype=np.int64).reshape(self.shape)
        return self.last.places()


@dataclass(frozen=True)
class At:
    """An address inside a room, as an argument of an operation."""

    room: Room
    offset: int = 0
    """In numbers from the beginning of the first sample."""


@dataclass(frozen=True)
class Samples:
    """How many samples there are in a chunk, times a number, as an argument of an operation."""

    times: int = 1


Argument = At | Samples | Any
