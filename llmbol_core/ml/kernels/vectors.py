"""Values, pointers and variables: what the authors of kernels write code with.

A ``Value`` is a number or a vector of any width in machine code yet to run; Python's operators on
values write instructions. A vector and a scalar or Python number may meet: the latter is repeated.
Nothing is contracted or reordered, so that results are those of IEEE 754, step by step. Python
loops unroll; ``for i in k.range(n)`` writes a loop (``builder``).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llvmlite import ir

from llmbol_core.ml.kernels.kinds import Kind, f16, i1, i32, i64

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder

Number = int | float

_TYPES = {"f16": ir.HalfType(), "f32": ir.FloatType(), "f64": ir.DoubleType()}
ADDRESS = ir.PointerType()
BYTE, WORD = ir.IntType(8), ir.IntType(64)


def scalar_type(kind: Kind) -> Any:
    """Return LLVM's type for one number."""
    return _TYPES[kind.name] if kind.is_float else ir.IntType(kind.bits)


def type_of(kind: Kind, lanes: int) -> Any:
    """Return LLVM's type for so many numbers."""
    return scalar_type(kind) if lanes == 1 else ir.VectorType(scalar_type(kind), lanes)


class _Written(ir.Constant):  # type: ignore[misc]
    """A constant in LLVM's words, where they are shorter than llvmlite's."""

    def __init__(self, kind: Any, text: str) -> None:
        self.type, self.constant = kind, text

    def _get_reference(self) -> str:
        return str(self.constant)


class _Lanes(ir.Constant):  # type: ignore[misc]
    """Lanes by their numbers."""

    def _get_reference(self) -> str:
        is_first = not any(number.constant for number in self.constant)
        return "zeroinitializer" if is_first else str(super()._get_reference())


def constant(kind: Kind, lanes: int, number: Number) -> Any:
    """Return LLVM's constant of equal numbers."""
    one = ir.Constant(scalar_type(kind), number)
    return one if lanes == 1 else _Written(type_of(kind, lanes), f"splat ({one})")


@functools.cache
def _undefined(kind: Kind, lanes: int) -> Any:
    return _Written(type_of(kind, lanes), "undef")


@functools.cache
def _lanes(numbers: tuple[int, ...]) -> Any:
    return _Lanes(ir.VectorType(ir.IntType(32), len(numbers)), list(numbers))


def suffix(value: Value) -> str:
    """Return how LLVM names a type within the name of an intrinsic function."""
    name = value.kind.name if value.kind.is_float else f"i{value.kind.bits}"
    return f"v{value.lanes}{name}" if value.lanes > 1 else name


