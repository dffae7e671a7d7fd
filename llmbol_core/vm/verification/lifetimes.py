"""The lifetimes of addresses and frames that a function keeps in words of its frame.

The address of an element is valid as long as the array, which something else must hold: the place
that the array was found at. If that is a pointer of the frame, the address may not be used once the
pointer has been overwritten. If it is anywhere else, stores, calls and other processes may change
it: then the array is marked when the address is taken, and its memory is not reused as long as any
process has the address (``remains.py``). The same applies to addresses for results and for received
values, and to the copies of channels in alt tables.

Frames are made on a stack: the last one made is called first, and none is left when the function
returns. The frames made and not yet called at an instruction are the same on all ways to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from typing import NamedTuple

from llmbol_core.vm.isa import ELEMENT_SIZES, WORD_SIZE, Effect, Mode
from llmbol_core.vm.module import ABSENT, Operand
from llmbol_core.vm.verification.changes import (
    ALTS,
    CALLS,
    changes,
    spot_of,
)
from llmbol_core.vm.verification.effects import (
    BY_OTHERS,
    FRAME,
    INDIRECT,
    MADE,
    RESULT_PLACE,
    UNKNOWN,
    Change,
    Spot,
    base_of,
)
from llmbol_core.vm.verification.guards import Guard, Of
from llmbol_core.vm.verification.pointees import RECORD
from llmbol_core.vm.verification.slots import Kind
from llmbol_core.vm.verification.typeflow import Step
from llmbol_core.vm.verification.whole import alt_entries

_INDICES = ("indx", *ELEMENT_SIZES)
_BEGINNING = frozenset({"lea", "movw", "frame", "mframe", *_INDICES, *CALLS})
"""Instructions that change the state even if it holds no address."""
_ADDRESSES = (Kind.ELEMENT, Kind.ELSEWHERE, Kind.WORD)
_NO_WORD = Spot(MADE, -1)
_NOWHERE = -1
"""The slot of a frame that was made at a place from which it cannot be called."""


class Age(IntEnum):
    """Whether the object that an address points into may be gone."""

    FRESH = 0
    DOUBTFUL = 1
    """It may be gone."""
    GONE = 2
    """The word of the frame that held it holds something else."""


class Held(NamedTuple):
    """An address: what holds the object that it points into, and the instructions that took it.

    The holder is absent if it may be one of several. The path is everything that must not change
    for the object to live: the holder, the pointer to the record that it lies in, and so on.
    """

    holder: Operand
    taken: frozenset[int]
    path: frozenset[Spot]
    age: Age = Age.FRESH
    is_field: bool = False
    """Whether the object must be a record: the address is not an element's."""

    @property
    def first(self) -> Spot:
        """The word of the frame that the holder is, or begins with; else a word out of reach."""
        mode, value, base = self.holder
        is_own = mode in (Mode.FP, Mode.FP_INDIRECT)
        return Spot(FRAME, base if mode is Mode.FP_INDIRECT else value) if is_own else _NO_WORD


class Lasting(NamedTuple):
    """The state before an instruction: addresses by their slots, and frames, the last one last.

    The key of the address for a frame's result is the negative slot of the frame.
    """

    addresses: Mapping[int, Held] = {}
    frames: tuple[int, ...] = ()


