"""Tokens, symbols and expressions of the two assembly notations.

A text is a stream of names, numbers, strings and signs; white space separates, ``#`` begins a
comment. Expressions are those of Inferno's assembler: ``+ - * / % & ^ | << >> ~ ()`` over integers,
``'c'`` and symbols. A symbol may be used before the text defines it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from llmbol_core.errors import AssemblyError, nearest
from llmbol_core.vm.module import NAMES

_TOKEN = re.compile(
    r"""(?P<newline>\n) | (?P<space>[ \t\r\f\v]+|\#[^\n]*)
    | (?P<name>[^\W\d]|(?![.]\d)[@.]) [\w@.]*
    | (?P<real>(?:\d+[.]\d*|[.]\d+)(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)
    | (?P<number>0[xX][0-9a-fA-F]+|\d+)
    | (?P<string>"(?:[^"\\\n]|\\.)*")
    | (?P<character>'(?:\\[^\n][0-9a-fA-F]*|[^'\\\n])')
    | (?P<sign><<|>>|[-+*/%&^|~(),:$=])""",
    re.VERBOSE,
)
_ESCAPES = {"z": 0, "n": 10, "r": 13, "t": 9, "b": 8, "f": 12, "a": 7, "v": 11}
_UNESCAPED = {0: r"\z", 10: r"\n", 9: r"\t", 13: r"\r", 34: r"\"", 92: r"\\"}
# Loosest first; operators of one line bind alike and to the left.
_LEVELS: tuple[tuple[str, ...], ...] = (
    ("|",),
    ("^",),
    ("&",),
    ("<<", ">>"),
    ("+", "-"),
    ("*", "/", "%"),
)
_MAX_BITS = 128
_MAX_DEPTH = 60


class Token(NamedTuple):
    """One token: its kind, its text, and where it begins in the source."""

    kind: str
    text: str
    start: int
    line: int


class TokenStream:
    """The tokens of a text, a place among them, and the symbols that expressions use."""

    def __init__(self, text: str, path: str) -> None:
        self.path = path
        self.symbols: dict[str, int] = {}
        self._text = text
        self._deferred: dict[str, int] = {}
        self._tokens = self._split()
        self._at = 0
        self._depth = 0

    def _split(self) -> list[Token]:
        tokens: list[Token] = []
        line, at, text, match = 1, 0, self._text, _TOKEN.match
        while at < len(text):
            found = match(text, at)
            if not found:
                token = Token("sign", text[at], at, line)
                what = "a string without an end" if text[at] == '"' else f"stray {text[at]!r}"
                raise self.error(what, token)
            kind = found.lastgroup or ""
            if kind == "newline":
                line += 1
            elif kind != "space":
                tokens.append(Token(kind, found[0], at, line))
            at = found.end()
        tokens.append(Token("end", "the end of the text", at, line))
        return tokens

    def error(self, why: str, token: Token | None = None) -> AssemblyError:
        """Return an error at a token, by default the next one."""
        at = (token or self.peek()).start
        line = self._text.count("\n", 0, at) + 1
        begin = self._text.rfind("\n", 0, at) + 1
        end = self._text.find("\n", at)
        source = self._text[begin : end if end >= 0 else None]
        return AssemblyError(self.path, line, at - begin + 1, why, source)

    def expected(self, what: str) -> AssemblyError:
        """Return an error that the next token is not what it should be."""
        token = self.peek()
        found = token.text if token.kind == "end" else repr(token.text)
        return self.error(f"expected {what}, found {found}")

    # Reading tokens.

    def __len__(self) -> int:
        return len(self._tokens)

    def peek(self, ahead: int = 0) -> Token:
        """Return the next token, or one further on, and stay."""
        return self._tokens[min(self._at + ahead, len(self._tokens) - 1)]

    def take(self) -> Token:
        """Return the next token and move behind it."""
        token = self._tokens[self._at]
        self._at += token.kind != "end"
        return token

    def rewind(self, at: int = 0) -> int:
        """Go to a place; return the one left."""
        self._at, left = at, self._at
        return left

    def skip(self, sign: str) -> bool:
        """Move behind the next token if it is this sign, and tell whether it was."""
        if self._tokens[self._at].text != sign or self._tokens[self._at].kind != "sign":
            return False
        self._at += 1
        return True

    def need(self, sign: str) -> None:
        """Move behind a sign that must come next."""
        if not self.skip(sign):
            raise self.expected(repr(sign))

    def name(self, what: str) -> str:
        """Take a name."""
        if self.peek().kind != "name":
            raise self.expected(what)
        return self.take().text

    def string(self, what: str) -> bytes:
        """Take a string and return its bytes, escapes replaced."""
        if self.peek().kind != "string":
            raise self.expected(what)
        return unquote(self.take().text)

    # Symbols and expressions.

    def define(self, name: Token, value: int) -> None:
        """Give a symbol its value; it must have none yet."""
        if name.text in self.symbols or name.text in self._deferred:
            raise self.error(f"{name.text!r} is defined twice", name)
        self.symbols[name.text] = value

    def defer(self, name: Token) -> None:
        """Let the expression that comes next be a symbol's value, computed when it is needed."""
        self.define(name, 0)
        del self.symbols[name.text]
        self._deferred[name.text] = self._at

    def _symbol(self) -> int:
        token = self.take()
        name = token.text
        if name in self._deferred:
            left = self.rewind(self._deferred[name])
            self._depth += 1
            self.symbols[name] = self.expression()
            self._depth -= 1
            self.rewind(left)
            del self._deferred[name]
        try:
            return self.symbols[name]
        except KeyError:
            hint = nearest(name, self.symbols)
            raise self.error(f"{name!r} is not defined{hint}", token) from None

    def expression(self, level: int = 0) -> int:
        """Take an integer expression and return its value."""
        if level == len(_LEVELS):
            self._depth += 1
            if self._depth > _MAX_DEPTH:
                raise self.error("the expression is nested too deeply")
            value = self._term()
            self._depth -= 1
            return value
        value = self.expression(level + 1)
        while self.peek().text in _LEVELS[level] and self.peek().kind == "sign":
            operator = self.take()
            value = self._combine(operator, value, self.expression(level + 1))
        return value

    def _combine(self, operator: Token, x: int, y: int) -> int:
        if operator.text in "/%" and y == 0:
            raise self.error("zero divide", operator)
        if operator.text in ("<<", ">>") and y not in range(64):
            raise self.error(f"cannot shift by {y}", operator)
        value = _OPERATORS[operator.text](x, y)
        if value.bit_length() > _MAX_BITS:
            raise self.error("the value is too large", operator)
        return value

    def _term(self) -> int:
        token = self.peek()
        match token.kind, token.text:
            case "number", text:
                self.take()
                value = int(text, 16) if text[:2] in ("0x", "0X") else int(text[:40])
                if value.bit_length() > _MAX_BITS:
                    raise self.error("the number is too large", token)
                return value
            case "character", text:
                self.take()
                return _character(text[1:-1])
            case "name", _:
                return self._symbol()
            case "sign", "-" | "+" | "~":
                self.take()
                value = self._term()
                return {"-": -value, "+": value, "~": ~value}[token.text]
            case "sign", "(":
                self.take()
                value = self.expression()
                self.need(")")
                return value
        raise self.expected("a number or a name")