class Value:
    """A number, or a vector of ``lanes`` numbers, of a kind."""

    __slots__ = ("ir", "k", "kind", "lanes")

    def __init__(self, k: Builder, value: Any, kind: Kind, lanes: int) -> None:
        self.k, self.ir, self.kind, self.lanes = k, value, kind, lanes

    def _binary(self, operation: tuple[str, str, str], other: Value | Number, swap: bool) -> Value:
        a, b = self.k.alike(self, other)
        if swap:
            a, b = b, a
        name = operation[0] if a.kind.is_float else operation[1 if a.kind.is_signed else 2]
        return Value(self.k, getattr(self.k.ir, name)(a.ir, b.ir), a.kind, a.lanes)

    def __add__(self, other: Value | Number) -> Value:
        return self._binary(("fadd", "add", "add"), other, False)

    def __sub__(self, other: Value | Number) -> Value:
        return self._binary(("fsub", "sub", "sub"), other, False)

    def __mul__(self, other: Value | Number) -> Value:
        return self._binary(("fmul", "mul", "mul"), other, False)

    def __truediv__(self, other: Value | Number) -> Value:
        return self._binary(("fdiv", "", ""), other, False)

    def __floordiv__(self, other: Value | Number) -> Value:
        """Divide whole numbers that are not negative."""
        return self._binary(("", "udiv", "udiv"), other, False)

    def __mod__(self, other: Value | Number) -> Value:
        """Return the remainder of dividing whole numbers that are not negative."""
        return self._binary(("", "urem", "urem"), other, False)

    def __radd__(self, other: Number) -> Value:
        return self + other

    def __rmul__(self, other: Number) -> Value:
        return self * other

    def __rsub__(self, other: Number) -> Value:
        return self._binary(("fsub", "sub", "sub"), other, True)

    def __rtruediv__(self, other: Number) -> Value:
        return self._binary(("fdiv", "", ""), other, True)

    def __and__(self, other: Value | Number) -> Value:
        return self._binary(("", "and_", "and_"), other, False)

    def __or__(self, other: Value | Number) -> Value:
        return self._binary(("", "or_", "or_"), other, False)

    def __xor__(self, other: Value | Number) -> Value:
        return self._binary(("", "xor", "xor"), other, False)

    def __lshift__(self, other: Value | Number) -> Value:
        return self._binary(("", "shl", "shl"), other, False)

    def __rshift__(self, other: Value | Number) -> Value:
        """Shift right; copies of the sign come in if the kind is signed."""
        return self._binary(("", "ashr", "lshr"), other, False)

    def __neg__(self) -> Value:
        if self.kind.is_float:
            return Value(self.k, self.k.ir.fneg(self.ir), self.kind, self.lanes)
        return 0 - self

    def _compare(self, sign: str, other: Value | Number) -> Value:
        a, b = self.k.alike(self, other)
        if a.kind.is_float:
            made = (self.k.ir.fcmp_unordered if sign == "!=" else self.k.ir.fcmp_ordered)(
                sign, a.ir, b.ir
            )
        else:
            compare = self.k.ir.icmp_signed if a.kind.is_signed else self.k.ir.icmp_unsigned
            made = compare(sign, a.ir, b.ir)
        return Value(self.k, made, i1, a.lanes)

    def __lt__(self, other: Value | Number) -> Value:
        return self._compare("<", other)

    def __le__(self, other: Value | Number) -> Value:
        return self._compare("<=", other)

    def __gt__(self, other: Value | Number) -> Value:
        return self._compare(">", other)

    def __ge__(self, other: Value | Number) -> Value:
        return self._compare(">=", other)

    def equals(self, other: Value | Number) -> Value:
        """Return where both are equal."""
        return self._compare("==", other)

    def differs(self, other: Value | Number) -> Value:
        """Return where both differ; NaN differs from all."""
        return self._compare("!=", other)

    def unordered(self, other: Value) -> Value:
        """Return where either float is NaN."""
        return Value(self.k, self.k.ir.fcmp_unordered("uno", self.ir, other.ir), i1, self.lanes)

    def to(self, kind: Kind) -> Value:
        """Convert to another kind: widened by sign, cut, or rounded to nearest.

        A float outside of an integer kind gives an arbitrary integer.
        """
        if kind is self.kind:
            return self
        if f16 in (kind, self.kind) and not self.k.target.has_half:
            return self.k.convert_half(self, kind)
        name = _conversion(self.kind, kind)
        made = getattr(self.k.ir, name)(self.ir, type_of(kind, self.lanes)) if name else self.ir
        return Value(self.k, made, kind, self.lanes)

    def bits(self, kind: Kind) -> Value:
        """Look at the same bits as numbers of another kind: more or fewer lanes if need be."""
        lanes = self.lanes * self.kind.bits // kind.bits
        return Value(self.k, self.k.ir.bitcast(self.ir, type_of(kind, lanes)), kind, lanes)

    def splat(self, lanes: int) -> Value:
        """Repeat a scalar."""
        if lanes == 1:
            return self
        empty = _undefined(self.kind, lanes)
        first = self.k.ir.insert_element(empty, self.ir, constant(i32, 1, 0))
        made = self.k.ir.shuffle_vector(first, empty, _lanes((0,) * lanes))
        return Value(self.k, made, self.kind, lanes)

    def shuffle(self, order: Sequence[int], other: Value | None = None) -> Value:
        """Choose lanes of this vector, and of another one after it, by number."""
        if len(order) == 1:
            number = order[0] - self.lanes
            return self.lane(order[0]) if number < 0 or other is None else other.lane(number)
        second = _undefined(self.kind, self.lanes) if other is None else other.ir
        made = self.k.ir.shuffle_vector(self.ir, second, _lanes(tuple(order)))
        return Value(self.k, made, self.kind, len(order))

    def lane(self, number: int | Value) -> Value:
        """Return one lane as a scalar."""
        index = number.ir if isinstance(number, Value) else ir.IntType(32)(number)
        return Value(self.k, self.k.ir.extract_element(self.ir, index), self.kind, 1)

    def halves(self) -> tuple[Value, Value]:
        """Return the lower and the upper half of a vector."""
        middle = self.lanes // 2
        return self.shuffle(range(middle)), self.shuffle(range(middle, self.lanes))

    def sum(self) -> Value:
        """Add all lanes, halves upon halves: the same order on every machine."""
        return self._reduced(lambda a, b: a + b)

    def max(self) -> Value:
        """Return the greatest lane."""
        return self._reduced(self.k.max)

    def min(self) -> Value:
        """Return the least lane."""
        return self._reduced(self.k.min)

    def _reduced(self, combine: Any) -> Value:
        value = self
        while value.lanes > 1:
            value = combine(*value.halves())
        return value


def _conversion(source: Kind, target: Kind) -> str:
    """Return the name of the instruction that converts; empty if the bits stay as they are."""
    if source.is_float and target.is_float:
        return "fpext" if target.bits > source.bits else "fptrunc"
    if source.is_float:
        return "fptosi" if target.is_signed else "fptoui"
    if target.is_float:
        return "sitofp" if source.is_signed else "uitofp"
    if target.bits == source.bits:
        return ""
    if target.bits < source.bits:
        return "trunc"
    return "sext" if source.is_signed else "zext"


