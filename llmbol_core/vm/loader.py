"""Loading: finding modules, making their data, linking imports to exports by name and signature.

A file is read and verified once, and again if it has changed. Modules that are no longer in use are
unloaded, except for the last few, which are kept in case they are loaded again. Each load gets
module data of its own; ``$self`` shares that of the running code. A name that begins with ``$`` is
a built-in module. A load that fails gives nil and leaves the reason in the process's error string.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from llmbol_core.errors import DisFormatError, LinkError, LlmbolError, Trap, UsageError, nearest
from llmbol_core.vm import payload, traps
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.files.openfile import OREAD, Dir, FileFault, OpenFile
from llmbol_core.vm.host import HostModule
from llmbol_core.vm.ieee import expected_of_reals
from llmbol_core.vm.interpreter import Interpreter
from llmbol_core.vm.links import Link, Linked
from llmbol_core.vm.module import HASLDT, Export, Import, Module, TypeDescriptor
from llmbol_core.vm.moduledata import copied, initial
from llmbol_core.vm.objectfile import read_object
from llmbol_core.vm.offers import misfit, offered_by, own_type
from llmbol_core.vm.pauses import pauses
from llmbol_core.vm.returns import Returns
from llmbol_core.vm.verification.needs import Need
from llmbol_core.vm.verification.proofs import NOTHING, Proof

if TYPE_CHECKING:
    from llmbol_core.vm.files.namespace import Namespace
    from llmbol_core.vm.process import Process
    from llmbol_core.vm.steps import Step


_MOST_RESTING = 32
_MOMENT = 2.0
"""Seconds after a change within which a second one may leave the time of change as it is."""


def _parts(data: memoryview, path: str) -> tuple[bytes, memoryview]:
    """Return a copy of what a file holds before its payload, and the rest; the file may change."""
    carried = payload.find(data, path)
    size = len(data) if carried is None else len(data) - payload.TRAILER_SIZE - len(carried)
    return bytes(data[:size]), data[size:]


class LoadedModule:
    """A module as one machine runs it.

    ``types`` are the heap's numbers for its types, ``data`` is its initial module data, which every
    instance copies, and ``payload`` is what the file carries after the object, if anything.
    ``content`` is what the file holds before its payload, empty for a module that is not from a
    file, and ``is_settled`` tells that the file had not been changed just before it was read.
    ``handles`` counts the module handles that refer to it.
    """

    def __init__(self, module: Module, path: str, carried: memoryview | None) -> None:
        self.module, self.path, self.payload = module, path, carried
        self.content, self.is_settled = b"", False
        self.types: list[int] = []
        self.data = NIL
        self.is_verified = False
        self.proof = NOTHING
        self.handles = 0
        self.steps: list[Step] = []
        self.exports: tuple[Link, ...] = ()
        self._returns: dict[int, Returns] = {}

    @cached_property
    def pauses(self) -> frozenset[int]:
        """Instructions before which its processes may have to let others run."""
        return pauses(self.module)

    def returns_of(self, entry: int) -> Returns:
        """Return what is known of a function's results."""
        if entry not in self._returns:
            known = self.proof.results.get(entry, ()), self.proof.wanted.get(entry, ())
            self._returns[entry] = Returns(*known)
        return self._returns[entry]

    def needs_of(self, imports: int) -> dict[int, Need]:
        """Return what the module needs of the functions in one of its import lists, by index."""
        return {i: need for (list_, i), need in self.proof.needs.items() if list_ == imports}

    def exported(self, name: str) -> Export:
        """Return the exported function of a name; raises LinkError."""
        offered = {e.name: e for e in reversed(self.module.exports) if e.pc >= 0 and e.type >= 0}
        if name not in offered:
            known = nearest(name, offered) or f": it has {', '.join(offered) or 'none'}"
            raise LinkError(self.module.name or self.path, f"no exported function {name!r}{known}")
        return offered[name]


