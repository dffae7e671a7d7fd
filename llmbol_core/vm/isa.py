"""The instruction table of the Dis virtual machine: all 175 opcodes, each stated once.

Everything that knows an opcode derives it from ``OPS``: object files, the assembler and the
disassembler, the verifier, the interpreter, the compiler, ``dis isa`` and the tests. A row reads

    numbers            mnemonic  operands        meaning or effect
    57B 58W 59F 119L   add       mT? sT -> dT    m + s

and is a family when it has several numbers: the letter behind each is the operand type that takes
the place of T, and ends the mnemonic (addb, addw, addf, addl). Operands left of the arrow are read,
those right of it written, those on both sides both. An operand is a place (s source, m middle, d
destination) and a letter of ``TYPES``. ``?`` marks a middle operand that may be absent: for
arithmetic the destination then stands in for it, for the channel makers 0 does. The fixed point
instructions also read two words of the frame that no operand names, p and a (``PARAMETERS``).

**Meanings.** A scalar instruction is one typed Python expression over its operands. Reference and
machine code are both made from it, so the corners that C leaves open are decided here, as Inferno's
32-bit implementation behaves:

- an expression's type never changes by itself: ``byte short word big float real`` convert. To a
  narrower integer keeps the low bits; a real that fits no integer (and NaN) becomes the most
  negative one; other reals lose their fraction. Constants take the type of their neighbour;
- ``+ - * & | ^`` and unary ``-`` wrap around at the width of their type; on reals they and ``/``
  are IEEE operations that never trap;
- the count of ``<<``, ``>>`` (which keeps the sign) and ``lsr(x, n)`` (which fills with zero) is
  masked to the width of x, 31 or 63;
- ``quo`` and ``rem`` truncate to zero, a remainder has the sign of its dividend. By 0 they trap
  "zero divide"; so does the most negative word by -1, while the most negative big gives itself,
  remainder 0 (the 386 traps on the first and has no instruction for the second);
- ``power(x, n)`` is repeated squaring in the type of x, low bits of n first; for n < 0 it is
  1 / x ** -n, which for integers is a ``quo``;
- comparisons are IEEE's: with a NaN only ``!=`` holds. Strings compare by code point and then by
  length, and nil equals "";
- ``x if c else y`` evaluates only the side it takes, so that the other cannot trap.

An instruction that reads a label (``dQ``) and has a meaning branches when that holds.
"""

from __future__ import annotations

import ast
import copy
from dataclasses import dataclass
from enum import Enum, IntEnum
from functools import cached_property
from typing import NamedTuple

from llmbol_core.errors import UsageError, nearest
from llmbol_core.vm.parsing import parse_expression

ZERO_DIVIDE = "zero divide"
WORD_SIZE = 4
PARAMETERS = {"p": 28, "a": 20}
"""Frame offsets of the words that fixed point instructions read besides their operands."""


class OperandType(NamedTuple):
    """What an operand holds: its letter, its name, its bytes in memory, and its kind."""

    letter: str
    name: str
    size: int
    kind: str


# fmt: off
TYPES: dict[str, OperandType] = {row[0]: OperandType(*row) for row in [
    #    name                size  kind
    ("B", "byte",              1, "unsigned"),
    ("H", "short",             2, "signed"),
    ("W", "word",              4, "signed"),
    ("L", "big",               8, "signed"),
    ("R", "float",             4, "float"),
    ("F", "real",              8, "float"),
    ("P", "pointer",           4, "pointer"),   # to any object; nil is -1
    ("C", "string",            4, "pointer"),
    ("A", "array",             4, "pointer"),
    ("I", "list",              4, "pointer"),
    ("N", "channel",           4, "pointer"),
    ("Z", "module handle",     4, "pointer"),
    ("K", "frame",             4, "address"),   # a frame that was made and not yet called
    ("E", "address",           4, "address"),   # of a place; not counted as a reference
    ("O", "place",             0, "storage"),   # the operand's own address; nothing is read
    ("X", "bytes",             0, "storage"),   # as many as m says, or as the channel carries
    ("Y", "value",             0, "storage"),   # of the type whose number m holds
    ("T", "alt table",         8, "storage"),
    ("G", "jump table",        4, "storage"),   # of instruction numbers
    ("S", "word case table",   8, "storage"),
    ("V", "big case table",   12, "storage"),
    ("U", "string case table", 8, "storage"),
    ("D", "type number",       4, "number"),
    ("M", "link number",       4, "number"),    # >= 0: into the handle's links; -n-1: export n
    ("J", "import list number", 4, "number"),
    ("Q", "label",             4, "label"),     # instruction number, or a code address in memory
]}
# fmt: on

