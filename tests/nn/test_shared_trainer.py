"""Several trainers in threads take the steps of one."""

from __future__ import annotations

import threading
from collections import ChainMap
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbol_core.nn.data import Dataset
from llmbol_core.nn.evaluate import load_data
from llmbol_core.nn.lockstep import Lockstep
from llmbol_core.nn.optim import SGD
from llmbol_core.nn.shared_trainer import Regrouped, SharedTrainer
from llmbol_core.nn.sharing import add_up, bounds, share_count
from llmbol_core.nn.spec import read_spec
from llmbol_core.nn.trainer import Trainer

SPECS = Path(__file__).parents[2] / "specs"


class Gone(Exception):
    """A trainer is no more."""


class Room:
    """Puts together what threads bring; one may go away, and the others begin their step anew."""

    def __init__(self, world: int) -> None:
        self.members = list(range(world))
        self.generation = 0
        self._brought: dict[tuple[int, int], dict[int, Any]] = {}
        self._made: dict[tuple[int, int], Any] = {}
        self._changed = threading.Condition()

    def exchange(self, me: Seat, key: tuple[int, int], own: Any, make: Any) -> Any:
        with self._changed:
            if me.generation != self.generation:
                me.sit()
                raise Regrouped
            brought = self._brought.setdefault(key, {})
            brought[me.number] = own
            if all(number in brought for number in self.members):
                self._made[key] = make([brought[n] for n in sorted(self.members)])
                self._changed.notify_all()
            while key not in self._made:
                if me.generation != self.generation:
                    me.sit()
                    raise Regrouped
                assert self._changed.wait(20)
            return self._made[key]

    def leave(self, number: int) -> None:
        with self._changed:
            self.members.remove(number)
            self.generation += 1
            self._brought.clear()
            self._changed.notify_all()


class Seat:
    """One thread's place in the room."""

    def __init__(self, room: Room, number: int, leaves_at: int | None) -> None:
        self.room, self.number, self.leaves_at = room, number, leaves_at
        self.sit()

    def sit(self) -> None:
        self.generation = self.room.generation
        self.rank = self.room.members.index(self.number)
        self.world = len(self.room.members)

    def sum(self, step: int, part: int, nodes: Any, like: Any) -> Any:
        def make(all_of_them: list[Any]) -> Any:
            (root, total), *more = add_up(dict(ChainMap(*all_of_them))).items()
            assert (root, more) == (1, [])
            return total

        assert all(array.shape == like.shape for array in nodes.values())
        self._leave(step, part)
        return self.room.exchange(self, (step, part), dict(nodes), make)

    def rows(self, step: int, part: int, start: int, own: Any, total: int) -> Any:
        self._leave(step, part)
        whole = self.room.exchange(self, (step, part), own, np.concatenate)
        assert len(whole) == total
        assert np.array_equal(whole[start : start + len(own)], own)
        return whole

    def _leave(self, step: int, part: int) -> None:
        if self.leaves_at is not None and (step, part) >= (self.leaves_at, 2):
            self.room.leave(self.number)
            raise Gone


def fresh(name: str, epochs: int, optimizer: Any = None) -> Any:
    model = read_spec(str(SPECS / name))
    assert model.train is not None
    model.train.epochs = epochs
    model.train.optimizer = optimizer or model.train.optimizer
    return model.seeded()


def some_data(model: Any) -> Dataset:
    """Return enough for four batches, a small one, and a look at the result."""
    data = load_data(model)
    return replace(
        data, train_inputs=data.train_inputs[:285], train_targets=data.train_targets[:285],
        test_inputs=data.test_inputs[:50], test_targets=data.test_targets[:50],
    )  # fmt: skip


def train_together(
    name: str, world: int, leaves_at: int | None = None, optimizer: Any = None
) -> list[Any]:
    room, models = Room(world), [fresh(name, 1, deepcopy(optimizer)) for _ in range(world)]
    data = some_data(models[0])

    def work(number: int) -> None:
        seat = Seat(room, number, leaves_at if number == 1 else None)
        trainer = SharedTrainer(models[number], data, seat)
        with suppress(Gone):
            while not trainer.done:
                trainer.run_epoch()
            trainer.finish()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return [models[number] for number in room.members]


def outputs(model: Any) -> Any:
    return model.evaluate().forward(some_data(model).test_inputs)


NAMES = ["digits-mlp.yaml", "digits-cnn.yaml", "digits-lstm.yaml", "digits-transformer.yaml"]


@pytest.mark.parametrize("name", NAMES)
def test_one_that_computes_in_shares_gives_what_one_gives_that_does_not(name):
    # Adam makes steps of full size of gradients that are nothing but rounding.
    optimizer = SGD(lr=0.05, momentum=0.9)
    alone = fresh(name, 1, deepcopy(optimizer))
    trainer = Trainer(alone, some_data(alone))
    trainer.run_epoch()
    trainer.finish()
    expected = outputs(alone)
    (model,) = train_together(name, 1, optimizer=optimizer)
    assert np.abs(outputs(model) - expected).max() < 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", NAMES)
def test_any_number_gives_what_one_gives_to_the_bit(name):
    (alone,) = train_together(name, 1)
    expected = alone.network.state()
    # One of three leaves in the middle of a step, and there may be more of them than shares.
    for world, leaves_at in ((2, None), (3, 2), (19, None)):
        together = train_together(name, world, leaves_at)
        assert len(together) == world - (leaves_at is not None)
        for model in together:
            state = model.network.state()
            assert all(np.array_equal(state[n], value) for n, value in expected.items())
        if name != NAMES[0]:
            break


def test_shares_cover_a_batch_once_however_large_it_is():
    for total in (1, 2, 7, 29, 64, 1000):
        count = share_count(total)
        ranges = [range(*bounds(total, number, count)) for number in range(count)]
        assert [row for rows in ranges for row in rows] == list(range(total))
        assert min(map(len, ranges)) >= min(total, 8)


def test_a_sum_is_the_same_whoever_adds_which_part(rng):
    leaves = {n: rng.normal(size=5).astype(np.float32) for n in range(16, 32)}
    (total,) = add_up(leaves).values()
    assert np.allclose(total, sum(leaves.values()))
    for world in (1, 2, 3, 5, 16, 20):
        known: dict[int, Any] = {}
        for rank in range(world):
            start, stop = bounds(16, rank, world)
            own = add_up({16 + n: leaves[16 + n] for n in range(start, stop)})
            assert len(own) <= 6
            known |= own
        assert list(add_up(known)) == [1]
        assert np.array_equal(add_up(known)[1], total)


def test_what_goes_wrong_in_one_thread_ends_all():
    lockstep = Lockstep(4)

    def work(number: int) -> int:
        for _ in range(number):
            lockstep.meet(number, number, sum)
        raise KeyError(number)

    with pytest.raises(KeyError, match="0"):
        lockstep.run([partial(work, n) for n in range(4)])
    assert lockstep.run([partial(lockstep.meet, n, n, sum) for n in range(3)]) == [3, 3, 3]
