"""Handlers of the instructions on channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbol_core.vm.channels import Offer
from llmbol_core.vm.handlers_control import STOP
from llmbol_core.vm.heaptypes import BIG, BYTE, POINTER, REAL, WORD
from llmbol_core.vm.process import IN_ALT, RECEIVES, SENDS
from llmbol_core.vm.steps import Handler, handler

if TYPE_CHECKING:
    from llmbol_core.vm.interpreter import Interpreter as Engine


def _maker(element: int) -> Handler:
    def new_channel(e: Engine, capacity: int) -> int:
        """Return a channel of values of one type."""
        return e.heap.new_channel(element, capacity)

    return new_channel


ELEMENTS = {"newcb": BYTE, "newcw": WORD, "newcf": REAL, "newcp": POINTER, "newcl": BIG}
"""Types of what channels carry, by the instructions that make them."""
for _mnemonic, _element in ELEMENTS.items():
    handler(_mnemonic)(_maker(_element))


@handler("newcm")
def newcm(e: Engine, size: int, capacity: int) -> int:
    """Return a channel of values of so many bytes without pointers."""
    return e.heap.new_channel(e.heap.plain_type(size), capacity)


@handler("newcmp")
def newcmp(e: Engine, number: int, capacity: int) -> int:
    """Return a channel of values of a type."""
    return e.heap.new_channel(number, capacity)


@handler("send")
def send(e: Engine, address: int, channel: int, next_pc: int) -> int:
    """Send the value at an address."""
    done = e.channels.communicate(e.process, Offer(channel, True, address))
    return next_pc if done else _wait(e, next_pc, SENDS)


@handler("recv")
def recv(e: Engine, channel: int, address: int, next_pc: int) -> int:
    """Receive a value at an address."""
    done = e.channels.communicate(e.process, Offer(channel, False, address))
    return next_pc if done else _wait(e, next_pc, RECEIVES)


@handler("alt", into=True)
def alt(e: Engine, table: int, result: int, next_pc: int) -> int:
    """Communicate over one channel of a table; its index goes to the result."""
    done = e.channels.alt(e.process, table, result, waits=True)
    return next_pc if done else _wait(e, next_pc, IN_ALT)


@handler("nbalt", into=True)
def nbalt(e: Engine, table: int, result: int) -> None:
    """Communicate over one channel of a table, if that can be done now."""
    e.channels.alt(e.process, table, result, waits=False)


def _wait(e: Engine, next_pc: int, what: str) -> int:
    e.process.pc = next_pc
    e.process.waits_for = what
    return STOP
