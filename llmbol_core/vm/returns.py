"""What functions return, as it becomes known when modules are linked or while they run.

A function may let another one write its result by passing on the address that it was given.
So a caller's place gets what the function writes, and whatever is written by the functions that it
calls in this way, which may belong to modules that are loaded much later. Therefore it is noted
where the result of a function is wanted, and what writes it; whichever comes second must fit.
"""

from __future__ import annotations

from collections.abc import Iterable

from llmbol_core.vm.verification.needs import Part, Shape, misfitting

_DEEPEST = 64
"""How often a part of a result can be the result of another function, and so on."""
_TOO_DEEP = "it passes on part after part of where a caller wants its result"


class Returns:
    """What one function returns; ``parts`` are what it does itself where its result goes."""

    def __init__(self, parts: Iterable[Part], wanted: Iterable[Shape] = ()) -> None:
        self._parts, self._wanted = set(parts), set(wanted)
        self._others: dict[tuple[int, int], Returns] = {}

    def want(self, place: Shape) -> str:
        """Note a place for the result; return why the result does not fit, empty if it fits."""
        noted, work = list[tuple[Returns, Shape]](), [(self, place, 0)]
        while work:
            one, there, depth = work.pop()
            if there in one._wanted:
                continue
            one._wanted.add(there)
            noted.append((one, there))
            why = _TOO_DEEP if depth > _DEEPEST else next(misfitting(one._parts, there), "")
            if why:
                for other, known in noted:
                    other._wanted.discard(known)
                return why
            for (offset, _), other in one._others.items():
                work.append((other, there.behind(offset), depth + bool(offset)))
        return ""

    def write(self, parts: Iterable[Part], offset: int) -> str:
        """Note more that is written, from an offset on; return why that does not fit."""
        new = {part._replace(offset=part.offset + offset) for part in parts} - self._parts
        for place in self._wanted if new else ():
            for why in misfitting(new, place):
                return why
        self._parts |= new
        return ""

    def bring(self, offset: int, other: Returns) -> str:
        """Note another function that writes the result, from an offset on; return what misfits."""
        if (offset, id(other)) in self._others:
            return ""
        self._others[offset, id(other)] = other
        for place in tuple(self._wanted):
            if why := other.want(place.behind(offset)):
                del self._others[offset, id(other)]
                return why
        return ""
