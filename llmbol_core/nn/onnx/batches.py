"""What an ONNX graph says about the batch: which sizes grow with it, and which are of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmbol_core.nn.onnx.operands import Array, Constant, Operand, Traced, Unsupported


@dataclass
class Batches:
    """The prime that stands for the batch, and what follows from it."""

    prime: int
    static: int = 0
    """The size of batch that the file was made for, if it is one and more than 1."""

    def is_batched(self, size: int) -> bool:
        """Tell whether a size grows with the batch."""
        return size > 0 and size % self.prime == 0

    def unbatched(self, constant: Constant, batch: int | None = None) -> Constant:
        """Return a constant with length 1 where it is as long as the batch and all alike.

        ``batch`` is the axis where it may have the length of the file's own batch.
        """
        array = constant.array
        for axis, size in enumerate(array.shape):
            own = axis == batch and size == self.static > 1
            if own or self.is_batched(size):
                first = array.take([0], axis)
                if not (own or size == self.prime) or not np.array_equal(
                    array, np.broadcast_to(first, array.shape), equal_nan=array.dtype.kind == "f"
                ):
                    raise Unsupported("a constant depends on the size of the batch")
                array = first
        return constant if array is constant.array else constant.with_array(array)

    def beside(self, sizes: Sequence[int], x: Traced) -> list[int]:
        """Return sizes that a value is broadcast to, with 1 where they are of the file's batch."""
        axis, made = self.batch_axis(x), list(sizes)
        place = -1 if axis is None else len(made) - len(x.shape) + axis
        if place >= 0 and made[place] == self.static > 1:
            made[place] = 1
        return made

    def expandable(self, constant: Constant, sizes: Constant) -> Constant:
        """Return a constant with length 1 where it is to become as long as the batch.

        One that counts the samples stays as it is: it may tell where to pick from.
        """
        for place, size in enumerate(np.asarray(sizes.array).reshape(-1)[::-1].tolist()):
            if self.is_batched(size) and place < len(constant.shape):
                axis = len(constant.shape) - 1 - place
                if constant.shape[axis] == size and np.ptp(constant.array, axis).any():
                    return constant
                return self.unbatched(constant, axis)
        return constant

    def of_one_sample(self, places: Array, step: int) -> Array:
        """Return where something is picked for the first sample, as [1, ...].

        ``places`` must be the same for each sample, further on by a step.
        """
        if places.ndim and len(places) in (self.prime, self.static):
            samples = np.arange(len(places)).reshape(-1, *[1] * (places.ndim - 1))
            if np.array_equal(places, places[:1] + samples * step):
                return places[:1]
        raise Unsupported("it picks from the axis of the batch")

    def _beside(self, operand: Operand, operands: Sequence[Operand]) -> Operand:
        """Return an operand that is broadcast to others with length 1 along their batch."""
        if isinstance(operand, Traced) or self.static < 2:
            return operand
        for x in operands:
            axis = self.batch_axis(x) if isinstance(x, Traced) else None
            if axis is not None and (place := len(operand.shape) - len(x.shape) + axis) >= 0:
                return self.unbatched(operand, place)
        return operand

    def batch_axis(self, x: Traced) -> int | None:
        """Return the axis that grows with the batch."""
        return next((i for i, size in enumerate(x.shape) if self.is_batched(size)), None)

    def check_axis(self, x: Operand, axis: int, what: str) -> int:
        """Return an axis counted from the front; it must not be the batch's."""
        if not -len(x.shape) <= axis < len(x.shape):
            raise Unsupported(f"there is no axis {axis} in shape {self.shown(x.shape)}")
        axis %= len(x.shape)
        if isinstance(x, Traced) and self.is_batched(x.shape[axis]):
            raise Unsupported(f"{what} the axis of the batch")
        return axis

    def shown(self, shape: Sequence[int]) -> str:
        """Return a shape with N for the batch."""

        def size(n: int) -> str:
            if not self.is_batched(n):
                return str(n)
            return "N" if n == self.prime else f"{n // self.prime}N"

        return f"[{', '.join(map(size, shape))}]"

    def _before(self, x: Traced) -> int:
        """Return how many values lie outside of the batch, before it."""
        axis = self.batch_axis(x)
        return 1 if axis is None else math.prod(x.shape[:axis]) * x.outer

    def _with_batch(self, x: Traced, wanted: list[int]) -> list[int]:
        """Return sizes that were written down for a batch of 1 with the batch where it belongs.

        What lies before the batch stays before it. Where the sizes after it stay as they are, it
        joins the axis before them.
        """
        axis = self.batch_axis(x)
        if axis is None:
            return wanted
        if -1 in wanted:
            rest = math.prod(n for n in wanted if n != -1)
            wanted[wanted.index(-1)] = math.prod(x.shape) // self.prime // max(rest, 1)
        before, inner = self._before(x), x.shape[axis] // self.prime // x.outer
        after = [*([inner] if inner > 1 else []), *x.shape[axis + 1 :]]
        for place in range(len(wanted)):
            ahead = math.prod(wanted[:place])
            if (
                ahead == before
                and place
                and wanted[place] != 1
                and len(wanted) - place <= len(after)
            ):
                place -= 1
            elif ahead != before and not ahead < before < ahead * wanted[place]:
                continue
            wanted[place] *= self.prime
            return wanted
        raise Unsupported(f"its target {self.shown(wanted)} mixes the batch with other axes")

    def _of_one(self, x: Traced, wanted: list[int]) -> list[int]:
        """Return sizes written down for the file's own batch as they would be for one of 1."""
        whole = math.prod(n for n in wanted if n != -1)
        per_sample = math.prod(x.shape) // self.prime
        is_other = -1 not in wanted and whole != per_sample * self.static
        if self.static < 2 or self.batch_axis(x) is None or is_other:
            return wanted
        before, ahead = self._before(x), 1
        for place, n in enumerate(wanted):
            if n == -1:
                break
            one = n // self.static
            if n % self.static == 0 and (ahead == before or ahead < before <= ahead * one):
                return [*wanted[:place], one, *wanted[place + 1 :]]
            ahead *= n
        return wanted
