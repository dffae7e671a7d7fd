"""$IPints: whole numbers of any size, as Inferno's command-line tools use them for keys.

Numbers are Python's; operations on bits work on their absolute values, as Inferno keeps the sign
apart. A number's bytes count against the memory limit. Functions that return a number raise
"dereference of nil" if they are given nil.
"""

from __future__ import annotations

import base64
import binascii
import math
import secrets
from collections.abc import Callable
from typing import Any

from llmbol_core.builtins import modular
from llmbol_core.builtins.binding import Binding
from llmbol_core.errors import Trap
from llmbol_core.vm import traps
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.conversion import decimal_digits, decimal_value
from llmbol_core.vm.host import HostCall
from llmbol_core.vm.module import TypeDescriptor
from llmbol_core.vm.objects import Heap

binding = Binding("IPints", "IPint: adt { x: int; };")

INVALID_ARGUMENT = "invalid argument"
NO_QUOTIENT = "mpdiv: divide by zero"
NO_POWER = "mpexp: negative exponent"
NO_INVERSE = "mpinvert: no inverse"
_RECORD = TypeDescriptor(-1, 4)
_DIGIT = 32
"""Bits of the digits that Inferno's library keeps."""
_MOST_BITS = 1 << 16
_MOST_LETTERS = 1 << 15
"""Digits that are read; numbers that are not too large have fewer, to any base."""
_LONG = 1024
"""Bits of a modulus from which on operations take long."""
_INT_MAX, _INT_MIN = (1 << 31) - 1, -(1 << 31)
_LETTERS32 = "23456789abcdefghijkmnpqrstuvwxyz"
_STANDARD32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_LETTERS64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


class _Number:
    """The number that a ``ref IPint`` stands for."""

    def __init__(self, value: int) -> None:
        self.value = value


def _decode(heap: Heap, ref: int) -> int | None:
    if ref == NIL:
        return None
    found = heap.handle(ref)
    if not isinstance(found, _Number):
        raise Trap(traps.TYPE_CHECK)
    return found.value


