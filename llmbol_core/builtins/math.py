"""$Math: elementary functions, reals as bits and bytes, linear algebra on arrays of real.

Each process has a control and a status word, as in Inferno's math-fp(2); a process that it spawns
begins with the same ones. All computing with reals follows the control word, and what it wants is
raised as "sys: fp: exception status=... pc=..." before the instruction or function has changed
anything; what it does not want is kept in the status word.

At first the control word is Inferno's, INVAL|ZDIV|OVFL|UNFL. A program that does not know of the
words is not slowed down by them: they count from when a module is loaded that calls FPcontrol or
getFPcontrol, and the status word from when one is that calls FPstatus or getFPstatus. Until then
there is plain IEEE arithmetic, as after ``FPcontrol(0, INVAL|ZDIV|OVFL|UNFL)``, which costs nothing
either. FPstatus sets the bits that it is given; on a 386 Inferno clears all.

Rounding concerns arithmetic, conversions from big, text and 32 bits or to them, and the functions
(``rounding.py``), but not how a real is written as text. Edge values are those of Inferno's
library; see its manual, math(2). Arrays that do not fit together raise "invalid math argument".
"""

from __future__ import annotations

import dataclasses
import functools
import math
import struct
from array import array
from collections.abc import Callable
from typing import Any, TypeVar

from llmbol_core.builtins import bessel, linear, special
from llmbol_core.builtins.binding import Binding
from llmbol_core.builtins.elementary import BINARY, UNARY
from llmbol_core.builtins.rounding import EXACT, carefully, function_of_reals, is_careful
from llmbol_core.errors import Trap
from llmbol_core.vm import traps
from llmbol_core.vm.host import HostCall
from llmbol_core.vm.ieee import CAREFUL, CONTROL, EXCEPTIONS, HAPPENED, WATCHED
from llmbol_core.vm.jit.builtins import exponentials

_NATIVE = (
    "FPcontrol", "FPstatus", "getFPcontrol", "getFPstatus",
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "bits64real", "cbrt", "ceil",
    "copysign", "cos", "cosh", "dot", "exp", "expm1", "fabs", "fdim", "finite", "floor", "fmax",
    "fmin", "fmod", "gemm", "hypot", "iamax", "ilogb", "isnan", "log", "log10", "log1p", "modf",
    "norm1", "norm2", "pow", "pow10", "realbits64", "remainder", "rint", "scalbn",
    "sin", "sinh", "sort", "sqrt", "tan", "tanh",
)  # fmt: skip

binding = Binding(
    "Math",
    """
    Infinity: con 1e400;
    NaN: con 0./0.;
    MachEps: con 2.2204460492503131e-16;
    Pi: con 3.14159265358979323846;
    Degree: con Pi/180.;
    INVAL, ZDIV, OVFL, UNFL, INEX: con 1<<iota;
    RND_NR, RND_NINF, RND_PINF, RND_Z: con iota<<8;
    RND_MASK: con 3<<8;
    """,
    native=_NATIVE,
)

INVALID = "invalid math argument"
_MOST_ORDER = 1 << 20
_LONG = 1 << 13
"""Steps from which on work is done in another thread, or in pieces."""
_INT_MAX, _INT_MIN = (1 << 31) - 1, -(1 << 31)

_T = TypeVar("_T")
Reals = Any
"""An array of real as a memoryview of its items, or None for nil; so are ints and bytes."""


# Functions of reals


for _name, _function in UNARY.items():
    binding.function(f"{_name}: fn(x: real): real")(function_of_reals(_name, _function))
for _name, _pair in BINARY.items():
    _head, _, _arguments = _name.partition("(")
    _declaration = f"{_head}: fn({_arguments[:-1]}: real): real"
    binding.function(_declaration)(function_of_reals(_head, _pair))


@binding.function("isnan: fn(x: real): int")
def isnan(call: HostCall, x: float) -> int:
    """Say whether x is not a number."""
    return int(math.isnan(x))


@binding.function("finite: fn(x: real): int")
def finite(call: HostCall, x: float) -> int:
    """Say whether x is a finite number."""
    return int(math.isfinite(x))


@binding.function("ilogb: fn(x: real): int")
def ilogb(call: HostCall, x: float) -> int:
    """Return the exponent of x as a power of 2."""
    if x == 0:
        return -_INT_MAX
    return math.frexp(x)[1] - 1 if math.isfinite(x) else _INT_MAX


@binding.function("lgamma: fn(x: real): (int, real)")
def lgamma(call: HostCall, x: float) -> tuple[int, float]:
    """Return the sign of gamma(x) and the logarithm of its size."""
    if is_careful(call):
        return carefully(call, "lgamma", _lgamma, x)  # type: ignore[no-any-return]
    return _lgamma(x)