ELEMENT_SIZES = {f"ind{letter.lower()}": TYPES[letter].size for letter in "BWFL"}
"""Bytes of an element by the instruction that finds it; ``indx`` takes them from the array."""


class Effect(Enum):
    """Where an instruction leaves the process."""

    NEXT = "continues with the next instruction"
    BRANCH = "goes to its label if its meaning holds"
    JUMP = "always goes elsewhere"
    CALL = "enters another function, which returns after it"
    RETURN = "leaves the function"
    WAIT = "may let other processes run before the next instruction"
    END = "ends the process or raises an exception"


class Mode(IntEnum):
    """Addressing modes, numbered as in the source and destination fields of an instruction."""

    MP = 0
    FP = 1
    IMMEDIATE = 2
    NONE = 3
    MP_INDIRECT = 4
    FP_INDIRECT = 5
    NONE6 = 6
    NONE7 = 7


class ModeRow(NamedTuple):
    """One addressing mode: what of it a file holds, how text writes it, where it may stand.

    ``values`` counts the numbers in the file; an indirect mode has two, first the slot that holds
    a pointer, then what is added to it. ``middle`` is the value of the middle field's two bits, or
    None where a middle operand has no such mode.
    """

    mode: Mode
    values: int
    middle: int | None
    text: str
    summary: str


# fmt: off
MODES: tuple[ModeRow, ...] = (
    #       mode             values  middle  text
    ModeRow(Mode.MP,           1,      3,   "{value}(mp)",        "in the module data"),
    ModeRow(Mode.FP,           1,      2,   "{value}(fp)",        "in the frame"),
    ModeRow(Mode.IMMEDIATE,    1,      1,   "${value}",           "the number itself"),
    ModeRow(Mode.NONE,         0,      0,   "_",                  "absent"),
    ModeRow(Mode.MP_INDIRECT,  2,      None, "{value}({base}(mp))", "behind a data pointer"),
    ModeRow(Mode.FP_INDIRECT,  2,      None, "{value}({base}(fp))", "behind a frame pointer"),
    ModeRow(Mode.NONE6,        0,      None, "_6",                "absent, written unusually"),
    ModeRow(Mode.NONE7,        0,      None, "_7",                "absent, written unusually"),
)
# fmt: on
MIDDLE_MODES: dict[int, Mode] = {row.middle: row.mode for row in MODES if row.middle is not None}


class OperandRole(NamedTuple):
    """One operand of an instruction: its place (s, m, d, p, a), its type letter, what is done."""

    place: str
    type: str
    reads: bool
    writes: bool
    optional: bool = False

    @property
    def is_storage(self) -> bool:
        """Whether the instruction works on the operand's address and not on a value in it."""
        return TYPES[self.type].kind == "storage"


@dataclass(frozen=True, eq=False)
class Op:
    """One opcode; ``expression`` is the text of its meaning, if that is one."""

    number: int
    mnemonic: str
    operands: tuple[OperandRole, ...]
    effect: Effect
    expression: str | None
    signature: str
    summary: str

    @cached_property
    def meaning(self) -> ast.expr | None:
        """The meaning as an expression that the module's text describes, or None."""
        return _parse(self.expression) if self.expression else None

    def role(self, place: str) -> OperandRole | None:
        """Return what the operand at a place is for, or None if the instruction has none there."""
        return self._roles.get(place)

    @cached_property
    def _roles(self) -> dict[str, OperandRole]:
        return {role.place: role for role in self.operands}

    @cached_property
    def operands_without_middle(self) -> tuple[OperandRole, ...]:
        """The operands where no middle one is given: the destination stands in for one like it."""
        optional = {role.type for role in self.operands if role.optional}
        return tuple(
            role._replace(reads=role.reads or role.type in optional) if role.place == "d" else role
            for role in self.operands
            if not role.optional
        )

    @cached_property
    def has_label(self) -> bool:
        """Whether an immediate destination is an instruction number."""
        return any(role.place == "d" and role.type == "Q" and role.reads for role in self.operands)

    @cached_property
    def reads(self) -> tuple[tuple[str, str], ...]:
        """Places and types of the values that the meaning can name."""
        return tuple((r.place, r.type) for r in self.operands if r.reads and r.type != "Q")

    @cached_property
    def computes_reals(self) -> bool:
        """Whether the meaning rounds or compares reals, and does not only move one."""
        letters = {role.type for role in self.operands}
        is_moved = isinstance(self.meaning, ast.Name | ast.UnaryOp | None)
        return "F" in letters and not is_moved

    @cached_property
    def result(self) -> str:
        """Type letter of what the meaning gives: the destination's, or ``?`` for a claim."""
        return "?" if self.effect is Effect.BRANCH else self._roles["d"].type


