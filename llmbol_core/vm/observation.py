"""The reference engine under observation: one instruction at a time, each announced before it runs.

Tracing and debugging need no more than this, and programs that are not observed pay nothing for it:
the engine is another one, chosen when a machine is made::

    InfernoVM(..., engine=functools.partial(ObservedInterpreter, observer=observer))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbol_core.errors import Trap
from llmbol_core.vm.interpreter import Interpreter
from llmbol_core.vm.process import Process, Raised

if TYPE_CHECKING:
    from llmbol_core.vm.channels import Channels
    from llmbol_core.vm.inspection import Inspector
    from llmbol_core.vm.loader import LoadedModule
    from llmbol_core.vm.machine import InfernoVM
    from llmbol_core.vm.steps import Step


class Observer:
    """What is told about a program as it runs. While ``is_watching`` is false, nothing is."""

    inspector: Inspector
    """Looks into the machine; set before it runs."""
    is_watching = True

    def loaded(self, module: LoadedModule) -> None:
        """Take note that a module was loaded."""

    def before(self, process: Process) -> None:
        """Take note of the instruction that a process is about to run.

        The process may be ended here (``machine.kill``).
        """

    def after(self, process: Process) -> None:
        """Take note that it has run, or waits; the process may be elsewhere now, or have ended."""

    def raised(self, process: Process, error: Trap | Raised) -> None:
        """Take note of an exception that the instruction at the process's pc raised.

        The stack is as it was; the handler is looked for after this.
        """

    def stuck(self) -> None:
        """Take note that every process waits for another one; the program ends after this."""


class ObservedInterpreter(Interpreter):
    """The reference engine, which tells an observer about each instruction."""

    def __init__(self, machine: InfernoVM, channels: Channels, observer: Observer) -> None:
        self._observer = observer
        super().__init__(machine, channels)

    def run(self, process: Process, budget: int, one_stretch: bool = False) -> tuple[int, bool]:
        """Run a process for a number of instructions; return how many, and whether it goes on."""
        self.process = process
        observer, alive = self._observer, self.scheduler.processes
        used, goes_on = 0, process.fault is None or self._take_fault(process)
        while goes_on and used < budget:
            if not observer.is_watching:
                more, goes_on = super().run(process, budget - used, one_stretch)
                return used + more, goes_on
            observer.before(process)
            if process.pid not in alive:
                return used, False
            more, goes_on = super().run(process, 1)
            used += more
            observer.after(process)
            if one_stretch:
                break
        return used, goes_on

    def steps(self, module: LoadedModule) -> list[Step]:
        """Return the steps of a module's instructions, having announced the module."""
        self._observer.loaded(module)
        return super().steps(module)

    def stuck(self) -> None:
        """Tell the observer that no process can run."""
        self._observer.stuck()

    def _deliver(self, process: Process, error: Trap | Raised) -> bool:
        self._observer.raised(process, error)
        return process.pid in self.scheduler.processes and super()._deliver(process, error)
