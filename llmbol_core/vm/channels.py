"""Channels: sending, receiving, and waiting for one of several.

A process that cannot go on makes *offers*: one for send and recv, one for each channel of an alt.
The first partner to arrive takes the oldest offer and completes it: it copies the value, stores the
offer's index for alt, withdraws the other offers and makes the process ready.

Values that wait in a channel's buffer lie in the arena. Offers lie in a table outside of it, which
machine code shares; its rows are ``Field`` words. The offers at one channel in one direction form a
ring, whose oldest row the channel names, 0 if there is none; those of one process form a list. Row
0 is no offer: it holds the list of free rows, and the state of the random choice for alternatives.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from functools import partial

from llmbol_core.errors import Trap
from llmbol_core.vm import traps
from llmbol_core.vm.arena import ASTRAY, NIL
from llmbol_core.vm.objects import ARRAY, CHANNEL, CHANNEL_HEADER, Heap
from llmbol_core.vm.process import Process

ALT_ENTRY = 8
MOST_ENTRIES = 1 << 16
SENDERS, RECEIVERS = 16, 20
"""Where a channel names the oldest offer to send, and to receive."""


class Field(IntEnum):
    """Words of a row in the table of offers, 8 bytes each."""

    NEXT = 0
    """The next younger offer at the channel; after the youngest, the oldest."""
    PREVIOUS = 1
    SIBLING = 2
    """The next offer of the same process, or 0."""
    CHANNEL = 3
    ADDRESS = 4
    INDEX = 5
    POSITION = 6
    SENDS = 7
    RESULT = 8
    """Where an alt's index is to be stored, or 0."""
    PID = 9
    """The process, or 0 for what is posted."""
    RECORD = 10
    """Address of the process's record for machine code; 0 if only Python can resume it."""


Ends = tuple[Callable[[], None], Callable[[], None]]
"""What to call when an offer has been taken, or else when it is withdrawn."""
FREE, RANDOM = Field.NEXT, Field.PREVIOUS
"""Words of row 0."""
_SEED = 0x20342
_ROW = len(Field)


@dataclass(frozen=True, slots=True)
class Offer:
    """The address of a value to be sent, or of room for one to be received.

    ``index`` is its number in the alt table. A channel that stands in an array there has a
    ``position`` in it, which is stored at the address, with the value after it.
    """

    channel: int
    sends: bool
    address: int
    index: int = 0
    position: int = -1


class Offers:
    """The table of offers; ``words`` holds its rows one after the other."""

    def __init__(self) -> None:
        self.words = array("q", bytes(8 * _ROW))
        self.words[RANDOM] = _SEED

    def __len__(self) -> int:
        return len(self.words) // _ROW

    @property
    def place(self) -> tuple[int, int]:
        """Where the table is, and how many rows it has."""
        return self.words.buffer_info()[0], len(self)

    def get(self, row: int, field: Field) -> int:
        """Return a word of a row."""
        return self.words[row * _ROW + field]

    def put(self, row: int, field: Field, value: int) -> None:
        """Store a word of a row."""
        self.words[row * _ROW + field] = value

    def new(self, values: Sequence[int]) -> int:
        """Return a free row, filled from ``Field.SIBLING`` on."""
        row = self.words[FREE]
        if not row:
            self.make_room()
            row = self.words[FREE]
        self.words[FREE] = self.get(row, Field.NEXT)
        start = row * _ROW
        self.words[start] = 0
        self.words[start + Field.SIBLING : start + _ROW] = array("q", values)
        return row

    def free(self, row: int) -> None:
        """Free a row, and clear its addresses."""
        self.put(row, Field.ADDRESS, 0)
        self.put(row, Field.RESULT, 0)
        self.put(row, Field.NEXT, self.words[FREE])
        self.words[FREE] = row

    def make_room(self) -> None:
        """Double the table."""
        count = len(self)
        self.words.extend([0] * (count * _ROW))
        following = array("q", [*range(count + 1, 2 * count), self.words[FREE]])
        self.words[count * _ROW :: _ROW] = following
        self.words[FREE] = count

    def random(self) -> int:
        """Return the next pseudo-random number."""
        self.words[RANDOM] = number = (self.words[RANDOM] * 1103515245 + 12345) & 0xFFFFFFFF
        return number >> 8


