"""The nodes of a spec: values that remember their place in the text."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from llmbol_core.errors import SpecError


@dataclass(frozen=True)
class Node:
    """A value and its place. A mapping's value is a dictionary of pairs (key's node, node)."""

    value: Any
    text: str | None
    path: str
    line: int
    column: int
    lines: tuple[str, ...] = dataclasses.field(default=(), repr=False)

    def error(self, why: str) -> SpecError:
        """Return an error at this place of the text."""
        text = self.lines[self.line - 1] if self.line <= len(self.lines) else ""
        return SpecError(self.path, self.line, self.column, why, text)

    def at(self, place: Node) -> Node:
        """Return the same value as if it stood at another node's place, with all inside."""
        value = self.value
        if isinstance(value, dict):
            value = {name: (key.at(place), node.at(place)) for name, (key, node) in value.items()}
        elif isinstance(value, list):
            value = [node.at(place) for node in value]
        return Node(value, self.text, place.path, place.line, place.column, place.lines)


def shown(node: Node) -> str:
    """Return what a node is, in words for errors."""
    if isinstance(node.value, dict):
        return f"the keys {listed(node.value, 'and')}" if node.value else "nothing"
    if isinstance(node.value, list):
        return "a list"
    return "nothing" if node.value is None else reprlib.repr(node.value)


def listed(names: Iterable[str], link: str = "or") -> str:
    """Return ``'a', 'b' or 'c'``."""
    *first, last = map(repr, names)
    return f"{', '.join(first)} {link} {last}" if first else last


def together(errors: list[SpecError]) -> SpecError:
    """Return several errors as one: the first in the text, with the others attached.

    A mistake that a repetition or a block multiplies is reported once.
    """
    distinct = {str(part): part for error in errors for part in (error, *error.others)}
    first, *others = sorted(distinct.values(), key=lambda error: (error.line, error.column))
    for error in others:
        error.others = ()
    first.others = tuple(others)
    return first
