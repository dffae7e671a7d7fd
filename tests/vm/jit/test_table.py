"""The whole instruction table on random operands: machine code does what the interpreter does."""

from __future__ import annotations

import ctypes
import math
import random
import struct
from array import array
from types import SimpleNamespace

import pytest

import llmbol_core.vm.interpreter  # noqa: F401 -- registers the handlers
from llmbol_core.errors import Trap
from llmbol_core.native import llvm
from llmbol_core.vm.heaptypes import HeapType
from llmbol_core.vm.ieee import AT_START, Arithmetic
from llmbol_core.vm.isa import OPCODES, OPS, PARAMETERS, Effect, Mode
from llmbol_core.vm.jit.calls import Results
from llmbol_core.vm.jit.lowering.lowerer import LOWERINGS, with_helpers
from llmbol_core.vm.jit.modulecode import NATIVE, Code
from llmbol_core.vm.jit.region import Region
from llmbol_core.vm.jit.runtime import LEAST_LEFT, RECORD_WORDS, State, Status
from llmbol_core.vm.jit.unit import Unit
from llmbol_core.vm.module import ABSENT, Instruction, Module, Operand
from llmbol_core.vm.objects import STACK, Heap
from llmbol_core.vm.steps import StepMaker

SCALARS = [
    op for op in OPS if op.meaning is not None and all(letter != "C" for _, letter in op.reads)
]
PLACES = {"s": 40, "m": 48, "d": 56}
SLOT = 64
EXIT = Instruction(OPCODES["exit"])
FRAME = HeapType(128, ())
WORDS = [0, 1, -1, 2, -2, 7, 31, 32, 33, -31, 255, 256, 1 << 31, (1 << 31) - 1, -(1 << 31)]
REALS = [0.0, -0.0, 1.0, -1.5, 0.5, 2.5, 1e10, -1e10, 2.0**31, -(2.0**31), 2.0**63, 1e300, math.inf]


def instruction(op, mode):
    """Return an instruction with all operands of one kind."""
    operands = {}
    for place, offset in PLACES.items():
        operand = Operand(mode, offset, SLOT if mode is Mode.FP_INDIRECT else 0)
        operands[place] = operand if op.role(place) else ABSENT
    if op.effect is Effect.BRANCH:
        operands["d"] = Operand(Mode.IMMEDIATE, 1)
    return Instruction(op.number, operands["s"], operands["m"], operands["d"])


MODES = (Mode.FP, Mode.MP, Mode.FP_INDIRECT)
CASES = [(op, mode) for op in SCALARS for mode in MODES]
NAMES = [f"{op.mnemonic}-{mode.name}" for op, mode in CASES]


@pytest.fixture(scope="module")
def native():
    """Return a callable for each case, all compiled in one go."""
    # At 0 something that no function reaches, at 1 where branches go.
    code = [EXIT, EXIT]
    for op, mode in CASES:
        code += [instruction(op, mode), EXIT]
    shared = Code(Module("Test", tuple(code)), FRAME)
    results, starts = Results(shared), [2 + 2 * number for number in range(len(CASES))]
    unit = Unit({pc: Region(shared, pc, FRAME, results) for pc in starts})
    for region in unit.regions.values():
        # No instruction reads what the test looks at.
        region.live = {pc: set(region.slots) for pc in region.pcs}
    names = [f"f{pc}" for pc in starts]
    library = llvm.load_object(llvm.compile_text(with_helpers(unit.text()), 1), names)
    functions = {name: entry(address) for name, address in library.addresses.items()}
    return library, functions


def entry(address):
    """Return a Python callable for how machine code is entered."""
    pointer, word, big = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int64
    return llvm.function(address, big, pointer, pointer, word, big, word)


class Bench:
    """A heap with a frame, module data and a record; the same for both engines."""

    def __init__(self):
        self.heap = Heap(1 << 16)
        self.arithmetic, self.process = Arithmetic(), SimpleNamespace(floating=AT_START)
        self.maker = StepMaker(self, self.heap)
        self.fp, self.mp, self.record = (self.heap.new_object(STACK, 128) for _ in range(3))
        self.state = array("q", bytes(8 * RECORD_WORDS))

    def fill(self, values):
        for base in (self.fp, self.mp, self.record):
            self.heap.view(base, 128)[:] = values
        self.heap.set_pointer(self.fp + SLOT, self.record)

    def contents(self):
        return b"".join(bytes(self.heap.view(b, 128)) for b in (self.fp, self.mp, self.record))

    def interpret(self, what):
        try:
            return self.maker.step(what, [], 0)(self.fp >> 2, self.mp >> 2)
        except Trap:
            return "trap"

    def enter(self, function):
        self.state[State.MP] = self.mp
        self.state[State.TOP] = self.fp + FRAME.size
        left = function(self.heap.base, self.state.buffer_info()[0], self.fp, 1 << 20, 0)
        assert left < LEAST_LEFT
        assert self.state[State.STATUS] == Status.INTERPRET
        return self.state[State.PC]


def random_frame(op, chance):
    """Return bytes of a frame whose operands are corners or random."""
    frame = bytearray(chance.randbytes(128))
    layouts = {"B": "B", "H": "h", "W": "i", "L": "q", "R": "f", "F": "d"}
    for place, letter in op.reads:
        offset = (PLACES | PARAMETERS)[place]
        if letter in "FR" or chance.random() < 0.7:
            value = chance.choice(REALS if letter in "FR" else WORDS)
            if letter == "R":
                value = min(value, 1e30)
            elif letter not in "F":
                bits = 8 * struct.calcsize(layouts[letter])
                value = (value + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)
                value = value & 255 if letter == "B" else value
            struct.pack_into(f"={layouts[letter]}", frame, offset, value)
    return bytes(frame)


def same(found, wanted, op):
    """Whether two contents agree; all that are no numbers are alike."""
    if found == wanted or op.result not in "FR":
        return found == wanted
    layout, size = ("=d", 8) if op.result == "F" else ("=f", 4)
    for base in (0, 128, 256):
        at = base + PLACES["d"]
        pair = [struct.unpack_from(layout, data, at)[0] for data in (found, wanted)]
        if found[at : at + size] != wanted[at : at + size] and not all(map(math.isnan, pair)):
            return False
        found, wanted = (d[:at] + bytes(size) + d[at + size :] for d in (found, wanted))
    return found == wanted


@pytest.mark.parametrize("number", range(len(CASES)), ids=NAMES)
def test_scalar_instructions_agree(number, native):
    op, mode = CASES[number]
    pc = 2 + 2 * number
    function = native[1][f"f{pc}"]
    bench, chance = Bench(), random.Random(number)
    what = instruction(op, mode)
    for _ in range(40):
        frame = random_frame(op, chance)
        bench.fill(frame)
        wanted_pc = bench.interpret(what)
        wanted = bench.contents()
        bench.fill(frame)
        found_pc = bench.enter(function)
        if wanted_pc == "trap":
            assert found_pc == pc
        elif op.effect is Effect.BRANCH:
            assert found_pc == (1 if wanted_pc == 1 else pc + 1)
        else:
            assert found_pc == pc + 1
            assert same(bench.contents(), wanted, op), (op.mnemonic, frame.hex())


def test_every_native_instruction_is_lowered(native):
    assert set(LOWERINGS) == NATIVE