class Channels:
    """The communication of one machine.

    ``find`` returns a process by its number; ``ready`` is called with each that may run again.
    """

    def __init__(
        self, heap: Heap, find: Callable[[int], Process], ready: Callable[[Process], None]
    ) -> None:
        self._heap, self._find, self._ready = heap, find, ready
        self.offers = Offers()
        self.ends: dict[int, Ends] = {}
        """How an offer ends, where that is more than making its process ready."""
        heap.finalizers[CHANNEL] = self._hang_up

    def communicate(self, process: Process, offer: Offer, ends: Ends | None = None) -> bool:
        """Communicate now and return true, or let the process wait until one of ``ends``."""
        return self._complete(offer) or self._wait(process, [offer], ends=ends)

    def post(self, channel: int, address: int, done: Callable[[], None]) -> None:
        """Send a value once somebody receives; call ``done`` then, or if nobody ever can."""
        offer = Offer(channel, True, address)
        if self._complete(offer):
            done()
        else:
            self._wait(None, [offer], ends=(done, done))

    def alt(self, process: Process, table: int, result: int, waits: bool) -> bool:
        """Communicate over one of the channels of a table.

        Return true if that was done, or cannot be done now and must not wait.
        """
        offers = self._read_table(table)
        able = [offer for offer in self._heap.with_pauses(offers) if self._is_ready(offer)]
        if able:
            chosen = able[self.offers.random() % len(able)]
            self._heap.set_word(result, chosen.index)
            return self._complete(chosen)
        if waits:
            return self._wait(process, offers, result)
        entries = self._heap.word(table) + self._heap.word(table + 4)
        self._heap.set_word(result, entries)
        return True

    def withdraw(self, process: Process) -> None:
        """Withdraw all offers of a process."""
        first, process.offer = process.offer, 0
        for row in self._siblings(first):
            self._remove(row)

    # One communication

    def _is_ready(self, offer: Offer) -> bool:
        at = offer.channel >> 2
        capacity, count = self._heap.words[at + 1 : at + 3]
        if self._oldest(offer.channel, not offer.sends):
            return True
        return count < capacity if offer.sends else count > 0

    def _complete(self, offer: Offer) -> bool:
        """Complete an offer if that is possible now."""
        if offer.channel == NIL:
            raise Trap(traps.NIL_DEREFERENCE)
        if not self._is_ready(offer):
            return False
        if offer.sends:
            self._send(offer.channel, offer.address)
        else:
            # What is received may replace the last reference to the channel.
            self._heap.retain(offer.channel)
            try:
                self._receive(offer.channel, self._destination(offer.address, offer.position))
            finally:
                self._heap.release(offer.channel)
        return True

    def _send(self, channel: int, address: int) -> None:
        row = self._oldest(channel, sends=False)
        if not row:
            self._put(channel, address)
            return
        get = self.offers.get
        target = self._destination(get(row, Field.ADDRESS), get(row, Field.POSITION))
        wake = self._take(row)
        self._heap.copy_value(address, target, self._heap.word(channel))
        wake()

    def _receive(self, channel: int, address: int) -> None:
        is_buffered = self._heap.word(channel + 8) > 0
        if is_buffered:
            self._get(channel, address)
        row = self._oldest(channel, sends=True)
        if not row:
            return
        source = self.offers.get(row, Field.ADDRESS)
        wake = self._take(row)
        if is_buffered:
            self._put(channel, source)
        else:
            self._heap.copy_value(source, address, self._heap.word(channel))
        wake()

    def _take(self, row: int) -> Callable[[], None]:
        """Take an offer, store its index for an alt, and return what resumes its maker."""
        get = self.offers.get
        result, index, pid = (get(row, field) for field in (Field.RESULT, Field.INDEX, Field.PID))
        ends = self.ends.pop(row, None)
        self._withdrawn(row)
        if result:
            self._heap.set_word(result, index)
        return ends[0] if ends else partial(self._ready, self._find(pid))

    def _withdrawn(self, row: int) -> Process | None:
        """Withdraw an offer and those made with it; return their process, None if it is posted."""
        pid = self.offers.get(row, Field.PID)
        if not pid:
            self._remove(row)
            return None
        process = self._find(pid)
        self.withdraw(process)
        return process

    def _destination(self, address: int, position: int) -> int:
        """Return where a received value goes; an array's position is stored before it."""
        if position < 0:
            return address
        self._heap.set_word(address, position)
        return address + 4

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

    def _wait(
        self,
        process: Process | None,
        offers: Sequence[Offer],
        result: int = 0,
        ends: Ends | None = None,
    ) -> bool:
        row, pid, record = 0, process.pid if process else 0, 0
        if process is not None and not ends:
            record = process.address
        for offer in self._heap.with_pauses(offers):
            if offer.address >= NIL:
                raise Trap(traps.NIL_DEREFERENCE)
            self._oldest(offer.channel, offer.sends)
        for offer in self._heap.with_pauses(reversed(offers)):
            where = (offer.channel, offer.address, offer.index, offer.position, offer.sends)
            row = self.offers.new((row, *where, result, pid, record))
        if process is not None:
            process.offer = row
        for at in self._heap.with_pauses(self._siblings(row)):
            self._append(at)
        if ends is not None:
            self.ends[row] = ends
        return False

    def _siblings(self, row: int) -> Iterator[int]:
        while row:
            following = self.offers.get(row, Field.SIBLING)
            yield row
            row = following

    def _oldest(self, channel: int, sends: bool) -> int:
        """Return the oldest offer at a channel, or 0; raises IndexError if it is damaged."""
        if self._heap.type_of(channel) != CHANNEL:
            raise IndexError("no channel")
        row = self._heap.word(channel + (SENDERS if sends else RECEIVERS))
        if row and self.offers.get(row, Field.CHANNEL) != channel:
            raise IndexError("a damaged channel")
        return row

    def _head(self, row: int) -> int:
        """Return the address where the channel names the oldest offer of this one's ring."""
        channel, sends = self.offers.get(row, Field.CHANNEL), self.offers.get(row, Field.SENDS)
        return channel + (SENDERS if sends else RECEIVERS)

    def _append(self, row: int) -> None:
        """Add an offer after the others at its channel."""
        offers, head = self.offers, self._head(row)
        first = self._heap.word(head)
        if not first:
            self._heap.set_word(head, row)
            first = row
            offers.put(row, Field.PREVIOUS, row)
        last = offers.get(first, Field.PREVIOUS)
        offers.put(last, Field.NEXT, row)
        offers.put(row, Field.NEXT, first)
        offers.put(row, Field.PREVIOUS, last)
        offers.put(first, Field.PREVIOUS, row)

    def _remove(self, row: int) -> None:
        """Take an offer from its channel, if it is there, and free it."""
        offers, head = self.offers, self._head(row)
        before, behind = offers.get(row, Field.PREVIOUS), offers.get(row, Field.NEXT)
        if behind:
            offers.put(before, Field.NEXT, behind)
            offers.put(behind, Field.PREVIOUS, before)
            if self._heap.word(head) == row:
                self._heap.set_word(head, 0 if behind == row else behind)
        offers.free(row)
        if ends := self.ends.pop(row, None):
            with suppress(*ASTRAY):  # what a program has damaged stays where it is
                ends[1]()

    def _hang_up(self, channel: int) -> None:
        """Raise an exception in all processes that wait at a channel that is released."""
        for sends in (True, False):
            while row := self._oldest(channel, sends):
                is_alt = self.offers.get(row, Field.RESULT) != 0
                if process := self._withdrawn(row):
                    process.fail(Trap(traps.ALT_HANGUP if is_alt else traps.CHANNEL_HANGUP))
                    self._ready(process)

    def _read_table(self, table: int) -> list[Offer]:
        """Return the offers of an alt table: sends, then receives."""
        heap = self._heap
        sends, receives = heap.word(table), heap.word(table + 4)
        if not (0 <= sends <= MOST_ENTRIES and 0 <= receives <= MOST_ENTRIES):
            raise Trap(traps.BOUNDS)
        offers: list[Offer] = []
        for index in range(sends + receives):
            channel, address = (heap.pointer(table + ALT_ENTRY * (index + 1) + n) for n in (0, 4))
            if channel == NIL:
                raise Trap(traps.NIL_DEREFERENCE)
            if heap.type_of(channel) != ARRAY:
                offers.append(Offer(channel, index < sends, address, index))
                continue
            data = heap.array_data(channel)
            for position in self._heap.with_pauses(range(heap.array_length(channel))):
                element = heap.pointer(data + 4 * position)
                if element != NIL:
                    offers.append(Offer(element, False, address, index, position))
        if sends:
            self._check_directions(offers)
        return offers

    def _check_directions(self, offers: list[Offer]) -> None:
        """Refuse a channel that would serve itself."""
        received = {offer.channel for offer in offers if not offer.sends}
        for offer in offers:
            is_both = offer.sends and offer.channel in received
            if is_both and not self._oldest(offer.channel, sends=False):
                raise Trap(traps.ALT_BOTH_WAYS)
