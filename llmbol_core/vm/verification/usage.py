"""What a module does with pointers whose types no object file states: it must agree with itself.

Every access behind an origin (``origins.py``) is noted, whichever function makes it: a pointer or
a number at some offset, or a use as a string, an array, a list, a channel or a module handle; and
so is every object of a known type that comes to one. At the end

- what is done with an origin must fit all objects that come to it;
- one origin cannot have both a number and a pointer at the same place, nor be used as two kinds;
- what a function writes as its result must fit where its callers want it;
- what a channel carries must fit where it is sent from and received.

A pick's first word, its tag, says which variant it is. What the program does after a test of
that word is required only of objects that were made with such a tag.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from llmbol_core.vm.isa import TYPES, WORD_SIZE
from llmbol_core.vm.verification.fitting import Wanted, misfit, mismatch
from llmbol_core.vm.verification.guards import value_pieces
from llmbol_core.vm.verification.needs import Need, Part
from llmbol_core.vm.verification.origins import Access, Flow, How, Origin, Origins, Use, meet
from llmbol_core.vm.verification.proofs import Proof
from llmbol_core.vm.verification.slots import POINTERS, Tags, Value
from llmbol_core.vm.verification.structure import Layout, Structure
from llmbol_core.vm.verification.variables import Variables

KINDS = {letter: TYPES[letter].name for letter in "CAINZ"}
"""The kinds of objects that instructions distinguish: letters and names."""
_RECORD = "record"
LOST = "addresses are moved on to too many places"


class _Made(NamedTuple):
    """An object that comes to an origin: its layout, its tag, and what it is, in words."""

    layout: Layout
    tags: Tags
    what: str


class Usage:
    """All that one module does with pointers of unknown types."""

    def __init__(self, found: Structure, received: frozenset[int] = frozenset()) -> None:
        self._found = found
        self.origins = Origins()
        self.elements: dict[int, int] = {}
        """Types of the elements of arrays that the module makes, by origin."""
        self.extents: dict[int, int] = {}
        """Bytes that functions write as their results, by entry."""
        self._kinds: dict[int, str] = {}
        self._made: dict[int, dict[_Made, int]] = defaultdict(dict)
        self._wanted: dict[int, dict[Wanted, int]] = defaultdict(dict)
        self._copies: set[int] = set()
        """Origins of objects that are copies of objects whose tags are not known."""
        self._retagged: set[int] = set()
        self._picks: set[int] = set()
        self._results: dict[tuple[int, Wanted], int] = {}
        self._received: dict[tuple[int, int, int], int] = {}
        self._needs: dict[tuple[int, int], Need] = defaultdict(Need)
        self._shared: set[tuple[int, int, int]] = set()
        self._copied: dict[tuple[int, int], int] = {}
        self._returned: dict[tuple[int, int, int, int, int, Tags], None] = {}
        self.variables = Variables(found, received)
        self.lost: set[tuple[int, int, int]] = set()
        """Pointers that become unknown at an instruction: its pc, their slot and origin."""
        self.unknown: set[int] = set()
        """Origins of pointers of which nothing is known."""

    def origin(self, *key: object) -> int:
        """Return the number of an origin."""
        return self.origins.number(*key)

    def behind(self, origin: int, what: str, offset: int = 0, tags: Tags = None) -> int:
        """Return the origin of what is behind another one: at an offset, its elements, ..."""
        return self.origins.behind(origin, what, offset, tags)

    def of_data(self, offset: int) -> int:
        """Return the origin of a pointer in the module data, -1 for one that is nil for good."""
        if self.variables.is_nil(offset):
            return -1
        number = self.origin("data", offset)
        if offset in self.variables.constants:
            self.make(number, self.variables.constants[offset])
        return number

    # Noted while the program is followed

    def lose(self, pc: int, slot: int, value: Value) -> None:
        """Note that from an instruction on a slot may hold a pointer of which nothing is known."""
        if value.kind in POINTERS and value.origin >= 0:
            self.lost.add((pc, slot, value.origin))

    def look_at_tag(self, origin: int) -> None:
        """Note that the first word behind a pointer is looked at."""
        self._picks.add(origin)

    def access(
        self, origin: int, offset: int, size: int, use: Use, pc: int, tags: Tags = None
    ) -> None:
        """Note that some bytes behind a pointer are accessed."""
        self.origins.note(origin, Access(offset, size, use, tags), pc)
        if offset or size != WORD_SIZE or use is not Use.READ:
            # The first word of a module handle, the address of its data, can be read as a word.
            self.origins.note(origin, _RECORD, pc)

    def value(self, origin: int, offset: int, layout: Layout, pc: int, tags: Tags = None) -> None:
        """Note that a whole value behind a pointer is accessed."""
        for at in layout.pointers:
            self.access(origin, offset + at, WORD_SIZE, Use.POINTER, pc, tags)

    def use(self, origin: int, letter: str, pc: int) -> None:
        """Note that a pointer is used as one to a kind of object."""
        self.origins.note(origin, letter, pc)

    def make(self, origin: int, letter: str) -> None:
        """Note that an origin gives objects of a kind."""
        self._kinds[origin] = letter

    def bring(self, origin: int, layout: Layout, tags: Tags, what: str, pc: int) -> None:
        """Note that an object of a known layout comes to an origin."""
        self._made[origin].setdefault(_Made(layout, tags, what), pc)

    def copy_tag(self, origin: int, tags: Tags) -> None:
        """Note that the object that an instruction makes is the copy of another one."""
        if tags is None:
            self._copies.add(origin)
        else:
            self.set_tag(origin, tags)

    def set_tag(self, origin: int, tags: Tags) -> None:
        """Note the tag of the object that an instruction makes."""
        known = self.origins.all[origin]
        if known.tag not in (None, tags):
            self._retagged.add(origin)
        known.tag = None if origin in self._retagged else tags

    def flow(
        self,
        origin: int,
        source: int,
        tags: Tags = None,
        how: How = How.COPIED,
        shift: int = 0,
    ) -> None:
        """Note that a pointer is copied or passed as a parameter; or an address, by a shift."""
        self.origins.flow(origin, Flow(source, tags, shift, how))

    def want(self, origin: int, layout: Layout, offset: int, writes: bool, pc: int) -> None:
        """Note where a channel's values go to or come from."""
        self._wanted[origin].setdefault(Wanted(layout, offset, writes), pc)

    def want_result(self, result: int, layout: Layout, offset: int, pc: int) -> None:
        """Note that a result is wanted in an object, at an offset."""
        self._results.setdefault((result, Wanted(layout, offset, True)), pc)

    def receive_result(self, content: int, result: int, offset: int, pc: int) -> None:
        """Note that what a channel carries is received where a result goes."""
        self._received.setdefault((content, result, offset), pc)

    def want_result_behind(self, result: int, to: Value) -> None:
        """Note that a result is wanted at an address behind a pointer."""
        self.origins.flow(result, Flow(to.origin, to.tags, to.number, How.PASSED))

    def need(self, handle: int, link: int) -> Need:
        """Return what is needed of a function of a module, given where its handle comes from."""
        return self._needs[handle, link]

    def share_needs(self, handle: int, other: int, link: int) -> None:
        """Note that a frame made for a function of one handle is used for one of another handle."""
        self._shared.add((handle, other, link))

    def proof(self, entries: Iterable[int], linked_by: Callable[[int], int | None]) -> Proof:
        """Return what the module needs of others, and what its functions do where results go.

        ``linked_by`` tells of the origin of a handle which list of imports surely links it.
        """
        needs: dict[tuple[int, int], Need] = defaultdict(Need)
        for handle, other, link in self._shared:
            one, two = self._needs[handle, link], self._needs[other, link]
            two.stores |= one.stores
        for (handle, link), need in self._needs.items():
            # Where it is not sure, guards compare the same (``leftover.py``).
            if (imports := linked_by(handle)) is not None:
                needs[imports, link].add(need)
        results = {pc: self._at_result(self.origin("result", pc)) for pc in entries}
        return Proof(dict(needs), {pc: parts for pc, parts in results.items() if parts})

    def _at_result(self, result: int) -> set[Part]:
        """Return what a function writes as its result, and what it reads there."""
        noted = [noted.what for noted in self.origins.all[result].noted]
        return {
            Part(what.offset, what.size, what.use) for what in noted if isinstance(what, Access)
        }

    def copy_elements(self, source: int, target: int, pc: int) -> None:
        """Note that the elements of an array are copied to another one."""
        elements = self.behind(source, "element"), self.behind(target, "element")
        self._copied.setdefault(elements, pc)
        self.flow(elements[1], elements[0])

    def is_array(self, origin: int) -> bool:
        """Whether a pointer is known to be one to an array."""
        return (
            self._kinds.get(origin) == "A"
            or self.origins.noted("A") in self.origins.all[origin].noted
        )

    def returns(self, origin: int, result: int, at: int, parameter: int, passed: Value) -> None:
        """Note what is passed to a function that may return it."""
        self._returned.setdefault((origin, result, at, parameter, passed.origin, passed.flowing))

    # The end

    def settle(self) -> None:
        """Refuse the module if it does not agree with itself; raises VerifyError."""
        self._check_moving()
        self._link_returned()
        self._spread()
        self._write_received()
        self._spread()
        for number, known in enumerate(self.origins.all):
            if number in self._picks or known.key[0] == "nil":
                continue
            self._check_accesses(known)
            self._check_kinds(number, known)
        for number, made in self._made.items():
            for thing, pc in made.items():
                self._check_made(number, thing, pc)
        for number, wanted in self._wanted.items():
            for place, pc in wanted.items():
                self._check_wanted(number, place, pc)
        for (number, place), pc in self._results.items():
            self._check_result(number, place, pc)
        for elements, pc in self._copied.items():
            self._check_copied(elements, pc)

    def _check_moving(self) -> None:
        """Refuse addresses that move on again and again: nobody knows how far they get."""
        if (number := self.origins.moving()) >= 0:
            _, pc, *slot = self.origins.all[number].key
            assert isinstance(pc, int)
            where = "for the result" if self.origins.is_result(number) else f"at {slot[0]}(fp)"
            raise self._found.fail(pc, f"the address {where} moves on each time it comes back here")

    def _link_returned(self) -> None:
        """Link results that are parameters to what each caller passes."""
        known: dict[tuple[int, int], set[int]] = {}
        for origin, result, at, parameter, passed, tags in self._returned:
            if (result, at) not in known:
                known[result, at] = set(self.origins.sources(self.behind(result, "at", at)))
            if parameter in known[result, at]:
                self.flow(origin, passed, tags)

    def _write_received(self) -> None:
        """Note results that are written by receiving values of known types."""
        for (content, result, offset), pc in self._received.items():
            for layout in self._layouts(content):
                for piece in value_pieces(layout, offset, Use.WRITE):
                    self.access(result, *piece, pc)

    def _spread(self) -> None:
        """Spread what is done with pointers to everything that they may be, whatever the tags."""
        while True:
            self.origins.spread()
            if self.origins.is_lost:
                raise self._found.fail(-1, LOST)
            changed = [n for n in self._made if self._loses_tag(n)]
            if not changed:
                return
            for number in changed:
                self.origins.drop_tag(number)

    def _loses_tag(self, number: int) -> bool:
        known = self.origins.all[number]
        return known.tag is not None and any(
            isinstance(n.what, Access) and n.what.use is Use.WRITE and n.what.offset < WORD_SIZE
            for n in known.noted
        )

    def _check_accesses(self, known: Origin) -> None:
        accesses = [
            (noted.what, pc)
            for noted, pc in known.noted.items()
            if isinstance(noted.what, Access) and not noted.is_borrowed
        ]
        pointers: dict[int, list[tuple[Access, int]]] = defaultdict(list)
        for access, pc in accesses:
            if access.use is Use.POINTER:
                pointers[access.offset].append((access, pc))
        for access, pc in accesses if pointers else ():
            if access.use is Use.WRITE:
                self._check_write(access, pc, pointers)

    def _check_write(
        self, access: Access, pc: int, pointers: dict[int, list[tuple[Access, int]]]
    ) -> None:
        for at in range(access.offset - WORD_SIZE + 1, access.offset + access.size):
            for pointer, other in pointers.get(at, ()):
                if _is_same(access.tags, pointer.tags):
                    later, earlier = max(pc, other), min(pc, other)
                    what = "a pointer" if pc == later else "a number"
                    why = f"{at} behind the pointer holds {what} at pc {earlier}"
                    raise self._found.fail(later, why)

    def _check_kinds(self, number: int, known: Origin) -> None:
        made = self._kinds.get(number)
        kinds = {
            noted.what: pc
            for noted, pc in known.noted.items()
            if isinstance(noted.what, str) and (made or not noted.is_borrowed)
        }
        if made is not None:
            kinds.setdefault(made, -1)
        if len(kinds) < 2:
            return
        (kind, pc), (other, later) = sorted(kinds.items(), key=lambda item: item[1])[:2]
        names = [KINDS.get(letter, letter) for letter in (kind, other)]
        one = _with_article(names[0])
        where = f"used as {one} at pc {pc}" if pc >= 0 else one
        raise self._found.fail(later, f"the {names[1]} is {where}")

    def _check_made(self, number: int, made: _Made, pc: int) -> None:
        tags = self.origins.all[number].tag
        for noted, at in self.origins.all[number].noted.items():
            if isinstance(noted.what, str):
                if noted.what != _RECORD and made.what.startswith("an object"):
                    one = _with_article(KINDS[noted.what])
                    why = f"{made.what} is used as {one} at pc {at}"
                    raise self._found.fail(pc, why)
            elif noted.what.tags is not None and number in self._copies:
                continue
            elif meet(tags, noted.what.tags) != frozenset():
                why = misfit(noted.what, noted.what.offset, made.layout)
                if why:
                    what = f"{made.what}, made at pc {pc}, comes here"
                    raise self._found.fail(at, f"{what}: {why}")

    def _check_result(self, number: int, wanted: Wanted, pc: int) -> None:
        for noted, at in self.origins.all[number].noted.items():
            if isinstance(noted.what, Access):
                place = wanted.offset + noted.what.offset
                why = misfit(noted.what, place, wanted.layout)
                is_data = wanted.layout is self._found.data and noted.what.use is not Use.READ
                if is_data and self._found.writes_table(place, noted.what.size):
                    why = f"a table that is jumped through would be written at {place}"
                if why:
                    why = f"the result goes to {wanted.offset}(fp); pc {at}: {why}"
                    raise self._found.fail(pc, why)

    def _check_wanted(self, number: int, wanted: Wanted, pc: int) -> None:
        for layout in self._layouts(number):
            why = mismatch(layout, wanted)
            is_data = wanted.writes and wanted.layout is self._found.data
            if is_data and self._found.writes_table(wanted.offset, layout.size):
                why = f"a table that is jumped through would be written at {wanted.offset}"
            if why:
                raise self._found.fail(pc, why)

    def _check_copied(self, elements: tuple[int, int], pc: int) -> None:
        for layout in self._layouts(elements[0]):
            for other in self._layouts(elements[1]):
                if layout != other:
                    raise self._found.fail(pc, "the arrays have elements of different types")

    def _layouts(self, origin: int) -> set[Layout]:
        """Return the layouts of all that comes to an origin."""
        found = self.origins.sources(origin, everything=True)
        return {made.layout for number in found for made in self._made.get(number, ())}


def _is_same(tags: Tags, others: Tags) -> bool:
    """Whether accesses surely concern the same objects."""
    if tags is None or others is None:
        return tags is others
    return bool(tags & others)


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
