"""What a module does with pointers whose types no object file tells: it must agree with itself.

Parameters, fields, elements, heads of lists and pointers in the module data are *origins*. Every
access behind one is noted, whichever function makes it: a pointer or a number at some offset, or a
use as a string, an array, a list, a channel or a module handle. At the end

- one origin cannot have both a number and a pointer at the same place, nor be used as two kinds;
- what a function does behind a parameter must fit what its callers pass;
- what it writes as its result must fit where its callers want it.

A pick keeps in its first word which variant it is. So nothing is proved of objects whose first word
the program looks at, nor of what it finds in them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from llmbol_core.vm.isa import TYPES, WORD_SIZE, Mode
from llmbol_core.vm.module import ABSENT
from llmbol_core.vm.structure import Layout, Structure

Origin = tuple[object, ...]
"""Where a pointer comes from: a word, and the numbers or the other origin that it belongs to."""

KINDS = {letter: TYPES[letter].name for letter in "CAINZ"}
"""Letters of the kinds of objects that instructions tell apart, and their names."""
_RECORD = "record"


class Access(NamedTuple):
    """Bytes behind a pointer that are accessed, as a pointer or as a number."""

    offset: int
    size: int
    is_pointer: bool


@dataclass
class _Known:
    """What is done with one origin: accesses and kinds, each with the first pc where that is so."""

    owner: int
    """The origin of the object that this one is kept in, or -1."""
    is_pick: bool = False
    accesses: dict[Access, int] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)


class Usage:
    """All that one module does with pointers of unknown types."""

    def __init__(self, found: Structure) -> None:
        self._found = found
        self.elements: dict[int, int] = {}
        """Types of the elements of arrays that the module makes, by origin."""
        self._variables = _variables(found)
        self._numbers: dict[Origin, int] = {}
        self._known: list[_Known] = []
        self._passed: dict[int, set[int]] = defaultdict(set)
        self._objects: dict[int, dict[int, int]] = defaultdict(dict)
        self._results: dict[tuple[int, int, int], int] = {}

    def origin(self, *key: object) -> int:
        """Return the number of an origin."""
        number = self._numbers.setdefault(key, len(self._known))
        if number == len(self._known):
            owner = key[1] if key[0] in ("at", "element", "head") else -1
            assert isinstance(owner, int)
            self._known.append(_Known(owner))
        return number

    def of_data(self, offset: int) -> int:
        """Return the origin of a pointer in the module data, -1 for one that is nil for good.

        The compiler uses one such nil for all types.
        """
        return self.origin("data", offset) if offset in self._variables else -1

    # What the flow through the program notes

    def tag(self, origin: int) -> None:
        """Note that the first word behind a pointer is looked at."""
        self._known[origin].is_pick = True

    def access(self, origin: int, offset: int, size: int, is_pointer: bool, pc: int) -> None:
        """Note that some bytes behind a pointer are accessed."""
        known = self._known[origin]
        known.accesses.setdefault(Access(offset, size, is_pointer), pc)
        if offset or size != WORD_SIZE or is_pointer:
            # The first word of a module handle, the address of its data, can be read as a word.
            known.kinds.setdefault(_RECORD, pc)

    def value(self, origin: int, offset: int, layout: Layout, pc: int) -> None:
        """Note that a whole value behind a pointer is accessed."""
        for at in layout.pointers:
            self.access(origin, offset + at, WORD_SIZE, True, pc)

    def use(self, origin: int, letter: str, pc: int) -> None:
        """Note that a pointer is used as one to a kind of object."""
        self._known[origin].kinds.setdefault(letter, pc)

    def passed(self, parameter: int, argument: int) -> None:
        """Note that a pointer is passed as a parameter."""
        self._passed[parameter].add(argument)

    def passed_object(self, parameter: int, type_: int, pc: int) -> None:
        """Note that an object of a known type is passed as a parameter."""
        self._objects[parameter].setdefault(type_, pc)

    def wanted_result(self, result: int, frame: int, offset: int, pc: int) -> None:
        """Note that a result is wanted in a frame of a type, at an offset."""
        self._results.setdefault((result, frame, offset), pc)

    # The end

    def settle(self) -> None:
        """Refuse the module if it does not agree with itself; raises VerifyError."""
        for known in self._known:
            if known.owner >= 0 and self._known[known.owner].is_pick:
                known.is_pick = True  # owners come first
            if known.is_pick:
                known.accesses, known.kinds = {}, {}
        self._spread()
        for known in self._known:
            if not known.is_pick:
                self._check_accesses(known)
                self._check_kinds(known)
        for parameter, types in self._objects.items():
            for type_, pc in types.items():
                self._check_object(self._known[parameter], type_, pc)
        for (result, frame, offset), pc in self._results.items():
            self._check_result(self._known[result], self._found.layouts[frame], offset, pc)

    def _spread(self) -> None:
        """Let what is done with a parameter be done with what is passed as it."""
        work = list(self._passed)
        while work:
            parameter = work.pop()
            known = self._known[parameter]
            for argument in self._passed.get(parameter, ()):
                other = self._known[argument]
                if other.is_pick:
                    continue
                before = len(other.accesses) + len(other.kinds)
                for access, pc in known.accesses.items():
                    other.accesses.setdefault(access, pc)
                for kind, pc in known.kinds.items():
                    other.kinds.setdefault(kind, pc)
                if len(other.accesses) + len(other.kinds) > before:
                    work.append(argument)

    def _check_accesses(self, known: _Known) -> None:
        pointers = {access.offset: pc for access, pc in known.accesses.items() if access.is_pointer}
        for access, pc in known.accesses.items():
            if access.is_pointer or not pointers:
                continue
            for at in range(access.offset - WORD_SIZE + 1, access.offset + access.size):
                if at in pointers:
                    later, earlier = max(pc, pointers[at]), min(pc, pointers[at])
                    other = "a pointer" if pc == later else "a number"
                    why = f"{at} behind the pointer holds {other} at pc {earlier}"
                    raise self._found.fail(later, why)

    def _check_kinds(self, known: _Known) -> None:
        if len(known.kinds) < 2:
            return
        (kind, pc), (other, later) = sorted(known.kinds.items(), key=lambda item: item[1])[:2]
        names = [KINDS.get(letter, letter) for letter in (kind, other)]
        why = f"the {names[1]} is used as a {names[0]} at pc {pc}"
        raise self._found.fail(later, why)

    def _check_object(self, known: _Known, type_: int, pc: int) -> None:
        layout = self._found.layouts[type_]
        for kind, at in known.kinds.items():
            if kind != _RECORD:
                why = f"an object of type {type_} is passed and used as a {KINDS[kind]} at pc {at}"
                raise self._found.fail(pc, why)
        for access, at in known.accesses.items():
            if why := _misfit(access, access.offset, layout):
                raise self._found.fail(pc, f"an object of type {type_} is passed; pc {at}: {why}")

    def _check_result(self, known: _Known, layout: Layout, offset: int, pc: int) -> None:
        for access, at in known.accesses.items():
            if why := _misfit(access, offset + access.offset, layout):
                raise self._found.fail(pc, f"the result goes to {offset}(fp); pc {at}: {why}")


def _variables(found: Structure) -> set[int]:
    """Return the offsets in the module data that instructions write and take no address of."""
    variables: set[int] = set()
    others: set[int] = set()
    for instruction in found.module.instructions:
        for role in instruction.op.operands:
            operand = instruction.operand(role.place) if role.place in "smd" else ABSENT
            if operand.mode is Mode.MP and (role.writes or role.is_storage):
                (others if role.is_storage else variables).add(operand.value)
    return variables - others


def _misfit(access: Access, offset: int, layout: Layout) -> str:
    """Say why an access does not fit a layout, or nothing."""
    if not 0 <= offset <= layout.size - access.size:
        return f"{access.size} bytes at {offset} reach beyond the {layout.size} there"
    if access.is_pointer:
        return "" if offset in layout.pointers else f"there is no pointer at {offset}"
    if offset % min(access.size, WORD_SIZE):
        return f"{access.size} bytes at {offset} are not aligned"
    return (
        f"a number at {offset} lies over a pointer" if layout.overlaps(offset, access.size) else ""
    )
