"""The front page's virtual machine: a local one that can also send its modules to the cluster."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, Unpack, overload

from llmbol_core import deploy
from llmbol_core.distributed.client import Client
from llmbol_core.distributed.state import StateDirectory
from llmbol_core.distributed.task import create_task, new_id
from llmbol_core.errors import LinkError, nearest
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.module import Module
from llmbol_core.vm.objectfile import write_module

Source = Module | bytes | memoryview | str | os.PathLike[str]


class DistributedVM:
    """A virtual machine that can also run what it has loaded on the cluster's nodes.

    Everything else is what ``InfernoVM`` does, here on this machine.
    """

    def __init__(self, vm: InfernoVM) -> None:
        self._vm = vm
        self._sources: dict[str, bytes | Path] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vm, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._vm.close()

    def load_module(self, name: str, module: Source) -> Any:
        """Load a module, for use here and on the cluster."""
        loaded = self._vm.load_module(name, module)
        if isinstance(module, Module):
            self._sources[name] = write_module(module)
        elif isinstance(module, bytes | bytearray | memoryview):
            self._sources[name] = bytes(module)
        else:
            self._sources[name] = Path(module).absolute()
        return loaded

    def execute_distributed(
        self,
        module: str,
        entry: str,
        args: Sequence[Any] | None = (),
        priority: int = 0,
        timeout: float | None = None,
    ) -> Any:
        """Call an exported function of a loaded module on a node of the cluster; return its result.

        The cluster is the one that ``cluster start`` started; the same limits hold there. A higher
        priority goes first; the time-out is in seconds. Raises LinkError for a module that is not
        loaded, NoCluster if no cluster runs, TaskFailed if the function left no result.
        """
        if module not in self._sources:
            known = nearest(module, self._sources)
            raise LinkError(module, f"no module of this name is loaded{known}")
        payload = {
            "module": self._sources[module],
            "entry": entry,
            "args": list(args or ()),
            "max_memory": self._vm.limits.memory,
            "max_threads": self._vm.limits.threads,
        }
        task = create_task(new_id("execute"), "execute", payload, priority, timeout=timeout)
        with Client(StateDirectory.default()) as client:
            client.submit([task])
            client.wait([task.id])
            return client.result(task.id).value

    async def execute_distributed_async(
        self,
        module: str,
        entry: str,
        args: Sequence[Any] | None = (),
        priority: int = 0,
        timeout: float | None = None,
    ) -> Any:
        """Do what ``execute_distributed`` does without blocking the event loop."""
        call = partial(self.execute_distributed, module, entry, args, priority, timeout)
        return await asyncio.to_thread(call)


@overload
def create_vm(
    max_memory: int = ...,
    max_threads: int = ...,
    enable_distributed: Literal[False] = ...,
    **options: Unpack[deploy.Options],
) -> InfernoVM: ...
@overload
def create_vm(
    max_memory: int = ...,
    max_threads: int = ...,
    *,
    enable_distributed: Literal[True],
    **options: Unpack[deploy.Options],
) -> DistributedVM: ...
def create_vm(
    max_memory: int = deploy.Limits.memory,
    max_threads: int = deploy.Limits.threads,
    enable_distributed: bool = False,
    **options: Unpack[deploy.Options],
) -> InfernoVM | DistributedVM:
    """Return a virtual machine with the built-in modules and no access to files.

    ``max_memory`` is in bytes, 64 MiB unless given; ``max_threads`` counts Dis processes that live
    at the same time. With ``enable_distributed`` it also has ``execute_distributed``. The other
    options are those of ``deploy.create_vm``. Raises UsageError for what is no limit or option.

    >>> from llmbol_core import BytecodeLoader
    >>> with create_vm(max_memory=1 << 20) as vm:
    ...     _ = vm.load_module("five", BytecodeLoader.create_module([0x01, 0x05, 0xFF]))
    ...     vm.execute("five", "main")
    5
    """
    vm = deploy.create_vm(max_memory, max_threads, **options)
    return DistributedVM(vm) if enable_distributed else vm