_SHORTHANDS = {
    "shift": "lambda x, n: x << n if n >= 0 else x >> -n",
    "round": "lambda x: x - 0.5 if x < 0.0 else x + 0.5",
    "mask": "lambda n: (big(1) << -n) - 1",
}
"""Abbreviations in the meanings below, replaced when a meaning is parsed."""


class _Expand(ast.NodeTransformer):
    """Replace calls of shorthands by what they stand for."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Substitute the arguments into the shorthand's body."""
        self.generic_visit(node)
        assert isinstance(node.func, ast.Name)
        if node.func.id not in _SHORTHANDS:
            return node
        body = parse_expression(_SHORTHANDS[node.func.id]).body
        assert isinstance(body, ast.Lambda)
        values = dict(zip((a.arg for a in body.args.args), node.args, strict=True))
        return _Substitute(values).visit(body.body)  # type: ignore[no-any-return]


class _Substitute(ast.NodeTransformer):
    """Replace names by expressions."""

    def __init__(self, values: dict[str, ast.expr]) -> None:
        self._values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Give each use a copy of its own."""
        return copy.deepcopy(self._values[node.id]) if node.id in self._values else node


def _parse(text: str) -> ast.expr:
    tree = _Expand().visit(parse_expression(text))
    return ast.fix_missing_locations(tree.body)  # type: ignore[no-any-return]


def _roles(signature: str) -> tuple[OperandRole, ...]:
    """Parse ``mT? sT -> dT``; an operand on both sides is one role that reads and writes."""
    left, _, right = (part.split() for part in signature.partition("->"))
    written = {word[0]: word[1] for word in right}
    read = {word[0] for word in left}
    roles = [OperandRole(w[0], w[1], True, w[0] in written, w.endswith("?")) for w in left]
    return (*roles, *(OperandRole(p, t, False, True) for p, t in written.items() if p not in read))


def _rows(
    numbers: str, stem: str, signature: str, effect: Effect, meaning: str | None, summary: str
) -> list[Op]:
    """Make a row's opcodes: one, or one for each letter behind its numbers."""
    ops = []
    for word in numbers.split():
        number, letter = word.rstrip("BWLFPCAHR"), word.lstrip("0123456789")
        typed = signature.replace("T", letter) if letter else signature
        mnemonic = stem + letter.lower()
        ops.append(Op(int(number), mnemonic, _roles(typed), effect, meaning, typed, summary))
    return ops


_FIXED = "mW? sW pW -> dW"
_SCALED = "mW? sW pW aW -> dW"

