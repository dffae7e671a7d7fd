"""THE table of packed forms: how rows of quantized weights lie in memory for products.

Rows are taken in panels of two groups of 16, the last one filled up with arbitrary numbers. A
panel is one stream, block of 32 columns after block:

    scales    float16, 16 for each group
    minima    likewise, if the type has them
    cells     the first one of each group, then the second ones and so on

A cell has 64 bytes, 16 rows by 4 consecutive columns, so that a vector register holds one row per
lane and no sum ever crosses lanes; code that computes all rows reads all bytes in their order:

    bytes     8 cells of each group; a byte is a weight
    nibbles   4 cells; low halves are columns 0 to 15, high halves 16 to 31, as in GGML's blocks
    fifths    nibbles, and then 8 words of 64 bits for each group, in the order of cells: the fifth
              bits of the weights of four columns

These are the bytes of GGML's blocks in another order.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmbol_core.ml.dtypes import IQ4_NL_LEVELS
from llmbol_core.ml.kernels.target import Target

ROWS = 16
"""Rows of a group."""
GROUPS = 2
"""Groups of a panel."""
BLOCK = 32
"""Columns of a block."""
CELL = 64
"""Bytes of a cell."""
FIFTH = 8
"""Bytes of a word of fifth bits."""


@dataclass(frozen=True)
class Form:
    """How one storage type is packed, and what its numbers mean."""

    name: str
    cells: str
    zero: int
    """The number that stands for a weight of 0: subtracted from all."""
    has_minima: bool = False
    levels: tuple[int, ...] = ()
    """What the numbers mean if that is not themselves; signed."""

    columns: int = BLOCK
    """How many of a row's weights are scaled together."""

    @property
    def count(self) -> int:
        """How many cells a group's block has."""
        return 8 if self.cells == "bytes" else 4

    @property
    def head(self) -> int:
        """How many bytes scales and minima of one block take."""
        return 2 * ROWS * GROUPS * (2 if self.has_minima else 1)

    @property
    def unit(self) -> int:
        """How many bytes one block of a panel takes."""
        fifths = 8 * FIFTH if self.cells == "fifths" else 0
        return self.head + GROUPS * (CELL * self.count + fifths)

    @property
    def is_signed(self) -> bool:
        """Whether a number is a signed byte; the others are small and not negative."""
        return self.cells == "bytes" or bool(self.levels)

    @property
    def most(self) -> int:
        """The greatest number of one that is not signed."""
        return 31 if self.cells == "fifths" else 15

    def shift(self, target: Target) -> int:
        """Return what to add to the weights so that an instruction set can multiply them."""
        if not self.is_signed:
            return self.zero
        return 128 if target.dot == "vnni" else 0


# fmt: off
FORMS = {form.name: form for form in (
    #     name      cells     zero  minima
    Form("Q4_0",   "nibbles",  8),
    Form("Q4_1",   "nibbles",  0,   True),
    Form("Q5_0",   "fifths",  16),
    Form("Q5_1",   "fifths",   0,   True),
    Form("Q8_0",   "bytes",    0),
    Form("IQ4_NL", "nibbles",  0,   False, IQ4_NL_LEVELS),
)}
# fmt: on
