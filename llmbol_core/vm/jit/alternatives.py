"""Waiting for one of several channels, for machine code: what ``Channels.alt`` does."""

from __future__ import annotations

from llmbol_core.vm.arena import NIL
from llmbol_core.vm.channels import ALT_ENTRY, MOST_ENTRIES, RANDOM
from llmbol_core.vm.jit.communication import (
    DONE,
    MUST_WAIT,
    PYTHON,
    can_take,
    make_offer,
    oldest,
    own_record,
    receive,
    send,
    withdraw_offers,
)
from llmbol_core.vm.jit.pacing import begins, charge, goes_on
from llmbol_core.vm.jit.runtime import Machine, State, Wait
from llmbol_core.vm.jit.source import W, Word, below, host, machine, narrow, native, state
from llmbol_core.vm.objects import ARRAY

_WORD = 8
_SOME = 1 << 12
"""Channels between two checks whether the program is to be stopped."""
_OFFER = 128
"""Bytes that could be copied in the time in which one of them is looked at."""


@native
def is_able(channel: Word, sends: Word) -> Word:
    """Whether an offer can be completed now."""
    if oldest(channel, 1 - sends):
        return 1
    if sends:
        return 1 if W[channel + 8] < W[channel + 4] else 0
    return 1 if W[channel + 8] > 0 else 0


@native
def try_entry(channel: Word, sends: Word, address: Word, position: Word) -> Word:
    """Send or receive what an entry of an alt table offers."""
    return send(channel, address) if sends else receive(channel, address, position)


@native
def visit(table: Word, result: Word, chosen: Word) -> Word:
    """Count the offers of an alt table that can be completed now, or complete the chosen one.

    Return a negative number if Python must do it.
    """
    sends, count, able, index = W[table], W[table] + W[table + 4], 0, 0
    while index < count:
        entry = table + ALT_ENTRY * (index + 1)
        channel, address = W[entry], W[entry + 4]
        if channel == NIL or address == NIL:
            return -1
        is_array = W[channel - 12] == ARRAY
        length = W[channel] if is_array else 1
        data = W[channel + 12] if is_array else entry
        position = 0
        while position < length:
            one = W[data + 4 * position]
            if one != NIL:
                direction = 1 if index < sends and not is_array else 0
                if is_able(one, direction):
                    able += 1
                    if able == chosen:
                        place = position if is_array else -1
                        return complete(one, direction, address, index, result, place)
            position += 1
            if (position & _SOME - 1) == 0:
                charge(_SOME * _OFFER)
                if not goes_on():
                    return -1
        charge(_OFFER * (position & _SOME - 1))
        index += 1
    return able


@native
def complete(
    channel: Word, sends: Word, address: Word, index: Word, result: Word, position: Word
) -> Word:
    """Complete an offer of the running process's alt; negative if Python must do it."""
    if not can_take(oldest(channel, 1 - sends)):
        return -1
    W[result] = index
    return try_entry(channel, sends, address, position)


@native
def serves_itself(table: Word) -> Word:
    """Whether a channel is in a table for both directions, which is left to Python."""
    sends, count, index = W[table], W[table] + W[table + 4], 0
    while index < sends:
        charge((count - sends) << 4)
        channel = W[table + ALT_ENTRY * (index + 1)]
        other = sends
        while other < count:
            receiver = W[table + ALT_ENTRY * (other + 1)]
            if receiver == channel or W[receiver - 12] == ARRAY:
                return 1
            other += 1
        index += 1
    return 0


@native
def offer_all(table: Word, result: Word) -> Word:
    """Make all offers of a table for the running process; false if there is no room for them."""
    sends, count, index = W[table], W[table] + W[table + 4], 0
    while index < count:
        entry = table + ALT_ENTRY * (index + 1)
        channel, address = W[entry], W[entry + 4]
        is_array = W[channel - 12] == ARRAY
        length = W[channel] if is_array else 1
        data = W[channel + 12] if is_array else entry
        position = 0
        while position < length:
            one = W[data + 4 * position]
            if one != NIL:
                direction = 1 if index < sends and not is_array else 0
                place = position if is_array else -1
                if not make_offer(one, direction, address, index, place, result):
                    withdraw_offers(own_record())
                    return 0
            position += 1
            if (position & _SOME - 1) == 0:
                charge(_SOME * _OFFER)
                if not goes_on():
                    withdraw_offers(own_record())
                    return 0
        charge(_OFFER * (position & _SOME - 1))
        index += 1
    return 1


@native
def alternative(table: Word, result: Word, waits: Word) -> Word:
    """Communicate over one of the channels of a table, if that can be done now."""
    sends, receives = W[table], W[table + 4]
    if below(MOST_ENTRIES, sends) or below(MOST_ENTRIES, receives) or serves_itself(table):
        return PYTHON
    if machine[Machine.RELEASED] or not begins():
        # One of the channels may be gone.
        return PYTHON
    able = visit(table, result, 0)
    if able < 0:
        return PYTHON
    if able:
        random = machine[Machine.OFFERS] + _WORD * RANDOM
        number = (host[random] * 1103515245 + 12345) & 0xFFFFFFFF
        if visit(table, result, narrow(number >> 8) % able + 1) < 0:
            return PYTHON
        host[random] = number
        return DONE
    if not waits:
        W[result] = sends + receives
        return DONE
    if not offer_all(table, result):
        return PYTHON
    state[State.WAITS] = Wait.ALT
    return MUST_WAIT
