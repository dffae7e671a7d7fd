"""What modules export to those that load them, and whether it fits their use of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmbol_core.errors import LinkError
from llmbol_core.vm.heaptypes import HeapType
from llmbol_core.vm.host import HostFunction, HostModule
from llmbol_core.vm.isa import WORD_SIZE
from llmbol_core.vm.links import Link
from llmbol_core.vm.module import DATA_EXPORT, Export, Module, TypeDescriptor
from llmbol_core.vm.objects import Heap
from llmbol_core.vm.returns import Returns
from llmbol_core.vm.verification.needs import Need, Shape, value_parts

if TYPE_CHECKING:
    from llmbol_core.vm.loader import LoadedModule


class _Offer(Sequence[Link]):
    """What a built-in module exports, each function made when it is first looked up."""

    def __init__(self, module: HostModule, heap: Heap) -> None:
        self.name = module.name.removeprefix("$")
        self._functions, self._heap = module.functions, heap

    def find(self, name: str) -> tuple[int, Link | None]:
        """Return signature and link of the function of a name."""
        found = self._functions.find(name)
        return (0, None) if found is None else (found.signature, self._link(found))

    def _link(self, function: HostFunction) -> Link:
        return Link(0, self._heap.type_number(function.frame), function)

    def __getitem__(self, index: Any) -> Any:
        """Return the link of the function at an index."""
        return self._link(self._functions[index])

    def __len__(self) -> int:
        return len(self._functions)


class _Exports(Sequence[Link]):
    """What a loaded module exports; of several exports of a name the first counts."""

    def __init__(self, loaded: LoadedModule) -> None:
        self.name = loaded.module.name
        self._links = loaded.exports
        pairs = zip(loaded.module.exports, loaded.exports, strict=True)
        self._found = {e.name: (e.signature, link) for e, link in reversed(list(pairs))}

    def find(self, name: str) -> tuple[int, Link | None]:
        """Return signature and link of the export of a name."""
        return self._found.get(name, (0, None))

    def __getitem__(self, index: Any) -> Any:
        """Return the link at an index."""
        return self._links[index]

    def __len__(self) -> int:
        return len(self._links)


def offered_by(target: LoadedModule | HostModule, heap: Heap) -> _Offer | _Exports:
    """Return what can be linked to in a module."""
    return _Offer(target, heap) if isinstance(target, HostModule) else _Exports(target)


def misfit(
    heap: Heap,
    target: LoadedModule | HostModule,
    link: Link,
    need: Need,
    caller: LoadedModule | None = None,
) -> str:
    """Return why a function does not fit what a module does with it; empty if it fits."""
    if link.function is not None:
        result = link.function.result
        parts = value_parts(result.size, result.pointers)
        returns = Returns(parts)
    else:
        assert not isinstance(target, HostModule)
        parts, returns = set(), target.returns_of(link.pc)
    for why in need.misfits(Shape(*heap.types[link.type])):
        return why
    for place in sorted(need.results):
        if why := returns.want(place):
            return why
    for entry, offset in sorted(need.named):
        assert caller is not None
        own = caller.returns_of(entry)
        if why := own.write(parts, offset) if parts else own.bring(offset, returns):
            return why
    return ""


def check_call(heap: Heap, target: LoadedModule, export: Export, need: Need) -> None:
    """Raise LinkError if an exported function does not fit what the host does with it."""
    link = Link(export.pc, target.types[export.type])
    if target.is_verified and (why := misfit(heap, target, link, need)):
        raise LinkError(target.module.name, f"{export.name}: {why}")


def takes_pointer(heap: Heap, loaded: LoadedModule, export: Export, at: int) -> bool:
    """Return whether an exported function's frame has a pointer at an offset."""
    return at in heap.types[loaded.types[export.type]].pointers


def own_type(module: Module) -> TypeDescriptor:
    """Return a type descriptor of its own for a module's data."""
    if not module.types:
        return TypeDescriptor(0, module.data_size)
    return TypeDescriptor(0, module.types[0].size, module.types[0].pointer_map)


def hide_data(heap: Heap, loaded: LoadedModule, whole: TypeDescriptor) -> None:
    """Let other modules access only what a module exports of its data, which has this type.

    They may not change the tables that the module jumps through.
    """
    module = loaded.module
    offered, locked = HeapType(0, ()), frozenset(range(0, whole.size, WORD_SIZE))
    if any(export.name == DATA_EXPORT for export in module.exports):
        tables = loaded.proof.tables
        inside = frozenset(at for start, end in tables for at in range(start & -4, end, 4))
        pointers = tuple(at for at in whole.pointers if at not in inside)
        offered, locked = HeapType(whole.size, pointers), inside.union(whole.pointers)
    heap.hide(heap.type_number(whole), offered, locked)
