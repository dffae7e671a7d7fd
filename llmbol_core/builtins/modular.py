"""Powers and inverses of large numbers, and primes.

Python's own functions let nothing else run while they work, which for long numbers takes
seconds; these consist of steps that take milliseconds.
"""

from __future__ import annotations

import secrets

_LONG = 2048
"""Bits of a number from which on steps are taken one by one."""
_WINDOW = 4
_SMALL = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)


def power(base: int, exponent: int, modulus: int) -> int:
    """Return a power modulo a number, for an exponent that is not negative."""
    if modulus.bit_length() <= _LONG and exponent.bit_length() <= _LONG:
        return pow(base, exponent, modulus)
    base %= modulus
    few = [1 % modulus]
    for _ in range(2**_WINDOW - 1):
        few.append(few[-1] * base % modulus)
    found = few[0]
    for at in range(-(-exponent.bit_length() // _WINDOW) - 1, -1, -1):
        for _ in range(_WINDOW):
            found = found * found % modulus
        found = found * few[exponent >> _WINDOW * at & 2**_WINDOW - 1] % modulus
    return found


def inverse(base: int, modulus: int) -> int:
    """Return the inverse of a number modulo another one, to which it has no common divisor."""
    if modulus.bit_length() <= _LONG:
        return pow(base, -1, modulus)
    rest, last, factor, before = base % modulus, modulus, 1, 0
    while rest > 1:
        quotient, following = divmod(last, rest)
        last, rest = rest, following
        before, factor = factor, before - quotient * factor
    return factor % modulus


def is_prime(n: int, tries: int = 18) -> bool:
    """Return whether a number is a prime, as far as Miller's and Rabin's test tells."""
    if n < 2 or any(n % p == 0 for p in _SMALL):
        return n in _SMALL
    odd, twos = n - 1, 0
    while not odd & 1:
        odd, twos = odd >> 1, twos + 1
    return all(_passes(n, odd, twos) for _ in range(max(1, tries)))


def _passes(n: int, odd: int, twos: int) -> bool:
    x = power(secrets.randbelow(n - 3) + 2, odd, n)
    if x in (1, n - 1):
        return True
    for _ in range(twos - 1):
        x = x * x % n
        if x == n - 1:
            return True
    return False


def prime(count: int) -> int:
    """Return a random prime of so many bits, at least 2."""
    while True:
        n = secrets.randbits(count) | 1 << count - 1 | (count > 2)
        if is_prime(n):
            return n


def safe_prime(count: int) -> tuple[int, int]:
    """Return a prime p for which (p - 1) / 2 is one too, and a generator of its group."""
    while True:
        q = prime(count - 1)
        p = 2 * q + 1
        if is_prime(p):
            break
    return p, next(a for a in range(2, p) if power(a, 2, p) != 1 and power(a, q, p) != 1)


def dsa_primes() -> tuple[int, int]:
    """Return primes q of 160 bits and p of 1024 with q a divisor of p - 1."""
    q = prime(160)
    while True:
        x = secrets.randbits(1024) | 1 << 1023
        p = x - (x % (2 * q) - 1)
        if p.bit_length() == 1024 and is_prime(p):
            return q, p