# fmt: off
_MEANINGS = [
    # numbers                     mnemonic  operands          meaning
    ("57B 58W 59F 119L",          "add",    "mT? sT -> dT",   "m + s"),
    ("60B 61W 62F 120L",          "sub",    "mT? sT -> dT",   "m - s"),
    ("63B 64W 65F 123L",          "mul",    "mT? sT -> dT",   "m * s"),
    ("66B 67W 121L",              "div",    "mT? sT -> dT",   "quo(m, s)"),
    ("68F",                       "div",    "mT? sT -> dT",   "m / s"),
    ("69W 70B 122L",              "mod",    "mT? sT -> dT",   "rem(m, s)"),
    ("71B 72W 124L",              "and",    "mT? sT -> dT",   "m & s"),
    ("73B 74W 125L",              "or",     "mT? sT -> dT",   "m | s"),
    ("75B 76W 126L",              "xor",    "mT? sT -> dT",   "m ^ s"),
    ("77B",                       "shl",    "mB? sW -> dB",   "byte(word(m) << s)"),
    ("79B",                       "shr",    "mB? sW -> dB",   "byte(word(m) >> s)"),
    ("78W 127L",                  "shl",    "mT? sW -> dT",   "m << s"),
    ("80W 128L",                  "shr",    "mT? sW -> dT",   "m >> s"),
    ("153W 154L",                 "lsr",    "mT? sW -> dT",   "lsr(m, s)"),
    ("171W 172L 173F",            "exp",    "mT? sW -> dT",   "power(m, s)"),
    ("117F",                      "neg",    "sT -> dT",       "-s"),
    ("44B 45W 46F 118L",          "mov",    "sT -> dT",       "s"),
    ("87B 93W 99F 105C 134L",     "beq",    "sT mT dQ",       "s == m"),
    ("88B 94W 100F 106C 129L",    "bne",    "sT mT dQ",       "s != m"),
    ("89B 95W 101F 107C 130L",    "blt",    "sT mT dQ",       "s < m"),
    ("90B 96W 102F 108C 131L",    "ble",    "sT mT dQ",       "s <= m"),
    ("91B 97W 103F 109C 132L",    "bgt",    "sT mT dQ",       "s > m"),
    ("92B 98W 104F 110C 133L",    "bge",    "sT mT dQ",       "s >= m"),
    ("47",                        "cvtbw",  "sB -> dW",       "word(s)"),
    ("48",                        "cvtwb",  "sW -> dB",       "byte(s)"),
    ("49",                        "cvtfw",  "sF -> dW",       "word(round(s))"),
    ("50",                        "cvtwf",  "sW -> dF",       "real(s)"),
    ("135",                       "cvtlf",  "sL -> dF",       "real(s)"),
    ("136",                       "cvtfl",  "sF -> dL",       "big(round(s))"),
    ("137",                       "cvtlw",  "sL -> dW",       "word(s)"),
    ("138",                       "cvtwl",  "sW -> dL",       "big(s)"),
    ("149",                       "cvtrf",  "sR -> dF",       "real(s)"),
    ("150",                       "cvtfr",  "sF -> dR",       "float(s)"),
    ("151",                       "cvtws",  "sW -> dH",       "short(s)"),
    ("152",                       "cvtsw",  "sH -> dW",       "word(s)"),
    ("160",                       "mulx",   _FIXED,           "word(shift(big(m) * big(s), p))"),
    ("161",                       "divx",   _FIXED,
     "word(quo(shift(big(m), p), big(s)))"),
    ("162",                       "cvtxx",  "sW mW -> dW",    "word(shift(big(s), m))"),
    ("163",                       "mulx0",  _SCALED,
     "0 if m == 0 or s == 0 else word(quo(shift(big(m) * big(s), p), big(a)))"),
    ("164",                       "divx0",  _SCALED,
     "0 if m == 0 else word(quo(shift(big(a) * big(m), p), big(s)))"),
    ("165",                       "cvtxx0", "sW mW aW -> dW",
     "0 if s == 0 else word(quo(shift(big(s), m), big(a)))"),
    # The two low bits of p ask for a correction after (2) and before (1) the shift by p >> 2.
    ("166",                       "mulx1",  _SCALED,
     ("0 if m == 0 or s == 0 else word(quo("
     "shift(big(m) * big(s) + (mask(p >> 2) if p & 1 != 0 and"
     " (((m < 0) == (s < 0)) == (p & 2 != 0)) else 0), p >> 2)"
     " + big(0 if p & 2 == 0 else a - 1 if (m < 0) == (s < 0) else -(a - 1)), big(a)))")),
    ("167",                       "divx1",  _SCALED,
     ("0 if m == 0 else word(quo("
     "shift(big(a) * big(m) + (mask(p >> 2) if p & 1 != 0 and m < 0 else 0), p >> 2), big(s)))"
     " + (0 if p & 2 == 0 else 1 if (m < 0) == (s < 0) else -1)")),
    ("168",                       "cvtxx1", "sW mW aW -> dW",
     ("0 if s == 0 else word(quo("
     "shift(big(s) + (mask(m >> 2) if m & 1 != 0 and ((s > 0) == (m & 2 != 0)) else 0), m >> 2)"
     " + big(0 if m & 2 == 0 else a - 1 if s > 0 else -(a - 1)), big(a)))")),
    ("169",                       "cvtfx",  "sF mF -> dW",    "word(round(s * m))"),
    ("170",                       "cvtxf",  "sW mF -> dF",    "real(s) * m"),
]

