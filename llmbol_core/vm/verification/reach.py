"""How far a value stored in a frame may reach if the text does not tell its size.

Such values are results of other modules and values of channels. After their place there may be
words that the program still needs as addresses, frames or channels for alt. What comes must end
before them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

from llmbol_core.vm.isa import WORD_SIZE
from llmbol_core.vm.verification.changes import changes, needed
from llmbol_core.vm.verification.effects import FRAME
from llmbol_core.vm.verification.typeflow import Step


class Reach:
    """Analyses a module; ``steps`` are its instructions, ``follow`` returns their successors."""

    def __init__(self, steps: Mapping[int, Step], follow: Callable[[int], Iterable[int]]) -> None:
        self._steps, self._follow = steps, follow
        self._behind: dict[int, int] = {}
        """Words that are needed after instructions, as bits of numbers."""

    def end(self, step: Step, start: int) -> int:
        """Return the offset before which a value that an instruction stores at a slot must end."""
        if not self._behind:
            self._run()
        above = self._behind[step.pc] >> start // WORD_SIZE + 1
        if not above:
            return step.layout.size
        return (start & -WORD_SIZE) + WORD_SIZE * (above & -above).bit_length()

    def _run(self) -> None:
        before: dict[int, list[int]] = defaultdict(list)
        for pc in self._steps:
            for target in self._follow(pc):
                before[target].append(pc)
        used = {pc: _bits(needed(step)) for pc, step in self._steps.items()}
        kept = {pc: ~_bits(_written(step)) for pc, step in self._steps.items()}
        self._behind = dict.fromkeys(self._steps, 0)
        work = [pc for pc, bits in used.items() if bits]
        while work:
            pc = work.pop()
            bits = used[pc] | self._behind[pc] & kept[pc]
            for origin in before[pc]:
                if bits & ~self._behind[origin]:
                    self._behind[origin] |= bits
                    work.append(origin)


def _bits(slots: Iterable[int]) -> int:
    found = 0
    for slot in slots:
        found |= 1 << slot // WORD_SIZE
    return found


def _written(step: Step) -> Iterator[int]:
    """Yield the words of the frame that an instruction surely writes."""
    for change in changes(step):
        region, start = change.spot
        if region == FRAME and change.is_sure:
            yield from range(start & -WORD_SIZE, start + change.size, WORD_SIZE)
