"""The K types: super-blocks of 256 weights taken apart, decoded, and packed for products.

A super-block of a row is taken apart into 256 numbers that are not negative, 8 or 16 scales and as
many minima: weight = d * scale * (number - zero) - dmin * minimum. Packed, rows are taken in panels
of two groups of 16, and a panel is one stream, super-block after super-block:

    d         float16, 16 for each group; then dmin likewise, if the type has minima
    lines     of 64 bytes, the first one of each group, then the second ones and so on

The lines of a group, in their order, are

    scales    words of 4 bytes, 4 scales of a row, 16 rows; then the next four
    minima    likewise
    cells     of 8 blocks of 32 columns, as ``forms`` has them: nibbles, and for a fifth bit a
              vector of bytes with that of the numbers of cells 0 to 7, lowest first. Of six bits
              three vectors hold four cells: three in their lower six bits, the fourth in the upper
              two, lowest first
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from llmbol_core.ml.kernels.declaration import Author, Group, Kernel
from llmbol_core.ml.kernels.forms import CELL, GROUPS, ROWS
from llmbol_core.ml.kernels.kinds import f16, f32, i8, i16, i32, u8, u16, u32
from llmbol_core.ml.kernels.repack import transposed_words

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

COLUMNS = 256
"""Columns of a super-block."""
BLOCKS = 8
"""Blocks of 32 columns in it."""
LINES = GROUPS * CELL
"""Bytes of a line of each group."""
_RUN = 32
_NIBBLES, _CRUMBS, _SIX = 0x0F0F0F0F, 0x03030303, 0x3F3F3F3F


@dataclass(frozen=True)
class SuperForm:
    """How one K type is packed, and what its numbers mean."""

    name: str
    bytes: int
    """Of a super-block of a row in GGML's layout."""
    d: int
    """Where d is in it; dmin follows, if the type has minima."""
    parts: int
    """How many scales there are."""
    zero: int
    """The number that stands for a weight of 0; 0 if there are minima."""
    planes: int
    """How many bits of a number there are above the lower four."""
    has_minima: bool
    columns: int = COLUMNS
    """How many of a row's weights are scaled together."""

    @property
    def most(self) -> int:
        """The greatest number that fits."""
        return (16 << self.planes) - 1

    @property
    def head(self) -> int:
        """How many bytes d and dmin of a panel's super-block take."""
        return 2 * ROWS * GROUPS * (2 if self.has_minima else 1)

    @property
    def lists(self) -> int:
        """How many lines the scales and minima of a group take."""
        return self.parts // 4 * (2 if self.has_minima else 1)

    @property
    def block(self) -> int:
        """How many lines the cells of a group's block of 32 columns take."""
        return 4 + self.planes

    @property
    def cells(self) -> int:
        """Where the cells of a panel's super-block begin."""
        return self.head + self.lists * LINES

    @property
    def unit(self) -> int:
        """How many bytes a panel's super-block takes."""
        return self.cells + BLOCKS * self.block * LINES


# fmt: off
SUPER_FORMS = {form.name: form for form in (
    #         name    bytes   d  parts  zero  planes  minima
    SuperForm("Q2_K",  84,   80,  16,     0,    0,    True),
    SuperForm("Q3_K", 110,  108,  16,     4,    0,    False),
    SuperForm("Q4_K", 144,    0,   8,     0,    0,    True),
    SuperForm("Q5_K", 176,    0,   8,     0,    1,    True),
    SuperForm("Q6_K", 210,  208,  16,    32,    2,    False),
)}
# fmt: on


# ---- taking apart: (block, numbers [256], scales, minima) ----


def _two_bits(k: Builder, qs: Pointer, numbers: Pointer) -> None:
    """Store numbers of two bits: each run of 32 bytes holds four runs of 32, low bits first."""
    for run in range(2):
        packed = qs.load(_RUN * run, _RUN)
        for part in range(4):
            numbers.store((packed >> (2 * part)) & 3, 128 * run + _RUN * part)


def _apart_2(k: Builder, block: Pointer, numbers: Pointer, scales: Pointer, low: Pointer) -> None:
    _two_bits(k, block.at(16), numbers)
    both = block.load(0, 16)
    scales.store(both & 15)
    low.store(both >> 4)


def _apart_3(k: Builder, block: Pointer, numbers: Pointer, scales: Pointer, low: Pointer) -> None:
    _two_bits(k, block.at(32), numbers)
    mask = block.load(0, _RUN)
    for run in range(BLOCKS):
        third = ((mask >> run) & 1) << 2
        numbers.store(numbers.load(_RUN * run, _RUN) | third, _RUN * run)
    first, second, high = (block.at(96).of(u32).load(i) for i in range(3))
    lower = (first, second, first >> 4, second >> 4)
    for i, nibbles in enumerate(lower):
        bits = ((high >> (2 * i)) & _CRUMBS) << 4
        scales.of(u32).store((nibbles & _NIBBLES) | bits, i)
    scales.store(scales.load(0, 16) - 32)