_N, _J, _W, _E = Effect.NEXT, Effect.JUMP, Effect.WAIT, Effect.END
_C, _R = Effect.CALL, Effect.RETURN
_HANDLED = [
    # numbers  mnemonic   operands         effect summary
    ("0",   "nop",    "",               _E, 'raises "illegal dis instruction"'),
    ("1",   "alt",    "sT -> dW",       _W, "wait for a channel of a table, d = its index"),
    ("2",   "nbalt",  "sT -> dW",       _N, "as alt, but d = the table's length if none is ready"),
    ("3",   "goto",   "sW dG",          _J, "go to entry s of the table of labels"),
    ("4",   "call",   "sK dQ",          _C, "call the function at d in frame s"),
    ("5",   "frame",  "sD -> dK",       _N, "make a frame of type s"),
    ("6",   "spawn",  "sK dQ",          _N, "start a process at d in frame s"),
    ("7",   "runt",   "",               _N, "does nothing"),
    ("8",   "load",   "sC mJ -> dZ",    _N, "load module s, linked by import list m, or nil"),
    ("9",   "mcall",  "sK mM dZ",       _C, "call function m of module d in frame s"),
    ("10",  "mspawn", "sK mM dZ",       _N, "start a process in function m of module d"),
    ("11",  "mframe", "sZ mM -> dK",    _N, "make a frame for function m of module s"),
    ("12",  "ret",    "",               _R, "return to the caller"),
    ("13",  "jmp",    "dQ",             _J, "go to d"),
    ("14",  "case",   "sW dS",          _J, "go where the table's range that holds s says"),
    ("15",  "exit",   "",               _E, "end the process"),
    ("16",  "new",    "sD -> dP",       _N, "make an object of type s"),
    ("17",  "newa",   "sW mD -> dA",    _N, "make an array of s elements of type m"),
    ("18B 19W 20F 21P 143L", "newc", "mW? -> dN", _N, "make a channel, buffering m values"),
    ("22",  "newcm",  "sW mW? -> dN",   _N, "make a channel of values of s bytes, buffering m"),
    ("23",  "newcmp", "sD mW? -> dN",   _N, "make a channel of values of type s, buffering m"),
    ("24",  "send",   "sX dN",          _W, "send the value at s over channel d"),
    ("25",  "recv",   "sN -> dX",       _W, "receive from channel s into d"),
    ("26B 27W 28P 29F 142L", "cons", "sT dI -> dI", _N, "put s before list d"),
    ("30",  "consm",  "sX mW dI -> dI", _N, "put the m bytes at s before list d"),
    ("31",  "consmp", "sY mD dI -> dI", _N, "put the value of type m at s before list d"),
    ("32B 33W 34P 35F 141L", "head", "sI -> dT", _N, "d = head of list s"),
    ("36",  "headm",  "sI mW -> dX",    _N, "copy m bytes of the head of list s"),
    ("37",  "headmp", "sI mD -> dY",    _N, "copy the head of list s, of type m"),
    ("38",  "tail",   "sI -> dI",       _N, "d = tail of list s"),
    ("39",  "lea",    "sO -> dE",       _N, "d = address of s"),
    ("40",  "indx",   "sA dW -> mE",    _N, "m = address of element d of array s"),
    ("41",  "movp",   "sP -> dP",       _N, "d = s, a reference"),
    ("42",  "movm",   "sX mW -> dX",    _N, "copy m bytes"),
    ("43",  "movmp",  "sY mD -> dY",    _N, "copy a value of type m"),
    ("51",  "cvtca",  "sC -> dA",       _N, "string to bytes, UTF-8"),
    ("52",  "cvtac",  "sA -> dC",       _N, "bytes to string, UTF-8"),
    ("53",  "cvtwc",  "sW -> dC",       _N, "word to decimal text"),
    ("54",  "cvtcw",  "sC -> dW",       _N, "decimal text to word, 0 if there is none"),
    ("55",  "cvtfc",  "sF -> dC",       _N, "real to text"),
    ("56",  "cvtcf",  "sC -> dF",       _N, "text to real, 0 if there is none"),
    ("81",  "insc",   "sW mW dC -> dC", _N, "d[m] = s, a code point"),
    ("82",  "indc",   "sC mW -> dW",    _N, "d = s[m], a code point"),
    ("83",  "addc",   "mC? sC -> dC",   _N, "d = m followed by s"),
    ("84",  "lenc",   "sC -> dW",       _N, "code points in a string"),
    ("85",  "lena",   "sA -> dW",       _N, "elements of an array"),
    ("86",  "lenl",   "sI -> dW",       _N, "length of a list"),
    ("111", "slicea", "sW mW dA -> dA", _N, "d = d[s:m], sharing the elements"),
    ("112", "slicela", "sA mW dA",      _N, "copy the elements of s into d from element m"),
    ("113", "slicec", "sW mW dC -> dC", _N, "d = d[s:m]"),
    ("114W 115F 116B 145L", "ind",  "sA dW -> mE", _N, "as indx where elements are such values"),
    ("139", "cvtlc",  "sL -> dC",       _N, "big to decimal text"),
    ("140", "cvtcl",  "sC -> dL",       _N, "decimal text to big, 0 if there is none"),
    ("144", "casec",  "sC dU",          _J, "go where the table's strings around s say"),
    ("146", "movpc",  "sW -> dQ",       _N, "d = code address of instruction s"),
    ("147", "tcmp",   "sP dP",          _N, '"type check" unless s is nil or of the type of d'),
    ("148", "mnewz",  "sZ mW -> dP",    _N, "make a zeroed object of type m of module s"),
    ("155", "eclr",   "",               _N, "does nothing"),
    ("156", "newz",   "sD -> dP",       _N, "make a zeroed object of type s"),
    ("157", "newaz",  "sW mD -> dA",    _N, "make a zeroed array of s elements of type m"),
    ("158", "raise",  "sP",             _E, "raise an exception: a string or an object"),
    ("159", "casel",  "sL dV",          _J, "go where the table's range that holds s says"),
    ("174", "self",   "-> dZ",          _N, "d = handle of this module"),
]
# fmt: on


