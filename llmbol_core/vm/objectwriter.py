"""Writing Dis object files; ``objectfile.py`` describes the format and reads it."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable

from llmbol_core.vm.isa import MODES
from llmbol_core.vm.magic import SMAGIC, XMAGIC, encode_op
from llmbol_core.vm.module import (
    HASEXCEPT,
    HASLDT,
    NAMES,
    Datum,
    Instruction,
    Module,
    Operand,
)

_UNSIGNED = struct.Struct(">I")


def write_module(module: Module) -> bytes:
    """Return a module's object file.

    A number that does not fit the format, a NUL in a name, and imports or handlers without their
    flag are the caller's mistake: ValueError.
    """
    if bool(module.imports) > bool(module.flags & HASLDT):
        raise ValueError("imports need the flag HASLDT")
    if bool(module.handlers) > bool(module.flags & HASEXCEPT):
        raise ValueError("handlers need the flag HASEXCEPT")
    return b"".join(sections(module).values())


def sections(module: Module) -> dict[str, bytes]:
    """Return the sections of a module's object file, by name and in order."""
    return {
        "magic": _encode_magic(module),
        "header": _ops(module.flags, module.stack_extent, len(module.instructions))
        + _ops(module.data_size, len(module.types), len(module.exports))
        + _ops(module.entry_pc, module.entry_type),
        "code": b"".join(map(_encode_instruction, module.instructions)),
        "types": b"".join(
            _ops(t.id, t.size, len(t.pointer_map)) + t.pointer_map for t in module.types
        ),
        "data": b"".join(map(_encode_datum, module.data)) + b"\0",
        "name": _encode_name(module.name),
        "exports": b"".join(
            _ops(e.pc, e.type) + _encode_link(e.signature, e.name) for e in module.exports
        ),
        "imports": _encode_imports(module),
        "handlers": _encode_handlers(module),
        "source": b"" if module.source_path is None else _encode_name(module.source_path),
    }


_encode_op: Callable[[int], bytes] = functools.lru_cache(maxsize=1 << 14)(encode_op)


def _ops(*values: int) -> bytes:
    return b"".join(map(_encode_op, values))


def _encode_magic(module: Module) -> bytes:
    if module.signature is None:
        return encode_op(XMAGIC)
    return encode_op(SMAGIC) + encode_op(len(module.signature)) + module.signature


def _encode_name(name: str) -> bytes:
    if "\0" in name:
        raise ValueError(f"a name cannot hold a NUL: {name!r}")
    return name.encode(*NAMES) + b"\0"


def _encode_link(signature: int, name: str) -> bytes:
    return _UNSIGNED.pack(signature) + _encode_name(name)


def _encode_instruction(instruction: Instruction) -> bytes:
    source, middle, destination = (
        instruction.source,
        instruction.middle,
        instruction.destination,
    )
    bits = MODES[middle.mode].middle
    if bits is None:
        raise ValueError(
            f"{instruction.op.mnemonic}: a middle operand cannot be {middle.mode.name}"
        )
    head = bytes((instruction.opcode, bits << 6 | source.mode << 3 | destination.mode))
    return head + _encode_operand(middle) + _encode_operand(source) + _encode_operand(destination)


@functools.lru_cache(maxsize=1 << 14)
def _encode_operand(operand: Operand) -> bytes:
    values = MODES[operand.mode].values
    return _ops(*((), (operand.value,), (operand.base, operand.value))[values])


def _encode_datum(item: Datum) -> bytes:
    if 0 < item.count < 16:
        return bytes((item.kind << 4 | item.count,)) + _ops(item.offset) + item.payload
    return bytes((item.kind << 4,)) + _ops(item.count, item.offset) + item.payload


def _encode_imports(module: Module) -> bytes:
    if not module.flags & HASLDT:
        return b""
    parts = [_ops(len(module.imports))]
    for wanted in module.imports:
        parts += [_ops(len(wanted)), *(_encode_link(i.signature, i.name) for i in wanted)]
    return b"".join([*parts, b"\0"])


def _encode_handlers(module: Module) -> bytes:
    if not module.flags & HASEXCEPT:
        return b""
    parts = [_ops(len(module.handlers))]
    for h in module.handlers:
        parts += [_ops(h.offset, h.pc1, h.pc2, h.type, len(h.labels) | h.typed << 16)]
        parts += [_encode_name(pattern) + _ops(pc) for pattern, pc in h.labels]
        parts += [_ops(h.default_pc)]
    return b"".join([*parts, b"\0"])
