"""Object files and modules that the tests of the format side share."""

from __future__ import annotations

import os
import string
from pathlib import Path

from hypothesis import strategies as st

from llmbol_core.vm.isa import OPS, Mode
from llmbol_core.vm.module import (
    ABSENT,
    HASEXCEPT,
    HASLDT,
    DataKind,
    Datum,
    Export,
    Handler,
    Import,
    Instruction,
    Module,
    Operand,
    TypeDescriptor,
)
from llmbol_core.vm.objectfile import DATA

DATA_DIRECTORY = Path(__file__).parent / "data"
VECTORS = Path(__file__).parents[3] / "shared" / "vectors"


def object_files() -> list[Path]:
    """Return the object files at hand: ours, the vectors, and Inferno's if INFERNO_ROOT is set."""
    places = [DATA_DIRECTORY, VECTORS]
    if os.environ.get("INFERNO_ROOT"):
        places.append(Path(os.environ["INFERNO_ROOT"]))
    return sorted(path for place in places for path in place.rglob("*.dis"))


def listings() -> list[Path]:
    """Return the listings that `limbo -S` printed beside object files."""
    places = (DATA_DIRECTORY, VECTORS)
    found = sorted(path for place in places for path in place.rglob("*.s"))
    return [path for path in found if path.with_suffix(".dis").exists()]


OP = st.one_of(st.integers(-70, 70), st.integers(-8200, 8200), st.integers(-(2**29), 2**29 - 1))
SMALL = st.integers(0, 2**16 - 1)
WORD = st.integers(0, 2**32 - 1)
NAMES = st.one_of(
    st.text(string.ascii_letters + "_.", min_size=1),
    st.binary(max_size=12).map(lambda b: b.replace(b"\0", b"").decode("utf-8", "surrogateescape")),
)


def operands(place: str) -> st.SearchStrategy[Operand]:
    """Return any operand that an object file can hold at a place and the assembler can write."""
    if place == "m":
        numbers, zero = st.integers(-(2**15), 2**15 - 1), st.just(0)
        immediate = st.builds(Operand, st.just(Mode.IMMEDIATE), numbers, zero)
        slots = st.builds(Operand, st.sampled_from([Mode.FP, Mode.MP]), SMALL, zero)
        return st.one_of(st.just(ABSENT), immediate, slots)
    modes = st.sampled_from([Mode.MP, Mode.FP, Mode.IMMEDIATE])
    direct = st.builds(Operand, modes, OP, st.just(0))
    behind = st.sampled_from([Mode.MP_INDIRECT, Mode.FP_INDIRECT])
    absent = st.sampled_from([ABSENT, Operand(Mode.NONE6), Operand(Mode.NONE7)])
    return st.one_of(absent, direct, st.builds(Operand, behind, SMALL, SMALL))


@st.composite
def instructions(draw: st.DrawFn, count: int) -> Instruction:
    """Draw an instruction for a program of so many."""
    made = Instruction(
        draw(st.integers(0, len(OPS) - 1)), *(draw(operands(place)) for place in "smd")
    )
    if made.destination.mode is Mode.IMMEDIATE and made.op.has_label:
        label = Operand(Mode.IMMEDIATE, draw(st.integers(0, count - 1)))
        return Instruction(made.opcode, made.source, made.middle, label)
    return made


@st.composite
def data(draw: st.DrawFn, types: int) -> tuple[Datum, ...]:
    """Draw data items with balanced DIND and DAPOP."""
    items, depth = [], 0
    for kind in draw(st.lists(st.sampled_from(DataKind), max_size=6)):
        if (kind is DataKind.DAPOP and depth == 0) or (kind is DataKind.DEFA and not types):
            continue
        depth += (kind is DataKind.DIND) - (kind is DataKind.DAPOP)
        count = draw(st.integers(0, 20))
        row = DATA[kind]
        size = row.width * count if row.per_count else row.width
        payload = draw(st.binary(min_size=size, max_size=size))
        if kind is DataKind.DEFA:
            payload = draw(st.integers(0, types - 1)).to_bytes(4, "big") + payload[4:]
        items.append(Datum(kind, draw(OP), count, payload))
    return tuple(items)


@st.composite
def modules(draw: st.DrawFn) -> Module:
    """Draw a module that means nothing but holds anything that the format allows."""
    count, types = draw(st.integers(0, 5)), draw(st.integers(0, 3))
    size = draw(st.integers(0, 100)) if types else 0
    type_numbers = st.integers(-1, types - 1)
    links = st.builds(Import, WORD, NAMES)
    labels = st.lists(st.tuples(NAMES, OP), max_size=3).map(tuple)
    handlers = st.lists(st.tuples(OP, OP, OP, type_numbers, labels, OP), max_size=2)
    flags = draw(st.sampled_from([0, HASLDT, HASEXCEPT, HASLDT | HASEXCEPT, HASLDT | 1]))
    return Module(
        name=draw(NAMES),
        instructions=tuple(draw(instructions(count)) for _ in range(count)),
        types=tuple(
            TypeDescriptor(
                n, size if n == 0 else draw(st.integers(0, 99)), draw(st.binary(max_size=4))
            )
            for n in range(types)
        ),
        data_size=size,
        data=draw(data(types)),
        exports=tuple(
            draw(
                st.lists(
                    st.builds(Export, st.integers(-1, 99), type_numbers, WORD, NAMES), max_size=2
                )
            )
        ),
        imports=tuple(map(tuple, draw(st.lists(st.lists(links, max_size=2), max_size=2))))
        if flags & HASLDT
        else (),
        handlers=tuple(
            Handler(a, b, c, t, labels, draw(st.integers(0, len(labels))), e)
            for a, b, c, t, labels, e in draw(handlers)
        )
        if flags & HASEXCEPT
        else (),
        entry_pc=draw(OP),
        entry_type=draw(type_numbers),
        flags=flags,
        stack_extent=draw(OP),
        source_path=draw(st.none() | NAMES),
        signature=draw(st.none() | st.binary(max_size=9)),
    )
