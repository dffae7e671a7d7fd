"""How long addresses and frames last that a function keeps in words of its frame.

An address of an element lasts as long as the array, which somebody else must hold: the place that
the array was found at. If that is a pointer of the frame the address is of no use once the pointer
has been overwritten. If it is anywhere else, calls and other stores may change it: then a guard
looks, where the address is used, whether the array that is there now still has such an element.
The same holds for copies of channels, which alt tables consist of: between copy and alt nothing may
happen that could free the channel.

Frames are made on a stack: the call of one drops those that were made after it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from typing import NamedTuple

from llmbol_core.vm.guards import Guard, Of
from llmbol_core.vm.isa import TYPES, WORD_SIZE, Effect, Mode
from llmbol_core.vm.module import Operand
from llmbol_core.vm.results import UNKNOWN
from llmbol_core.vm.slots import Kind
from llmbol_core.vm.typeflow import Step
from llmbol_core.vm.whole import alt_entries

_INDIRECT = (Mode.FP_INDIRECT, Mode.MP_INDIRECT)
_NO_PLACE = (Mode.IMMEDIATE, Mode.NONE, Mode.NONE6, Mode.NONE7)
_CALLS = ("call", "mcall", "spawn", "mspawn")
_ALTS = ("alt", "nbalt")
_INDICES = ("indx", "indw", "indf", "indb", "indl")
_BEGINNING = frozenset({"lea", "movw", "frame", "mframe", *_INDICES, *_CALLS})
"""Instructions that change what lasts even where no address does."""


class Age(IntEnum):
    """What may have become of what an address points to."""

    FRESH = 0
    DOUBTFUL = 1
    """It may be gone."""
    GONE = 2
    """Who held it holds something else."""


class Held(NamedTuple):
    """An address and where what it points into is held; -1 stands for several places."""

    holder: Operand
    age: Age = Age.FRESH
    is_element: bool = False


class Lasting(NamedTuple):
    """What lasts before an instruction: addresses by their slots, and frames in order."""

    addresses: Mapping[int, Held] = {}
    frames: tuple[int, ...] = ()


class Lifetimes:
    """Goes through a module; ``steps`` are its instructions, ``follow`` tells where they lead."""

    def __init__(self, steps: Mapping[int, Step], follow: Callable[[int], Iterable[int]]) -> None:
        self._steps, self._follow = steps, follow
        self._before: dict[int, Lasting] = {}
        self.guards: dict[int, list[Guard]] = {}

    def run(self, entries: Iterable[int]) -> None:
        """Find the guards; raises VerifyError for what is gone for sure."""
        for entry in entries:
            self._before[entry] = Lasting()
        work = deque(self._before)
        while work:
            pc = work.popleft()
            after = self._after(self._steps[pc], self._before[pc])
            for target in self._follow(pc):
                known = self._before.get(target)
                if known is after:
                    continue
                joined = after if known is None else _joined(known, after)
                if joined != known:
                    self._before[target] = joined
                    work.append(target)
        for pc, lasting in self._before.items():
            self._check(self._steps[pc], lasting)

    # Uses

    def _check(self, step: Step, lasting: Lasting) -> None:
        op = step.instruction.op
        for role in op.operands:
            operand = step.operand(role.place) if role.place in "smd" else None
            if operand is None or operand.mode is not Mode.FP_INDIRECT:
                continue
            self._check_frame(step, operand.base, lasting)
            held = lasting.addresses.get(operand.base)
            known = step.state.get(operand.base)
            if held and known and known.kind in (Kind.ELEMENT, Kind.ELSEWHERE, Kind.WORD):
                self._check_address(step, operand.base, held)
        if op.mnemonic in _CALLS:
            self._check_frame(step, step.operand("s").value, lasting)
        if op.mnemonic in _ALTS:
            for at in alt_entries(step):
                held = lasting.addresses.get(at)
                if held and held.age:
                    raise step.fail(f"the channel at {at}(fp) may be gone")
                address = lasting.addresses.get(at + WORD_SIZE)
                if address and address.age:
                    raise step.fail(
                        f"what the address at {at + WORD_SIZE}(fp) leads to may be gone"
                    )

    def _check_frame(self, step: Step, slot: int, lasting: Lasting) -> None:
        known = step.state.get(slot)
        is_frame = known is not None and known.kind in (Kind.FRAME, Kind.FOREIGN_FRAME)
        if is_frame and slot not in lasting.frames:
            raise step.fail(f"the frame at {slot}(fp) was dropped by a call of one made before it")

    def _check_address(self, step: Step, slot: int, held: Held) -> None:
        known = step.state[slot]
        if known.kind is Kind.WORD and held.holder.mode is not Mode.MP_INDIRECT:
            # A module's data, whose own type is looked at in any case.
            return
        is_data = known.kind is Kind.WORD
        is_known = (held.is_element or is_data) and held.holder.mode is not Mode.NONE
        if held.age is Age.GONE or (held.age and not is_known):
            raise step.fail(f"what the address at {slot}(fp) leads to may be gone")
        if held.age:
            holder = Operand(Mode.MP, held.holder.base) if is_data else held.holder
            kind = "Z" if is_data else "A"
            guard = Guard(holder, Of.PLACE, kind=kind, link=Operand(Mode.FP, slot))
            found = self.guards.setdefault(step.pc, [])
            if guard not in found:
                found.append(guard)

    # Effects

    def _after(self, step: Step, before: Lasting) -> Lasting:
        if not before.addresses and step.instruction.op.mnemonic not in _BEGINNING:
            return before
        addresses: Mapping[int, Held] = before.addresses
        if addresses:
            addresses = _kept(step, dict(addresses))
        addresses, frames = _made(step, addresses), _frames(step, before.frames)
        is_same = addresses is before.addresses and frames is before.frames
        return before if is_same else Lasting(addresses, frames)


def _kept(step: Step, addresses: dict[int, Held]) -> dict[int, Held]:
    """Return what lasts of addresses."""
    op = step.instruction.op
    for role in op.operands:
        operand = step.operand(role.place) if role.place in "smd" else None
        if operand is None or operand.mode in _NO_PLACE or not role.writes:
            continue
        is_pointer = TYPES[role.type].kind == "pointer"
        if operand.mode is Mode.FP:
            size = TYPES[role.type].size or step.layout.size
            if role.is_storage and op.role("m"):
                size = _extent(step)
            addresses = _overwritten(addresses, operand.value, size)
        if is_pointer or (role.is_storage and role.type != "O"):
            addresses = _stored(addresses, operand)
    if op.effect in (Effect.CALL, Effect.WAIT) or op.mnemonic in ("load", "nbalt"):
        addresses = _unsettled(addresses)
    if op.effect is Effect.CALL:
        to = step.state.get(-step.operand("s").value)
        if to is not None and to.kind is Kind.SLOT:
            addresses = _returned_to(step, to.number, addresses)
    return addresses


def _extent(step: Step) -> int:
    """Return how many bytes an instruction copies that says so itself."""
    number = step.operand("m").value
    op = step.instruction.op
    role = op.role("m")
    is_type = role is not None and role.type == "D"
    return step.found.layouts[number].size if is_type else number


def _made(step: Step, addresses: Mapping[int, Held]) -> Mapping[int, Held]:
    """Return addresses with the one that an instruction makes."""
    mnemonic, source = step.instruction.op.mnemonic, step.operand("s")
    if mnemonic in _INDICES:
        target = step.operand("m")
        if target.mode is Mode.FP:
            return {**addresses, target.value: Held(source, is_element=True)}
        return addresses
    target = step.operand("d")
    if target.mode is not Mode.FP or mnemonic not in ("lea", "movw"):
        return addresses
    if source.mode in _INDIRECT:
        base = Mode.FP if source.mode is Mode.FP_INDIRECT else Mode.MP
        above = addresses.get(source.base) if base is Mode.FP else None
        if mnemonic == "lea":
            return {**addresses, target.value: above or Held(Operand(base, source.base))}
        return {**addresses, target.value: Held(source)}
    if mnemonic == "movw" and source.mode is not Mode.IMMEDIATE:
        place = step.place(source)
        if place.layout and place.offset in place.layout.pointers:
            return {**addresses, target.value: Held(source)}
    return addresses


def _overwritten(addresses: dict[int, Held], start: int, size: int) -> dict[int, Held]:
    """Return what lasts when a part of the frame is written."""
    found = {}
    for slot, held in addresses.items():
        if start - WORD_SIZE < slot < start + size:
            continue
        holder = held.holder
        at = holder.base if holder.mode is Mode.FP_INDIRECT else holder.value
        is_own = holder.mode in (Mode.FP, Mode.FP_INDIRECT)
        is_gone = is_own and start - WORD_SIZE < at < start + size
        found[slot] = held._replace(age=Age.GONE) if is_gone else held
    return found


def _returned_to(step: Step, start: int, addresses: dict[int, Held]) -> dict[int, Held]:
    """Return what lasts when a result comes to the frame; that of another module may be long."""
    size = step.written(step.entered[0]) if step.entered else UNKNOWN
    if size < UNKNOWN:
        return _overwritten(addresses, start, size) if size else addresses
    found = _overwritten(addresses, start, step.layout.size)
    return {
        slot: held._replace(age=max(Age.DOUBTFUL, addresses[slot].age))
        if held.age is not addresses[slot].age
        else held
        for slot, held in found.items()
    }


def _stored(addresses: dict[int, Held], target: Operand) -> dict[int, Held]:
    """Return what lasts when a pointer is stored."""
    found = {}
    for slot, held in addresses.items():
        holder = held.holder
        age = held.age
        if target.mode is Mode.MP and holder.mode in (Mode.MP, Mode.MP_INDIRECT):
            is_same = target.value in (holder.value, holder.base)
            age = Age.GONE if is_same and holder.mode is Mode.MP else age
            age = max(age, Age.DOUBTFUL) if is_same else age
        elif target.mode in _INDIRECT and holder.mode is not Mode.FP:
            age = max(age, Age.DOUBTFUL)
        found[slot] = held._replace(age=age)
    return found


def _unsettled(addresses: dict[int, Held]) -> dict[int, Held]:
    """Return what lasts when others run."""
    found = {}
    for slot, held in addresses.items():
        is_own = held.holder.mode is Mode.FP
        found[slot] = held if is_own else held._replace(age=max(held.age, Age.DOUBTFUL))
    return found


def _frames(step: Step, frames: tuple[int, ...]) -> tuple[int, ...]:
    """Return the frames that wait behind an instruction."""
    mnemonic = step.instruction.op.mnemonic
    if mnemonic in ("frame", "mframe"):
        slot = step.operand("d").value
        return (*(s for s in frames if s != slot), slot)
    if mnemonic in _CALLS:
        slot = step.operand("s").value
        return frames[: frames.index(slot)] if slot in frames else frames
    return frames


def _joined(one: Lasting, other: Lasting) -> Lasting:
    """Return what lasts where two ways meet."""
    addresses = {}
    for slot in one.addresses.keys() & other.addresses.keys():
        first, second = one.addresses[slot], other.addresses[slot]
        holder = first.holder if first.holder == second.holder else Operand(Mode.NONE)
        age = max(first.age, second.age)
        addresses[slot] = Held(holder, age, first.is_element and second.is_element)
    frames = tuple(s for s in one.frames if s in other.frames)
    if frames != tuple(s for s in other.frames if s in one.frames):
        frames = ()
    return Lasting(addresses, frames)
