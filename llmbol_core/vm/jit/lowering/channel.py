"""Machine code for instructions on channels: it is left only if the process has to wait.

The size of a channel's values is not known here. So slots in registers, from the operand on, go to
memory, and come back after the value was received.
"""

from __future__ import annotations

from llmbol_core.vm.isa import Mode
from llmbol_core.vm.jit.communication import MUST_WAIT, PYTHON
from llmbol_core.vm.jit.lowering.lowerer import Lowerer, lowering
from llmbol_core.vm.jit.lowering.storage import Side
from llmbol_core.vm.jit.runtime import Status
from llmbol_core.vm.module import Operand

_WORD = 4


@lowering("send")
def send(out: Lowerer) -> None:
    """Send a value over a channel."""
    _communicate(out, "send_or_wait", out.instruction.source, "d")


@lowering("recv")
def recv(out: Lowerer) -> None:
    """Receive a value from a channel."""
    _communicate(out, "receive_or_wait", out.instruction.destination, "s")


def _communicate(out: Lowerer, function: str, value: Operand, channel: str) -> None:
    if value.mode is Mode.IMMEDIATE:
        out.guard("true")
        return
    side, through = Side(out, value), out.read(channel)
    slots = side.slots(out.region.frame.size)
    out.spill(slots)
    became = out.call(function, through, side.address)
    out.guard(out.value(f"icmp eq i32 {became}, {PYTHON}"))
    out.leave_if(out.value(f"icmp eq i32 {became}, {MUST_WAIT}"), out.pc + 1, Status.WAIT)
    if function.startswith("receive"):
        out.reload(slots)
    out.jump(out.block_of(out.pc + 1))


@lowering("alt", "nbalt")
def alt(out: Lowerer) -> None:
    """Communicate over one channel of a table; what is received goes to slots in memory."""
    table, chosen = Side(out, out.instruction.source), Side(out, out.instruction.destination)
    out.spill(dict.fromkeys([*table.slots(out.region.frame.size), *chosen.slots(_WORD)]))
    waits = out.instruction.op.mnemonic == "alt"
    became = out.call("alternative", table.address, chosen.address, str(int(waits)))
    out.guard(out.value(f"icmp eq i32 {became}, {PYTHON}"))
    if waits:
        out.leave_if(out.value(f"icmp eq i32 {became}, {MUST_WAIT}"), out.pc + 1, Status.WAIT)
    out.reload(chosen.slots(_WORD))
    if waits:
        out.jump(out.block_of(out.pc + 1))