def _lgamma(x: float) -> tuple[int, float]:
    if not math.isfinite(x):
        return 1, x * x
    if x <= 0 and x == math.floor(x):
        return 1, math.inf
    return special.lgamma(x)


@binding.function("modf: fn(x: real): (int, real)")
def modf(call: HostCall, x: float) -> tuple[int, float]:
    """Return the whole part of x, as an int, and the rest."""
    part, whole = math.modf(x)
    return (int(whole) if _INT_MIN <= whole <= _INT_MAX else _INT_MIN), part


@binding.function("pow10: fn(p: int): real")
def pow10(call: HostCall, p: int) -> float:
    """Return 10 to the p."""
    return float(function_of_reals("pow10", exponentials.ten_to)(call, p))


@binding.function("scalbn: fn(x: real, n: int): real")
def scalbn(call: HostCall, x: float, n: int) -> float:
    """Return x times 2 to the n."""
    return float(function_of_reals("scalbn", _scaled)(call, x, n))


def _scaled(x: float, n: int) -> float:
    try:
        return math.ldexp(x, n)
    except OverflowError:
        return math.copysign(math.inf, x)


@binding.function("jn: fn(n: int, x: real): real")
def jn(call: HostCall, n: int, x: float) -> float:
    """Return the Bessel function J of order n; orders above a million are refused."""
    return _by_order(call, bessel.jn, n, x)


@binding.function("yn: fn(n: int, x: real): real")
def yn(call: HostCall, n: int, x: float) -> float:
    """Return the Bessel function Y of order n; orders above a million are refused."""
    return _by_order(call, bessel.yn, n, x)


def _by_order(call: HostCall, function: Callable[[int, float], float], n: int, x: float) -> float:
    """Return the value of a function whose work grows with the order."""
    if abs(n) > _MOST_ORDER:
        raise Trap(INVALID)
    return _apart(call, abs(n), function, n, x)


def _apart(call: HostCall, steps: int, function: Callable[..., _T], *values: Any) -> _T:
    """Return the result of a function that takes so many steps and does not touch the machine."""
    name, is_long = function.__name__, steps > _LONG
    if is_careful(call) and name not in EXACT:
        return carefully(call, name, function, *values, is_long=is_long)  # type: ignore[no-any-return]
    return call.apart(functools.partial(function, *values)) if is_long else function(*values)


# The floating-point control and status words


@binding.function("FPcontrol: fn(r, mask: int): int")
def fp_control(call: HostCall, value: int, mask: int) -> int:
    """Set the bits of the process's control word under a mask; return what they were."""
    process = call.process
    old = process.floating & CONTROL
    new = (value & mask | old & ~mask) & CONTROL
    careful = CAREFUL if new or process.floating & WATCHED else 0
    process.floating = process.floating & ~(CONTROL | CAREFUL) | new | careful
    call.machine.engine.adapt(process)
    return old & mask


@binding.function("FPstatus: fn(r, mask: int): int")
def fp_status(call: HostCall, value: int, mask: int) -> int:
    """Set the bits of the process's status word under a mask; return what they were."""
    old = get_fp_status(call)
    new = (value & mask | old & ~mask) & EXCEPTIONS
    call.process.floating = call.process.floating & ~(EXCEPTIONS << HAPPENED) | new << HAPPENED
    return old & mask


@binding.function("getFPcontrol: fn(): int")
def get_fp_control(call: HostCall) -> int:
    """Return the process's control word."""
    return call.process.floating & CONTROL


@binding.function("getFPstatus: fn(): int")
def get_fp_status(call: HostCall) -> int:
    """Return the process's status word."""
    return call.process.floating >> HAPPENED & EXCEPTIONS


# Reals as bits, and arrays of numbers as big-endian bytes


@binding.function("realbits32: fn(x: real): int")
def realbits32(call: HostCall, x: float) -> int:
    """Return the bits of x as a 32-bit float."""
    single = float(function_of_reals("realbits32", lambda x: x)(call, x))
    return int(struct.unpack("=i", array("f", [single]).tobytes())[0])


@binding.function("realbits64: fn(x: real): big")
def realbits64(call: HostCall, x: float) -> int:
    """Return the bits of x."""
    return int(struct.unpack("=q", struct.pack("=d", x))[0])


@binding.function("bits32real: fn(b: int): real")
def bits32real(call: HostCall, bits: int) -> float:
    """Return the 32-bit float that has these bits."""
    return float(struct.unpack("=f", struct.pack("=i", bits))[0])


@binding.function("bits64real: fn(b: big): real")
def bits64real(call: HostCall, bits: int) -> float:
    """Return the real that has these bits."""
    return float(struct.unpack("=d", struct.pack("=q", bits))[0])


