"""What lies on the stack at each instruction of stack code: proof that it is always the same.

It walks all ways through the program. Where two ways meet, the stacks must agree in depth and
types. What depends on something not known yet (the result of a function, the type of a local)
waits until another way has determined that.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from llmbol_core.vm.stackops import Fail, StackInstruction

MAX_DEPTH = 4096
_NAMES = {"W": "word", "L": "big", "F": "real"}


@dataclass
class StackFunction:
    """A function: where it begins, its types, and the stack before each of its instructions.

    Types are letters: W word, L big, F real; ``before`` has the top of the stack last.
    """

    entry: int
    parameters: str
    result: str = ""
    before: dict[int, str] = field(default_factory=dict)
    locals: dict[int, str] = field(default_factory=dict)


def find_functions(code: dict[int, StackInstruction], fail: Fail) -> list[StackFunction]:
    """Return the functions that the program reaches, ``main`` first; raises what ``fail`` makes."""
    return _Flow(code, fail).run()


class _Flow:
    def __init__(self, code: dict[int, StackInstruction], fail: Fail) -> None:
        self.code = code
        self.fail = fail
        self.functions = {0: StackFunction(0, "")}
        self.owners: dict[int, StackFunction] = {}
        self.work: list[tuple[StackFunction, int]] = []
        self.waiting: dict[tuple[int, int], list[tuple[StackFunction, int]]] = {}

    def run(self) -> list[StackFunction]:
        self._reach(self.functions[0], 0, "", 0)
        while self.work:
            self._step(*self.work.pop())
        for (entry, number), places in self.waiting.items():
            never = f"the function at {entry} never returns"
            why = f"local {number} is loaded but never stored" if number >= 0 else never
            raise self.fail(places[0][1], why)
        if not self.functions[0].result:
            raise self.fail(0, "the program never reaches HALT")
        return list(self.functions.values())

    def _reach(self, function: StackFunction, offset: int, stack: str, origin: int) -> None:
        """Note that control can come from one instruction to another with this stack."""
        if offset not in self.code:
            last = self.code[next(reversed(self.code))]
            inside = "inside an instruction" if offset < last.end else "outside the code"
            why = f"goes to {offset}, which is {inside}"
            raise self.fail(origin, "the code ends without HALT" if offset == last.end else why)
        owner = self.owners.setdefault(offset, function)
        if owner is not function:
            why = f"belongs to the function at {owner.entry} and to that at {function.entry}"
            raise self.fail(offset, why)
        known = function.before.setdefault(offset, stack)
        if known != stack:
            raise self.fail(
                offset,
                f"the stack holds {_spell(known)} on one way to here, {_spell(stack)} on another",
            )
        if len(stack) > MAX_DEPTH:
            raise self.fail(offset, f"the stack grows beyond {MAX_DEPTH} values")
        self.work.append((function, offset))

    def _step(self, function: StackFunction, offset: int) -> None:
        """Apply one instruction to its stack and go where it goes."""
        instruction = self.code[offset]
        stack = function.before[offset]
        special = _SPECIAL.get(instruction.op.mnemonic)
        after = special(self, function, instruction) if special else self._apply(instruction, stack)
        if after is None:
            return
        if instruction.op.mnemonic in ("JMP", "JZ", "JNZ"):
            self._go(function, int(instruction.operands[0]), after, offset)
        if instruction.op.mnemonic != "JMP":
            self._go(function, instruction.end, after, offset)

    def _go(self, function: StackFunction, offset: int, stack: str, origin: int) -> None:
        """Reach an instruction, unless it was reached alike before."""
        if function.before.get(offset) != stack:
            self._reach(function, offset, stack, origin)

    def _pop(self, instruction: StackInstruction, stack: str, count: int) -> tuple[str, str]:
        """Split the stack into what stays and the topmost values."""
        if len(stack) < count:
            why = f"{instruction.op.mnemonic} needs {count} on the stack, which holds {len(stack)}"
            raise self.fail(instruction.offset, why)
        return stack[: len(stack) - count], stack[len(stack) - count :]

    def _apply(self, instruction: StackInstruction, stack: str) -> str:
        """Return the stack after an instruction whose row tells all."""
        op = instruction.op
        takes, leaves = (part.strip() for part in op.stack.split("->"))
        rest, found = self._pop(instruction, stack, len(takes))
        bound: dict[str, str] = {}
        for wanted, letter in zip(takes, found, strict=True):
            fits = letter in op.types if wanted in "TU" else letter == wanted
            if not fits or bound.setdefault(wanted, letter) != letter:
                raise self.fail(instruction.offset, f"{op.mnemonic} cannot take {_spell(found)}")
        return rest + "".join(bound.get(letter, letter) for letter in leaves)

    # Instructions whose effect depends on more than the stack; None ends this way.

    def _load(self, function: StackFunction, instruction: StackInstruction) -> str | None:
        number = int(instruction.operands[0])
        if number not in function.locals:
            self._wait((function.entry, number), function, instruction)
            return None
        return function.before[instruction.offset] + function.locals[number]

    def _store(self, function: StackFunction, instruction: StackInstruction) -> str:
        number = int(instruction.operands[0])
        rest, letter = self._pop(instruction, function.before[instruction.offset], 1)
        known = function.locals.setdefault(number, letter)
        if known != letter:
            why = f"local {number} is a {_NAMES[known]} elsewhere, not a {_NAMES[letter]}"
            raise self.fail(instruction.offset, why)
        self._tell((function.entry, number))
        return rest

    def _call(self, function: StackFunction, instruction: StackInstruction) -> str | None:
        entry, count = map(int, instruction.operands)
        rest, found = self._pop(instruction, function.before[instruction.offset], count)
        if entry == 0:
            raise self.fail(instruction.offset, "the main program cannot be called")
        called = self.functions.get(entry)
        if called is None:
            called = self.functions[entry] = StackFunction(entry, found)
            called.locals = dict(enumerate(found))
            self._reach(called, entry, "", instruction.offset)
        if called.parameters != found:
            why = f"{entry} is called with {_spell(found)} and with {_spell(called.parameters)}"
            raise self.fail(instruction.offset, why)
        if not called.result:
            self._wait((entry, -1), function, instruction)
            return None
        return rest + called.result

    def _return(self, function: StackFunction, instruction: StackInstruction) -> None:
        """Note the result of a function, or of the program."""
        halts = instruction.op.mnemonic == "HALT"
        if halts != (function.entry == 0):
            why = "HALT inside a function: expected RET" if halts else "RET outside a function"
            raise self.fail(instruction.offset, why)
        _, letter = self._pop(instruction, function.before[instruction.offset], 1)
        function.result = function.result or letter
        if function.result != letter:
            why = f"the result is a {_NAMES[function.result]} elsewhere, not a {_NAMES[letter]}"
            raise self.fail(instruction.offset, why)
        self._tell((function.entry, -1))

    def _wait(
        self, what: tuple[int, int], function: StackFunction, instruction: StackInstruction
    ) -> None:
        self.waiting.setdefault(what, []).append((function, instruction.offset))

    def _tell(self, what: tuple[int, int]) -> None:
        """Go on with what waited for this."""
        self.work += self.waiting.pop(what, [])


_SPECIAL = {
    "LOAD": _Flow._load,
    "STORE": _Flow._store,
    "CALL": _Flow._call,
    "RET": _Flow._return,
    "HALT": _Flow._return,
}


def _spell(types: str) -> str:
    """Say what lies on a stack, the top last."""
    return " ".join(_NAMES[letter] for letter in types) or "nothing"