def _quotient(x: int, y: int) -> int:
    return abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)


_OPERATORS: dict[str, Callable[[int, int], int]] = {
    "|": lambda x, y: x | y,
    "^": lambda x, y: x ^ y,
    "&": lambda x, y: x & y,
    "<<": lambda x, y: x << y,
    ">>": lambda x, y: x >> y,
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    "/": _quotient,
    "%": lambda x, y: x - y * _quotient(x, y),
}


def _character(text: str) -> int:
    return unquote(f'"{text}"')[0] if text[0] == "\\" else ord(text)


_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|([0-9]+)|(.))", re.DOTALL)


def unquote(text: str) -> bytes:
    r"""Return the bytes that a quoted string stands for.

    Inferno's escapes are ``\n \t \r \z`` (NUL) ``\" \\`` and ``\`` with a decimal byte; ``\x`` with
    two hexadecimal digits is ours.

    >>> unquote(r'"a\z\xff\n"')
    b'a\x00\xff\n'
    """

    def byte(match: re.Match[bytes]) -> bytes:
        if match[1]:
            return bytes((int(match[1], 16),))
        if match[2]:
            return bytes((int(match[2][-20:]) & 0xFF,))
        return bytes((_ESCAPES.get(match[3].decode("latin-1"), match[3][0]),))

    return _ESCAPE.sub(byte, text[1:-1].encode(*NAMES))


def quote(data: bytes) -> str:
    r"""Return a quoted string that ``unquote`` turns back into these bytes.

    >>> print(quote(b'say "\xff"'))
    "say \"\xff\""
    """
    parts = ['"']
    for character in data.decode(*NAMES):
        code = ord(character)
        if code in _UNESCAPED:
            parts.append(_UNESCAPED[code])
        elif 0xDC80 <= code <= 0xDCFF:
            parts.append(f"\\x{code - 0xDC00:02x}")
        elif code < 32 or code == 127:
            parts.append(f"\\x{code:02x}")
        else:
            parts.append(character)
    return "".join([*parts, '"'])


def unknown(stream: TokenStream, what: str, token: Token, known: Iterable[str]) -> AssemblyError:
    """Return an error that a token is no known word, with the nearest one."""
    return stream.error(f"unknown {what} {token.text!r}{nearest(token.text, known)}", token)