class Lifetimes:
    """Analyses a module; ``steps`` are its instructions, ``follow`` returns their successors.

    ``unsure`` are guards that lack the object that the address in a slot points into.
    """

    def __init__(
        self,
        steps: Mapping[int, Step],
        follow: Callable[[int], Iterable[int]],
        unsure: Mapping[int, Iterable[tuple[int, Guard]]],
    ) -> None:
        self._steps, self._follow, self._unsure = steps, follow, unsure
        self._changes: dict[int, tuple[Change, ...]] = {}
        self._before: dict[int, Lasting] = {}
        self.guards: dict[int, list[Guard]] = {}

    def run(self, entries: Iterable[int]) -> None:
        """Find the guards; raises VerifyError for uses of what is surely gone."""
        for entry in entries:
            self._before[entry] = Lasting()
        work = deque(self._before)
        while work:
            pc = work.popleft()
            after = self._after(self._steps[pc], self._before[pc])
            for target in self._follow(pc):
                known, coming = self._before.get(target), after
                if known is after:
                    continue
                if after.addresses and target in self._steps[pc].found.pauses:
                    coming = after._replace(addresses=_unsettled(after.addresses))
                if known and known.frames != coming.frames:
                    raise self._steps[target].fail("the frames made differ with the ways here")
                joined = coming if known is None else _joined(known, coming)
                if joined != known:
                    self._before[target] = joined
                    work.append(target)
        for pc, lasting in self._before.items():
            self._check(self._steps[pc], lasting)

    # Uses

    def _check(self, step: Step, lasting: Lasting) -> None:
        op = step.op
        for operand, role, _ in step.effects.touches:
            waits = op.effect is Effect.WAIT and (role.is_storage or role.writes)
            if operand.mode is Mode.FP_INDIRECT:
                self._check_address(step, operand.base, lasting, waits)
            elif operand.mode is Mode.MP_INDIRECT and waits:
                self._mark(step.pc, Operand(Mode.MP, operand.base))
        for slot, guard in self._unsure.get(step.pc, ()):
            self._guard(step.pc, _completed(guard, slot, lasting))
        if op.effect is Effect.RETURN and lasting.frames:
            raise step.fail(f"the frame at {lasting.frames[-1]}(fp) was made and not called")
        if op.mnemonic in CALLS:
            frame = step.operand("s").value
            if lasting.frames[-1:] != (frame,):
                raise step.fail(f"the frame at {frame}(fp) is not the last one made")
            self._check_address(step, -frame, lasting, True)
        if op.mnemonic in ALTS:
            for at in alt_entries(step):
                self._check_channel(step, at, lasting)
                self._check_address(step, at + WORD_SIZE, lasting, True)

    def _check_address(self, step: Step, slot: int, lasting: Lasting, waits: bool) -> None:
        """Refuse an address of an object that is gone; mark one that may go while it is used."""
        held, known = lasting.addresses.get(slot), step.state.get(slot)
        if held is None or known is None or known.kind not in _ADDRESSES:
            return
        is_data = known.kind is Kind.WORD
        if held.age is Age.GONE and not is_data:
            what = f"at {slot}(fp)" if slot >= 0 else f"for the result of the frame at {-slot}(fp)"
            raise step.fail(f"what the address {what} leads to may be gone")
        if held.age or (waits and held.holder.mode is not Mode.FP):
            for pc in held.taken:
                self._mark(pc, self._pointer_at(pc))

    def _check_channel(self, step: Step, at: int, lasting: Lasting) -> None:
        """Refuse a copy of a channel that is gone; mark one that may go."""
        held = lasting.addresses.get(at)
        if held and held.age is Age.GONE:
            raise step.fail(f"the channel at {at}(fp) may be gone")
        for pc in held.taken if held and held.age else ():
            self._mark(pc, self._steps[pc].operand("s"))

    def _pointer_at(self, pc: int) -> Operand:
        """Return the operand of the pointer behind which an instruction takes an address."""
        source = self._steps[pc].operand("s")
        is_element = self._steps[pc].instruction.op.mnemonic.startswith("ind")
        return source if is_element or source.mode not in INDIRECT else base_of(source)

    def _mark(self, pc: int, where: Operand) -> None:
        self._guard(pc, Guard(where, Of.MARKED))

    def _guard(self, pc: int, guard: Guard) -> None:
        found = self.guards.setdefault(pc, [])
        if guard not in found:
            found.append(guard)

    # Effects

    def _after(self, step: Step, before: Lasting) -> Lasting:
        if not before.addresses and step.op.mnemonic not in _BEGINNING:
            return before
        addresses: Mapping[int, Held] = before.addresses
        if addresses:
            for change in self._changes_of(step):
                addresses = _changed(addresses, change)
        addresses, frames = _made(step, before.addresses, addresses), _frames(step, before.frames)
        is_same = addresses is before.addresses and frames is before.frames
        return before if is_same else Lasting(addresses, frames)

    def _changes_of(self, step: Step) -> tuple[Change, ...]:
        found = self._changes.get(step.pc)
        if found is None:
            found = self._changes[step.pc] = changes(step)
        return found


def _changed(addresses: Mapping[int, Held], change: Change) -> Mapping[int, Held]:
    """Return addresses after a change."""
    (region, start), size = change.spot, change.size
    if region != FRAME and not change.has_pointers:
        return addresses
    found = {}
    for slot, held in addresses.items():
        if region != FRAME or not start - WORD_SIZE < slot < start + size:
            found[slot] = _reached(held, change)
        elif size >= UNKNOWN:
            found[slot] = held._replace(age=max(held.age, Age.DOUBTFUL))
    return found


