"""Limbo's type notation: what a declaration says to the linker and to whoever makes a call.

A declaration such as ``open: fn(s: string, mode: int): ref FD`` is parsed into the types of
``layout``; from them follow the frame of a call (``layout.frame``) and the signature, the word that
an import and the export it names must share.

>>> declared = parse_declarations("FD: adt { fd: int; }; iounit: fn(fd: ref FD): int;")
>>> f"{signature(declared['iounit']):08x}"
'5583b730'
>>> f"{signature('fn(s: string, *): int'):08x}"
'ac849033'
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from llmbol_core.errors import SourceError, nearest
from llmbol_core.vm.layout import (
    BIG,
    BYTE,
    INT,
    NONE,
    REAL,
    STRING,
    Adt,
    Field,
    Fixed,
    Function,
    ModuleType,
    Pick,
    Reference,
    Tuple,
    Type,
    place_adt,
)
from llmbol_core.vm.signature import type_signature

_BASIC = {kind.name: kind for kind in (BYTE, INT, BIG, REAL, STRING)}
Scope = Mapping[str, Type]
_NONE_KNOWN: Scope = {}


def parse_declarations(
    text: str, path: str = "<declarations>", known: Scope = _NONE_KNOWN
) -> dict[str, Type]:
    """Return what a text declares at its top level, by name, in order.

    ``known`` are names declared elsewhere that the text may use. ``include``, ``implement`` and
    constants' expressions are skipped; polymorphic declarations are refused. Raises SourceError.
    """
    return _Parser(text, path, known).declarations()


def parse_type(text: str, known: Scope = _NONE_KNOWN) -> Type:
    """Return the type that a text such as ``list of (string, int)`` spells. Raises SourceError."""
    parser = _Parser(text, "<type>", known)
    kind = parser.type()
    parser.expect("")
    return kind


def signature(kind: Type | str) -> int:
    """Return the word by which links are checked, of a type or of its text."""
    return type_signature(parse_type(kind) if isinstance(kind, str) else kind)


class _Token(NamedTuple):
    text: str
    offset: int


_TOKENS = re.compile(
    r"""(?P<space>(?:\s+|\#[^\n]*)+)
      | (?P<token>[^\W\d]\w*
      | [0-9][\w.]*(?:(?<=[eE])[+-]\w+)?
      | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])+'
      | -> | => | << | >> | :: | [-+*/%&|^~!<>=]=? | [][(){},.:;])""",
    re.VERBOSE,
)
_NAME = re.compile(r"[^\W\d]\w*")


_OPENING, _CLOSING = {"(", "{", "["}, {")", "}", "]"}


@dataclass
class _Scope:
    """The names declared in a block, and where the types stand that come further on."""

    module: ModuleType
    names: dict[str, Type]
    pending: dict[str, int]

    def add(self, names: list[str], kind: Type, is_type: bool) -> None:
        """Declare names as a type, or as members of this type."""
        found = dict.fromkeys(names, kind)
        self.names.update(found)
        (self.module.types if is_type else self.module.members).update(found)


class _Parser:
    """Recursive descent over the declarations of Limbo."""

    def __init__(self, text: str, path: str, known: Scope) -> None:
        self._text, self._path = text, path
        self._scopes = [_Scope(ModuleType(""), dict(known), {})]
        self._parsed: dict[int, int] = {}
        self._tokens = list(self._tokenize())
        self._next = 0

    def _tokenize(self) -> Iterable[_Token]:
        at = 0
        while at < len(self._text):
            found = _TOKENS.match(self._text, at)
            if found is None:
                raise self._error(f"no Limbo: {self._text[at]!r}", at)
            if found["token"]:
                yield _Token(found["token"], at)
            at = found.end()
        yield _Token("", at)

    def _error(self, why: str, offset: int | None = None) -> SourceError:
        at = self._tokens[self._next].offset if offset is None else offset
        start = self._text.rfind("\n", 0, at) + 1
        line = self._text[start:].partition("\n")[0]
        row = self._text.count("\n", 0, at) + 1
        return SourceError(self._path, row, at - start + 1, why, line)

    # Tokens

    def peek(self, ahead: int = 0) -> str:
        """Return a coming token's text, empty at the end."""
        return self._tokens[min(self._next + ahead, len(self._tokens) - 1)].text

    def take(self) -> str:
        """Return the next token's text and go past it."""
        text = self.peek()
        self._next += bool(text)
        return text

    def accept(self, text: str) -> bool:
        """Go past the next token if it is this one, and say whether it was."""
        if self.peek() != text:
            return False
        self.take()
        return True

    def expect(self, text: str) -> None:
        """Go past this token. Raises SourceError if another one comes next."""
        if not self.accept(text):
            raise self._error(f"expected {text or 'the end'!r}, found {self.peek() or 'the end'!r}")

    def name(self) -> str:
        """Return the name that comes next. Raises SourceError if none does."""
        if not _NAME.fullmatch(self.peek()):
            raise self._error(f"expected a name, found {self.peek() or 'the end'!r}")
        return self.take()

    def names(self, separator: str = ",") -> list[str]:
        """Return one or more names."""
        found = [self.name()]
        while self.accept(separator):
            found.append(self.name())
        return found

    def skip_expression(self) -> str:
        """Go past an expression up to its semicolon and return its text."""
        start, depth = self._tokens[self._next].offset, 0
        while depth or self.peek() not in (";", ""):
            depth += (self.peek() in _OPENING) - (self.peek() in _CLOSING)
            if not self.take():
                raise self._error("an expression without an end")
        return self._text[start : self._tokens[self._next].offset].strip()

    # Declarations

    def declarations(self) -> dict[str, Type]:
        """Return everything declared in the text, by name, in order."""
        scope = self._open_scope(ModuleType(""))
        while self.peek():
            if self.peek() in {"include", "implement"}:
                self.skip_expression()
                self.expect(";")
            else:
                self._declaration(scope)
        return scope.names

    def _open_scope(self, module: ModuleType) -> _Scope:
        """Enter a block of declarations: types may be used there before they are declared."""
        scope = _Scope(module, {}, {})
        self._scopes.append(scope)
        depth = 0
        for at in range(self._next, len(self._tokens) - 2):
            name, colon, word = (token.text for token in self._tokens[at : at + 3])
            depth += (name in _OPENING) - (name in _CLOSING)
            if depth < 0:
                break
            if depth == 0 and colon == ":" and word in {"adt", "type", "module"}:
                scope.pending[name] = at
        return scope

    def _declaration(self, scope: _Scope) -> None:
        """Enter one declaration into a scope, unless that was done when its name was needed."""
        start = self._next
        if start in self._parsed:
            self._next = self._parsed[start]
            return
        names = self.names()
        self.expect(":")
        word = self.peek()
        if word in {"con", "import", "exception"}:
            self.take()
            expression = self.skip_expression()
            if word == "con":
                scope.module.constants.update(dict.fromkeys(names, expression))
        elif word in {"adt", "module"}:
            self.take()
            (self._adt if word == "adt" else self._module)(names[-1], scope)
        else:
            is_type = self.accept("type")
            scope.add(names, self.type(), is_type)
            if self.accept("="):
                self.skip_expression()
        if not self.accept(";") and word not in {"adt", "module"}:
            self.expect(";")
        self._parsed[start] = self._next

    def _module(self, name: str, outer: _Scope) -> None:
        module = ModuleType(name)
        outer.add([name], module, is_type=True)
        self.expect("{")
        scope = self._open_scope(module)
        while not self.accept("}"):
            self._declaration(scope)
        self._scopes.pop()

    def _adt(self, name: str, scope: _Scope) -> None:
        adt = Adt(name)
        scope.add([name], adt, is_type=True)
        self._no_polymorphism()
        self.expect("{")
        fields: list[Field] = []
        while not self.accept("}"):
            if self.peek() == "pick" and self.peek(1) == "{":
                self._picks(adt)
            elif not self._constant():
                fields += self._members(adt)
        place_adt(adt, fields)

    def _constant(self) -> bool:
        """Go past a constant of an ADT, if one comes next."""
        at = self._next
        self.names()
        if self.accept(":") and self.accept("con"):
            self.skip_expression()
            self.expect(";")
            return True
        self._next = at
        return False

    def _members(self, adt: Adt) -> list[Field]:
        """Return the fields of one declaration in an ADT; functions become its methods."""
        names = self.names()
        self.expect(":")
        is_cyclic = self.accept("cyclic")
        kind = self.type()
        self.expect(";")
        if isinstance(kind, Function):
            adt.methods.update(dict.fromkeys(names, kind))
            return []
        return [Field(name, kind, is_cyclic=is_cyclic) for name in names]

    def _picks(self, adt: Adt) -> None:
        self.take()
        self.expect("{")
        while not self.accept("}"):
            names = self.names("or")
            self.expect("=>")
            own: list[Field] = []
            while self.peek() != "}" and self.peek(1) not in {"=>", "or"}:
                own += self._members(adt)
            adt.picks.update(dict.fromkeys(names, Pick(adt, names[0], tuple(own))))

    def _no_polymorphism(self) -> None:
        if self.peek() == "[":
            raise self._error("polymorphic declarations have no notation here")

    # Types

    def type(self) -> Type:
        """Return the type that comes next."""
        word = self.peek()
        if word in {"array", "list", "chan", "ref"}:
            self.take()
            if word != "ref":
                self.expect("of")
            return Reference(word, self.type())
        if word == "fn":
            self.take()
            return self._function()
        if self.accept("("):
            return self._tuple()
        if self.accept("fixed"):
            return self._fixed()
        return self._named()

    def _tuple(self) -> Type:
        members = [self.type()]
        while self.accept(","):
            members.append(self.type())
        self.expect(")")
        return members[0] if len(members) == 1 else Tuple.of(members)

    def _fixed(self) -> Fixed:
        self.expect("(")
        try:
            scale = float(self.peek())
        except ValueError:
            raise self._error("expected the scale as a number") from None
        self.take()
        self.expect(")")
        return Fixed(scale)

    def _named(self) -> Type:
        """Return a type by its name, perhaps inside another: ``int``, ``FD``, ``Draw->Context``."""
        kind = self._look_up(self.name())
        while self.peek() in {"->", "."}:
            self.take()
            inside = kind.types if isinstance(kind, ModuleType) else {}
            inside = {**kind.picks} if isinstance(kind, Adt) else inside
            name = self.name()
            if name not in inside:
                raise self._unknown(name, inside)
            kind = inside[name]
        self._no_polymorphism()
        return kind

    def _look_up(self, name: str) -> Type:
        """Return what a name means here; a declaration further on is parsed for it now."""
        if name in _BASIC:
            return _BASIC[name]
        for depth in range(len(self._scopes), 0, -1):
            scope = self._scopes[depth - 1]
            if name in scope.pending and name not in scope.names:
                self._parse_ahead(depth, scope.pending[name])
            if name in scope.names:
                return scope.names[name]
        raise self._unknown(name, [*_BASIC, *(n for s in self._scopes for n in s.names)])

    def _parse_ahead(self, depth: int, at: int) -> None:
        here, inner = self._next, self._scopes[depth:]
        self._next = at
        del self._scopes[depth:]
        self._declaration(self._scopes[-1])
        self._next = here
        self._scopes += inner

    def _unknown(self, name: str, known: Iterable[str]) -> SourceError:
        self._next -= 1
        return self._error(f"unknown type {name!r}{nearest(name, known)}")

    def _function(self) -> Function:
        self._no_polymorphism()
        self.expect("(")
        arguments: list[Field] = []
        has_varargs = False
        while not self.accept(")"):
            if self.accept("*"):
                has_varargs = True
            else:
                arguments += self._arguments()
            if self.peek() != ")":
                self.expect(",")
        result = self.type() if self.accept(":") else NONE
        return Function(tuple(arguments), result, has_varargs, self._raises())

    def _arguments(self) -> list[Field]:
        names = self.names()
        self.expect(":")
        is_self = self.accept("self")
        kind = self.type()
        return [Field(name, kind, is_self=is_self) for name in names]

    def _raises(self) -> tuple[str, ...]:
        if not self.accept("raises"):
            return ()
        if not self.accept("("):
            return (self.name(),)
        names = self.names()
        self.expect(")")
        return tuple(names)
