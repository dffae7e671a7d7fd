"""Random programs that the verifier accepts: loops, arrays, lists, calls, and what fails there.

``main`` returns a number into which everything goes that it has computed. Programs may trap or run
without an end; engines must agree on where.
"""

from __future__ import annotations

import random

from llmbol_core.vm.assembly import parse_assembly
from llmbol_core.vm.module import Module

_TYPES = """
    desc $0,64,(0,4,8,12)
    desc $1,160,(32,36,40,44,48,52)
    desc $2,8,(0)
    desc $3,4,""
    desc $4,8,""
    desc $5,1,""
    desc $6,80,(32)
    desc $7,48,""
    desc $8,4,(0)
"""
_MAIN = """
    entry 0,1
    var @mp,64
    word @mp+16,7
    word @mp+20,-3
    long @mp+24,1234567890123
    real @mp+32,2.5
    module Random
    link 1,0,"fn(): int","main"
    ldts @ldt,0
"""
_ARRAYS = {"w": 32, "b": 36, "f": 40}
_WORDS = (56, 60, 64, 68, 72)
_COUNTERS = (76, 80, 84)
_ELEMENT, _INDEX, _LENGTH, _FRAME = 88, 92, 96, 100
_BIG, _REAL = 104, 112
_RESULT = 120
_OPERATIONS = ("add", "sub", "mul", "and", "or", "xor", "div", "mod", "shl", "shr", "lsr")
_RELATIONS = ("beq", "bne", "blt", "ble", "bgt", "bge")


