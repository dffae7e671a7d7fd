"""Dis disassembly: Module to text, which ``assembly.py`` turns back into the same module.

Code looks as ``limbo -S`` prints it. The data is printed item by item, as the object file holds it;
``flags``, ``stack`` and ``signature`` appear where they are not what the assembler assumes.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator

from llmbol_core.vm.assembly import is_reserved
from llmbol_core.vm.directives import DEFAULT_STACK
from llmbol_core.vm.module import (
    HASEXCEPT,
    HASLDT,
    NAMES,
    DataKind,
    Datum,
    Handler,
    Module,
)
from llmbol_core.vm.notation import format_instruction
from llmbol_core.vm.objectfile import DATA
from llmbol_core.vm.tokens import quote

_NAME = re.compile(r"[^\W\d][\w.]*")
_NAN = struct.pack(">Q", 0x7FFFFFFFFFFFFFFF)


def format_assembly(module: Module) -> str:
    """Return a module's listing, which ends with a newline.

    >>> print(format_assembly(Module("Small", stack_extent=1024)), end="")
        module  Small
        ldts    @ldt,0
    """
    return "\n".join(_lines(module)) + "\n"


def _line(directive: str, rest: str) -> str:
    return f"    {directive:7} {rest}".rstrip()


def _lines(module: Module) -> Iterator[str]:
    """Yield the lines of the listing in limbo's order."""
    for pc, instruction in enumerate(module.instructions):
        if pc % 10 == 0:
            yield f"#{pc}"
        mnemonic, _, operands = format_instruction(instruction).partition(" ")
        yield _line(mnemonic, operands)
    yield from _header(module)
    for t in module.types:
        yield _line("desc", f'${t.id},{t.size},"{t.pointer_map.hex()}"')
    if module.data_size:
        yield _line("var", f"@mp,{module.data_size}")
    for item in module.data:
        yield _line(DATA[item.kind].directive, _datum(item))
    plain = _NAME.fullmatch(module.name) and not is_reserved(module.name)
    yield _line("module", module.name if plain else quote(module.name.encode(*NAMES)))
    for e in module.exports:
        yield _line("link", f"{e.type},{e.pc},0x{e.signature:x},{quote(e.name.encode(*NAMES))}")
    yield from _imports(module)
    yield from _handlers(module)
    if module.source_path is not None:
        yield _line("source", quote(module.source_path.encode(*NAMES)))


def _header(module: Module) -> Iterator[str]:
    if (module.entry_pc, module.entry_type) != (-1, -1):
        yield _line("entry", f"{module.entry_pc}, {module.entry_type}")
    if module.flags != HASLDT | (module.flags & HASEXCEPT):
        yield _line("flags", f"0x{module.flags:x}" if module.flags >= 0 else str(module.flags))
    if module.stack_extent != DEFAULT_STACK:
        yield _line("stack", str(module.stack_extent))
    if module.signature is not None:
        yield _line("signature", f'"{module.signature.hex()}"')


def _datum(item: Datum) -> str:
    """Return what follows the directive of a data item."""
    if item.kind is DataKind.DAPOP:
        return "" if (item.offset, item.count) == (0, 1) else f"{item.offset},{item.count}"
    return ",".join(
        [f"@mp+{item.offset}" if item.offset >= 0 else str(item.offset), *_values(item)]
    )


def _values(item: Datum) -> Iterator[str]:
    if item.kind is DataKind.DEFS:
        yield quote(item.payload)
    elif item.kind is DataKind.DEFF:
        for at in range(0, len(item.payload), 8):
            yield _real(item.payload[at : at + 8])
    else:
        dollar = "$" if item.kind is DataKind.DEFA else ""
        yield from (f"{dollar if n == 0 else ''}{v}" for n, v in enumerate(item.values))
        if item.kind in (DataKind.DEFA, DataKind.DIND) and item.count != 1:
            yield str(item.count)


def _real(bits: bytes) -> str:
    value = float(struct.unpack(">d", bits)[0])
    if math.isnan(value):
        return "NaN" if bits == _NAN else f"NaN(0x{bits.hex()})"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return repr(value)


def _imports(module: Module) -> Iterator[str]:
    if not module.flags & HASLDT:
        return
    yield _line("ldts", f"@ldt,{len(module.imports)}")
    offset = 0
    for wanted in module.imports:
        yield _line("word", f"@ldt+{offset},{len(wanted)}")
        offset += 4
        for i in wanted:
            # As limbo does: a word for the signature, the name, and the next one aligned.
            offset = -(-offset // 4) * 4
            name = i.name.encode(*NAMES)
            yield _line("ext", f"@ldt+{offset},0x{i.signature:x},{quote(name)}")
            offset += len(name) + 5
        offset = -(-offset // 4) * 4


def _handlers(module: Module) -> Iterator[str]:
    if not module.flags & HASEXCEPT:
        return
    yield _line("exceptions", str(len(module.handlers)))
    for h in module.handlers:
        yield _line("exception", _exception(h))
        for pattern, pc in h.labels:
            yield _line("exctab", f"{quote(pattern.encode(*NAMES))}, {pc}")
        yield _line("exctab", f"*, {h.default_pc}")


def _exception(h: Handler) -> str:
    return f"{h.pc1}, {h.pc2}, {h.offset}, {h.type}, {len(h.labels)}, {h.typed}"
