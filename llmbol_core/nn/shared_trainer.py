"""A trainer among several that train one model together: every one takes the same steps.

Each computes some shares of every batch; outputs and gradients are put together over all, and
everybody makes the same step with them. When the others change in the middle of a step it is begun
again. Since the shares of a batch are always the same ones, so is the result, however many take
part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from llmbol_core.errors import ModelError
from llmbol_core.nn.data import Dataset
from llmbol_core.nn.lockstep import Lockstep
from llmbol_core.nn.model import Model
from llmbol_core.nn.module import Array, Module
from llmbol_core.nn.optim import clip
from llmbol_core.nn.sharing import MOST_SHARES, Share, add_up, bounds, share_count, sharing
from llmbol_core.nn.trainer import Trainer


class Regrouped(Exception):
    """The trainers are others now: the step must be begun again."""


class Others(Protocol):
    """What a trainer knows of those that train with it."""

    rank: int
    """Its own number, from 0."""
    world: int
    """How many there are."""

    def sum(self, step: int, part: int, nodes: Mapping[int, Array], like: Array) -> Array:
        """Return the sum over the tree of which everybody knows some nodes; see ``add_up``.

        It is for a part of a step and like another array, also for who knows none. Raises
        ``Regrouped`` if the trainers have changed.
        """

    def rows(self, step: int, part: int, start: int, own: Array, total: int) -> Array:
        """Return everybody's rows in one array of so many; the own ones begin at ``start``."""


class SharedTrainer(Trainer):
    """A trainer that shares each batch with others."""

    def __init__(self, model: Model, data: Dataset, others: Others) -> None:
        super().__init__(model, data)
        self._others = others
        self._lockstep = Lockstep(MOST_SHARES)
        self._networks: list[Module] = [model.network]
        self._home: Array | None = None

    def _step(self, x: Array, targets: Array) -> float:
        """Take one step with the others on one batch; return the batch's loss before it."""
        back = self._mark()
        while True:
            try:
                return self._attempt(x, targets)
            except Regrouped:
                back()

    def _attempt(self, x: Array, targets: Array) -> float:
        settings = self.settings
        parameters, gradients = self.model.network.get_parameters()
        value, gradients[...] = _Step(self, x, targets).take(parameters)
        clip(gradients, settings.clip_norm, settings.clip_value)
        settings.optimizer.step(parameters, gradients)
        return value

    def _replicas(self, count: int, parameters: Array) -> list[Module]:
        """Return the network and others with the same parameters, as it is now."""
        network = self.model.network
        if self._home is not parameters:
            self._networks, self._home = [network], parameters
        while len(self._networks) < count:
            self._networks.append(_replica(network))
        for other in self._networks[1:count]:
            for ours, its in zip(network.list_modules(), other.list_modules(), strict=True):
                its._stream.calls = ours._stream.calls
                for name, value in ours.buffers.items():
                    its.buffers[name][...] = value
        return self._networks[:count]

    def _mark(self) -> Callable[[], None]:
        """Return a function that takes back what an attempt at a step has changed."""
        modules = self.model.network.list_modules()
        kept = [
            ({name: value.copy() for name, value in module.buffers.items()}, module._stream.calls)
            for module in modules
        ]

        def back() -> None:
            for module, (buffers, calls) in zip(modules, kept, strict=True):
                module._stream.calls = calls
                for name, value in buffers.items():
                    module.buffers[name][...] = value

        return back


class _Step:
    """One step on one batch: some of its shares are computed here, in lockstep."""

    def __init__(self, trainer: SharedTrainer, x: Array, targets: Array) -> None:
        self._trainer, self._x, self._targets = trainer, x, targets
        self._others = others = trainer._others
        self._count = share_count(len(x))
        self._mine = range(*bounds(self._count, others.rank, others.world))
        # Who has none computes one that counts for nothing, to come to the same.
        self._computed = self._mine or range(1)
        self._number, self._part = trainer.settings.optimizer.steps, 0
        self._lockstep = trainer._lockstep

    def take(self, parameters: Array) -> tuple[float, Array]:
        """Return the loss and the gradients of the whole batch."""
        networks = self._trainer._replicas(len(self._computed), parameters)
        work = [partial(self._compute, place, one) for place, one in enumerate(networks)]
        return self._lockstep.run(work)[0]

    def _compute(self, place: int, network: Module) -> tuple[float, Array]:
        added = partial(self._lockstep.meet, place, put_together=self._sum)
        start, stop = bounds(len(self._x), self._computed[place], self._count)
        rows = self._x[start:stop]
        gradients = network.get_parameters()[1]
        gradients.fill(0)
        with sharing(Share(start, stop, len(self._x), added)):
            outputs = network.forward(rows)
            value, grad_outputs = self._lockstep.meet(place, outputs, self._judge)
            network.backward(rows, grad_outputs[start:stop])
            return value, added(gradients)

    def _sum(self, arrays: Sequence[Array]) -> Array:
        """Return the sum over all shares."""
        known = zip((self._count + number for number in self._mine), arrays, strict=False)
        nodes = add_up(dict(known))
        if 1 in nodes:
            return nodes[1]
        return self._others.sum(self._number, self._next(), nodes, arrays[0])

    def _judge(self, outputs: Sequence[Array]) -> tuple[float, Any]:
        """Return the loss of the whole batch and the gradients of all outputs."""
        trainer, settings = self._trainer, self._trainer.settings
        rows = np.concatenate(outputs)
        if len(self._mine) < self._count:
            start = bounds(len(self._x), self._mine.start, self._count)[0] if self._mine else 0
            own = rows if self._mine else rows[:0]
            rows = self._others.rows(self._number, self._next(), start, own, len(self._x))
        value = settings.loss.forward(rows, self._targets)
        if not np.isfinite(value):
            rate = settings.optimizer.rate
            why = f"the loss became {value}: is a learning rate of {rate} too high?"
            raise ModelError(trainer.model.name, why)
        return value, settings.loss.backward(rows, self._targets)

    def _next(self) -> int:
        """Return the number of the next part of the step that all put together."""
        self._part += 1
        return self._part - 1


def _replica(network: Module) -> Module:
    """Return a network that computes with the parameters of another one."""
    other = network.clone().clear_state().training()
    other.get_parameters()
    for ours, its in zip(network.list_modules(), other.list_modules(), strict=True):
        its.params.update(ours.params)
    return other