def _all_ops() -> tuple[Op, ...]:
    """Join both lists in the order of the numbers, which are dense."""
    ops: list[Op] = []
    for numbers, stem, signature, text in _MEANINGS:
        branches = "dQ" in signature
        effect = Effect.BRANCH if branches else Effect.NEXT
        summary = f"go to d if {text}" if branches else f"d = {text}"
        ops += _rows(numbers, stem, signature, effect, text, summary)
    for numbers, stem, signature, effect, summary in _HANDLED:
        ops += _rows(numbers, stem, signature, effect, None, summary)
    ops.sort(key=lambda op: op.number)
    assert [op.number for op in ops] == list(range(len(ops)))
    return tuple(ops)


OPS: tuple[Op, ...] = _all_ops()
OPCODES: dict[str, int] = {op.mnemonic: op.number for op in OPS}


@dataclass(frozen=True)
class OpRow:
    """A row of the table in words, for people and for JSON."""

    number: int
    mnemonic: str
    operands: str
    effect: str
    summary: str


def describe(mnemonic: str = "") -> list[OpRow]:
    """Return the whole table in words, or the row of one mnemonic; raises UsageError."""
    mnemonic = mnemonic.lower()
    if mnemonic and mnemonic not in OPCODES:
        raise UsageError(f"unknown mnemonic {mnemonic!r}{nearest(mnemonic, OPCODES)}")
    shown = [OPS[OPCODES[mnemonic]]] if mnemonic else OPS
    return [OpRow(o.number, o.mnemonic, o.signature, o.effect.value, o.summary) for o in shown]


CONVERSIONS: dict[str, str] = {TYPES[letter].name: letter for letter in "BHWLRF"}
"""Conversion functions that meanings call, and the type letter each gives."""


def type_of(node: ast.expr, op: Op, neighbour: str = "W") -> str:
    """Return the type letter of part of a meaning, or ``?`` for a claim.

    A constant has the type of its neighbour, which the caller knows.
    """
    match node:
        case ast.Name(id=name):
            return dict(op.reads)[name]
        case ast.Constant(value=value):
            return "F" if isinstance(value, float) else neighbour
        case ast.UnaryOp(op=ast.USub(), operand=x):
            return type_of(x, op, neighbour)
        case ast.BinOp(left=x, op=ast.LShift() | ast.RShift()):
            return type_of(x, op, neighbour)
        case ast.BinOp(left=x, right=y) | ast.IfExp(body=x, orelse=y):
            known = y if isinstance(x, ast.Constant) else x
            return type_of(known, op, neighbour)
        case ast.Call(func=ast.Name(id=name), args=args):
            return CONVERSIONS.get(name) or type_of(args[0], op, neighbour)
    return "?"