def _six_bits(block: Pointer, scales: Pointer, low: Pointer) -> None:
    """Store eight scales and eight minima that 12 bytes hold."""
    first, second, mixed = (block.at(4).of(u32).load(i) for i in range(3))
    for target, lower, upper in ((scales, first, mixed), (low, second, mixed >> 4)):
        target.of(u32).store(lower & _SIX, 0)
        target.of(u32).store((upper & _NIBBLES) | (((lower >> 6) & _CRUMBS) << 4), 1)


def _apart_4(k: Builder, block: Pointer, numbers: Pointer, scales: Pointer, low: Pointer) -> None:
    _six_bits(block, scales, low)
    for run in range(4):
        packed = block.load(16 + _RUN * run, _RUN)
        numbers.store(packed & 15, 64 * run)
        numbers.store(packed >> 4, 64 * run + _RUN)


def _apart_5(k: Builder, block: Pointer, numbers: Pointer, scales: Pointer, low: Pointer) -> None:
    _six_bits(block, scales, low)
    high = block.load(16, _RUN)
    for run in range(4):
        packed = block.load(48 + _RUN * run, _RUN)
        for half, nibbles in enumerate((packed & 15, packed >> 4)):
            part = 2 * run + half
            numbers.store(nibbles | (((high >> part) & 1) << 4), _RUN * part)


def _apart_6(k: Builder, block: Pointer, numbers: Pointer, scales: Pointer, low: Pointer) -> None:
    scales.store(block.load(192, 16))
    for half in range(2):
        ql = [block.load(64 * half + _RUN * i, _RUN) for i in range(2)]
        high = block.load(128 + _RUN * half, _RUN)
        for part, nibbles in enumerate((ql[0] & 15, ql[1] & 15, ql[0] >> 4, ql[1] >> 4)):
            crumbs = ((high >> (2 * part)) & 3) << 4
            numbers.store(nibbles | crumbs, 128 * half + _RUN * part)


_APART: dict[str, Callable[..., None]] = {
    "Q2_K": _apart_2, "Q3_K": _apart_3, "Q4_K": _apart_4, "Q5_K": _apart_5, "Q6_K": _apart_6,
}  # fmt: skip


# ---- decoding ----


def _decoder(form: SuperForm) -> Author:
    """Return the author of a decoder; an item is a super-block."""
    width = COLUMNS // form.parts

    def write(k: Builder, blocks: Pointer, x: Pointer) -> None:
        numbers, scales, low = k.room(u8, COLUMNS), k.room(u8, 16), k.room(u8, 16)
        for item in k.items():
            block = blocks.at(item * form.bytes)
            _APART[form.name](k, block, numbers, scales, low)
            d = block.at(form.d).of(f16).load().to(f32)
            for part in k.range(form.parts):
                scale = d * scales.of(i8).load(part).to(f32)
                for i in range(0, width, 16):
                    at = part * width + i
                    number = numbers.load(at, 16).to(i32) - form.zero
                    weight = number.to(f32) * scale
                    if form.has_minima:
                        least = block.at(form.d).of(f16).load(1).to(f32)
                        weight = weight - least * low.load(part).to(i32).to(f32)
                    x.store(weight, item * COLUMNS + at)

    return write


DECODE_GROUP = Group("decode K")

SUPER_DECODERS: dict[str, Kernel] = {
    name: DECODE_GROUP.kernel("blocks:u8* x:f32*", f"decode_{name.lower()}")(_decoder(form))
    for name, form in SUPER_FORMS.items()
}
"""(blocks, x [blocks, 256]) by storage type."""


# ---- packing ----


def _packer(form: SuperForm) -> Author:
    """Return the author of a packer; an item is a panel."""

    def write(k: Builder, blocks: Pointer, packed: Pointer, count: Value, rows: Value) -> None:
        numbers = k.room(u8, ROWS * COLUMNS)
        scales, low = k.room(u8, ROWS * 16), k.room(u8, ROWS * 16)
        for panel in k.items():
            for number in k.range(count):
                unit = packed.at((panel * count + number) * form.unit)
                for group in k.range(GROUPS):
                    for row in k.range(ROWS):
                        # The last row stands in for those after it, which do not exist.
                        source = k.min((panel * GROUPS + group) * ROWS + row, rows - 1)
                        block = blocks.at((source * count + number) * form.bytes)
                        lists = scales.at(row * 16), low.at(row * 16)
                        _APART[form.name](k, block, numbers.at(row * COLUMNS), *lists)
                        for i in range(2 if form.has_minima else 1):
                            value = block.at(form.d).of(u16).load(i)
                            unit.of(u16).store(value, i * ROWS * GROUPS + group * ROWS + row)
                    lines = unit.at(group * CELL + form.head)
                    _store_lines(k, form, numbers, scales, low, lines)

    return write