class Pointer:
    """A place in memory where numbers of a kind lie one after another; needs no alignment."""

    __slots__ = ("ir", "k", "kind")

    def __init__(self, k: Builder, address: Any, kind: Kind) -> None:
        self.k, self.ir, self.kind = k, address, kind

    def at(self, index: Value | int) -> Pointer:
        """Return the place so many numbers further on."""
        return Pointer(self.k, self._address(index, self.kind.size), self.kind)

    def bytes_on(self, offset: Value | int) -> Pointer:
        """Return the place so many bytes further on."""
        return Pointer(self.k, self._address(offset, 1), self.kind)

    def of(self, kind: Kind) -> Pointer:
        """Return the same place as one of numbers of another kind."""
        return Pointer(self.k, self.ir, kind)

    def load(self, index: Value | int = 0, lanes: int = 1) -> Value:
        """Read a number, or a vector that begins there."""
        address = self._address(index, self.kind.size)
        made = self.k.ir.load(address, typ=type_of(self.kind, lanes), align=1)
        return Value(self.k, made, self.kind, lanes)

    def splat(self, index: Value | int, lanes: int) -> Value:
        """Read a number and repeat it."""
        return self.load(index).splat(lanes)

    def store(self, value: Value, index: Value | int = 0) -> None:
        """Write a number or a vector, converted to this kind."""
        address = self._address(index, self.kind.size)
        self.k.ir.store(value.to(self.kind).ir, address, align=1)

    def store_some(self, value: Value, count: Value, index: Value | int = 0) -> None:
        """Write the first lanes of a vector, so many of them."""
        mask = self.k.ramp(value.lanes, i32) < count.to(i32).splat(value.lanes)
        vector = value.to(self.kind)
        address = self._address(index, self.kind.size)
        name = f"llvm.masked.store.{suffix(vector)}.p0"
        self.k.call(name, ir.VoidType(), [vector.ir, address, ir.IntType(32)(1), mask.ir])

    def load_some(self, count: Value, lanes: int, index: Value | int = 0) -> Value:
        """Read the first lanes of a vector, so many of them; the others are zero."""
        return self._load_where(self.k.ramp(lanes, i32) < count.to(i32).splat(lanes), index)

    def load_between(self, first: Value, last: Value, lanes: int, index: Value | int = 0) -> Value:
        """Read the lanes first ... last of a vector, ``last`` not included; others are zero."""
        ramp = self.k.ramp(lanes, i32)
        lower, upper = (bound.to(i32).splat(lanes) for bound in (first, last))
        return self._load_where((ramp >= lower) & (ramp < upper), index)

    def _load_where(self, mask: Value, index: Value | int) -> Value:
        """Read the lanes of a vector that a mask has; the others are zero."""
        rest = self.k.zeros(self.kind, mask.lanes)
        address = self._address(index, self.kind.size)
        name = f"llvm.masked.load.{suffix(rest)}.p0"
        arguments = [address, ir.IntType(32)(1), mask.ir, rest.ir]
        made = self.k.call(name, rest.ir.type, arguments)
        return Value(self.k, made, self.kind, mask.lanes)

    def add_atomic(self, value: Value | int, index: Value | int = 0) -> Value:
        """Add to a whole number that threads share, and return what it was before."""
        address = self._address(index, self.kind.size)
        amount = self.k.value(value, self.kind)
        made = self.k.ir.atomic_rmw("add", address, amount.ir, "seq_cst")
        return Value(self.k, made, self.kind, 1)

    def prefetch(self, index: Value | int = 0, level: int = 3, writes: bool = False) -> None:
        """Ask for the cache line there; level 3 is the nearest cache, 0 none of them for long."""
        numbers = [ir.IntType(32)(n) for n in (int(writes), level, 1)]
        address = self._address(index, self.kind.size)
        self.k.call("llvm.prefetch.p0", ir.VoidType(), [address, *numbers])

    def address(self) -> Value:
        """Return the place as a number; 0 is nowhere."""
        return Value(self.k, self.k.ir.ptrtoint(self.ir, WORD), i64, 1)

    def _address(self, index: Value | int, size: int) -> Any:
        if isinstance(index, int):
            if not index:
                return self.ir
            offset = WORD(index * size)
        else:
            offset = (index * size).ir if size > 1 else index.ir
        return self.k.ir.gep(self.ir, [offset], source_etype=BYTE)


class Variable:
    """A value that changes in loops; kept in a register."""

    __slots__ = ("_kind", "_lanes", "_place", "k")

    def __init__(self, k: Builder, initial: Value) -> None:
        self.k, self._kind, self._lanes = k, initial.kind, initial.lanes
        with k.ir.goto_entry_block():
            self._place = k.ir.alloca(initial.ir.type)
        self.value = initial

    @property
    def value(self) -> Value:
        """What it holds now."""
        made = self.k.ir.load(self._place, typ=type_of(self._kind, self._lanes))
        return Value(self.k, made, self._kind, self._lanes)

    @value.setter
    def value(self, new: Value) -> None:
        self.k.ir.store(new.ir, self._place)
