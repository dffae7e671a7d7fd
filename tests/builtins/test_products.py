"""Large products of matrices and permutations: to the last bit what the plain definition gives."""

from __future__ import annotations

import dataclasses
import math
import random
from array import array

import pytest

from llmbol_core.builtins import linear, products
from llmbol_core.builtins.linear import Product

SPECIAL = [0.0, -0.0, 1.0, math.inf, -math.inf, math.nan]


def numbers(chance, count):
    return array("d", [
        chance.choice(SPECIAL) if chance.random() < 0.04
        else chance.gauss(0, 1) * 10 ** chance.randint(-20, 20)
        for _ in range(count)
    ])  # fmt: skip


def random_product(chance):
    m, n, k = (chance.randint(0, 7) for _ in range(3))
    transposes_a, transposes_b, has_a = (chance.random() < 0.6 for _ in range(3))
    shared = k if has_a else m
    lda, ldb, ldc = (
        rows + chance.randint(0, 2)
        for rows in (k if transposes_a else m, n if transposes_b else shared, m)
    )
    a, b, c = (numbers(chance, 10 * max(leading, 1)) for leading in (lda, ldb, ldc))
    alpha, beta = chance.choice([0.0, 1.0, -2.5]), chance.choice([0.0, 1.0, 0.5])
    pair = (a, lda) if has_a else (None, lda)
    return Product(transposes_a, transposes_b, m, n, k, alpha, pair, (b, ldb), beta, (c, ldc))


def bits(values):
    """Return the numbers as bytes; all that are no number are alike."""
    return array("d", [math.nan if x != x else x for x in values]).tobytes()


@pytest.mark.parametrize("block", [1, 3, 1 << 15])
def test_large_products_are_like_small_ones(block, monkeypatch):
    monkeypatch.setattr(products, "_BLOCK", block)
    monkeypatch.setattr(products, "_FEW", 0)
    chance = random.Random(block)
    for _ in range(150):
        product = random_product(chance)
        items, leading = product.c
        expected, found = array("d", items), array("d", items)
        for j, column in enumerate(product.columns() or ()):
            expected[j * leading : j * leading + product.m] = array("d", column)
        products.multiply(product)(found)
        assert bits(found) == bits(expected), product


def test_long_sums_of_few_elements():
    chance = random.Random(1)
    row = array("d", [chance.gauss(0, 1) for _ in range(5000)])
    product = Product(False, False, 1, 1, 5000, 1.0, (row, 1), (row, 5000), 0.0, (row[:1], 1))
    found = array("d", [0.0])
    products.multiply(product)(found)
    assert found[0] == linear.dot(row, row)


def test_what_does_not_fit_is_found():
    items = array("d", [1.0] * 12)
    product = Product(False, False, 3, 4, 2, 1.0, (items, 3), (items, 2), 0.0, (items, 3))
    for wrong in ({"k": 5}, {"c": (items[:11], 3)}, {"a": (items, 2)}, {"b": (None, 2)}):
        with pytest.raises(linear.OutOfBounds):
            products.multiply(dataclasses.replace(product, **wrong))


@pytest.mark.parametrize("values", [0, 1, 2, 100, 1 << 40])
def test_many_indices_are_sorted_like_few(values, monkeypatch):
    monkeypatch.setattr(linear, "_MANY", 1 << 30)
    chance = random.Random(7)
    x = array("d", [chance.randrange(values) if values else math.nan for _ in range(999)])
    permutation = array("i", chance.sample(range(999), 800))
    expected = linear.sort(x, permutation)
    monkeypatch.setattr(linear, "_MANY", 10)
    assert linear.sort(x, permutation) == expected
    x[permutation[5]] = math.nan
    found = linear.sort(x, permutation)
    monkeypatch.setattr(linear, "_MANY", 1 << 30)
    assert linear.sort(x, permutation) == found
    for wrong in (-1, 999):
        permutation[3] = wrong
        for many in (10, 1 << 30):
            monkeypatch.setattr(linear, "_MANY", many)
            with pytest.raises(linear.Mismatch):
                linear.sort(x, permutation)
