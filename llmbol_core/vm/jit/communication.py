"""Channels and the run queue for machine code: what ``channels.py`` does, in its table of offers.

A function here does all that an instruction asks for or nothing at all: then Python has to do it,
because it traps, because a partner is not just a process, or because the table is full.
"""

from __future__ import annotations

from llmbol_core.vm.arena import NIL
from llmbol_core.vm.channels import FREE, RECEIVERS, SENDERS, Field
from llmbol_core.vm.heaptypes import WORD
from llmbol_core.vm.isa import WORD_SIZE
from llmbol_core.vm.jit.pacing import begins, charge
from llmbol_core.vm.jit.runtime import Machine, State, Wait
from llmbol_core.vm.jit.source import (
    Big,
    W,
    Word,
    extended,
    host,
    inlined,
    machine,
    narrow,
    native,
    state,
    wide,
)
from llmbol_core.vm.jit.values import (
    clear_value,
    copy_simple,
    copy_value,
    release_value,
    type_size,
)
from llmbol_core.vm.objects import CHANNEL, CHANNEL_HEADER

MUST_WAIT, DONE, PYTHON = 0, 1, 2
"""The outcome of an instruction."""

_ROW = 8 * len(Field)
_WORD = 8
_OFFER = 128
"""Bytes that could be copied in the time in which an offer is withdrawn."""


# The table of offers


@inlined
def offer_at(row: Word) -> Big:
    """Return the address of a row."""
    return machine[Machine.OFFERS] + wide(row) * _ROW


@inlined
def oldest(channel: Word, sends: Word) -> Word:
    """Return the oldest offer at a channel, 0 if there is none, -1 if this is no sound channel."""
    if W[channel - 12] != CHANNEL:
        return -1
    row = W[channel + (SENDERS if sends else RECEIVERS)]
    if row == 0:
        return 0
    if wide(row) >= machine[Machine.OFFER_COUNT]:
        return -1
    if host[offer_at(row) + _WORD * Field.CHANNEL] != wide(channel):
        return -1
    return row


@native
def append_offer(row: Word) -> None:
    """Put an offer after the others at its channel."""
    at = offer_at(row)
    sends = host[at + _WORD * Field.SENDS]
    head = narrow(host[at + _WORD * Field.CHANNEL]) + (SENDERS if sends else RECEIVERS)
    first = W[head]
    if first == 0:
        W[head] = row
        host[at + _WORD * Field.NEXT] = wide(row)
        host[at + _WORD * Field.PREVIOUS] = wide(row)
        return
    last = host[offer_at(first) + _WORD * Field.PREVIOUS]
    host[offer_at(narrow(last)) + _WORD * Field.NEXT] = wide(row)
    host[at + _WORD * Field.NEXT] = wide(first)
    host[at + _WORD * Field.PREVIOUS] = last
    host[offer_at(first) + _WORD * Field.PREVIOUS] = wide(row)


@native
def remove_offer(row: Word) -> None:
    """Take an offer from its channel and free it."""
    at = offer_at(row)
    sends = host[at + _WORD * Field.SENDS]
    head = narrow(host[at + _WORD * Field.CHANNEL]) + (SENDERS if sends else RECEIVERS)
    behind = narrow(host[at + _WORD * Field.NEXT])
    if behind == row:
        W[head] = 0
    else:
        before = narrow(host[at + _WORD * Field.PREVIOUS])
        host[offer_at(before) + _WORD * Field.NEXT] = wide(behind)
        host[offer_at(behind) + _WORD * Field.PREVIOUS] = wide(before)
        if W[head] == row:
            W[head] = behind
    free = machine[Machine.OFFERS] + _WORD * FREE
    host[at + _WORD * Field.ADDRESS] = 0
    host[at + _WORD * Field.RESULT] = 0
    host[at + _WORD * Field.NEXT] = host[free]
    host[free] = wide(row)


@native
def make_offer(
    channel: Word, sends: Word, address: Word, index: Word, position: Word, result: Word
) -> Word:
    """Make an offer of the running process; false if the table is full."""
    free = machine[Machine.OFFERS] + _WORD * FREE
    row = narrow(host[free])
    if row == 0:
        return 0
    at = offer_at(row)
    host[free] = host[at + _WORD * Field.NEXT]
    host[at + _WORD * Field.SIBLING] = state[State.OFFER]
    host[at + _WORD * Field.CHANNEL] = wide(channel)
    host[at + _WORD * Field.ADDRESS] = wide(address)
    host[at + _WORD * Field.INDEX] = wide(index)
    host[at + _WORD * Field.POSITION] = extended(position)
    host[at + _WORD * Field.SENDS] = wide(sends)
    host[at + _WORD * Field.RESULT] = wide(result)
    host[at + _WORD * Field.PID] = state[State.PID]
    host[at + _WORD * Field.RECORD] = own_record()
    state[State.OFFER] = wide(row)
    append_offer(row)
    return 1


@inlined
def own_record() -> Big:
    """Return the record of the running process."""
    return machine[Machine.CURRENT]


@native
def withdraw_offers(record: Big) -> None:
    """Withdraw all offers of a process."""
    row = narrow(host[record + _WORD * State.OFFER])
    host[record + _WORD * State.OFFER] = 0
    while row:
        following = narrow(host[offer_at(row) + _WORD * Field.SIBLING])
        remove_offer(row)
        charge(_OFFER)
        row = following


