"""Handlers of the native interpreter for the instructions on channels."""

from __future__ import annotations

from llmbol_core.vm import traps
from llmbol_core.vm.jit import decoded
from llmbol_core.vm.jit.cold import ColdLowerer, cold
from llmbol_core.vm.jit.communication import DONE, MUST_WAIT, PYTHON


def _became(out: ColdLowerer, result: str) -> None:
    """Continue, let others run, or leave the instruction to Python, as a result says."""
    labels = {what: out.label() for what in (MUST_WAIT, DONE, PYTHON)}
    out.choose(result, *(labels[what] for what in sorted(labels)))
    out.begin(labels[PYTHON])
    out.guard("true")
    out.emit("unreachable")
    out.begin(labels[MUST_WAIT])
    following = out.value(f"getelementptr i8, ptr %ip, i64 {decoded.SIZE}")
    left = out.value("sub i64 %q, 1")
    out.emit(f"call void @save(ptr %s, ptr {following}, i64 {left})")
    out.tail("@switch")
    out.begin(labels[DONE])


@cold("send")
def send(out: ColdLowerer) -> None:
    """Send a value over a channel."""
    address, channel = out.address_of_value("s"), out.read("d")
    out.trap_if(out.value(f"icmp eq i32 {channel}, -1"), traps.NIL_DEREFERENCE)
    _became(out, out.call("send_or_wait", channel, address))


@cold("recv")
def recv(out: ColdLowerer) -> None:
    """Receive a value from a channel."""
    channel, address = out.read("s"), out.address("d")
    out.trap_if(out.value(f"icmp eq i32 {channel}, -1"), traps.NIL_DEREFERENCE)
    _became(out, out.call("receive_or_wait", channel, address))


@cold("alt")
def alt(out: ColdLowerer) -> None:
    """Communicate over one channel of a table."""
    _became(out, out.call("alternative", out.address("s"), out.address("d"), "1"))


@cold("nbalt")
def nbalt(out: ColdLowerer) -> None:
    """Communicate over one channel of a table, if that can be done now."""
    _became(out, out.call("alternative", out.address("s"), out.address("d"), "0"))


@cold("newcm", "newcmp")
def new_channel(out: ColdLowerer) -> None:
    """Make a channel of values of a type."""
    place = out.target("d")
    out.give(place, out.must(out.call("new_channel", out.read("s"), out.read("m"))))
