"""Where the pointers of one module come from, and how what is done with them spreads.

An *origin* is a place that pointers are read from: a parameter, an instruction that makes objects,
a variable in the module data, a place where several ways meet; or, behind another origin, a field,
the elements of an array, the heads of a list, what a channel carries. What the program does with a
pointer is noted at the origin that it was read from, and must fit everything that the pointer may
be. So notes spread, against the flow of the pointers, to the origins of what is stored there.

A function is called from several places, with pointers of several types if it is polymorphic. What
one caller does with its result, or finds in what it passed, must not be required of what another
passes. So it is noted as *borrowed*: it holds for what the function makes, not for its
parameters. Parameters that a function returns are followed call by call instead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from llmbol_core.vm.verification.slots import RESULT, Tags

Key = tuple[object, ...]
_DEEPEST = 1
"""How many levels deep origins are made only because something spreads to them."""

MOST_PLACES = 10_000
"""To how many places the verifier follows addresses that are moved on; programs have a few."""


class Use(IntEnum):
    """What is done with bytes behind a pointer."""

    READ = 0
    """They are read as a number."""
    WRITE = 1
    """A number is written over them."""
    POINTER = 2
    """They are read or written as a pointer."""
    WHOLE = 3
    """They are taken as the whole of an element."""


class Access(NamedTuple):
    """Bytes behind a pointer and what is done with them, if its tag is one of some."""

    offset: int
    size: int
    use: Use
    tags: Tags = None


@dataclass(frozen=True, eq=False, slots=True)
class Noted:
    """Something done with a pointer: an access, or a letter if it is used as a kind of object.

    Equal ones are one object, which ``Origins.noted`` makes.
    """

    what: Access | str
    is_borrowed: bool


class How(IntEnum):
    """How a pointer comes to an origin."""

    COPIED = 0
    PASSED = 1
    """As a parameter."""
    BORROWED = 2
    """Stored or returned by a function for its caller."""


_BACK = {How.COPIED: How.COPIED, How.PASSED: How.BORROWED, How.BORROWED: How.PASSED}
"""How what is stored behind a pointer flows back to where the pointer came from."""


class Flow(NamedTuple):
    """Pointers of some tags that come from an origin; as places if the offset is not 0."""

    source: int
    tags: Tags = None
    shift: int = 0
    how: How = How.COPIED


class Spread(NamedTuple):
    """How much has spread along a flow: of the notes, of the children here, of those there."""

    noted: int = 0
    children: int = 0
    others: int = 0


@dataclass
class Origin:
    """What is known of one origin."""

    key: Key
    depth: int = 0
    noted: dict[Noted, int] = field(default_factory=dict)
    """What is done with it, and the first instruction that does so."""
    children: dict[Key, int] = field(default_factory=dict)
    flows: dict[Flow, Spread] = field(default_factory=dict)
    """Where pointers come from, and how much of what is known has spread there."""
    tag: Tags = None
    """The only tag of the objects that are made here, if it is known."""


def meet(tags: Tags, others: Tags) -> Tags:
    """Return the tags that both sets have."""
    if tags is None or others is None:
        return tags if others is None else others
    return tags & others


class Origins:
    """All origins of a module, by number."""

    def __init__(self) -> None:
        self.all: list[Origin] = []
        self._numbers: dict[Key, int] = {}
        self._siblings: dict[tuple[int, object, object], list[tuple[int, Tags]]] = defaultdict(list)
        self._noted: dict[tuple[Access | str, bool], Noted] = {}
        self._changed: dict[tuple[Tags, int, How, Tags], dict[Noted, Noted | None]] = {}
        """Notes as flows change them, by tags, shift and so on."""
        self._work: set[int] = set()
        self._shifted = 0
        """Notes that were made of others because an address was moved on."""

    def noted(self, what: Access | str, is_borrowed: bool = False) -> Noted:
        """Return the one object that stands for something done with a pointer."""
        found = self._noted.get((what, is_borrowed))
        if found is None:
            found = self._noted[what, is_borrowed] = Noted(what, is_borrowed)
        return found

    def number(self, *key: object) -> int:
        """Return the number of an origin that does not lie behind another one."""
        found = self._numbers.get(key)
        if found is None:
            found = self._numbers[key] = len(self.all)
            self.all.append(Origin(key))
        return found

    def behind(self, origin: int, what: str, offset: int = 0, tags: Tags = None) -> int:
        """Return the number of the origin of a place behind another origin."""
        key = (what, offset, tags)
        known = self.all[origin]
        found = known.children.get(key)
        if found is None:
            found = known.children[key] = len(self.all)
            self.all.append(Origin((what, origin, offset), known.depth + 1))
            self._join_siblings(found, tags, self._siblings[origin, what, offset])
            self._work.add(origin)
        return found

    def _join_siblings(self, number: int, tags: Tags, siblings: list[tuple[int, Tags]]) -> None:
        """Connect the origins of a field that differ only in what is known of its object's tag.

        What is read where more tags are possible may have been stored where fewer are; what is
        required of it where fewer are is not required of what was stored where others are.
        """
        for other, known in siblings:
            both = meet(tags, known)
            if both == frozenset():
                continue
            to, back = How.COPIED, How.COPIED
            if both == tags:
                to, back = How.BORROWED, How.PASSED
            elif both == known:
                to, back = How.PASSED, How.BORROWED
            self.flow(number, Flow(other, how=to))
            self.flow(other, Flow(number, how=back))
        siblings.append((number, tags))

    def note(self, origin: int, what: Access | str, pc: int) -> None:
        """Note that something is done with a pointer."""
        noted, known = self.noted(what), self.all[origin].noted
        if noted not in known:
            known[noted] = pc
            self._work.add(origin)

    def flow(self, origin: int, flow: Flow) -> None:
        """Note that pointers come to an origin from another one."""
        known = self.all[origin]
        if (flow.source != origin or flow.shift) and flow not in known.flows:
            known.flows[flow] = Spread()
            self._work.add(origin)

    def spread(self) -> None:
        """Spread what is done with pointers to everything that they may be."""
        while self._work and not self.is_lost:
            origin = self.all[number := self._work.pop()]
            noted = list(origin.noted.items())
            for flow, done in list(origin.flows.items()):
                source = self.all[flow.source]
                if done.noted < len(noted):
                    self._spread_noted(noted[done.noted :], flow, source)
                if (done.children, done.others) != (len(origin.children), len(source.children)):
                    self._spread_children(number, flow)
                origin.flows[flow] = Spread(len(noted), len(origin.children), len(source.children))

    def _spread_noted(self, noted: list[tuple[Noted, int]], flow: Flow, source: Origin) -> None:
        """Note at the source of a flow what was noted at its target."""
        known, before = source.noted, len(source.noted)
        changed = self._changed.setdefault((flow.tags, flow.shift, flow.how, source.tag), {})
        for thing, pc in noted:
            if thing not in changed:
                changed[thing] = self._spread(thing, flow, source.tag)
            spread = changed[thing]
            if spread is not None and spread not in known:
                known[spread] = pc
        if len(known) > before:
            self._work.add(flow.source)

    def _spread(self, noted: Noted, flow: Flow, tag: Tags) -> Noted | None:
        """Return a note of a flow's target as it applies to its source; None if it does not."""
        if flow.how is How.PASSED and noted.is_borrowed:
            return None
        if flow.tags is None and tag is None and not flow.shift and flow.how is not How.BORROWED:
            return noted
        is_borrowed = noted.is_borrowed or flow.how is How.BORROWED
        if isinstance(noted.what, str):
            return self.noted(noted.what, is_borrowed) if not flow.shift else None
        offset, size, use, tags = noted.what
        met = meet(meet(tags, flow.tags), tag)
        if met == frozenset():
            return None
        self._shifted += bool(flow.shift)
        return self.noted(Access(offset + flow.shift, size, use, met), is_borrowed)

    def _spread_children(self, number: int, flow: Flow) -> None:
        """Spread notes on what lies behind the pointers."""
        source = self.all[flow.source]
        for (what, offset, tags), child in list(self.all[number].children.items()):
            met = meet(meet(tags, flow.tags), source.tag)  # type: ignore[arg-type]
            if met == frozenset():
                continue
            assert isinstance(what, str)
            assert isinstance(offset, int)
            offset += flow.shift
            if (what, offset, met) not in source.children and source.depth >= _DEEPEST:
                continue
            other = self.behind(flow.source, what, offset, met)
            self.flow(child, Flow(other, how=flow.how))
            self.flow(other, Flow(child, how=_BACK[flow.how]))

    @property
    def is_lost(self) -> bool:
        """Whether addresses are moved on to so many places that nobody can follow them."""
        return self._shifted > MOST_PLACES

    def moving(self) -> int:
        """Return an origin of addresses that move on each time they come back to it, or -1.

        Only places where ways meet, and places of results, get addresses from each other.
        """
        for number, origin in enumerate(self.all):
            for flow in origin.flows:
                if flow.shift and self._comes_from(flow.source, number):
                    return number
        return -1

    def _comes_from(self, origin: int, other: int) -> bool:
        """Whether an address at an origin may have been at another one before."""
        seen, work = {origin}, [origin]
        while work:
            number = work.pop()
            if number == other:
                return True
            if self.all[number].key[0] in ("join", "result"):
                more = {flow.source for flow in self.all[number].flows} - seen
                seen |= more
                work += more
        return False

    def drop_tag(self, origin: int) -> None:
        """Note that the tag of what an instruction makes can change."""
        self.all[origin].tag = None
        for number, known in enumerate(self.all):
            for flow in known.flows:
                if flow.source == origin:
                    known.flows[flow] = Spread()
                    self._work.add(number)

    def is_result(self, origin: int) -> bool:
        """Whether an origin stands for where the result goes, of one function or of several."""
        what, *rest = self.all[origin].key if origin >= 0 else ("",)
        return what == "result" or (what == "join" and rest[1] == RESULT)

    def sources(self, origin: int, everything: bool = False) -> Iterator[int]:
        """Yield an origin and all from which pointers are copied to it, or come to it at all."""
        seen, work = {origin}, [origin]
        while work:
            number = work.pop()
            yield number
            for flow in self.all[number].flows:
                is_one = everything or flow.how is How.COPIED
                if is_one and not flow.shift and flow.source not in seen:
                    seen.add(flow.source)
                    work.append(flow.source)
