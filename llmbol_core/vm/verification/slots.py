"""What is known of a frame's slots at one instruction, besides what the frame's type says."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from llmbol_core.vm.isa import WORD_SIZE


class Kind(Enum):
    """What a slot is known to hold besides what its type descriptor says."""

    FRAME = "a frame of type"
    FOREIGN_FRAME = "a frame for link"
    SLOT = "the address of a slot of this frame, at"
    DATA = "the address of module data, at"
    CONSTANT = "the address of a constant"
    ELSEWHERE = "an address"
    RESULT = "the address of the result, at"
    """The address of the function's own result, used for nothing but alt."""
    ELEMENT = "the address of a value of type"
    CODE = "the code address of pc"
    OBJECT = "an object of type"
    HANDLE = "a module handle"
    ORIGIN = "a pointer that comes from"
    COPY = "a pointer as a word, copied from"
    WORD = "the word behind a pointer, at"
    BEHIND = "the word behind an address, at"
    NUMBER = "the number"


POINTERS = frozenset({Kind.ORIGIN, Kind.OBJECT, Kind.HANDLE})
ADDRESSES = frozenset({Kind.SLOT, Kind.DATA, Kind.ELEMENT, Kind.ELSEWHERE})
"""Addresses of places that can be written."""

Tags = frozenset[int] | None
"""The numbers that the first word of an object may hold; None for any."""


class Value(NamedTuple):
    """What is known of a slot; the number is a type, an offset or a pc.

    ``origin`` is where the pointer comes from, or the pointer that an address leads behind; or -1.
    """

    kind: Kind
    number: int = 0
    origin: int = -1
    tags: Tags = None

    @property
    def flowing(self) -> Tags:
        """The tags of what can come from the origin; those of a new object can still change."""
        return None if self.kind is Kind.OBJECT else self.tags


COPIES = frozenset({Kind.WORD, Kind.BEHIND})
"""What was read as a word behind something, and may be a pointer."""
UNKNOWN_POINTER = Value(Kind.ORIGIN, origin=-1)
"""A pointer of which nothing is known in a frame made, where pointers not noted are nil."""
SEVERAL = Value(Kind.NUMBER, -1)
"""Stands for the address of a result that differs between the ways to an instruction."""

State = dict[int, Value]
"""What is known of the slots of the frame, by offset.

A negative key is the offset of a frame that was made: the address its result goes to. Keys beyond
``argument_key`` are pointers stored in such a frame, and ``RESULT`` is what this function's own
result is written to.
"""

RESULT = 1 << 31
FRAMES = 1 << 32
"""The first key for what was stored in frames made, and the number of keys for each frame."""
STORED = (1 << 31) + 1
"""The key of the pointer that the instruction before this one stored outside of the frame."""


RETURNED = (1 << 31) + 16
"""The key of the first byte of the function's own result: keys from here on are pointers in it."""


def argument_key(frame: int, offset: int) -> int:
    """Return the key of a State for a pointer in the frame made that is kept at an offset."""
    return FRAMES + frame * FRAMES + offset


def without_frame(state: State, frame: int) -> State:
    """Return a state that knows nothing of what is in a frame that was made."""
    first = argument_key(frame, 0)
    if -frame in state or any(first <= at < first + FRAMES for at in state):
        return {
            at: v for at, v in state.items() if at != -frame and not first <= at < first + FRAMES
        }
    return state


def overwritten(state: State, offset: int) -> State:
    """Return a state after something of unknown size, at least a word, was stored at an offset."""
    return {
        at: v
        for at, v in without(state, offset, WORD_SIZE).items()
        if not offset <= at < RESULT or v.kind not in POINTERS
    }


def without(state: State, offset: int, size: int) -> State:
    """Return a state that knows nothing of some bytes."""
    if size <= 8:
        if not any(at in state for at in range(offset - 3, offset + size)):
            return state
    elif not state:
        return state
    return {at: v for at, v in state.items() if not offset - 4 < at < offset + size}
