"""All short programs over a few instructions: what the verifier accepts must run without a forgery.

    python -m tests.vm.smallscope [--skeleton NAME] [--depth N] [--workers N] [--engine NAME]

Random programs (``forging.py``) go far; these go everywhere nearby. A *skeleton* is a program with
holes, and for each hole a list of *letters*: one instruction or a few that belong together. All
sequences of letters up to a length are put into the holes (``skeletons.py`` lists both). What the
verifier accepts runs in the interpreter that checks every access by itself (``oracle.py``).

Sequences that begin like one that was refused within its letters, or that trapped there, are left
out: what comes behind cannot change that.
"""

from __future__ import annotations

import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from llmbol_core.errors import VerifyError
from llmbol_core.vm.isa import Mode
from llmbol_core.vm.module import Instruction, Module
from tests.vm.areas import Forgery
from tests.vm.batches import UNSURE, command_line, try_all
from tests.vm.claims import followed
from tests.vm.everyform import depends, forms, placed
from tests.vm.forging import Modules, entered_at, outcome, text
from tests.vm.skeletons import SKELETONS, Skeleton
from tests.vm.test_attacks import assembled

_HOLE = "nop"
_SKIP = "skip"
_CALLS = ("call", "mcall", "spawn", "mspawn", "raise")

Word = tuple[int, ...]
"""The letters in a hole, by number."""


class Letter:
    """What may be put into a hole: instructions whose labels follow when they are placed.

    Labels up to the hole and behind it are those of the skeleton, others lead into the letter, and
    the last instruction of the module stands for the letter after the next one.
    """

    def __init__(self, code: Sequence[Instruction], hole: int, size: int) -> None:
        self.code = code[hole : hole + len(code) - size + 1]
        self.calls = any(i.op.mnemonic in _CALLS for i in self.code)
        self._hole, self._end = hole, len(code) - 1

    def placed(self, at: int, skip: int, moved: Callable[[int], int]) -> Iterator[Instruction]:
        """Yield the instructions as they are at an instruction number."""

        def label(pc: int) -> int:
            behind = pc - self._hole - len(self.code)
            if pc == self._end:
                return skip
            if behind >= 0:
                return moved(self._hole + 1 + behind)
            return moved(pc) if pc <= self._hole else at + pc - self._hole

        return (relabelled(instruction, label) for instruction in self.code)


def relabelled(instruction: Instruction, moved: Callable[[int], int]) -> Instruction:
    """Return an instruction whose label, if it has one, has followed."""
    place = "s" if instruction.op.mnemonic == "movpc" else "d"
    operand = instruction.operand(place)
    if operand.mode is not Mode.IMMEDIATE or not (instruction.op.has_label or place == "s"):
        return instruction
    return placed(instruction, place, operand._replace(value=moved(operand.value)))


class Scope:
    """The programs that one skeleton makes."""

    def __init__(self, skeleton: Skeleton) -> None:
        self.skeleton, codes = skeleton, dict(zip("abc", skeleton.code, strict=False))
        self._modules = {m: assembled(m, text, codes) for m, text in codes.items()}
        self.holes = [
            (name, pc)
            for name, module in self._modules.items()
            for pc, instruction in enumerate(module.instructions)
            if instruction.op.mnemonic == _HOLE
        ]
        self.letters = [
            [self._letter(number, letter, codes) for letter in letters]
            for number, letters in enumerate(skeleton.letters)
        ]
        if skeleton.is_row:
            self.letters[1] = list(self._forms())

    def _forms(self) -> Iterator[Letter]:
        """Yield letters of one instruction each, for the second hole."""
        name, hole = self.holes[1]
        code = list(self._modules[name].instructions)
        for form in forms(len(code) - 1):
            letter = Letter([*code[:hole], form, *code[hole + 1 :]], hole, len(code))
            modules, extents = self._filled(([], [letter]))
            if depends(form) or _fault(modules[name]) not in extents[1]:
                yield letter

    def _letter(self, number: int, letter: str, codes: dict[str, str]) -> Letter:
        name, hole = self.holes[number]
        index = [module for module, _ in self.holes[:number]].count(name)
        parts = codes[name].split(_HOLE)
        before, behind = _HOLE.join(parts[: index + 1]), _HOLE.join(parts[index + 1 :])
        module = assembled(name, f"{before}{letter.replace(';', chr(10))}{behind}", codes)
        return Letter(module.instructions, hole, len(self._modules[name].instructions))

    def program(self, words: Sequence[Word]) -> tuple[Modules, list[range]]:
        """Return the program with letters in its holes, and where those are."""
        chosen = [[self.letters[n][at] for at in word] for n, word in enumerate(words)]
        return self._filled(chosen)

    def _filled(self, chosen: Sequence[Sequence[Letter]]) -> tuple[Modules, list[range]]:
        modules, extents = {}, [range(0)] * len(chosen)
        for name, module in self._modules.items():
            mine = [n for n, (where, _) in enumerate(self.holes) if where == name]
            made = _filled(module, [(self.holes[n][1], chosen[n]) for n in mine])
            modules[name], found = made
            for n, extent in zip(mine, found, strict=True):
                extents[n] = extent
        return modules, extents

    def calls(self, number: int, word: Word) -> bool:
        """Whether letters call a function."""
        return any(self.letters[number][letter].calls for letter in word)


