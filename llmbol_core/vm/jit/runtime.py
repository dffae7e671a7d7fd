"""What the engine and compiled code exchange: the state it is entered with, what it returns."""

from __future__ import annotations

from enum import IntEnum


class State(IntEnum):
    """Words of the state, 8 bytes each."""

    BUDGET = 0
    PC = 1
    FP = 2
    TOP = 3
    LIMIT = 4
    """Where the piece of the stack ends that frames are made in."""
    BASE = 5
    """Where it begins; a frame there is dropped by the interpreter."""
    MP = 6
    NATIVE_STACK = 7
    """How far the host's stack may grow down."""
    TYPES = 8
    """Table of the heap's numbers for the module's types."""
    FUNCTIONS = 9
    """Table of machine code by the pc of its function; null where there is none."""
    MAPS = 10
    """Table by the heap's numbers: where size, count and offsets of the pointers are in it."""
    SLOW = 11
    """The engine's function for what is done outside: (what, value) -> value."""
    HANDLE = 12
    """The handle of the module whose code runs."""
    LINKS = 13
    """Table by the numbers in module handles: what their links lead to, or null. That is a count,
    tables as in ``TYPES`` and ``FUNCTIONS``, and ``LINK_WORDS`` for each link: pc or ``LinkKind``,
    type of frame, bytes of the frame on the stack."""
    LINK_COUNT = 14
    MAP_COUNT = 15


class Status(IntEnum):
    """What machine code returns."""

    RETURNED = 0
    INTERPRET = 1
    """The interpreter runs the instruction at pc."""
    BUDGET = 2
    RESUME = 3
    """The host's stack is full: enter again."""


class Slow(IntEnum):
    """What the engine's function is asked for."""

    RELEASE = 0
    FREE = 1
    ALLOCATE = 2


class LinkKind(IntEnum):
    """What stands in place of a pc."""

    HOST = -1
    """The interpreter calls it."""
    SQUARE_ROOT = -2


LINK_HEADER, LINK_WORDS = 3, 3

HOST_STACK = 192 << 10
"""Bytes of the host's stack that one entry may use."""

TAGS = {"frame": 3, "data": 5, "header": 7, "count": 9, "i32": 11, "i64": 13, "double": 15,
        "i8": 17, "i16": 19, "float": 21}  # fmt: skip
"""Kinds of memory that do not overlap, by the number of their tags."""


def tag(name: str) -> str:
    """Return what marks an access to a kind of memory; empty for any memory."""
    return f", !tbaa !{TAGS[name]}" if name else ""


def _metadata() -> str:
    lines = ['!0 = !{!"branch_weights", i32 1, i32 2000}', '!1 = !{!"dis"}']
    for name, number in TAGS.items():
        lines.append(f'!{number - 1} = !{{!"{name}", !1}}')
        lines.append(f"!{number} = !{{!{number - 1}, !{number - 1}, i64 0}}")
    return "\n".join(lines) + "\n"


METADATA = _metadata()
