"""Random programs of many processes, which share everything that can be shared.

Each function is given some of what its caller has; it makes, links, sends, receives and spawns at
random, in its own module or in the other one. Many fail, and some handle that. They report to the
host, and ask it to kill other processes or groups, or to let a group hear of exceptions. A process
does little before it lets others run, so that all engines run them in the same order; only ``wild``
programs also sleep, and have no such order.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from llmbol_core.vm.assembly import parse_assembly
from llmbol_core.vm.module import Module

FRAME, RECORD, PAIR, REF, WORD, TEXT = range(1, 7)
"""Numbers of types: frames; records; pairs of a string and a word; the elements of arrays."""
S, R, AR, LR, CR, AS, CW, Z, LS, E, CP, AC = range(32, 80, 4)
"""Frame offsets of a string; a record; an array, a list and a channel of records; an array of
strings; a channel of words; a module; a list of strings; an exception; a channel of pairs; an array
of channels."""
POINTERS = (S, R, AR, LR, CR, AS, CW, Z, LS, E, CP, AC)
W = (80, 84, 88, 92)
AT, NEW, COUNT, RESULT, P, ALT = 96, 100, 104, 108, 112, 120
"""Frame offsets of an address, a new frame, a counter, the result of alt, a pair, an alt table."""
SIZE = 160
GIVEN = (S, R, AR, CR, CW, CP, AC)
"""What callers pass as arguments: all but lists."""
DATA = {S: 4, R: 8, AR: 12, CR: 16, CW: 20, CP: 24, LR: 28, AC: 32, Z: 36}
"""Offsets of the same things in the module data."""
IN_RECORD = {S: 0, R: 4, AR: 8, CR: 12, LR: 16}
"""Offsets of the same things in a record."""
HOST, WORDS = 40, (48, 52)
FUNCTIONS = ("tell", "kill", "killgrp", "group", "share", "sleep")

_MODULE = """
    module {name}
    entry 0,1
    desc $0,64,(0,4,8,12,16,20,24,28,32,36,40,44)
    desc $1,{size},({pointers},112,128,136,144)
    desc $2,24,(0,4,8,12,16)
    desc $3,8,(0)
    desc $4,4,(0)
    desc $5,4,""
    desc $6,4,(0)
    desc $7,40,""
    var @mp,64
    link 1,0,0x4244b354,"init"
    link 1,f0,1,"f"
    string @mp+0,"/{other}.dis"
    string @mp+4,"fail:x"
    string @mp+44,"$Host"
    ldts @ldt,2
    word @ldt+0,1
    ext @ldt+0,1,"f"
    word @ldt+0,{host}