def _unsettled(addresses: Mapping[int, Held]) -> Mapping[int, Held]:
    """Return addresses after other processes may have run."""
    for change in BY_OTHERS:
        addresses = _changed(addresses, change)
    return addresses


def _reached(held: Held, change: Change) -> Held:
    """Return an address after a change, which may concern what holds its object."""
    for spot in held.path:
        if change.may_reach(spot):
            break
    else:
        return held
    is_gone = change.size < UNKNOWN and change.may_reach(held.first)
    return held._replace(age=max(held.age, Age.GONE if is_gone else Age.DOUBTFUL))


def _completed(guard: Guard, slot: int, lasting: Lasting) -> Guard:
    """Return a guard with the object that an address points into, or else with the address."""
    held = lasting.addresses.get(slot)
    if held and not held.age and held.holder.mode is not Mode.NONE:
        where = held.holder
        guard = guard._replace(kind=RECORD) if held.is_field else guard
    else:
        is_result = slot < 0
        where = (
            Operand(Mode.FP_INDIRECT, RESULT_PLACE, -slot) if is_result else Operand(Mode.FP, slot)
        )
        guard = guard._replace(size=-1)
    return guard._replace(where=where) if guard.of is Of.RESULT else guard._replace(link=where)


def _made(
    step: Step, before: Mapping[int, Held], addresses: Mapping[int, Held]
) -> Mapping[int, Held]:
    """Return addresses together with the one that an instruction takes."""
    mnemonic, source, target = step.op.mnemonic, step.operand("s"), step.operand("d")
    if mnemonic in _INDICES:
        held: Held | None = _held(step, source, before)
        target = step.operand("m")
    elif mnemonic == "lea":
        held = _behind(step, before)
    elif mnemonic == "movw" and _is_copy(step):
        held = _held(step, source, before)
    else:
        return addresses
    if target.mode is Mode.FP:
        slot = target.value
    elif target.mode is Mode.FP_INDIRECT and target.value == RESULT_PLACE:
        slot = -target.base
    else:
        return addresses
    others = {at: known for at, known in addresses.items() if at != slot}
    return others if held is None else {**others, slot: held}


def _held(step: Step, holder: Operand, addresses: Mapping[int, Held]) -> Held:
    """Return an address that an instruction takes in the object that a place refers to."""
    path, age = {spot_of(step.found, step.place(holder))}, Age.FRESH
    if holder.mode in INDIRECT:
        base = base_of(holder)
        path.add(spot_of(step.found, step.place(base)))
        above = addresses.get(base.value) if base.mode is Mode.FP else None
        if above is not None:
            path |= above.path
            age = min(above.age, Age.DOUBTFUL)
    return Held(holder, frozenset({step.pc}), frozenset(path), age)


def _behind(step: Step, addresses: Mapping[int, Held]) -> Held | None:
    """Return what holds the object that ``lea`` takes an address in, if it is one."""
    source = step.operand("s")
    if source.mode not in INDIRECT:
        return None
    above = addresses.get(source.base) if source.mode is Mode.FP_INDIRECT else None
    return above or _held(step, base_of(source), addresses)._replace(is_field=True)


def _is_copy(step: Step) -> bool:
    """Whether a word that is moved to the frame may be a pointer or an address."""
    source, target = step.operand("s"), step.operand("d")
    if target.mode is not Mode.FP or source.mode is Mode.IMMEDIATE:
        return False
    place = step.place(source)
    return source.mode in INDIRECT or bool(place.layout and place.offset in place.layout.pointers)


def _frames(step: Step, frames: tuple[int, ...]) -> tuple[int, ...]:
    """Return the frames made and not yet called after an instruction."""
    mnemonic = step.op.mnemonic
    if mnemonic in ("frame", "mframe"):
        target = step.operand("d")
        return (*frames, target.value if target.mode is Mode.FP else _NOWHERE)
    return frames[:-1] if mnemonic in CALLS else frames


def _joined(one: Lasting, other: Lasting) -> Lasting:
    """Return the state where two ways meet."""
    addresses = {}
    for slot in one.addresses.keys() & other.addresses.keys():
        first, second = one.addresses[slot], other.addresses[slot]
        taken, age = first.taken | second.taken, max(first.age, second.age)
        if first._replace(taken=taken, age=age) == second._replace(taken=taken, age=age):
            addresses[slot] = first._replace(taken=taken, age=age)
        else:
            addresses[slot] = Held(ABSENT, taken, frozenset(), max(age, Age.DOUBTFUL))
    return Lasting(addresses, one.frames)