def _store_lines(
    k: Builder, form: SuperForm, numbers: Pointer, scales: Pointer, low: Pointer, lines: Pointer
) -> None:
    """Store scales, minima and cells of 16 rows that were taken apart."""
    number = 0
    for source in (scales, low) if form.has_minima else (scales,):
        for four in range(form.parts // 4):
            line = lines.at(number * LINES).of(u32)
            for row in range(ROWS):
                line.store(source.of(u32).load(4 * row + four), row)
            number += 1
    for block in k.range(BLOCKS):
        cells = lines.at((block * form.block + number) * LINES)
        rows = [numbers.at(block * _RUN + row * COLUMNS) for row in range(ROWS)]
        words = transposed_words([row.of(i32) for row in rows], 8)
        cells_of = _sixths if form.planes == 2 else _nibbles
        for i, vector in enumerate(cells_of(k, form, [word.bits(u8) for word in words])):
            cells.store(vector, i * LINES)


def _nibbles(k: Builder, form: SuperForm, cells: Sequence[Value]) -> list[Value]:
    """Return vectors of nibbles and of fifth bits."""
    found = [(cells[j] & 15) | ((cells[j + 4] & 15) << 4) for j in range(4)]
    if form.planes:
        upper = k.zeros(u8, 4 * ROWS)
        for j, cell in enumerate(cells):
            upper = upper | ((cell >> 4) << j)
        found.append(upper)
    return found


def _sixths(k: Builder, form: SuperForm, cells: Sequence[Value]) -> list[Value]:
    """Return vectors of numbers of six bits."""
    return [
        cells[4 * four + j] | (((cells[4 * four + 3] >> (2 * j)) & 3) << 6)
        for four in range(2)
        for j in range(3)
    ]


PACK_GROUP = Group("pack K")

SUPER_PACKERS: dict[str, Kernel] = {
    name: PACK_GROUP.kernel("blocks:u8* packed:u8* count:i64 rows:i64", f"pack_{name.lower()}")(
        _packer(form)
    )
    for name, form in SUPER_FORMS.items()
}
"""(blocks [rows, count], panels, count, rows) by storage type."""


# ---- reading what is packed ----


class Rows(NamedTuple):
    """A vector of rows of a panel's super-block: of which group, and which of its vectors."""

    unit: Pointer
    group: Value | int
    part: Value | int

    def line(self, k: Builder, form: SuperForm, number: Value | int) -> Pointer:
        """Return where their part of a line is."""
        here = self.unit.at(self.group * CELL + form.head).at(self.part * (4 * k.lanes))
        return here.at(number * LINES)


def weights_of(k: Builder, form: SuperForm, row: Rows, block: Value, j: int) -> tuple[Value, Value]:
    """Return the numbers of cell j and of cell j + 4 of a block of 32 columns."""
    lanes = 4 * k.lanes
    cells = row.line(k, form, block * form.block + form.lists)
    if form.planes == 2:
        return _of_six_bits(cells, j, lanes), _of_six_bits(cells.at(3 * LINES), j, lanes)
    packed = cells.load(j * LINES, lanes)
    low, high = packed & 15, (packed.bits(u16) >> 4).bits(u8) & 15
    if form.planes:
        upper = cells.load(4 * LINES, lanes).bits(u16)
        low, high = (cell | _fifth(upper, i) for i, cell in ((j, low), (j + 4, high)))
    return low, high


def _fifth(upper: Value, cell: int) -> Value:
    """Return the fifth bit of a cell's numbers, where it belongs."""
    moved = upper << (4 - cell) if cell <= 4 else upper >> (cell - 4)
    return moved.bits(u8) & 16


def _of_six_bits(cells: Pointer, j: int, lanes: int) -> Value:
    """Return the numbers of one of the four cells that three vectors hold."""
    if j < 3:
        return cells.load(j * LINES, lanes) & 63
    found = cells.load(0, lanes) & 192
    for i in (1, 2):
        found = (found.bits(u16) >> 2).bits(u8) | (cells.load(i * LINES, lanes) & 192)
    return (found.bits(u16) >> 2).bits(u8)


def scales_of(k: Builder, form: SuperForm, row: Rows, block: Value) -> list[Value]:
    """Return the scales of a block's parts: one, or two of 16 columns each."""
    count = form.parts // BLOCKS
    first = block * count
    words = row.line(k, form, first // 4).of(i32).load(0, k.lanes)
    found = []
    for i in range(count):
        shift = ((first + i) % 4) * 8
        found.append((words << (24 - shift).to(i32)) >> 24)
    return found


def minima_of(k: Builder, form: SuperForm, row: Rows) -> list[Value]:
    """Return the parts' minima in int16, two by two as the sums of activations are."""
    return paired(k, form, row, form.parts // 4)


def paired(k: Builder, form: SuperForm, row: Rows, first: int = 0) -> list[Value]:
    """Return a list of the parts, of scales unless it is another one, as ``minima_of`` does."""
    found = []
    for four in range(form.parts // 4):
        pairs = row.line(k, form, first + four).of(i16).load(0, 2 * k.lanes)
        found += [(pairs << 8) >> 8, pairs >> 8]
    return found
