"""Computations that go on together."""

from __future__ import annotations

from functools import partial

import pytest

from llmbol_core.nn.lockstep import Lockstep

PLACES, MEETINGS = 3, 20


@pytest.fixture
def lockstep():
    return Lockstep(PLACES)


def test_all_get_what_all_have_brought_in_order_each_time(lockstep):
    def work(place):
        return [lockstep.meet(place, (place, n), tuple) for n in range(MEETINGS)]

    everything = [tuple((place, n) for place in range(PLACES)) for n in range(MEETINGS)]
    for _ in range(2):
        assert (
            lockstep.run([partial(work, place) for place in range(PLACES)]) == [everything] * PLACES
        )


@pytest.mark.parametrize("wrong", range(PLACES))
def test_who_waits_is_told_that_another_one_has_failed(lockstep, wrong):
    were_told = []

    def work(place):
        try:
            lockstep.meet(place, place, sum)
            if place != wrong:
                lockstep.meet(place, place, sum)
        except ValueError as error:
            were_told.append(place)
            raise KeyError(place) from error
        raise ValueError(f"place {place}")

    for _ in range(2):
        with pytest.raises(ValueError, match=f"place {wrong}"):
            lockstep.run([partial(work, place) for place in range(PLACES)])
        assert sorted(were_told) == [place for place in range(PLACES) if place != wrong]
        were_told.clear()


def test_nobody_goes_on_with_what_could_not_be_put_together(lockstep):
    def refuse(things):
        raise ArithmeticError(str(things))

    with pytest.raises(ArithmeticError, match=r"\[0, 1, 2\]"):
        lockstep.run([partial(lockstep.meet, n, n, refuse) for n in range(PLACES)])