class Loader:
    """What one machine has loaded."""

    def __init__(
        self,
        engine: Interpreter,
        host_modules: Mapping[str, HostModule],
        verify: bool,
        report: Callable[[str], None],
    ) -> None:
        self._engine, self._heap = engine, engine.heap
        self._host_modules, self._verify, self._report = host_modules, verify, report
        self._files: dict[str, tuple[Dir, LoadedModule]] = {}
        self._resting: dict[LoadedModule, None] = {}
        self._linked: dict[tuple[LoadedModule, int, LoadedModule | str], Linked] = {}
        """What import lists of modules lead to in others."""
        self._types: dict[bytes, tuple[TypeDescriptor, ...]] = {}
        """Type descriptors by the digest of the file, that of the module data last: a file that is
        read again has the same ones."""
        self.modules: list[LoadedModule] = []
        """The modules in use."""
        self.search: tuple[str, ...] = ()
        """Directories to search for modules that are not found under their own path."""
        self.check: Callable[[memoryview, str, memoryview], None] = lambda head, path, rest: None
        """Called before a file is parsed, with its bytes before the payload, its path and the rest;
        raises to refuse the file."""

    def load(self, process: Process, path: str, number: int) -> int:
        """Return a handle of the module at a path, linked by an import list of the running one."""
        module = process.module.module
        if not module.flags & HASLDT:
            raise Trap(traps.OBSOLETE)
        try:
            if path == "$self":
                linked = self._link_list(process.module, number, process.module)
                return self._engine.new_handle(self._heap.retain(process.mp), linked)
            if path.startswith("$"):
                linked = self._link_list(process.module, number, path)
                return self._engine.new_handle(NIL, linked)
            return self._found(process, path, number)
        except FileFault as error:
            process.environment.error = str(error)
        except DisFormatError as error:
            # Inferno's own words come first; what follows the colon is about this file.
            process.environment.error = error.why.partition(":")[0]
        except LlmbolError as error:
            if isinstance(error, Trap):
                raise
            process.environment.error = str(error)
        return NIL

    def _found(self, process: Process, path: str, number: int) -> int:
        found = self.find(process.environment.namespace, path)
        process.environment.looked_up(path)
        try:
            linked = self._link_list(process.module, number, found)
            return self._engine.new_handle(copied(self._heap, found.data), linked)
        finally:
            if not found.handles:
                self.rest(found)

    def instance(self, loaded: LoadedModule) -> int:
        """Return a handle of a module with fresh data that is called by its exports."""
        linked = Linked(loaded, (), offered_by(loaded, self._heap))
        return self._engine.new_handle(copied(self._heap, loaded.data), linked)

    def first_instance(self, loaded: LoadedModule) -> int:
        """Return a handle of a module just read; forget the module if there is no memory for it."""
        try:
            return self.instance(loaded)
        except BaseException:
            self.forget(loaded)
            raise

    def find(self, namespace: Namespace, path: str) -> LoadedModule:
        """Return the module in a file of the program's tree; raises FileFault and LlmbolError."""
        path, file = self._open(namespace, path)
        try:
            stamp = replace(file.stat(), atime=0)  # reading a file does not change it
            known = self._files.get(path)
            if known is not None and known[0] == stamp and known[1].is_settled:
                return self._wake(known[1])
            data = file.contents()
            is_same = known is not None and known[0] == stamp
            if known is not None and is_same and known[1].content == _parts(data, path)[0]:
                return self._wake(known[1])
            loaded = self.read(data, path)
        finally:
            file.close()
        # Times of change count in seconds; synthetic files have none at all.
        loaded.is_settled = 0 < stamp.mtime < time.time() - _MOMENT
        self._files[path] = (stamp, loaded)
        if known is not None and known[1] in self._resting:
            self.forget(known[1])
        return loaded

    def _open(self, namespace: Namespace, path: str) -> tuple[str, OpenFile]:
        """Open a module's file under its path or, if that is relative, on the search path."""
        try:
            return path, namespace.open(path, OREAD)
        except FileFault:
            for directory in () if path.startswith(("/", "#")) else self.search:
                with suppress(FileFault):
                    return f"{directory}/{path}", namespace.open(f"{directory}/{path}", OREAD)
            raise

    def _wake(self, loaded: LoadedModule) -> LoadedModule:
        if loaded in self._resting:
            del self._resting[loaded]
            self.modules.append(loaded)
        return loaded

    def rest(self, loaded: LoadedModule) -> None:
        """Note that a module is no longer in use; the last few from files are kept for later."""
        if not self._is_known(loaded):
            self.forget(loaded)
            self._engine.unload(loaded)
            return
        self.modules.remove(loaded)
        self._resting[loaded] = None
        if len(self._resting) > _MOST_RESTING:
            self.forget(next(iter(self._resting)))

    def _is_known(self, loaded: LoadedModule) -> bool:
        """Whether a module is the one that was last read from its file."""
        return loaded.path in self._files and self._files[loaded.path][1] is loaded

    def tidy(self) -> None:
        """Forget the modules that are kept for later."""
        for loaded in list(self._resting):
            self.forget(loaded)

    def given(self, module: object, name: str) -> LoadedModule:
        """Return a module that is given as such, by its object file's bytes or by that's path."""
        if isinstance(module, Module):
            return self.take(module, name)
        if isinstance(module, bytes | bytearray | memoryview):
            return self.read(memoryview(module), name)
        if isinstance(module, str | os.PathLike) and "\0" not in os.fspath(module):
            return self.read_file(module)
        raise UsageError(f"a module should be a Module, bytes or a path, not {module!r}")

    def read_file(self, path: str | os.PathLike[str]) -> LoadedModule:
        """Return the module in a file of the host. Raises FileError, and as ``read`` does."""
        from llmbol_core.native.files import map_file

        return self.read(map_file(path), os.fspath(path))

    def read(self, data: memoryview, path: str) -> LoadedModule:
        """Return the module in an object file's bytes, with its payload.

        Raises DisFormatError, VerifyError, LimitError and what ``check`` raises.
        """
        head, rest = _parts(data, path)
        self.check(memoryview(head), path, rest)
        module, size = read_object(memoryview(head), path)
        proof = self._prove(module, memoryview(head)[:size])
        types = (*module.types, own_type(module))
        types = self._types.setdefault(hashlib.sha256(head).digest(), types)
        module = replace(module, types=types[:-1])
        loaded = self._ready(module, path, payload.find(data, path), proof, types[-1])
        loaded.content = head
        return loaded

    def take(self, module: Module, path: str) -> LoadedModule:
        """Verify a module and get it ready to run; raises VerifyError."""
        return self._ready(module, path, None, self._prove(module, None), own_type(module))

    def _prove(self, module: Module, content: memoryview | None) -> Proof:
        if not self._verify:
            return NOTHING
        from llmbol_core.vm.proven import prove

        return prove(module, content)

    def _ready(
        self,
        module: Module,
        path: str,
        carried: memoryview | None,
        proof: Proof,
        data_type: TypeDescriptor,
    ) -> LoadedModule:
        loaded = LoadedModule(module, path, carried)
        loaded.proof = proof
        loaded.is_verified = self._verify
        loaded.types = [self._heap.type_number(t) for t in module.types]
        loaded.exports = tuple(
            Link(e.pc, loaded.types[e.type] if e.type >= 0 else 0) for e in module.exports
        )
        loaded.data = initial(self._heap, loaded, data_type)
        loaded.steps = self._engine.steps(loaded)
        self.modules.append(loaded)
        self._engine.heed(expected_of_reals(module))
        return loaded

    def forget(self, loaded: LoadedModule) -> None:
        """Forget a module: no more instances of it are made; existing ones stay."""
        if loaded in self._resting:
            del self._resting[loaded]
            self._engine.unload(loaded)
        elif loaded in self.modules:
            self.modules.remove(loaded)
        if self._is_known(loaded):
            del self._files[loaded.path]
        self._heap.release(loaded.data)
        loaded.data = NIL
        self._linked = {key: made for key, made in self._linked.items() if loaded not in key}

    def release(self) -> None:
        """Forget all modules."""
        for loaded in [*self.modules, *self._resting]:
            self.forget(loaded)

    # Linking

    def _link_list(self, caller: LoadedModule, number: int, target: LoadedModule | str) -> Linked:
        """Return what an import list leads to in a module, or in a built-in one by its name."""
        key = caller, number, target
        linked = self._linked.get(key)
        if linked is None:
            lists = caller.module.imports
            imports = lists[number] if 0 <= number < len(lists) else ()
            module = self._built_in(target) if isinstance(target, str) else target
            linked = self._link(module, imports, caller.needs_of(number), caller)
            self._linked[key] = linked
        return linked

    def _built_in(self, name: str) -> HostModule:
        if name not in self._host_modules:
            raise FileFault("module not built-in")
        return self._host_modules[name]

    def _link(
        self,
        target: LoadedModule | HostModule,
        imports: Sequence[Import],
        needs: Mapping[int, Need],
        caller: LoadedModule,
    ) -> Linked:
        """Resolve imports; raises FileFault with the text that is also reported to the console."""
        offered = offered_by(target, self._heap)
        chosen = []
        for index, wanted in enumerate(imports):
            have, link = offered.find(wanted.name)
            why = f"{have:x}/{wanted.signature:x}"
            if link is not None and have == wanted.signature:
                need = needs.get(index)
                why = misfit(self._heap, target, link, need, caller) if need else ""
            if link is None or why:
                name = target.name if isinstance(target, HostModule) else target.module.name
                text = f"link typecheck {name}->{wanted.name}() {why}"
                self._report(text)
                raise FileFault(text)
            chosen.append(link)
        return Linked(target, tuple(chosen), offered)