class _Program:
    """Writes one program."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.lines: list[str] = []
        self.labels = 0
        self.depth = 0
        self.in_use: list[int] = []

    def emit(self, text: str) -> None:
        self.lines.append(f"    {text}")

    def label(self) -> str:
        self.labels += 1
        return f"l{self.labels}"

    def place(self, label: str) -> None:
        self.lines.append(f"{label}:")

    def word(self) -> str:
        """Return an operand that is a word."""
        chance = self.chance
        kind = chance.randrange(10)
        if kind < 2:
            return f"${chance.choice((0, 1, 2, 3, 5, 7, 31, 100, -1, -5))}"
        if kind == 2:
            return f"{chance.choice((16, 20, 40))}(mp)"
        if kind < 6 and self.in_use:
            return f"{chance.choice(self.in_use)}(fp)"
        return f"{chance.choice(_WORDS)}(fp)"

    def statements(self, count: int) -> None:
        for _ in range(count):
            self.statement()

    def statement(self) -> None:
        kinds = [self.arithmetic, self.arithmetic, self.element, self.element, self.choice]
        kinds += [self.wide, self.listed, self.call, self.data]
        if self.depth < 3:
            kinds += [self.loop] * (3 - self.depth)
        self.chance.choice(kinds)()

    def arithmetic(self) -> None:
        name = self.chance.choice(_OPERATIONS)
        target = f"{self.chance.choice(_WORDS)}(fp)"
        self.emit(f"{name}w {self.word()},{self.register()},{target}")

    def register(self) -> str:
        return f"{self.chance.choice(_WORDS + tuple(self.in_use))}(fp)"

    def data(self) -> None:
        if self.chance.random() < 0.5:
            self.emit(f"movw {self.register()},40(mp)")
        else:
            self.emit(f"addw {self.word()},{self.chance.choice(_WORDS)}(fp)")

    def wide(self) -> None:
        emit, chance = self.emit, self.chance
        if chance.random() < 0.5:
            emit(f"cvtwl {self.register()},{_RESULT}(fp)")
            emit(f"{chance.choice(('add', 'mul', 'xor', 'sub'))}l {_RESULT}(fp),{_BIG}(fp)")
            emit(f"cvtlw {_BIG}(fp),{chance.choice(_WORDS)}(fp)")
        else:
            emit(f"cvtwf {self.register()},{_RESULT}(fp)")
            emit(f"{chance.choice(('add', 'mul', 'sub', 'div'))}f {_RESULT}(fp),{_REAL}(fp)")
            emit(f"cvtfw {_REAL}(fp),{chance.choice(_WORDS)}(fp)")

    def element(self) -> None:
        """Read or write an element, at an index that is mostly inside."""
        chance, emit = self.chance, self.emit
        kind = chance.choice("wwwbf")
        index = f"{_INDEX}(fp)"
        if self.in_use and chance.random() < 0.7:
            index = f"{chance.choice(self.in_use)}(fp)"
            if chance.random() < 0.4:
                name = chance.choice(("add", "sub"))
                emit(f"{name}w ${chance.randrange(3)},{index},{_INDEX}(fp)")
                index = f"{_INDEX}(fp)"
        else:
            emit(f"andw $7,{self.register()},{index}")
        emit(f"ind{kind} {_ARRAYS[kind]}(fp),{_ELEMENT}(fp),{index}")
        there = f"0({_ELEMENT}(fp))"
        word = f"{chance.choice(_WORDS)}(fp)"
        how = chance.randrange(3)
        if kind == "w":
            emit(("movw {1},{0}", "movw {0},{1}", "addw {1},{0}")[how].format(there, word))
        elif kind == "b":
            emit(("cvtwb {1},{0}", "cvtbw {0},{1}", "movb {0},{0}")[how].format(there, word))
        else:
            real = f"{_REAL}(fp)"
            emit(("movf {1},{0}", "movf {0},{1}", "addf {1},{0}")[how].format(there, real))

    def choice(self) -> None:
        other, done = self.label(), self.label()
        relation = self.chance.choice(_RELATIONS)
        self.emit(f"{relation}w {self.register()},{self.word()},{other}")
        self.statements(self.chance.randrange(1, 3))
        self.emit(f"jmp {done}")
        self.place(other)
        self.statements(self.chance.randrange(0, 3))
        self.place(done)
        self.emit("runt")

    def loop(self) -> None:
        """Count up or down, the test before or behind the body."""
        chance, emit = self.chance, self.emit
        slot = _COUNTERS[self.depth]
        step = chance.choice((1, 1, 1, 2, 3, -1, -1, -2))
        first = chance.choice((0, 0, 1, 5, -2)) if step > 0 else chance.choice((39, 20, 9, 45))
        emit(f"movw ${first},{slot}(fp)")
        head, done = self.label(), self.label()
        is_first = chance.random() < 0.7
        bound = chance.choice((f"${chance.choice((10, 40, 44, 7))}", f"{_LENGTH}(fp)", self.word()))
        if step < 0:
            bound = chance.choice(("$0", "$-1", "$3", self.word()))
        self.place(head)
        emit("runt")
        if bound == f"{_LENGTH}(fp)":
            emit(f"lena {chance.choice((32, 36, 40))}(fp),{_LENGTH}(fp)")
        if is_first:
            relation = chance.choice(("bge", "bgt") if step > 0 else ("ble", "blt"))
            emit(f"{relation}w {slot}(fp),{bound},{done}")
        self.depth += 1
        self.in_use.append(slot)
        plain = chance.random() < 0.5
        for _ in range(chance.randrange(1, 4)):
            self.element() if plain else self.statement()
        self.in_use.pop()
        self.depth -= 1
        emit(f"addw ${step},{slot}(fp)")
        if is_first:
            emit(f"jmp {head}")
        else:
            relation = "blt" if step > 0 else "bgt"
            emit(f"{relation}w {slot}(fp),{bound},{head}")
        self.place(done)
        emit("runt")

    def listed(self) -> None:
        """Put a word before a list and take another from it."""
        chance, emit = self.chance, self.emit
        emit(f"consw {self.register()},44(fp)")
        if chance.random() < 0.5:
            emit(f"headw 44(fp),{chance.choice(_WORDS)}(fp)")
        if chance.random() < 0.5:
            emit("tail 44(fp),44(fp)")

    def call(self) -> None:
        emit, chance = self.emit, self.chance
        target = f"{chance.choice(_WORDS)}(fp)"
        if chance.random() < 0.5:
            emit(f"frame $7,{_FRAME}(fp)")
            emit(f"movw {self.word()},32({_FRAME}(fp))")
            emit(f"subw {self.word()},{self.register()},36({_FRAME}(fp))")
            emit(f"lea {_RESULT}(fp),16({_FRAME}(fp))")
            emit(f"call {_FRAME}(fp),gcd")
        else:
            emit(f"frame $6,{_FRAME}(fp)")
            emit(f"movp 32(fp),32({_FRAME}(fp))")
            emit(f"andw $15,{self.register()},36({_FRAME}(fp))")
            emit(f"lea {_RESULT}(fp),16({_FRAME}(fp))")
            emit(f"call {_FRAME}(fp),sum")
        emit(f"movw {_RESULT}(fp),{target}")

    def text(self) -> str:
        emit = self.emit
        for number, slot in enumerate(_WORDS):
            emit(f"movw ${self.chance.randrange(-9, 99) + number},{slot}(fp)")
        for slot in (*_COUNTERS, _INDEX, _LENGTH, _RESULT):
            emit(f"movw $0,{slot}(fp)")
        emit(f"movl 24(mp),{_BIG}(fp)")
        emit(f"movf 32(mp),{_REAL}(fp)")
        for kind, number in (("w", 3), ("b", 5), ("f", 4)):
            emit(f"newaz ${self.chance.choice((40, 40, 41, 8))},${number},{_ARRAYS[kind]}(fp)")
        self.statements(self.chance.randrange(4, 9))
        for slot in _WORDS:
            emit(f"mulw $31,{_INDEX}(fp)")
            emit(f"xorw {slot}(fp),{_INDEX}(fp)")
        emit(f"frame $6,{_FRAME}(fp)")
        emit(f"movp 32(fp),32({_FRAME}(fp))")
        emit(f"movw $0,36({_FRAME}(fp))")
        emit(f"lea {_RESULT}(fp),16({_FRAME}(fp))")
        emit(f"call {_FRAME}(fp),sum")
        emit(f"xorw {_RESULT}(fp),{_INDEX}(fp),0(16(fp))")
        emit("ret")
        return "\n".join(self.lines)


_FUNCTIONS = """
gcd: bnew $0,32(fp),more
    movw 36(fp),0(16(fp))
    ret
more: frame $7,40(fp)
    modw 32(fp),36(fp),32(40(fp))
    movw 32(fp),36(40(fp))
    lea 0(16(fp)),16(40(fp))
    call 40(fp),gcd
    ret
sum: lena 32(fp),44(fp)
    movw $0,48(fp)
next: bgew 36(fp),44(fp),over
    indw 32(fp),52(fp),36(fp)
    mulw $3,48(fp)
    addw 0(52(fp)),48(fp)
    addw $1,36(fp)
    jmp next
over: movw 48(fp),0(16(fp))
    ret
"""


def random_program(seed: int) -> Module:
    """Return the program of a seed."""
    text = f"{_Program(seed).text()}\n{_FUNCTIONS}\n{_TYPES}\n{_MAIN}"
    return parse_assembly(text, "Random")