def _matched(data: Reals, values: Reals, size: int) -> None:
    """Check that a byte array has room for exactly these values."""
    if data is None or values is None:
        raise Trap(traps.NIL_DEREFERENCE)
    if len(data) != size * len(values):
        raise Trap(INVALID)


def _exporter(item: str) -> Callable[[HostCall, Reals, Reals], None]:
    exported = function_of_reals(f"export_{item}", array)

    def export(call: HostCall, data: Reals, values: Reals) -> None:
        size = struct.calcsize(item)
        _matched(data, values, size)
        for at in range(0, len(values), _LONG):
            kind = exported(call, item, values[at : at + _LONG])
            kind.byteswap()
            data[size * at : size * (at + len(kind))] = kind.tobytes()
            call.pause()

    return export


def _importer(item: str) -> Callable[[HostCall, Reals, Reals], None]:
    def import_(call: HostCall, data: Reals, values: Reals) -> None:
        size = struct.calcsize(item)
        _matched(data, values, size)
        for at in range(0, len(values), _LONG):
            kind = array(item, bytes(data[size * at : size * (at + _LONG)]))
            kind.byteswap()
            values[at : at + len(kind)] = array(values.format, kind)
            call.pause()

    return import_


for _suffix, _item, _type in (("int", "i", "int"), ("real", "d", "real"), ("real32", "f", "real")):
    _type = f"fn(b: array of byte, x: array of {_type})"
    binding.function(f"export_{_suffix}: {_type}")(_exporter(_item))
    binding.function(f"import_{_suffix}: {_type}")(_importer(_item))


# Linear algebra


def _fitting(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of arrays with Inferno's exceptions for nil and for arrays that misfit."""

    def fitting(call: HostCall, *vectors: Reals) -> Any:
        if any(vector is None for vector in vectors):
            raise Trap(traps.NIL_DEREFERENCE)
        size = max(map(len, vectors))
        copies = vectors if size <= _LONG else [array(v.format, v.tobytes()) for v in vectors]
        try:
            return _apart(call, size, function, *copies)
        except linear.Mismatch:
            raise Trap(INVALID) from None

    return fitting


binding.function("dot: fn(x, y: array of real): real")(_fitting(linear.dot))
binding.function("norm1: fn(x: array of real): real")(_fitting(linear.norm1))
binding.function("norm2: fn(x: array of real): real")(_fitting(linear.norm2))
binding.function("iamax: fn(x: array of real): int")(_fitting(linear.iamax))


@binding.function("sort: fn(x: array of real, pi: array of int)")
def sort(call: HostCall, values: Reals, permutation: Reals) -> None:
    """Order a permutation by the values that it leads to."""
    permutation[:] = _fitting(linear.sort)(call, values, permutation)


@binding.function(
    "gemm: fn(transa, transb: int, m, n, k: int, alpha: real, a: array of real, lda: int,"
    " b: array of real, ldb: int, beta: real, c: array of real, ldc: int)"
)
def gemm(call: HostCall, *arguments: Any) -> None:
    """Set C to alpha op(A) op(B) + beta C; op transposes for 'T' and 'C', not for 'N'."""
    transa, transb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc = arguments
    if not {transa, transb} <= {ord("N"), ord("C"), ord("T")} or min(m, n, k) < 0:
        raise Trap(INVALID)
    if c is None or (a is not None and b is None):
        raise Trap(traps.NIL_DEREFERENCE)
    flags = transa != ord("N"), transb != ord("N")
    product = linear.Product(*flags, m, n, k, alpha, (a, lda), (b, ldb), beta, (c, ldc))
    try:
        is_long = product.steps > _LONG
        if is_long and not is_careful(call):
            _multiply(call, product, c)
            return
        product = _copied(product) if is_long else product
        columns: list[list[float]] | None = _apart(call, product.steps, product.columns)
        for j, column in enumerate(columns or ()):
            c[j * ldc : j * ldc + m] = array("d", column)
    except linear.OutOfBounds:
        raise Trap(traps.BOUNDS) from None


def _copied(product: linear.Product) -> linear.Product:
    """Return a product of copies of the arrays."""
    copies: dict[str, Any] = {}
    for name in "abc":
        items, leading = getattr(product, name)
        copies[name] = None if items is None else array("d", items.tobytes()), leading
    return dataclasses.replace(product, **copies)


def _multiply(call: HostCall, product: linear.Product, c: Reals) -> None:
    """Do a product that takes many steps, on copies of the arrays."""
    product = _copied(product)

    def found() -> Callable[[Reals], None]:
        from llmbol_core.builtins import products

        return products.multiply(product)

    call.apart(found)(c)
