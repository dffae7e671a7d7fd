"""What a group of processes is told of an exception that ends one of them.

Nothing, unless the leader, whose number is the group's, has asked for it by its ``ctl`` file and
the process that ends was spawned after that. With ``propagate`` the exception is raised in all
others; with ``notifyleader`` they are killed and it is raised in the leader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbol_core.errors import Trap
from llmbol_core.vm.scheduler import SLEEPS

if TYPE_CHECKING:
    from llmbol_core.vm.machine import InfernoVM
    from llmbol_core.vm.process import Process


PROPAGATE = "propagate"
SHARING = (PROPAGATE, "notifyleader")
"""What a leader can ask for."""


def members(machine: InfernoVM, process: Process) -> list[Process]:
    """Return the processes of a process's group."""
    return [p for p in machine.scheduler.processes.values() if p.group == process.group]


def kill(machine: InfernoVM, process: Process) -> None:
    """End a process unless it has ended; the one that is running ends instead of continuing."""
    if process.pid not in machine.scheduler.processes:
        return
    machine.heap.pause()  # there may be thousands to kill
    process.is_killed = True
    if machine.scheduler.is_running(process):
        process.fail(Trap(""))
    else:
        machine.scheduler.withdraw(process)
        machine.end(process)


def interrupt(machine: InfernoVM, process: Process, error: str) -> None:
    """Raise an exception in a process as soon as it runs again, whatever it is waiting for.

    One that sleeps ends silently instead.
    """
    if process.waits_for == SLEEPS:
        machine.scheduler.withdraw(process)
        machine.end(process)
        return
    machine.engine.channels.withdraw(process)
    process.fail(Trap(error))
    machine.scheduler.rouse(process)


def share(machine: InfernoVM, process: Process, status: str) -> None:
    """Tell a process's group how it ends; an empty status is not passed on."""
    if not (process.sharing and status):
        return
    leader = machine.scheduler.processes.get(process.group, process)
    mode = leader.sharing
    if not mode:
        return
    for member in members(machine, process):
        if member is process or member is leader:
            continue
        if mode == PROPAGATE:
            interrupt(machine, member, status)
        else:
            member.sharing = ""
            kill(machine, member)
    if leader is not process:
        interrupt(machine, leader, status)
