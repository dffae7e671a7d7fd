"""What the pointers of one module can point to: classes of pointers that may share an object.

Every pointer that the verifier distinguishes (an *origin*, see ``origins.py``) belongs to a class;
if one pointer may become another, both are in one class, and so are the pointers behind them. For
each class it is known which objects the module itself makes for it, unless it is *open*: then
objects that others made, or may change, can be there too. What is done behind pointers of a class
that is not open can thus be proved for all of its objects; the rest is left to guards
(``guards.py``).

This is Steensgaard's analysis (Points-to Analysis in Almost Linear Time, 1996), with one class for
each field.
"""

from __future__ import annotations

from collections.abc import Callable

from llmbol_core.vm.verification.origins import Origins
from llmbol_core.vm.verification.structure import Layout

OPEN = 0
"""The node of everything open."""
RECORD = "R"
"""The letter of objects that are records, beside those of strings, arrays and so on."""

_FARTHEST = 1 << 12
"""Offset at which results that are passed on from function to function are given up."""

Field = tuple[object, int]
"""A part of an object: "at" and an offset, or "element", "head", "content", "data" and 0."""


class Classes:
    """Classes of pointers; their members are numbers of nodes."""

    def __init__(self, origins: Origins) -> None:
        self._all = origins.all
        self._parents = [OPEN]
        self._fields: dict[int, dict[Field, int]] = {}
        self._kinds: dict[int, set[str]] = {}
        self._layouts: dict[int, set[Layout]] = {}
        self._origins: dict[int, int] = {}
        self._shifted: dict[tuple[int, int, int], None] = {}
        self._opened: dict[int, int] = {}
        """From which offset on anything may be kept in the objects of a class that is not open."""

    # Nodes

    def new(self) -> int:
        """Return a node that is a class of its own."""
        self._parents.append(len(self._parents))
        return len(self._parents) - 1

    def of_origin(self, origin: int) -> int:
        """Return the node of an origin; that of an unknown one is open."""
        if origin < 0:
            return OPEN
        if origin not in self._origins:
            node = self._origins[origin] = self.new()
            known = self._all[origin]
            if known.depth:
                what, parent, offset = known.key
                assert isinstance(parent, int)
                assert isinstance(offset, int)
                self.unite(self.field(self.of_origin(parent), what, offset), node)
        return self._origins[origin]

    def root(self, node: int) -> int:
        """Return the node that stands for a class."""
        parents = self._parents
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    def field(self, node: int, what: object, offset: int = 0) -> int:
        """Return the node of what is kept somewhere in the objects of a class."""
        root = self.root(node)
        if root == OPEN or (what == "at" and offset >= self._opened.get(root, offset + 1)):
            return OPEN
        fields = self._fields.setdefault(root, {})
        if (what, offset) not in fields:
            fields[what, offset] = self.new()
        return fields[what, offset]

    # What is known

    def bring(self, node: int, kind: str, layout: Layout | None = None) -> None:
        """Note that the module makes an object for a class."""
        root = self.root(node)
        self._kinds.setdefault(root, set()).add(kind)
        if layout is not None:
            self._layouts.setdefault(root, set()).add(layout)

    def is_open(self, node: int) -> bool:
        """Whether objects that others made can be there."""
        return self.root(node) == OPEN

    def kinds(self, node: int) -> set[str]:
        """Return the letters of the kinds of objects in a class."""
        return self._kinds.get(self.root(node), set())

    def layouts(self, node: int) -> set[Layout]:
        """Return the layouts of the records, or elements, or values in a class."""
        return self._layouts.get(self.root(node), set())

    def is_made(self, node: int, kind: str) -> bool:
        """Whether all objects of a class are known, and of one kind."""
        return not self.is_open(node) and self.kinds(node) == {kind}

    # Uniting

    def unite(self, node: int, other: int) -> None:
        """Merge two classes."""
        work = [(node, other)]
        while work:
            one, two = (self.root(n) for n in work.pop())
            if one == two:
                continue
            if two == OPEN:
                one, two = two, one
            self._parents[two] = one
            self._kinds.setdefault(one, set()).update(self._kinds.pop(two, ()))
            self._layouts.setdefault(one, set()).update(self._layouts.pop(two, ()))
            fields = self._fields.pop(two, {})
            if one == OPEN:
                work += [(OPEN, field) for field in fields.values()]
                continue
            known = self._fields.setdefault(one, {})
            for key, field in fields.items():
                if key in known:
                    work.append((known[key], field))
                else:
                    known[key] = field
            starts = [self._opened.pop(n) for n in (one, two) if n in self._opened]
            if starts:
                self._opened[one] = min(starts)
                work += [(OPEN, field) for field in self._from(one, min(starts))]

    def _from(self, root: int, start: int) -> list[int]:
        """Return what is known of what a class keeps from an offset on."""
        fields = self._fields.get(root, {})
        return [field for (what, at), field in fields.items() if what == "at" and at >= start]

    def _open(self, node: int, start: int) -> bool:
        """Let anything be kept in a class from an offset on; return whether that is new."""
        root = self.root(node)
        if root == OPEN or start >= self._opened.get(root, start + 1):
            return False
        self._opened[root] = start
        for field in self._from(root, start):
            self.unite(OPEN, field)
        return True

    def link(self, place: int, node: int, shift: int) -> None:
        """Note that what is kept at a place is kept in the objects of a class, from an offset on.

        Anything may be kept there if the place is open. ``close`` draws the conclusions.
        """
        self._shifted[place, node, shift] = None

    def close(self) -> None:
        """Unite what is kept at places with what is kept in the objects that contain them."""
        changed = True
        while changed:
            before = len(self._parents)
            roots = 0
            for place, node, shift in self._shifted:
                roots += self._open_alike(place, node, shift)
                for what, offset in list(self._fields.get(self.root(place), ())):
                    if what == "at" and offset + shift >= _FARTHEST:
                        self.unite(place, OPEN)
                        self.unite(node, OPEN)
                    elif what == "at":
                        one = self.field(place, what, offset)
                        two = self.field(node, what, offset + shift)
                        if self.root(one) != self.root(two):
                            self.unite(one, two)
                            roots += 1
            changed = bool(roots) or len(self._parents) != before

    def _open_alike(self, place: int, node: int, shift: int) -> int:
        """Let anything be kept at a place if it may be in the objects, or the other way round."""
        at, inside = (
            0 if self.is_open(n) else self._opened.get(self.root(n)) for n in (place, node)
        )
        found = at is not None and self._open(node, at + shift)
        return found + (inside is not None and self._open(place, max(inside - shift, 0)))

    # Origins

    def take_flows(self, is_dead: Callable[[int, int], bool]) -> None:
        """Unite all origins between which pointers flow; where ways meet, only if that matters."""
        for number, origin in enumerate(self._all):
            node = self.of_origin(number)
            if origin.key[0] == "join":
                _, pc, slot = origin.key
                assert isinstance(pc, int)
                assert isinstance(slot, int)
                if is_dead(pc, slot):
                    continue
            is_place = origin.key[0] == "result" or any(flow.shift for flow in origin.flows)
            for flow in origin.flows:
                if is_place:
                    self.link(node, self.of_origin(flow.source), flow.shift)
                else:
                    self.unite(node, self.of_origin(flow.source))
