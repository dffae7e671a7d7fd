"""Powers, inverses and primes, as Python's own functions and theorems have them."""

from __future__ import annotations

import math
import random

import pytest

from llmbol_core.builtins import modular


@pytest.mark.parametrize("size", [1, 64, 2047, 2048, 2049, 4500])
def test_powers_and_inverses(size):
    chance = random.Random(size)
    for _ in range(4):
        base, exponent = chance.getrandbits(size + 9), chance.getrandbits(size)
        modulus = chance.getrandbits(size) | 1
        assert modular.power(base, exponent, modulus) == pow(base, exponent, modulus)
        if math.gcd(base, modulus) == 1:
            assert modular.inverse(base, modulus) == pow(base, -1, modulus)
    assert modular.power(2, 1 << size, 1) == 0


def test_primes():
    assert [n for n in range(60) if modular.is_prime(n)] == [
        2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59,
    ]  # fmt: skip
    assert not modular.is_prime(561)
    assert not modular.is_prime((1 << 67) - 1)
    assert modular.is_prime((1 << 89) - 1)
    p, generator = modular.safe_prime(64)
    assert p.bit_length() == 64
    assert modular.is_prime(p // 2)
    assert pow(generator, p // 2, p) != 1
    q, p = modular.dsa_primes()
    assert (q.bit_length(), p.bit_length(), (p - 1) % q) == (160, 1024, 0)
