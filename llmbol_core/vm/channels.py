"""Channels: sending, receiving, and waiting for one of several.

Values that wait in a channel's buffer lie in the arena; who waits is kept here, by channel, in the
order of arrival. A waiting process makes *offers*: one for send and recv, one for each channel of
an alt. The first partner to come takes the oldest offer and completes it: it copies the value,
stores the offer's index for alt, withdraws the other offers and makes the process ready.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from llmbol_core.errors import Trap
from llmbol_core.vm import traps
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.objects import ARRAY, CHANNEL, CHANNEL_HEADER, Heap
from llmbol_core.vm.process import Process

_ENTRY = 8
_MOST_ENTRIES = 1 << 16


@dataclass(frozen=True, slots=True)
class Offer:
    """A value at an address to be sent, or an address for one to be received.

    ``index`` numbers it in its alt table. A channel that stands in an array there has a
    ``position`` in it, which goes to the address while the value goes behind it.
    """

    channel: int
    sends: bool
    address: int
    index: int = 0
    position: int = -1


@dataclass(frozen=True, eq=False, slots=True)
class Waiter:
    """A process and its offers; an alt's index is stored at the address ``result``.

    When an offer was taken the process goes on, by ``resume`` if there is one. What is posted waits
    for nobody's sake: there is no process.
    """

    process: Process | None
    offers: tuple[Offer, ...]
    result: int | None = None
    resume: Callable[[], None] | None = None


class _Queues:
    """Who waits at one channel."""

    def __init__(self) -> None:
        self.senders: deque[Waiter] = deque()
        self.receivers: deque[Waiter] = deque()

    def of(self, sends: bool) -> deque[Waiter]:
        return self.senders if sends else self.receivers


_NOBODY = _Queues()


class Channels:
    """The communication of one machine; ``ready`` is called with each process that may go on."""

    def __init__(self, heap: Heap, ready: Callable[[Process], None]) -> None:
        self._heap, self._ready = heap, ready
        self._queues: dict[int, _Queues] = {}
        self._random = 0x20342
        heap.finalizers[CHANNEL] = self._hang_up

    def communicate(
        self, process: Process, offer: Offer, resume: Callable[[], None] | None = None
    ) -> bool:
        """Do what is offered now and return true, or let the process wait for a partner."""
        return self._complete(offer) or self._wait(Waiter(process, (offer,), resume=resume))

    def post(self, channel: int, address: int, done: Callable[[], None]) -> None:
        """Send a value as soon as somebody receives; then, or if nobody ever can, call ``done``."""
        offer = Offer(channel, True, address)
        if self._complete(offer):
            done()
        else:
            self._wait(Waiter(None, (offer,), resume=done))

    def alt(self, process: Process, table: int, result: int, waits: bool) -> bool:
        """Communicate over one of the channels of a table.

        Return true if that was done, or cannot be done now and must not wait.
        """
        offers = self._read_table(table)
        able = [offer for offer in offers if self._is_ready(offer)]
        if able:
            self._random = (self._random * 1103515245 + 12345) & 0xFFFFFFFF
            chosen = able[(self._random >> 8) % len(able)]
            self._heap.set_word(result, chosen.index)
            return self._complete(chosen)
        if waits:
            return self._wait(Waiter(process, tuple(offers), result))
        entries = self._heap.word(table) + self._heap.word(table + 4)
        self._heap.set_word(result, entries)
        return True

    def withdraw(self, waiter: Waiter) -> None:
        """Take back all offers of a process."""
        if waiter.process is not None:
            waiter.process.waiter = None
        for channel in {offer.channel for offer in waiter.offers}:
            queues = self._queues.get(channel)
            if queues is None:
                continue
            for queue in (queues.senders, queues.receivers):
                if waiter in queue:
                    queue.remove(waiter)
            if not queues.senders and not queues.receivers:
                del self._queues[channel]

    # One communication

    def _is_ready(self, offer: Offer) -> bool:
        queues = self._queues.get(offer.channel, _NOBODY)
        at = offer.channel >> 2
        capacity, count = self._heap.words[at + 1 : at + 3]
        if offer.sends:
            return bool(queues.receivers) or count < capacity
        return bool(queues.senders) or count > 0

    def _complete(self, offer: Offer) -> bool:
        """Do what is offered if that can be done now."""
        if offer.channel == NIL:
            raise Trap(traps.NIL_DEREFERENCE)
        if not self._is_ready(offer):
            return False
        if offer.sends:
            self._send(offer.channel, offer.address)
        else:
            self._receive(offer.channel, self._destination(offer))
        return True

    def _send(self, channel: int, address: int) -> None:
        queues = self._queues.get(channel, _NOBODY)
        if not queues.receivers:
            self._put(channel, address)
            return
        waiter, taken = self._take(channel, sends=False)
        number = self._heap.word(channel)
        self._heap.copy_value(address, self._destination(taken), number)
        self._wake(waiter)

    def _receive(self, channel: int, address: int) -> None:
        is_buffered = self._heap.word(channel + 8) > 0
        if is_buffered:
            self._get(channel, address)
        if not self._queues.get(channel, _NOBODY).senders:
            return
        waiter, taken = self._take(channel, sends=True)
        if is_buffered:
            self._put(channel, taken.address)
        else:
            self._heap.copy_value(taken.address, address, self._heap.word(channel))
        self._wake(waiter)

    def _wake(self, waiter: Waiter) -> None:
        if waiter.resume is not None:
            waiter.resume()
        elif waiter.process is not None:
            self._ready(waiter.process)

    def _take(self, channel: int, sends: bool) -> tuple[Waiter, Offer]:
        """Take the oldest offer at a channel, and tell an alt which it was."""
        waiter = self._queues[channel].of(sends)[0]
        taken = next(o for o in waiter.offers if o.channel == channel and o.sends == sends)
        self.withdraw(waiter)
        if waiter.result is not None:
            self._heap.set_word(waiter.result, taken.index)
        return waiter, taken

    def _destination(self, offer: Offer) -> int:
        """Return where a received value goes; an array's position is stored before it."""
        if offer.position < 0:
            return offer.address
        self._heap.set_word(offer.address, offer.position)
        return offer.address + 4

    def _put(self, channel: int, address: int) -> None:
        """Append a value to the buffer."""
        at = channel >> 2
        number, capacity, count, first = self._heap.words[at : at + 4]
        slot = self._slot(channel, (first + count) % capacity)
        self._heap.clear_value(slot, number)
        self._heap.copy_value(address, slot, number)
        self._heap.words[at + 2] = count + 1

    def _get(self, channel: int, address: int) -> None:
        """Move the oldest value out of the buffer."""
        at = channel >> 2
        number, capacity, count, first = self._heap.words[at : at + 4]
        slot = self._slot(channel, first)
        self._heap.copy_value(slot, address, number)
        self._heap.release_value(slot, number)
        self._heap.words[at + 2] = count - 1
        self._heap.words[at + 3] = (first + 1) % capacity

    def _slot(self, channel: int, number: int) -> int:
        size = self._heap.types[self._heap.word(channel)].size
        return channel + CHANNEL_HEADER + number * size

    # Waiting

    def _wait(self, waiter: Waiter) -> bool:
        if waiter.process is not None:
            waiter.process.waiter = waiter
        for offer in waiter.offers:
            queue = self._queues.setdefault(offer.channel, _Queues()).of(offer.sends)
            if waiter not in queue:
                queue.append(waiter)
        return False

    def _hang_up(self, channel: int) -> None:
        """Raise an exception in whoever waits at a channel that is released."""
        queues = self._queues.get(channel, _NOBODY)
        for waiter in [*queues.senders, *queues.receivers]:
            self.withdraw(waiter)
            if waiter.process is None:
                self._wake(waiter)
                continue
            is_alt = waiter.result is not None
            waiter.process.fault = Trap(traps.ALT_HANGUP if is_alt else traps.CHANNEL_HANGUP)
            self._ready(waiter.process)

    def _read_table(self, table: int) -> list[Offer]:
        """Return the offers of an alt table: sends, then receives."""
        heap = self._heap
        sends, receives = heap.word(table), heap.word(table + 4)
        if not (0 <= sends <= _MOST_ENTRIES and 0 <= receives <= _MOST_ENTRIES):
            raise Trap(traps.BOUNDS)
        offers: list[Offer] = []
        for index in range(sends + receives):
            entry = table + _ENTRY * (index + 1)
            channel, address = heap.pointer(entry), heap.pointer(entry + 4)
            if channel == NIL:
                raise Trap(traps.NIL_DEREFERENCE)
            if heap.type_of(channel) != ARRAY:
                offers.append(Offer(channel, index < sends, address, index))
                continue
            data = heap.array_data(channel)
            for position in range(heap.array_length(channel)):
                element = heap.pointer(data + 4 * position)
                if element != NIL:
                    offers.append(Offer(element, False, address, index, position))
        self._check_directions(offers)
        return offers

    def _check_directions(self, offers: list[Offer]) -> None:
        """Refuse a channel that would serve itself."""
        received = {offer.channel for offer in offers if not offer.sends}
        for offer in offers:
            is_both = offer.sends and offer.channel in received
            if is_both and not self._queues.get(offer.channel, _NOBODY).receivers:
                raise Trap(traps.ALT_BOTH_WAYS)