"""


class Crowd:
    """Writes one module."""

    def __init__(self, chance: random.Random, name: str, is_wild: bool) -> None:
        self._chance, self._name, self._is_wild = chance, name, is_wild
        self._lines: list[str] = []
        self._labels = 0
        self._starts: list[int] = []
        """Where the statements of a function begin."""
        self._handlers: list[str] = []
        self._functions = chance.randrange(2, 6)
        self._ways: list[tuple[Callable[[], object], float]] = [
            (self._text, 4), (self._make, 6), (self._move, 6), (self._array, 4), (self._list, 4),
            (self._send, 4), (self._receive, 3), (self._alt, 7), (self._start, 5),
            (self._elsewhere, 3), (self._ask, 5), (self._raise, 1), (self._leave, 0.5),
            (self._skip, 3),
        ]  # fmt: skip

    def module(self) -> Module:
        """Return the module: ``init``, and the functions that it calls and spawns."""
        for number in range(-1, self._functions):
            self._emit("runt" if number < 0 else f"f{number}: runt")
            for slot in (COUNT, *W):
                self._emit(f"movw ${self._chance.randrange(4)},{slot}(fp)")
            if number < 0:
                self._begin()
                if self._chance.random() < 0.3:
                    self._ask(FUNCTIONS.index("share"))
            self._fill()
            self._body(self._chance.randrange(3, 7) if number < 0 else 0)
            self._emit("ret")
        head = _MODULE.format(
            name=self._name.upper(),
            other="b" if self._name == "a" else "a",
            size=SIZE,
            pointers=",".join(map(str, POINTERS)),
            host=len(FUNCTIONS),
        )
        host = [f'ext @ldt+0,"fn(n: int): int","{name}"' for name in FUNCTIONS]
        tables = [f"exceptions {len(self._handlers)}", *self._handlers]
        return parse_assembly("\n".join([*self._lines, head, *host, *tables]), self._name)

    def _emit(self, *texts: str) -> None:
        self._lines += "\n".join(texts).splitlines()

    def _handle(self, start: int) -> None:
        """Let an exception in a statement lead to the next one, or elsewhere in the function."""
        some, end = self._chance.random(), len(self._lines)
        to = self._chance.choice(self._starts) if some < 0.05 else end
        if some < 0.8:
            kind = FRAME if some > 0.75 else -1
            self._handlers.append(f"exception {start},{end},{E},{kind},0,0\n exctab *,{to}")
        elif some < 0.9:
            text = f'exception {start},{end},{E},-1,1,0\n exctab "fail:*",{to}\n exctab *,-1'
            self._handlers.append(text)

    # Operands

    def _place(self, slot: int) -> str:
        """Return an operand for a pointer of the kind that is at an offset of the frame."""
        where = self._chance.random()
        if slot in IN_RECORD and where < 0.25:
            base = self._chance.choice((f"{R}(fp)", f"{R}(fp)", f"{DATA[R]}(mp)"))
            return f"{IN_RECORD[slot]}({base})"
        if slot in DATA and where < 0.45:
            return f"{DATA[slot]}(mp)"
        return f"{slot}(fp)"

    def _word(self) -> str:
        choice = self._chance.choice
        kind = self._chance.randrange(4)
        if kind == 0:
            return f"${choice((0, 1, 2, 3, 5))}"
        return f"{choice(WORDS)}(mp)" if kind == 1 else f"{choice(W)}(fp)"

    def _value(self) -> tuple[str, str]:
        """Return operands for a channel, and for what can be sent over it or received from it."""
        channel = self._chance.choice((CR, CR, CW, CP))
        if channel == CR:
            return self._place(CR), self._place(R)
        if channel == CW:
            return self._place(CW), self._chance.choice((f"{W[0]}(fp)", f"{WORDS[0]}(mp)"))
        return self._place(CP), f"{P}(fp)"

    # Statements

    def _begin(self) -> None:
        """Fill the module data, most of it."""
        self._emit(f"load 44(mp),$1,{HOST}(mp)")
        for slot in (R, R, CR, CW, CP, AR, AC):
            if self._chance.random() < 0.9:
                self._new(slot, f"{DATA[slot]}(mp)")

    def _fill(self) -> None:
        """Make some of what a function works with, in place of what it was given."""
        for slot, often in ((R, 0.8), (CR, 0.3), (CW, 0.3), (CP, 0.3), (AR, 0.3)):
            if self._chance.random() < often:
                self._new(slot, f"{slot}(fp)")

    def _body(self, starts: int) -> None:
        """Write statements at random, after some that call or spawn."""
        count, label = self._chance.choice((1, 1, 2, 4)), self._label()
        self._emit(f"movw $0,{COUNT}(fp)", f"{label}: runt")
        self._starts = []
        ways, weights = zip(*self._ways, strict=True)
        chosen = self._chance.choices(ways, weights, k=self._chance.randrange(3, 16))
        for way in [self._start] * starts + chosen:
            self._starts.append(len(self._lines))
            way()
            self._handle(self._starts[-1])
        self._emit(f"addw $1,{COUNT}(fp)", f"bltw {COUNT}(fp),${count},{label}")

    def _label(self) -> str:
        self._labels += 1
        return f"l{self._labels}"

    def _skip(self) -> None:
        label = self._label()
        self._emit(f"beqw {self._word()},{self._word()},{label}")
        self._chance.choice((self._make, self._move, self._send, self._start))()
        self._emit(f"{label}: runt")

    def _text(self) -> None:
        text, target = self._place(S), self._place(S)
        self._emit(
            self._chance.choice((
                f"cvtwc {self._word()},{target}",
                f"addc {text},{S}(fp),{target}",
                f"insc $233,$0,{target}",
                f"slicec $0,$1,{target}",
                f"movp {text},{P}(fp)",
                f"movp {P}(fp),{target}",
                f"consp {text},{LS}(fp)\n headp {LS}(fp),{target}",
                f"newa $2,${TEXT},{AS}(fp)\n indx {AS}(fp),{AT}(fp),$1\n movp {text},0({AT}(fp))",
            ))
        )  # fmt: skip

    def _make(self) -> None:
        slot = self._chance.choice((R, R, CR, CW, CP, AR, AC))
        self._new(slot, self._place(slot))

    def _new(self, slot: int, place: str) -> None:
        """Make an object of the kind that is at an offset of the frame."""
        room = self._chance.choice(("$0", "$1", "$2", "$3"))
        code = {R: f"new ${RECORD}", CR: f"newcp {room}", CW: f"newcw {room}",
                CP: f"newcmp ${PAIR},{room}"}.get(slot, f"newa $3,${REF}")  # fmt: skip
        self._emit(f"{code},{place}")

    def _move(self) -> None:
        slot = self._chance.choice((S, R, R, AR, LR, CR, CR, CW, CP, AC))
        self._emit(f"movp {self._place(slot)},{self._place(slot)}")

    def _array(self) -> None:
        array, record, index = self._place(AR), self._place(R), self._word()
        self._emit(
            self._chance.choice((
                f"indx {array},{AT}(fp),{index}\n movp {record},0({AT}(fp))",
                f"indx {array},{AT}(fp),{index}\n movp 0({AT}(fp)),{record}",
                f"slicea $0,{index},{self._place(AR)}",
                f"slicela {array},$0,{self._place(AR)}",
                f"indx {self._place(AC)},{AT}(fp),{index}\n movp {self._place(CR)},0({AT}(fp))",
            ))
        )  # fmt: skip

    def _list(self) -> None:
        list_ = self._place(LR)
        self._emit(
            self._chance.choice((
                f"consp {self._place(R)},{list_}",
                f"headp {list_},{self._place(R)}",
                f"tail {list_},{self._place(LR)}",
            ))
        )  # fmt: skip

    def _send(self) -> None:
        channel, value = self._value()
        self._emit(f"send {value},{channel}")

    def _receive(self) -> None:
        channel, value = self._value()
        self._emit(f"recv {channel},{value}")

    def _alt(self) -> None:
        """Wait for some channels, or for those in an array."""
        count = self._chance.randrange(1, 4)
        sends = self._chance.randrange(count + 1)
        self._emit(f"movw ${sends},{ALT}(fp)", f"movw ${count - sends},{ALT + 4}(fp)")
        for number in range(count):
            channel, value = self._value()
            at = ALT + 8 * (number + 1)
            self._emit(f"movp {channel},{at}(fp)", f"lea {value},{at + 4}(fp)")
        name = self._chance.choice(("alt", "nbalt", "nbalt"))
        self._emit(f"{name} {ALT}(fp),{RESULT}(fp)")

    def _arguments(self) -> None:
        for slot in GIVEN:
            if self._chance.random() < 0.6:
                self._emit(f"movp {self._place(slot)},{slot}({NEW}(fp))")
            if self._chance.random() < 0.02:
                label = self._label()
                self._emit(f"beqw {self._word()},$1,{label}")
                self._raise()
                self._emit(f"{label}: runt")

    def _start(self) -> None:
        """Call a function or start a process, of this module."""
        self._emit(f"frame ${FRAME},{NEW}(fp)")
        self._arguments()
        name = self._chance.choice(("call", "spawn", "spawn"))
        self._emit(f"{name} {NEW}(fp),f{self._chance.randrange(self._functions)}")

    def _elsewhere(self) -> None:
        """The same with another module."""
        handle = self._chance.choice((f"{Z}(fp)", f"{DATA[Z]}(mp)"))
        if self._chance.random() < 0.7:
            self._emit(f"load 0(mp),$0,{handle}")
        self._emit(f"mframe {handle},$0,{NEW}(fp)")
        self._arguments()
        name = self._chance.choice(("mcall", "mspawn"))
        self._emit(f"{name} {NEW}(fp),$0,{handle}")

    def _ask(self, number: int = -1) -> None:
        """Call a function of the host, a random one unless given."""
        weights = (6, 5, 2, 1, 2, 3 if self._is_wild else 0)
        if number < 0:
            number = self._chance.choices(range(len(FUNCTIONS)), weights)[0]
        self._emit(
            f"mframe {HOST}(mp),${number},{NEW}(fp)",
            f"movw {self._word()},32({NEW}(fp))",
            f"lea {RESULT}(fp),16({NEW}(fp))",
            f"mcall {NEW}(fp),${number},{HOST}(mp)",
        )

    def _raise(self) -> None:
        self._emit(f"raise {self._place(self._chance.choice((S, R)))}")

    def _leave(self) -> None:
        self._emit(self._chance.choice(("exit", "ret", f"self {Z}(fp)")))


def crowd(seed: int, is_wild: bool = False) -> dict[str, Module]:
    """Return the program of a seed: modules a and b, which load each other."""
    chance = random.Random(seed)
    return {name: Crowd(chance, name, is_wild).module() for name in "ab"}
