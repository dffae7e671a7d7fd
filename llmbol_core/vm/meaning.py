"""The meanings of scalar instructions as Python: text for each expression, functions it may call.

``isa.py`` says what an expression means; here integers are Python's, brought back to their width
wherever an operation can leave it, and reals are Python's floats.
"""

from __future__ import annotations

import ast
import math
import struct
from collections.abc import Callable, Mapping
from typing import Any

from llmbol_core.errors import Trap
from llmbol_core.vm.isa import CONVERSIONS, TYPES, ZERO_DIVIDE, Op, type_of

_INTEGERS = "BHWL"
_CLOSED = (ast.BitAnd, ast.BitOr, ast.BitXor)
# fmt: off
_OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^",
    ast.LShift: "<<", ast.RShift: ">>", ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=",
    ast.Gt: ">", ast.GtE: ">=", ast.And: " and ", ast.Or: " or ",
}
_CAREFUL: dict[type[ast.AST], str] = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div",
}
# fmt: on


def translate(meaning: ast.expr, op: Op, loads: Mapping[str, str], is_careful: bool = False) -> str:
    """Return a meaning as a Python expression, given the text that reads each operand.

    If it is to be careful of how reals are rounded it calls methods of ``A`` (``ieee.py``).
    """
    translator = _CarefulTranslator if is_careful else _Translator
    return translator(op, loads).text(meaning, op.result if op.result in TYPES else "W")


class _Translator:
    """Spells one instruction's meaning."""

    def __init__(self, op: Op, loads: Mapping[str, str]) -> None:
        self._op, self._loads = op, loads

    def text(self, node: ast.expr, neighbour: str) -> str:
        """Return the text of an expression; a constant has its neighbour's type."""
        match node:
            case ast.Name(id=name):
                return self._loads[name]
            case ast.Constant(value=int() | float() as value):
                return repr(float(value) if neighbour == "F" else value)
            case ast.UnaryOp(operand=operand):
                return _wrap(f"-{self.text(operand, neighbour)}", self._type(node, neighbour))
            case ast.BinOp():
                return self._binary(node, neighbour)
            case ast.Compare(left=left, ops=[operator], comparators=[right]):
                letter = self._type(right if isinstance(left, ast.Constant) else left, "W")
                return self._compare(self.text(left, letter), operator, self.text(right, letter))
            case ast.BoolOp(op=joint, values=values):
                return f"({_OPERATORS[type(joint)].join(self.text(v, neighbour) for v in values)})"
            case ast.IfExp(test=test, body=body, orelse=other):
                letter = self._type(node, neighbour)
                yes, no = self.text(body, letter), self.text(other, letter)
                return f"({yes} if {self.text(test, 'W')} else {no})"
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return self._call(name, arguments, neighbour)
        raise TypeError(f"no translation for {ast.dump(node)}")

    def _type(self, node: ast.expr, neighbour: str) -> str:
        return type_of(node, self._op, neighbour)

    def _binary(self, node: ast.BinOp, neighbour: str) -> str:
        letter = self._type(node, neighbour)
        left = self.text(node.left, letter)
        if isinstance(node.op, ast.LShift | ast.RShift):
            mask = 8 * max(TYPES[letter].size, 4) - 1
            count = f"({self.text(node.right, 'W')} & {mask})"
            return _wrap(f"{left} {_OPERATORS[type(node.op)]} {count}", letter)
        right = self.text(node.right, letter)
        if letter == "F":
            return self._real(node.op, left, right)
        text = f"{left} {_OPERATORS[type(node.op)]} {right}"
        return f"({text})" if isinstance(node.op, _CLOSED) else _wrap(text, letter)

    def _real(self, how: ast.operator, left: str, right: str) -> str:
        """Return an operation on reals."""
        if isinstance(how, ast.Div):
            return f"divide({left}, {right})"
        return f"({left} {_OPERATORS[type(how)]} {right})"

    def _compare(self, x: str, how: ast.cmpop, y: str) -> str:
        return f"({x} {_OPERATORS[type(how)]} {y})"

    def _convert(self, text: str, source: str, target: str) -> str:
        return _convert(text, source, target)

    def _call(self, name: str, arguments: list[ast.expr], neighbour: str) -> str:
        if name in CONVERSIONS:
            source = self._type(arguments[0], "W")
            return self._convert(self.text(arguments[0], source), source, CONVERSIONS[name])
        letter = self._type(arguments[0], neighbour)
        others = ", ".join(self.text(a, "W" if name in _COUNTS else letter) for a in arguments[1:])
        return f"{name}_{letter}({self.text(arguments[0], letter)}, {others})"


