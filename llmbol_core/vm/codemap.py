"""What is known about a module's code: where its functions are and what they are called.

A symbol file knows them all. Without one, functions are known where the module exports them and
where its own code calls or spawns them; those without a name are named after their first
instruction.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from functools import cached_property

from llmbol_core.errors import UsageError, nearest
from llmbol_core.vm.isa import Mode
from llmbol_core.vm.module import Module
from llmbol_core.vm.notation import format_instruction
from llmbol_core.vm.symbols import Source, SymbolFunction, Symbols

_CALLS = {"call", "spawn"}


@dataclass(frozen=True)
class CodeRange:
    """The code of one function: pc <= x < end."""

    name: str
    pc: int
    end: int
    symbol: SymbolFunction | None = None


class CodeMap:
    """Functions of a module by pc and by name, and its source if a symbol file tells."""

    def __init__(self, module: Module, symbols: Symbols | None = None) -> None:
        self.module, self.symbols = module, symbols
        starts = _named(module) if symbols is None else {}
        known = {} if symbols is None else {f.pc: f for f in reversed(symbols.functions)}
        starts |= {pc: f.name for pc, f in known.items()}
        starts.setdefault(0, "@0")
        self._starts = sorted(pc for pc in starts if pc < len(module.instructions)) or [0]
        ends = [*self._starts[1:], len(module.instructions)]
        self.functions = tuple(
            CodeRange(starts[pc], pc, end, known.get(pc))
            for pc, end in zip(self._starts, ends, strict=True)
        )

    def function(self, pc: int) -> CodeRange:
        """Return the function that an instruction belongs to."""
        return self.functions[max(bisect.bisect_right(self._starts, pc) - 1, 0)]

    def source(self, pc: int) -> Source | None:
        """Return where an instruction comes from, if that is known."""
        known = self.symbols is not None and 0 <= pc < len(self.symbols.sources)
        return self.symbols.sources[pc] if known and self.symbols else None

    def text(self, pc: int) -> str:
        """Return an instruction as the disassembler writes it."""
        in_code = 0 <= pc < len(self.module.instructions)
        return format_instruction(self.module.instructions[pc]) if in_code else "no instruction"

    @cached_property
    def by_name(self) -> dict[str, CodeRange]:
        """The functions by name."""
        return {f.name: f for f in reversed(self.functions)}

    def find(self, name: str) -> CodeRange:
        """Return a function by name. Raises UsageError."""
        if name not in self.by_name:
            hint = nearest(name, self.by_name)
            raise UsageError(f"{self.module.name} has no function {name!r}{hint}")
        return self.by_name[name]


def _named(module: Module) -> dict[int, str]:
    """Return where functions begin, and their names."""
    targets = {
        i.destination.value
        for i in module.instructions
        if i.op.mnemonic in _CALLS and i.destination.mode is Mode.IMMEDIATE
    }
    found = {pc: f"@{pc}" for pc in targets if pc >= 0}
    if module.has_entry:
        found[module.entry_pc] = "init"
    return found | {e.pc: e.name for e in reversed(module.exports) if e.pc >= 0}