def _filled(
    module: Module, holes: list[tuple[int, Sequence[Letter]]]
) -> tuple[Module, list[range]]:
    """Return a module with its holes filled, and where the letters are."""
    sizes = [(hole, sum(len(letter.code) for letter in letters)) for hole, letters in holes]

    def moved(pc: int) -> int:
        return pc + sum(size - 1 for hole, size in sizes if hole < pc)

    code, done, extents = list[Instruction](), 0, list[range]()
    for hole, letters in holes:
        code += (relabelled(i, moved) for i in module.instructions[done:hole])
        start, done = len(code), hole + 1
        for index, letter in enumerate(letters):
            skip = len(code) + sum(len(one.code) for one in letters[index : index + 2])
            code += letter.placed(len(code), skip, moved)
        extents.append(range(start, len(code)))
    code += (relabelled(i, moved) for i in module.instructions[done:])
    changed = replace(module, instructions=tuple(code), entry_pc=moved(module.entry_pc))
    return entered_at(changed, moved), extents


def _fault(module: Module) -> int:
    """Return the instruction that the verifier refuses, or -1."""
    try:
        followed(module)
    except VerifyError as error:
        return error.pc
    return -1


class Search:
    """Goes through all programs of a skeleton whose first hole begins with one letter."""

    def __init__(self, scope: Scope, depth: int, folder: Path, engine: str, share: int) -> None:
        self._scope, self._depth, self._folder, self._engine = scope, depth, folder, engine
        self._share = share
        self.found: Counter[str] = Counter()
        self.wrong: list[str] = []

    def run(self, first: int) -> None:
        """Try them."""
        words: list[Word] = [()] * len(self._scope.holes)
        words[0] = (first,)
        self._extend(words, 0)

    def _extend(self, words: list[Word], hole: int) -> None:
        """Try a program, and all that have more letters, in this hole or in a later one."""
        may_be_cured, goes_on = self._try(words, hole)
        if not may_be_cured or sum(map(len, words)) == self._depth:
            return
        is_next = self._scope.skeleton.is_row or self._scope.calls(hole, words[hole])
        if hole + 1 < len(words) and is_next:
            self._append(words, hole + 1)
        if goes_on:
            self._append(words, hole)

    def _append(self, words: list[Word], hole: int) -> None:
        for letter in range(len(self._scope.letters[hole])):
            self._extend([*words[:hole], (*words[hole], letter), *words[hole + 1 :]], hole)

    def _try(self, words: list[Word], hole: int) -> tuple[bool, bool]:
        """Try a program; return whether longer ones may be accepted, and whether they go further.

        They do not if the first hole's letters end in a trap.
        """
        modules, extents = self._scope.program(words)
        name = self._scope.holes[hole][0]
        self.found["tried"] += 1
        try:
            for module in modules.values():
                followed(module)
        except VerifyError as error:
            self.found["refused"] += 1
            is_cured = error.module.lower() != name or error.pc not in extents[hole]
            return is_cured, is_cured
        self.found["accepted"] += 1
        if (
            self._share > 1
            and sum(map(len, words)) == self._depth
            and hash((*words,)) % self._share
        ):
            return True, True
        try:
            how = self._outcome(modules)
        except Exception:  # noqa: BLE001 -- Forgery, and whatever else should not be
            self.wrong.append(f"{words}: {traceback.format_exc(limit=-2)}\n{text(modules)}")
            return False, False
        is_over = how.startswith("broken") or how == "Deadlock"
        return True, not is_over or hole > 0 or not self._scope.skeleton.is_alone

    def _outcome(self, modules: Modules) -> str:
        how = outcome(modules, self._folder)
        self.found[how.partition(":")[0]] += 1
        if self._engine and how not in UNSURE:
            native = outcome(modules, self._folder, self._engine)
            self.found[self._engine] += 1
            if native != how and native not in UNSURE:
                raise Forgery(f"{self._engine} gives {native}, not {how}")
        return how


@cache
def scope(name: str) -> Scope:
    """Return the programs that a skeleton of some name makes."""
    return Scope(SKELETONS[name])


def tasks(names: Sequence[str]) -> list[tuple[str, int]]:
    """Return skeletons with each letter that their first hole can begin with."""
    return [(name, first) for name in names for first in range(len(scope(name).letters[0]))]


def try_tasks(
    numbers: Sequence[int], names: Sequence[str], depth: int, engine: str = "", share: int = 1
) -> tuple[Counter[str], list[str]]:
    """Try the programs of some tasks, given as their places in the list of ``tasks``."""
    found, wrong, known = Counter[str](), list[str](), tasks(names)
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            name, first = known[number]
            search = Search(scope(name), depth, Path(folder), engine, share)
            search.run(first)
            found += search.found
            wrong += (f"{name} {what}" for what in search.wrong)
    return found, wrong


def main() -> None:
    """Try all that the command line says."""
    parser = command_line(__doc__, 0)
    parser.add_argument("--skeleton", action="append", choices=SKELETONS, help="only this one")
    parser.add_argument("--depth", type=int, default=2, help="the most letters in all holes")
    parser.add_argument("--share", type=int, default=1, help="of the longest, run one in so many")
    parser.add_argument("--engine", default="", help="run them on this one, too, and compare")
    options = parser.parse_args()
    names = options.skeleton or list(SKELETONS)
    attempt = partial(
        try_tasks, names=names, depth=options.depth, engine=options.engine, share=options.share
    )
    found, wrong = try_all(attempt, range(len(tasks(names))), 1, options.workers)
    print(f"{found['accepted']} programs were accepted, {wrong} forged something")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