class _CarefulTranslator(_Translator):
    """Spells an instruction's meaning for processes that are careful of their reals.

    Comparisons name their operands twice.
    """

    def _real(self, how: ast.operator, left: str, right: str) -> str:
        return f"A.{_CAREFUL[type(how)]}({left}, {right})"

    def _compare(self, x: str, how: ast.cmpop, y: str) -> str:
        asks = "equality" if isinstance(how, ast.Eq | ast.NotEq) else "ordered"
        claim = super()._compare(x, how, y)
        return f"(A.{asks}({x}, {y}) and {claim})"

    def _convert(self, text: str, source: str, target: str) -> str:
        if source in _INTEGERS and target == "F":
            return f"A.real({text})"
        if target == "R":
            return f"A.single({text})"
        if source in "FR" and target in _INTEGERS:
            return f"A.truncated({text}, {8 * TYPES[target].size})"
        return super()._convert(text, source, target)

    def _call(self, name: str, arguments: list[ast.expr], neighbour: str) -> str:
        text = super()._call(name, arguments, neighbour)
        return text.replace("power_F(", "A.power(", 1) if text.startswith("power_F(") else text


_COUNTS = ("lsr", "power")


def _wrap(text: str, letter: str) -> str:
    """Bring the value of a text back to the width of an integer type."""
    if letter not in _INTEGERS:
        return f"({text})"
    bits = 8 * TYPES[letter].size
    mask, half = (1 << bits) - 1, 1 << bits - 1
    if TYPES[letter].kind == "unsigned":
        return f"(({text}) & {mask})"
    return f"((({text}) + {half} & {mask}) - {half})"


def _convert(text: str, source: str, target: str) -> str:
    if target == "F":
        return text if source in "FR" else f"float({text})"
    if target == "R":
        return f"round_R({text})"
    if source in "FR":
        return f"truncate_{target}({text})"
    widens = TYPES[source].size < TYPES[target].size or source == target
    return text if widens else _wrap(text, target)


def divide(x: float, y: float) -> float:
    """Divide reals as IEEE says; what is undefined has the sign that the 386 gives it."""
    if y:
        return x / y
    if math.isnan(x):
        return x
    if x == 0.0:
        return -math.nan
    return math.copysign(math.inf, x) * math.copysign(1.0, y)


def round_to_float(x: float) -> float:
    """Return the 32-bit float nearest to a real."""
    try:
        value: float = struct.unpack("f", struct.pack("f", x))[0]
    except OverflowError:
        return math.copysign(math.inf, x)
    return value


def _quotient(x: int, y: int) -> int:
    """Divide integers, truncating to zero."""
    if y == 0:
        raise Trap(ZERO_DIVIDE)
    quotient = abs(x) // abs(y)
    return quotient if (x < 0) == (y < 0) else -quotient


def _integer_functions(letter: str) -> dict[str, Callable[..., Any]]:
    """Return the functions on integers of one type, by the names that texts call."""
    bits = 8 * TYPES[letter].size
    is_signed = TYPES[letter].kind == "signed"
    half, mask = 1 << bits - 1, (1 << bits) - 1
    least = -half if is_signed else 0
    # The 386 traps on the most negative word by -1; for bigs it divides in software.
    overflow_traps = letter == "W"

    def wrap(x: int) -> int:
        return (x + half & mask) - half if is_signed else x & mask

    def quo(x: int, y: int) -> int:
        if overflow_traps and x == least and y == -1:
            raise Trap(ZERO_DIVIDE)
        return wrap(_quotient(x, y))

    def rem(x: int, y: int) -> int:
        if y == -1 and not overflow_traps:
            return 0
        return x - y * quo(x, y)

    def lsr(x: int, count: int) -> int:
        return wrap((x & mask) >> (count & max(bits, 32) - 1))

    def power(x: int, n: int) -> int:
        found = wrap(pow(x, abs(n), mask + 1))
        return found if n >= 0 else quo(1, found)

    def truncate(x: float) -> int:
        if not math.isfinite(x) or not least <= math.trunc(x) <= least + mask:
            return least
        return math.trunc(x)

    functions: list[Callable[..., Any]] = [quo, rem, lsr, power, truncate]
    return {f"{function.__name__}_{letter}": function for function in functions}


def power_of_real(x: float, n: int) -> float:
    """Raise a real to an integer power by repeated squaring, low bits first."""
    result, left = 1.0, abs(n)
    while left:
        if left & 1:
            result *= x
        x *= x
        left >>= 1
    return divide(1.0, result) if n < 0 else result


ARITHMETIC: dict[str, Callable[..., Any]] = {
    "divide": divide,
    "float": float,
    "round_R": round_to_float,
    "power_F": power_of_real,
}
"""What the texts call, by name."""
for _letter in _INTEGERS:
    ARITHMETIC |= _integer_functions(_letter)
