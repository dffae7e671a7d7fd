"""What an object file contains, as rows to show: its sections, types, data, links and handlers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llmbol_core.vm import payload
from llmbol_core.vm.dependencies import loads
from llmbol_core.vm.module import (
    DONTCOMPILE,
    DYNMOD,
    HASEXCEPT,
    HASLDT,
    HASLDT0,
    MUSTCOMPILE,
    SHAREMP,
    DataKind,
    Datum,
    Module,
    TypeDescriptor,
)
from llmbol_core.vm.objectfile import read_object
from llmbol_core.vm.objectwriter import sections

TypeOf = Callable[[str | None, str, int], str | None]
"""Tells the Limbo type of a function, given the module that has it (None for the file's own
exports), its name and its signature; None if that is not known."""

_FLAGS = {
    MUSTCOMPILE: "MUSTCOMPILE",
    DONTCOMPILE: "DONTCOMPILE",
    SHAREMP: "SHAREMP",
    DYNMOD: "DYNMOD",
    HASLDT0: "HASLDT0",
    HASEXCEPT: "HASEXCEPT",
    HASLDT: "HASLDT",
}
_MOST_VALUES = 8
_MOST_CHARACTERS = 60


@dataclass(frozen=True)
class SectionRow:
    """A part of the file: how many items of what it has, and its bytes."""

    section: str
    items: int
    bytes: int


@dataclass(frozen=True)
class Statistics:
    """Sizes of a file and its sections; ``data_size`` and ``stack_extent`` are bytes in memory."""

    path: str
    module: str
    source: str | None
    flags: str
    is_signed: bool
    data_size: int
    stack_extent: int
    file_bytes: int
    sections: tuple[SectionRow, ...]


@dataclass(frozen=True)
class TypeRow:
    """A type: its bytes, its pointer map as in the file, and the offsets that this stands for."""

    type: int
    size: int
    map: str
    pointers: tuple[int, ...]


@dataclass(frozen=True)
class DataRow:
    """An item of the module data. ``depth`` counts the arrays around it."""

    depth: int
    offset: int
    kind: str
    count: int
    value: str


@dataclass(frozen=True)
class ExportRow:
    """A function that other modules can call, with its Limbo type where that is known."""

    export: str
    pc: int
    type: int
    signature: str
    limbo: str | None


@dataclass(frozen=True)
class ImportRow:
    """A function wanted of a module: the list it stands in, and the paths loaded with that list."""

    list: int
    module: str | None
    function: str
    signature: str
    limbo: str | None


@dataclass(frozen=True)
class HandlerRow:
    """A label of an exception handler for pc1 <= pc < pc2, and where it leads.

    The exception goes to ``offset`` in the frame, ``type`` describes what is released.
    """

    pc1: int
    pc2: int
    offset: int
    type: int
    exception: str
    pc: int


@dataclass(frozen=True)
class PayloadRow:
    """What the file carries behind the object."""

    offset: int
    bytes: int
    format: str


@dataclass(frozen=True)
class Contents:
    """All of a module but its code."""

    path: str
    module: str
    source: str | None
    flags: str
    signature: str | None
    entry_pc: int
    entry_type: int
    stack_extent: int
    data_size: int
    instructions: int
    types: tuple[TypeRow, ...]
    data: tuple[DataRow, ...]
    exports: tuple[ExportRow, ...]
    imports: tuple[ImportRow, ...]
    handlers: tuple[HandlerRow, ...]
    payload: PayloadRow | None


def measure(data: bytes, path: str) -> Statistics:
    """Return the sizes of an object file. Raises DisFormatError."""
    module, end = read_object(data, path)
    items = {
        "code": len(module.instructions),
        "types": len(module.types),
        "data": len(module.data),
        "exports": len(module.exports),
        "imports": sum(map(len, module.imports)),
        "handlers": len(module.handlers),
    }
    parts = sections(module)
    rows = [SectionRow(name, items.get(name, 1), len(part)) for name, part in parts.items() if part]
    carried = payload.find(memoryview(data), path)
    if carried is not None:
        rows.append(SectionRow("payload", 1, len(carried)))
    rest = len(data) - end - (len(carried) if carried is not None else 0)
    if rest:
        rows.append(SectionRow("padding" if carried is not None else "trailing bytes", 1, rest))
    return Statistics(
        path,
        module.name,
        module.source_path,
        _flags(module.flags),
        module.signature is not None,
        module.data_size,
        module.stack_extent,
        len(data),
        tuple(rows),
    )


def list_contents(
    data: bytes, path: str, type_of: TypeOf = lambda module, name, signature: None
) -> Contents:
    """Return all that an object file says besides its code. Raises DisFormatError."""
    module, _ = read_object(data, path)
    return Contents(
        path,
        module.name,
        module.source_path,
        _flags(module.flags),
        None if module.signature is None else module.signature.hex(),
        module.entry_pc,
        module.entry_type,
        module.stack_extent,
        module.data_size,
        len(module.instructions),
        tuple(_type(t) for t in module.types),
        _data(module),
        tuple(
            ExportRow(e.name, e.pc, e.type, _hex(e.signature), type_of(None, e.name, e.signature))
            for e in module.exports
        ),
        _imports(module, type_of),
        _handlers(module),
        _payload(data, path),
    )


def _flags(flags: int) -> str:
    names = [name for bit, name in _FLAGS.items() if flags & bit]
    rest = flags & ~sum(_FLAGS)
    return " ".join([*names, *[f"0x{rest:x}"] * bool(rest)]) or "none"


def _hex(signature: int) -> str:
    return f"{signature:08x}"


def _type(descriptor: TypeDescriptor) -> TypeRow:
    map_ = descriptor.pointer_map.hex()
    return TypeRow(descriptor.id, descriptor.size, map_, descriptor.pointers)


def _data(module: Module) -> tuple[DataRow, ...]:
    rows, depth = [], 0
    for item in module.data:
        if item.kind is DataKind.DAPOP:
            depth -= 1
        rows.append(DataRow(depth, item.offset, item.kind.name, item.count, _value(item)))
        if item.kind is DataKind.DIND:
            depth += 1
    return tuple(rows)


def _value(item: Datum) -> str:
    if item.kind is DataKind.DAPOP:
        return ""
    if item.kind is DataKind.DEFS:
        text = repr(item.text[:_MOST_CHARACTERS])
        return text if len(item.text) <= _MOST_CHARACTERS else f"{text}..."
    if item.kind is DataKind.DEFA:
        kind, length = item.values
        return f"{length} of type {kind}"
    values = [repr(value) for value in item.values[:_MOST_VALUES]]
    return " ".join(values + ["..."] * (len(item.values) > _MOST_VALUES))


def _imports(module: Module, type_of: TypeOf) -> tuple[ImportRow, ...]:
    paths: dict[int, list[str]] = {}
    for load in loads(module):
        if load.path is not None and load.path not in paths.setdefault(load.imports, []):
            paths[load.imports].append(load.path)
    rows = []
    for number, wanted in enumerate(module.imports):
        path = " ".join(paths.get(number, [])) or None
        for i in wanted:
            kind = type_of(path, i.name, i.signature)
            rows.append(ImportRow(number, path, i.name, _hex(i.signature), kind))
    return tuple(rows)


def _handlers(module: Module) -> tuple[HandlerRow, ...]:
    rows = []
    for h in module.handlers:
        place = (h.pc1, h.pc2, h.offset, h.type)
        for at, (pattern, pc) in enumerate(h.labels):
            rows.append(HandlerRow(*place, pattern if at < h.typed else repr(pattern), pc))
        if h.default_pc >= 0 or not h.labels:
            rows.append(HandlerRow(*place, "*", h.default_pc))
    return tuple(rows)


def _payload(data: bytes, path: str) -> PayloadRow | None:
    carried = payload.find(memoryview(data), path)
    if carried is None:
        return None
    start = len(data) - payload.TRAILER_SIZE - len(carried)
    return PayloadRow(start, len(carried), "GGUF" if bytes(carried[:4]) == b"GGUF" else "unknown")
