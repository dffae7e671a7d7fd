"""Several trainers in threads take the steps of one."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbol_core.nn.evaluate import load_data
from llmbol_core.nn.optim import SGD
from llmbol_core.nn.shared_trainer import Regrouped, SharedTrainer
from llmbol_core.nn.sharing import Share
from llmbol_core.nn.spec import read_spec
from llmbol_core.nn.trainer import Trainer

SPECS = Path(__file__).parents[2] / "specs"


class Gone(Exception):
    """A trainer is no more."""


class Room:
    """Adds up what threads bring; one may go away, after which the others begin their step anew."""

    def __init__(self, world: int) -> None:
        self.members = list(range(world))
        self.generation = 0
        self._brought: dict[tuple[int, int], dict[int, Any]] = {}
        self._sums: dict[tuple[int, int], Any] = {}
        self._changed = threading.Condition()

    def sum(self, me: Seat, step: int, part: int, own: Any) -> Any:
        with self._changed:
            key = (step, part)
            if me.generation != self.generation:
                me.sit()
                raise Regrouped
            self._brought.setdefault(key, {})[me.number] = own.copy()
            self._close(key)
            while key not in self._sums:
                if me.generation != self.generation:
                    me.sit()
                    raise Regrouped
                assert self._changed.wait(20)
            return self._sums[key]

    def leave(self, number: int) -> None:
        with self._changed:
            self.members.remove(number)
            self.generation += 1
            self._brought.clear()
            self._changed.notify_all()

    def _close(self, key: tuple[int, int]) -> None:
        brought = self._brought[key]
        if key not in self._sums and all(number in brought for number in self.members):
            self._sums[key] = np.sum([brought[n] for n in sorted(self.members)], axis=0)
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

    def sum(self, step: int, part: int, own: Any) -> Any:
        if self.leaves_at is not None and (step, part) >= (self.leaves_at, 2):
            self.room.leave(self.number)
            raise Gone
        return self.room.sum(self, step, part, own)


def fresh(name: str, epochs: int) -> Any:
    model = read_spec(str(SPECS / name))
    assert model.train is not None
    model.train.epochs = epochs
    # Adam makes steps of full size of gradients that are nothing but rounding.
    model.train.optimizer = SGD(lr=0.05, momentum=0.9)
    return model.seeded()


def train_together(name: str, epochs: int, world: int, leaves_at: int | None = None) -> list[Any]:
    room, models = Room(world), [fresh(name, epochs) for _ in range(world)]
    data = load_data(models[0])

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
    return model.evaluate().forward(load_data(model).test_inputs)


@pytest.mark.parametrize(
    "name",
    ["digits-mlp.yaml", "digits-cnn.yaml", "digits-lstm.yaml", "digits-transformer.yaml"],
)
@pytest.mark.parametrize("leaves_at", [None, 7])
def test_several_give_what_one_gives(name, leaves_at):
    alone = fresh(name, 1)
    trainer = Trainer(alone, load_data(alone))
    trainer.run_epoch()
    trainer.finish()
    expected = outputs(alone)
    together = train_together(name, 1, 3, leaves_at)
    assert len(together) == 3 - (leaves_at is not None)
    scale = np.abs(expected).max()
    for model in together:
        assert np.abs(outputs(model) - expected).max() < 2e-5 * scale
    # They are all the same, to the bit.
    states = [model.network.state() for model in together]
    for state in states[1:]:
        assert all(np.array_equal(state[n], value) for n, value in states[0].items())


def test_shares_cover_a_batch_once():
    for total in (1, 2, 7, 32):
        for world in (1, 2, 3, 5):
            shares = [Share.of(total, rank, world, np.copy) for rank in range(world)]
            rows = [row for s in shares if not s.idle for row in range(s.start, s.stop)]
            assert rows == list(range(total))