# The processes that are ready


@native
def make_ready(record: Big) -> None:
    """Put a process after those that are ready."""
    last = machine[Machine.LAST]
    host[record + _WORD * State.WAITS] = Wait.NOTHING
    host[record + _WORD * State.IS_READY] = 1
    host[record + _WORD * State.NEXT] = 0
    host[record + _WORD * State.PREVIOUS] = last
    if last:
        host[last + _WORD * State.NEXT] = record
    else:
        machine[Machine.FIRST] = record
    machine[Machine.LAST] = record


@native
def next_ready() -> Big:
    """Take out the first of the processes that are ready; 0 if there is none."""
    record = machine[Machine.FIRST]
    if record:
        behind = host[record + _WORD * State.NEXT]
        machine[Machine.FIRST] = behind
        if behind:
            host[behind + _WORD * State.PREVIOUS] = 0
        else:
            machine[Machine.LAST] = 0
        host[record + _WORD * State.IS_READY] = 0
    machine[Machine.CURRENT] = record
    return record


# One communication


@native
def take_offer(row: Word) -> Big:
    """Take an offer, tell an alt which it was, and return the record of who made it."""
    at = offer_at(row)
    result = narrow(host[at + _WORD * Field.RESULT])
    index = narrow(host[at + _WORD * Field.INDEX])
    record = host[at + _WORD * Field.RECORD]
    withdraw_offers(record)
    if result:
        W[result] = index
    return record


@inlined
def can_take(row: Word) -> Word:
    """Whether an offer can be taken here, or is none."""
    if row == 0:
        return 1
    return 1 if row > 0 and host[offer_at(row) + _WORD * Field.RECORD] != 0 else 0


@native
def buffer_slot(channel: Word, number: Word) -> Word:
    """Return where a value lies in a channel's buffer, in which the first one follows the last."""
    number = number if number < W[channel + 4] else number - W[channel + 4]
    size = WORD_SIZE if W[channel] == WORD else type_size(W[channel])
    return channel + CHANNEL_HEADER + number * size


@native
def put_value(channel: Word, address: Word) -> None:
    """Append a value to the buffer."""
    count, number = W[channel + 8], W[channel]
    slot = buffer_slot(channel, W[channel + 12] + count)
    if number == WORD:
        W[slot] = W[address]
    else:
        clear_value(slot, number)
        copy_value(address, slot, number)
    W[channel + 8] = count + 1


@native
def get_value(channel: Word, address: Word) -> None:
    """Move the oldest value out of the buffer."""
    first, number = W[channel + 12], W[channel]
    slot = buffer_slot(channel, first)
    if number == WORD:
        W[address] = W[slot]
    else:
        copy_value(slot, address, number)
        release_value(slot, number)
    W[channel + 8] = W[channel + 8] - 1
    W[channel + 12] = first + 1 if first + 1 < W[channel + 4] else 0


@native
def send(channel: Word, address: Word) -> Word:
    """Send a value, if that can be done now."""
    if channel == NIL:
        return PYTHON
    row = oldest(channel, 0)
    if not can_take(row):
        return PYTHON
    if row:
        at = offer_at(row)
        target = narrow(host[at + _WORD * Field.ADDRESS])
        position = narrow(host[at + _WORD * Field.POSITION])
        if position >= 0:
            W[target] = position
            target = target + 4
        record = take_offer(row)
        copy_simple(address, target, W[channel])
        make_ready(record)
        return DONE
    if W[channel + 8] < W[channel + 4]:
        put_value(channel, address)
        return DONE
    return MUST_WAIT


@native
def receive(channel: Word, address: Word, position: Word) -> Word:
    """Receive a value, if that can be done now; its position, if any, is stored before it."""
    if channel == NIL:
        return PYTHON
    row = oldest(channel, 1)
    if not can_take(row):
        return PYTHON
    count = W[channel + 8]
    if row == 0 and count <= 0:
        return MUST_WAIT
    if position >= 0:
        W[address] = position
        address = address + 4
    if count > 0:
        get_value(channel, address)
        # A value that was released may have been all that kept a process waiting.
        row = oldest(channel, 1)
    if row > 0 and can_take(row):
        source = narrow(host[offer_at(row) + _WORD * Field.ADDRESS])
        record = take_offer(row)
        if count > 0:
            put_value(channel, source)
        else:
            copy_simple(source, address, W[channel])
        make_ready(record)
    return DONE


@native
def send_or_wait(channel: Word, address: Word) -> Word:
    """Send a value now, or offer to do so."""
    if not begins():
        return PYTHON
    became = send(channel, address)
    if became == MUST_WAIT:
        if not make_offer(channel, 1, address, 0, -1, 0):
            return PYTHON
        state[State.WAITS] = Wait.SEND
    return became


@native
def receive_or_wait(channel: Word, address: Word) -> Word:
    """Receive a value now, or offer to do so."""
    if not begins():
        return PYTHON
    became = receive(channel, address, -1)
    if became == MUST_WAIT:
        if not make_offer(channel, 0, address, 0, -1, 0):
            return PYTHON
        state[State.WAITS] = Wait.RECEIVE
    return became
