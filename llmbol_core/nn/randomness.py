"""Random numbers that depend on a seed, a lane and a call number, and on nothing else.

Philox is a counter-based generator: number n of a stream is a function of (key, n). The key here is
(seed, lane), one lane per consumer (a layer, the order of the samples); each call takes a block of
its own in the counter. So a result is the same in any order of the consumers, with any number of
threads, and after a resume from ``Stream.calls``. Only raw bits are taken from NumPy, whose
distributions may change between versions; the bits may not.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

TRAINING_LANES = 1 << 31
"""Added to a layer's lane for what it draws in training, apart from its initial values."""
ORDER_LANE = 1 << 32
"""The lane that orders samples; layers take lanes from 0."""


class Stream:
    """A sequence of random arrays; ``calls`` says how many were drawn and may be set to resume."""

    def __init__(self, seed: int, lane: int, calls: int = 0) -> None:
        self.seed, self.lane, self.calls = seed, lane, calls

    def bits(self, count: int) -> npt.NDArray[np.uint32]:
        """Return 32-bit words that are uniform and independent."""
        key = np.array([self.seed % 2**64, self.lane], dtype=np.uint64)
        counter = np.array([0, self.calls, 0, 0], dtype=np.uint64)
        self.calls += 1
        words = np.random.Philox(counter=counter, key=key).random_raw((count + 1) // 2)
        return np.asarray(words, dtype="<u8").view("<u4")[:count]

    def uniform(self, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> FloatArray:
        """Return float32 numbers from low up to but not including high.

        >>> Stream(seed=0, lane=0).uniform((2,)).round(3).tolist() == Stream(0, 0).uniform(
        ...     (2,)
        ... ).round(3).tolist()
        True
        """
        unit = (self.bits(math.prod(shape)) >> np.uint32(8)).astype(np.float32)
        unit *= np.float32(2.0**-24 * (high - low))
        unit += np.float32(low)
        return unit.reshape(shape)

    def normal(self, shape: tuple[int, ...]) -> FloatArray:
        """Return float32 numbers of mean 0 and variance 1 (Box and Muller's transform)."""
        radius = np.sqrt(-2.0 * np.log1p(-self.uniform(shape).astype(np.float64)))
        angle = 2.0 * math.pi * self.uniform(shape).astype(np.float64)
        return (radius * np.cos(angle)).astype(np.float32)

    def permutation(self, count: int) -> npt.NDArray[np.intp]:
        """Return the numbers 0 to count - 1 in random order."""
        return np.argsort(self.bits(count), kind="stable")