def _encode(heap: Heap, value: Any) -> int:
    if value is None:
        return NIL
    if value.bit_length() > _MOST_BITS:
        raise Trap(traps.HEAP_FULL)
    return heap.new_handle(_Number(value), 64 + value.bit_length() // 8, _RECORD)


binding.reference("IPint", _decode, _encode)


def _needed(*values: int | None) -> None:
    if None in values:
        raise Trap(traps.NIL_DEREFERENCE)


def _few(bits: int) -> int:
    if bits > _MOST_BITS:
        raise Trap(traps.HEAP_FULL)
    return bits


# Texts and bytes


def _size_bytes(value: int) -> bytes:
    size = abs(value)
    return size.to_bytes(max(1, (size.bit_length() + 7) // 8), "big")


def _to_32(value: int) -> str:
    data = _size_bytes(value)
    text = base64.b32encode(data + bytes(-len(data) % 5)).decode()
    return text.translate(str.maketrans(_STANDARD32, _LETTERS32))


_TO_TEXT: dict[int, Callable[[int], str]] = {
    10: lambda value: decimal_digits(abs(value)),
    16: lambda value: f"{abs(value):X}",
    32: _to_32,
    64: lambda value: base64.b64encode(_size_bytes(value)).decode(),
}


def _from_32(digits: str) -> int:
    text = digits.translate(str.maketrans(_LETTERS32, _STANDARD32))
    return int.from_bytes(base64.b32decode(text + "=" * (-len(text) % 8)), "big")


def _from_64(digits: str) -> int:
    whole = digits[: len(digits) - (len(digits) % 4 == 1)]
    return int.from_bytes(base64.b64decode(whole + "=" * (-len(whole) % 4)), "big")


_FROM_TEXT: dict[int, tuple[str, Callable[[str], int]]] = {
    10: ("0123456789", decimal_value),
    16: ("0123456789abcdefABCDEF", lambda digits: int(digits, 16)),
    32: (_LETTERS32, _from_32),
    64: (_LETTERS64, _from_64),
}


@binding.function("IPint.iptostr: fn(i: self ref IPint, base: int): string")
def iptostr(call: HostCall, i: int, base: int) -> str:
    """Return the digits of a number; bases other than 10, 32 and 64 count as 16."""
    _needed(i)
    return "-" * (i < 0) + _TO_TEXT.get(base, _TO_TEXT[16])(i)


@binding.function("IPint.iptob64: fn(i: self ref IPint): string")
def iptob64(call: HostCall, i: int) -> str:
    """Return a number to base 64."""
    return iptostr(call, i, 64)


@binding.function("IPint.iptob64z: fn(i: self ref IPint): string")
def iptob64z(call: HostCall, i: int) -> str:
    """Return the size of a number to base 64, with a zero byte before a first bit that is set."""
    _needed(i)
    data = _size_bytes(i)
    return base64.b64encode(bytes(data[0] >> 7) + data).decode()


@binding.function("IPint.strtoip: fn(str: string, base: int): ref IPint")
def strtoip(call: HostCall, text: str, base: int) -> int | None:
    """Return the number that a text says; nil if it says anything else."""
    text = text.lstrip(" \t")
    digits = text.lstrip("-")
    letters, read = _FROM_TEXT.get(base, _FROM_TEXT[16])
    first = digits[: _MOST_LETTERS + 1]
    end = len(first) - len(first.lstrip(letters))
    if end > _MOST_LETTERS:
        raise Trap(traps.HEAP_FULL)
    if not end or digits[end:].strip("="):
        return None
    try:
        value = read(digits[:end])
    except (ValueError, binascii.Error):
        return None
    return -value if (len(text) - len(digits)) % 2 else value


@binding.function("IPint.b64toip: fn(str: string): ref IPint")
def b64toip(call: HostCall, text: str) -> int | None:
    """Return the number that a text says to base 64."""
    return strtoip(call, text, 64)


@binding.function("IPint.iptobytes, IPint.iptobebytes: fn(i: self ref IPint): array of byte")
def iptobytes(call: HostCall, i: int) -> bytes:
    """Return the bytes of a number's size, the highest first."""
    _needed(i)
    return _size_bytes(i)


def _from_bytes(call: HostCall, data: Any) -> int:
    if data is None:
        raise Trap(traps.NIL_DEREFERENCE)
    return int.from_bytes(bytes(data), "big")


binding.function("IPint.bytestoip: fn(buf: array of byte): ref IPint")(_from_bytes)
binding.function("IPint.bebytestoip: fn(mag: array of byte): ref IPint")(_from_bytes)


@binding.function("IPint.inttoip: fn(i: int): ref IPint")
def inttoip(call: HostCall, i: int) -> int:
    """Return an int as a number."""
    return i


@binding.function("IPint.iptoint: fn(i: self ref IPint): int")
def iptoint(call: HostCall, i: int | None) -> int:
    """Return a number as an int, the nearest one if it is too large; 0 for nil."""
    return 0 if i is None else min(max(i, _INT_MIN), _INT_MAX)


@binding.function("IPint.bits: fn(i: self ref IPint): int")
def bits(call: HostCall, i: int | None) -> int:
    """Return how many bits a number takes, at least 1; 0 for nil."""
    return 0 if i is None else max(1, i.bit_length())


# Arithmetic


def _binary(name: str, do: Callable[[int, int], int], result: str = "ref IPint") -> None:
    def function(call: HostCall, x: int | None, y: int | None) -> int:
        _needed(x, y)
        assert x is not None
        assert y is not None
        return do(x, y)

    binding.function(f"IPint.{name}: fn(i1: self ref IPint, i2: ref IPint): {result}")(function)


def _with_sign(size: int, sign: int) -> int:
    return -size if sign < 0 else size


def _digits(x: int) -> int:
    return -(-x.bit_length() // _DIGIT)


def _joined(x: int, y: int, do: Callable[[int, int], int]) -> int:
    """Do something to the sizes; the sign is that of the one with more digits."""
    longer, shorter = (y, x) if _digits(y) > _digits(x) else (x, y)
    if not longer:
        return shorter
    return _with_sign(do(abs(longer), abs(shorter)), longer) if shorter else longer


def _divide(x: int, y: int) -> tuple[int, int]:
    if not y:
        raise Trap(NO_QUOTIENT)
    quotient, rest = divmod(abs(x), abs(y))
    return _with_sign(quotient, x * y), _with_sign(rest, x)


def _modulo(x: int, y: int) -> int:
    rest = _divide(x, y)[1]
    return rest + y if rest < 0 else rest


def _compare(x: int, y: int) -> int:
    """Return how two numbers differ: by their signs, how many digits they have, their sizes."""
    if (x < 0) != (y < 0):
        return -2 if x < 0 else 2
    by = _digits(x) - _digits(y)
    return _with_sign(by, x) if by else (x > y) - (x < y)


_binary("add", lambda x, y: x + y)
_binary("sub", lambda x, y: x - y)
_binary("mul", lambda x, y: x * y)
_binary("mod", _modulo)
_binary("and", lambda x, y: _with_sign(abs(x) & abs(y), x))
_binary("ori", lambda x, y: _joined(x, y, lambda a, b: a | b))
_binary("xor", lambda x, y: _joined(x, y, lambda a, b: a ^ b))
_binary("eq", lambda x, y: int(x == y), "int")
_binary("cmp", _compare, "int")


@binding.function("IPint.div: fn(i1: self ref IPint, i2: ref IPint): (ref IPint, ref IPint)")
def div(call: HostCall, x: int, y: int) -> tuple[int, int]:
    """Return quotient and rest; the rest has the sign of the dividend."""
    _needed(x, y)
    return _divide(x, y)


@binding.function("IPint.neg: fn(i: self ref IPint): ref IPint")
def neg(call: HostCall, i: int) -> int:
    """Return a number with the other sign."""
    _needed(i)
    return -i


@binding.function("IPint.copy: fn(i: self ref IPint): ref IPint")
def copy(call: HostCall, i: int | None) -> int | None:
    """Return the same number."""
    return i


@binding.function("IPint.not: fn(i1: self ref IPint): ref IPint")
def not_(call: HostCall, i: int) -> int:
    """Return the size with all bits of its digits changed."""
    _needed(i)
    return abs(i) ^ ((1 << _DIGIT * _digits(i)) - 1)


@binding.function("IPint.shl: fn(i: self ref IPint, n: int): ref IPint")
def shl(call: HostCall, i: int, n: int) -> int:
    """Return the size shifted to the left, with its sign."""
    _needed(i)
    shifted = abs(i) << _few(n) if n >= 0 else abs(i) >> -n
    return _with_sign(shifted, i)


@binding.function("IPint.shr: fn(i: self ref IPint, n: int): ref IPint")
def shr(call: HostCall, i: int, n: int) -> int:
    """Return the size shifted to the right, with its sign."""
    return shl(call, i, -n)


@binding.function("IPint.expmod: fn(base: self ref IPint, exp, mod: ref IPint): ref IPint")
def expmod(call: HostCall, base: int, exponent: int, modulus: int | None) -> int:
    """Return a power, modulo a number unless that is nil."""
    _needed(base, exponent)
    if exponent < 0:
        raise Trap(NO_POWER)
    if exponent == 0:
        return 1
    if modulus == 0:
        raise Trap(NO_QUOTIENT)
    if modulus is not None:
        number = abs(modulus)
        return _apart(call, number, lambda: modular.power(base, exponent, number))
    _few(base.bit_length() * min(exponent, _MOST_BITS + 1))
    return int(base**exponent)


@binding.function("IPint.invert: fn(base: self ref IPint, mod: ref IPint): ref IPint")
def invert(call: HostCall, base: int, modulus: int) -> int:
    """Return the inverse of a number modulo another one."""
    _needed(base, modulus)
    if base < 0 or modulus < 1 or math.gcd(base, modulus) != 1:
        raise Trap(NO_INVERSE)
    return _apart(call, modulus, lambda: modular.inverse(base, modulus))


def _apart(call: HostCall, modulus: int, function: Callable[[], int]) -> int:
    return call.apart(function) if modulus.bit_length() > _LONG else function()


# Random numbers and primes


@binding.function("IPint.random: fn(nbits: int): ref IPint")
def random(call: HostCall, count: int) -> int:
    """Return a random number of so many bits at most."""
    return secrets.randbits(_few(max(count, 0)))


def _size(count: int) -> int:
    if not 2 <= count <= _MOST_BITS >> 4:
        raise Trap(INVALID_ARGUMENT)
    return count


@binding.function("probably_prime: fn(n: ref IPint, nrep: int): int")
def probably_prime(call: HostCall, n: int, tries: int) -> int:
    """Say whether a number is most likely a prime."""
    _needed(n)
    return int(call.apart(lambda: modular.is_prime(n, min(tries, 64))))


@binding.function("genprime, genstrongprime: fn(nbits: int, nrep: int): ref IPint")
def genprime(call: HostCall, count: int, tries: int) -> int:
    """Return a random prime of so many bits."""
    count = _size(count)
    return call.apart(lambda: modular.prime(count))


@binding.function("gensafeprime: fn(nbits: int, nrep: int): (ref IPint, ref IPint)")
def gensafeprime(call: HostCall, count: int, tries: int) -> tuple[int, int]:
    """Return a prime p for which (p - 1) / 2 is one too, and a generator of its group."""
    count = _size(count - 1) + 1
    return call.apart(lambda: modular.safe_prime(count))


@binding.function("DSAprimes: fn(): (ref IPint, ref IPint, array of byte)")
def dsaprimes(call: HostCall) -> tuple[int, int, bytes]:
    """Return primes q of 160 bits and p of 1024 with q a divisor of p - 1, and a seed."""
    q, p = call.apart(modular.dsa_primes)
    return q, p, secrets.token_bytes(20)
