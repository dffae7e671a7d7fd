"""Handlers of the instructions on strings, and of conversions from and to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbol_core.vm import strings
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.conversion import (
    real_to_string,
    string_to_big,
    string_to_real,
    string_to_word,
)
from llmbol_core.vm.steps import handler

if TYPE_CHECKING:
    from llmbol_core.vm.interpreter import Interpreter as Engine


@handler("lenc")
def lenc(e: Engine, ref: int) -> int:
    """Return the number of characters."""
    return strings.length(e.heap, ref)


@handler("indc")
def indc(e: Engine, ref: int, index: int) -> int:
    """Return a character."""
    return strings.character(e.heap, ref, index)


@handler("insc")
def insc(e: Engine, character: int, index: int, place: int) -> None:
    """Replace a character of a string, or append one."""
    strings.insert(e.heap, place, index, character)


@handler("addc", into=True)
def addc(e: Engine, behind: int, before: int, place: int) -> None:
    """Store the concatenation of two strings."""
    strings.concatenate(e.heap, before, behind, place)


@handler("slicec")
def slicec(e: Engine, start: int, end: int, place: int) -> None:
    """Replace a string by a part of it."""
    strings.cut(e.heap, place, start, end)


@handler("cvtca")
def cvtca(e: Engine, ref: int) -> int:
    """Return a string's UTF-8 as an array of byte."""
    return e.heap.new_bytes(strings.encode(e.heap.string(ref)))


@handler("cvtac")
def cvtac(e: Engine, ref: int) -> int:
    """Return the string whose UTF-8 an array of byte holds."""
    return NIL if ref == NIL else e.heap.new_string(strings.decode(bytes(e.heap.array_bytes(ref))))


@handler("cvtwc", "cvtlc")
def cvtwc(e: Engine, value: int) -> int:
    """Return an integer's decimal text."""
    return e.heap.new_string(str(value))


@handler("cvtfc")
def cvtfc(e: Engine, value: float) -> int:
    """Return a real's text."""
    return e.heap.new_string(real_to_string(value))


@handler("cvtcw")
def cvtcw(e: Engine, ref: int) -> int:
    """Return the word that a text begins with."""
    return string_to_word(e.heap.string(ref))


@handler("cvtcl")
def cvtcl(e: Engine, ref: int) -> int:
    """Return the big that a text begins with."""
    return string_to_big(e.heap.string(ref))


@handler("cvtcf")
def cvtcf(e: Engine, ref: int) -> float:
    """Return the real that a text begins with."""
    text, is_careful = e.heap.string(ref), e.arithmetic.begin(e.process)
    return string_to_real(text, e.arithmetic.decimal if is_careful else float)
