"""Kernels that slide along axes: which windows there are, and where they meet the input.

Borders are never stored: for each position in the kernel the windows are found that meet the input
there, and what lies outside is left to the caller's initial value.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Index = tuple[Any, ...]
"""What picks a part of some axes of an array."""
Box = list[tuple[int, int]]
"""From where to before where along each axis."""


@dataclass(frozen=True)
class Axis:
    """One axis along which kernels slide."""

    length: int
    kernel: int
    stride: int
    padding: int
    dilation: int
    ceil: bool = False
    """Whether a last window may hang over the border; it must start before the right padding."""

    @property
    def outputs(self) -> int:
        """How many windows fit."""
        room = self.length + 2 * self.padding - self.dilation * (self.kernel - 1) - 1
        if not self.ceil:
            return room // self.stride + 1
        count = -(-room // self.stride) + 1
        return count - ((count - 1) * self.stride >= self.length + self.padding)

    @property
    def is_cut(self) -> bool:
        """Whether some windows hang over a border."""
        covered = (self.outputs - 1) * self.stride + self.dilation * (self.kernel - 1)
        return self.padding > 0 or covered >= self.length

    def overlaps(self, start: int, stop: int) -> Iterator[tuple[int, slice, slice]]:
        """Yield each kernel position with the windows it meets the input in, and where.

        The windows are counted from start; positions that meet only borders are left out.
        """
        for place in range(self.kernel):
            shift = place * self.dilation - self.padding
            first = max(start, -(shift // self.stride))
            last = min(stop - 1, (self.length - 1 - shift) // self.stride)
            if first <= last:
                at = first * self.stride + shift
                source = slice(at, at + (last - first) * self.stride + 1, self.stride)
                yield place, slice(first - start, last - start + 1), source


def shifts(axes: list[Axis], box: Box) -> Iterator[tuple[Index, Index, Index]]:
    """Yield kernel positions with the windows of a box and the part of the input they meet."""
    overlaps = [list(a.overlaps(*ends)) for a, ends in zip(axes, box, strict=True)]
    for combination in itertools.product(*overlaps):
        yield (
            tuple(place for place, _, _ in combination),
            tuple(windows for _, windows, _ in combination),
            tuple(source for _, _, source in combination),
        )
