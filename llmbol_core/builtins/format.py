"""The formats of Limbo's print family: ``%d`` and its kin, with Inferno's manners.

    %[flags][width][.precision]verb     * takes width or precision from the arguments

    d o x X   integer; after ``b`` a big, after ``u`` unsigned (without it -1 prints as -1 in hex)
    c         the character with this code point
    s q       string; q quotes it if it is empty or has white space or a quote in it
    e f g     real, E and G with a capital E; a bare %g is the shortest text that reads back
    r         the process's error string
    H         the bits of a reference, for debugging
    flags     - left   0 with zeros (integers only)   + sign   space   # other form   , groups of 3

Anything else after ``%`` is printed between percent signs, as Inferno does. A text that ends inside
a directive prints nothing for it. Behaviour checked against Inferno's print(2) and its output.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import NamedTuple, Protocol

from llmbol_core.errors import Trap
from llmbol_core.vm.conversion import real_to_string, rune_to_char, shortest_digits
from llmbol_core.vm.traps import HEAP_FULL

VERBS = frozenset("%qsEefgGdoxXcrH")
_DEFAULT_PRECISION, _MOST_PRECISION = 6, 20
_MOST_DIGITS = 66
_HUGE = 1 << 31
"""What a number in a directive is taken for if it has too many digits to be meant."""
_MOST_REMEMBERED = 256
"""Characters of a template that is worth remembering in pieces."""
_OPTION = re.compile(r"(\.)|([- #+,uhl])|(\d+)|.", re.DOTALL | re.ASCII)


class Arguments(Protocol):
    """Where the values come from: each method takes the next one of its type."""

    def word(self) -> int:
        """Take an int."""

    def reference(self) -> int:
        """Take an int, or a reference as one."""

    def big(self) -> int:
        """Take a big."""

    def real(self) -> float:
        """Take a real."""

    def string(self) -> str:
        """Take a string."""


class Options(NamedTuple):
    """What stands between the percent sign and the verb.

    ``has_width`` is true after a precision alone too; ``rest`` begins with what no flag is.
    """

    flags: str = ""
    width: int = 0
    precision: int | None = None
    has_width: bool = False
    rest: str = ""

    def pad(self, text: str, length: int | None = None) -> str:
        """Fill a text with spaces to the width; the length is its own unless given."""
        gap = " " * (self.width - (len(text) if length is None else length))
        return text + gap if "-" in self.flags else gap + text


class Directive(NamedTuple):
    """One ``%``: its options as text, the verb, and whether ``b`` asked for a big."""

    options: str
    verb: str
    is_big: bool


def format_text(template: str, arguments: Arguments, error: str, room: int = _HUGE) -> str:
    """Return a template with its directives replaced by arguments, and ``%r`` by the error.

    A text of more characters than there is room for is the trap "out of memory: heap"; it is never
    made, however wide a directive wants to be.
    """
    parts = []
    for piece in (_known_pieces if len(template) <= _MOST_REMEMBERED else _pieces)(template):
        if isinstance(piece, str):
            part = piece
        elif piece.verb == "%":
            part = "%"
        elif piece.verb == "r":
            part = error
        else:
            part = _expand(piece, arguments, room)
        room -= len(part)
        if room < 0:
            raise Trap(HEAP_FULL)
        parts.append(part)
    return "".join(parts)


@lru_cache(maxsize=512)
def _known_pieces(template: str) -> tuple[str | Directive, ...]:
    return _pieces(template)


def _pieces(template: str) -> tuple[str | Directive, ...]:
    """Split a template into literal text and directives."""
    pieces: list[str | Directive] = []
    literal, *rest = re.split("%", template, maxsplit=1)
    pieces.append(literal)
    while rest:
        text = rest[0]
        end = next((i for i, char in enumerate(text) if char in VERBS), len(text))
        if end == len(text):
            break
        options = text[:end]
        pieces.append(Directive(options.replace("b", ""), text[end], "b" in options))
        literal, *rest = re.split("%", text[end + 1 :], maxsplit=1)
        pieces.append(literal)
    return tuple(pieces)


@lru_cache(maxsize=512)
def _options(text: str) -> Options:
    """Read flags, width and precision; the first number is the width, the next the precision."""
    flags, width, precision, has_width = "", 0, None, False
    for found in _OPTION.finditer(text):
        dot, flag, number = found.groups()
        if dot:
            has_width, precision = True, precision or 0
        elif flag:
            flags += flag
        elif number is None:
            return Options(flags, width, precision, has_width, text[found.start() :])
        elif has_width:
            precision = _count(number)
        else:
            flags += "0" * number.startswith("0")
            width = _count(number)
            has_width = bool(width)
    return Options(flags, width, precision, has_width)


def _count(digits: str) -> int:
    return int(digits) if len(digits) < 10 else _HUGE


def _expand(directive: Directive, arguments: Arguments, room: int) -> str:
    """Return the text of one directive, having taken its arguments."""
    text = directive.options
    while "*" in text:
        text = text.replace("*", str(arguments.word()), 1)
    read = _options if len(text) <= _MOST_REMEMBERED else _options.__wrapped__
    options, verb = read(text), directive.verb
    if options.width > room:
        raise Trap(HEAP_FULL)
    value: str | int | float
    if verb in "sq":
        value = arguments.string().partition("\0")[0]
    elif verb in "eEfgG":
        value = arguments.real()
    else:
        taken = arguments.reference if directive.verb == "H" else arguments.word
        value = arguments.big() if directive.is_big else taken()
    if options.rest:
        return f"%{options.rest[0]}%{options.rest[1:]}{verb}"
    if isinstance(value, str):
        return _quoted(value, options) if verb == "q" else _cut(value, options)
    if isinstance(value, float):
        return options.pad(_real(value, options, verb))
    if verb == "c":
        return _cut(rune_to_char(value), options)
    if verb == "H":
        return f"{value & 0xFFFFFFFF:08x}"
    return _integer(value, options, verb, directive.is_big)


def _cut(text: str, options: Options) -> str:
    return options.pad(text[: options.precision])


def _quoted(text: str, options: Options) -> str:
    """Quote a string if it needs it; a quoted one is padded by its length in bytes."""
    if text and "#" not in options.flags and all(c > " " and c != "'" for c in text):
        return options.pad(text)
    quoted = "'" + text.replace("'", "''") + "'"
    return options.pad(quoted, len(quoted.encode()))


def _integer(value: int, options: Options, verb: str, is_big: bool) -> str:
    flags = options.flags
    if not is_big and "h" in flags:
        bits = 8 if flags.count("h") > 1 else 16
        value = (value + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)
    else:
        bits = 64 if is_big else 32
    if "u" in flags:
        value %= 1 << bits
    digits = format(abs(value), verb)
    if "," in flags:
        digits = re.sub(r"(?<=\w)(?=(?:\w{3})+$)", ",", digits)
    digits = digits.rjust(min(options.precision or 0, _MOST_DIGITS), "0")
    sign = "-" if value < 0 else "+" if "+" in flags else " " if " " in flags else ""
    if "#" in flags and (verb in "xX" or (verb == "o" and digits[0] != "0")):
        sign += "0" + verb.replace("o", "")
    if "0" in flags and "-" not in flags:
        return sign + digits.rjust(min(options.width - len(sign), _MOST_DIGITS), "0")
    return options.pad(sign + digits)


def _real(value: float, options: Options, verb: str) -> str:
    """Return the text of a real, which is never filled with zeros."""
    mark = "E" if verb.isupper() else "e"
    if verb in "gG" and not options.has_width:
        return real_to_string(value, mark)
    sign = "+" if "+" in options.flags else " " if " " in options.flags else "-"
    if not math.isfinite(value):
        point = "." * ("#" in options.flags)
        return sign.strip("-") * (math.copysign(1.0, value) > 0) + real_to_string(value) + point
    precision = _DEFAULT_PRECISION if options.precision is None else options.precision
    precision = min(precision, _MOST_PRECISION)
    if verb in "gG" and precision == 0:
        _, digits, exponent = shortest_digits(value)
        precision = exponent if 0 < exponent - len(digits) <= 4 else len(digits)
    other = "#" * ("#" in options.flags)
    return format(value, f"{sign}{other}.{precision}{verb}")
