"""The meanings of instructions on reals for processes that are careful of them, as LLVM code.

Each operation that rounds is a function that sets the processor's rounding, does one instruction,
reads what exceptions it had and puts everything back, in a single piece of assembly: nobody else
ever sees another rounding, and LLVM moves and folds nothing. The exceptions of an instruction are
collected in ``%raised``; if one of them is wanted, the instruction is left to Python, which raises.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping

from llmbol_core.vm.ieee import EXCEPTIONS, HAPPENED, INEXACT, INVALID, ROUNDING, UNDERFLOW, WATCHED
from llmbol_core.vm.isa import TYPES, Op
from llmbol_core.vm.jit.careful import IS_ARM
from llmbol_core.vm.jit.emitter import Emitter, constant, llvm_type
from llmbol_core.vm.jit.lowering.expressions import Lowering
from llmbol_core.vm.jit.runtime import State

PREFIX = "@careful_"
_STRICT = ROUNDING | INEXACT | WATCHED
"""What of a process's word makes it worth knowing of each result how it was rounded."""
_WORD = int(State.FLOATING)
_ONE, _EXPONENT = 1 << 52, 0x7FF << 52
_UNSURE = 1 << 5
"""A result of which the processor tells otherwise whether it is tiny: for Python."""
_NAMES: dict[type[ast.AST], str] = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div"
}  # fmt: skip
_X86 = {
    "add": "addsd $2, $0", "sub": "subsd $2, $0", "mul": "mulsd $2, $0", "div": "divsd $2, $0",
    "real": "cvtsi2sdq $1, $0", "single": "cvtsd2ss $1, $0",
}  # fmt: skip
_ARM = {
    "add": "fadd ${0:d}, ${3:d}, ${4:d}", "sub": "fsub ${0:d}, ${3:d}, ${4:d}",
    "mul": "fmul ${0:d}, ${3:d}, ${4:d}", "div": "fdiv ${0:d}, ${3:d}, ${4:d}",
    "real": "scvtf ${0:d}, $3", "single": "fcvt ${0:s}, ${3:d}",
}  # fmt: skip
_OUTSIDE = {"W": (-(2.0**31) - 1, 2.0**31), "L": (math.nextafter(-(2.0**63), -math.inf), 2.0**63)}
"""The reals next to those that have a whole part of a type."""
_OPERANDS = {"real": ("i64",), "single": ("double",)}
_TWO = ("double", "double")
_RESULTS = {"single": "float"}


def raised_room() -> str:
    """Return the instruction that makes room for the exceptions of an instruction."""
    return "%raised = alloca i32"


def lower_carefully(meaning: ast.expr, op: Op, operands: Mapping[str, str], out: Emitter) -> str:
    """Emit the code for a meaning, given the values of the operands; return the result's name."""
    out.emit("store i32 0, ptr %raised")
    result = _CarefulLowering(op, operands, out).lower(
        meaning, op.result if op.result in TYPES else "W"
    )
    raised = out.value("load i32, ptr %raised")
    note, go_on = out.label(), out.label()
    out.branch(out.value(f"icmp eq i32 {raised}, 0"), go_on, note)
    out.begin(note)
    out.guard(out.value(f"call i1 {PREFIX}traps(ptr %s, i32 {raised})"))
    out.jump(go_on)
    out.begin(go_on)
    return result


class _CarefulLowering(Lowering):
    """Lowers one instruction's meaning, and collects exceptions."""

    def _note(self, raised: str) -> None:
        before = self._out.value("load i32, ptr %raised")
        self._out.emit(f"store i32 {self._out.value(f'or i32 {before}, {raised}')}, ptr %raised")

    def _note_if(self, condition: str, exception: int) -> None:
        self._note(self._out.value(f"select i1 {condition}, i32 {exception}, i32 0"))

    def _computed(self, name: str, *operands: str) -> str:
        """Emit a call of a function that is rounded."""
        pair = self._pair(name, *operands)
        kind = f"{{{_RESULTS.get(name, 'double')}, i32}}"
        self._note(self._out.value(f"extractvalue {kind} {pair}, 1"))
        return self._out.value(f"extractvalue {kind} {pair}, 0")

    def _pair(self, name: str, *operands: str) -> str:
        """Return the name of a result with its exceptions."""
        kinds = _OPERANDS.get(name, _TWO)
        given = "".join(f", {k} {v}" for k, v in zip(kinds, operands, strict=True))
        pair = f"{{{_RESULTS.get(name, 'double')}, i32}}"
        return self._out.value(f"call {pair} {PREFIX}{name}(ptr %s{given})")

    def _real(self, how: ast.operator, left: str, right: str) -> str:
        """Emit an operation: the plain one where that is enough and its result is normal."""
        out = self._out
        try_it, look, slow, done = out.label(), out.label(), out.label(), out.label()
        word = out.value(f"load i64, ptr {out.value(f'getelementptr i64, ptr %s, i64 {_WORD}')}")
        strict = out.value(f"icmp ne i64 {out.value(f'and i64 {word}, {_STRICT}')}, 0")
        out.branch(strict, slow, try_it)
        out.begin(try_it)
        plain = super()._real(how, left, right)
        out.jump(look)
        out.begin(look)
        bits = out.value(f"bitcast double {plain} to i64")
        exponent = out.value(f"and i64 {bits}, {_EXPONENT}")
        under = out.value(f"sub i64 {exponent}, {_ONE}")
        is_normal = out.value(f"icmp ult i64 {under}, {_EXPONENT - _ONE}")
        out.branch(is_normal, done, slow)
        out.begin(slow)
        pair = self._pair(_NAMES[type(how)], left, right)
        rounded = out.value(f"extractvalue {{double, i32}} {pair}, 0")
        raised = out.value(f"extractvalue {{double, i32}} {pair}, 1")
        out.jump(done)
        out.begin(done)
        result = out.value(f"phi double [{plain}, %{look}], [{rounded}, %{slow}]")
        self._note(out.value(f"phi i32 [0, %{look}], [{raised}, %{slow}]"))
        return result

    def _power(self, x: str, n: str, letter: str) -> str:
        """Emit repeated squaring, low bits of the exponent first, which stops with the last one."""
        if letter != "F":
            return super()._power(x, n, letter)
        out, one = self._out, constant(1, "F")
        is_negative = out.value(f"icmp slt i32 {n}, 0")
        minus = out.value(f"sub i32 0, {n}")
        count = out.value(f"select i1 {is_negative}, i32 {minus}, i32 {n}")
        result = self._product(x, count, one)
        positive, invert, done = out.block, out.label(), out.label()
        out.branch(is_negative, invert, done)
        out.begin(invert)
        inverse = self._real(ast.Div(), one, result)
        inverted = out.block
        out.jump(done)
        out.begin(done)
        return out.value(f"phi double [{result}, %{positive}], [{inverse}, %{inverted}]")

    def _product(self, x: str, count: str, one: str) -> str:
        """Emit a power that is not negative; leave it in a block of its own."""
        out = self._out
        head, odd, even, more, over = (out.label() for _ in range(5))
        result, square, rest = (f"%{head}.{name}" for name in ("r", "x", "n"))
        before = out.block
        out.branch(out.value(f"icmp eq i32 {count}, 0"), over, head)
        out.begin(head)
        at = len(out.lines)
        out.lines += ["", "", ""]
        out.branch(out.value(f"trunc i32 {rest} to i1"), odd, even)
        out.begin(odd)
        product = self._real(ast.Mult(), result, square)
        multiplied = out.block
        out.jump(even)
        out.begin(even)
        found = out.value(f"phi double [{result}, %{head}], [{product}, %{multiplied}]")
        half = out.value(f"lshr i32 {rest}, 1")
        out.branch(out.value(f"icmp eq i32 {half}, 0"), over, more)
        out.begin(more)
        next_square = self._real(ast.Mult(), square, square)
        rows = ((result, "double", one, found), (square, "double", x, next_square),
                (rest, "i32", count, half))  # fmt: skip
        for place, (name, kind, first, again) in enumerate(rows, at):
            out.lines[place] = f" {name} = phi {kind} [{first}, %{before}], [{again}, %{out.block}]"
        out.jump(head)
        out.begin(over)
        return out.value(f"phi double [{one}, %{before}], [{found}, %{even}]")

    def _compare_reals(self, name: str, x: str, y: str) -> str:
        if name in ("eq", "ne"):
            for value in (x, y):
                self._note(self._out.value(f"call i32 {PREFIX}signals(double {value})"))
        else:
            self._note_if(self._out.value(f"fcmp uno double {x}, {y}"), INVALID)
        return super()._compare_reals(name, x, y)

    def _convert(self, value: str, source: str, target: str) -> str:
        if target == "F" and source == "L":
            return self._computed("real", value)
        if target == "R" and source == "F":
            return self._computed("single", value)
        return super()._convert(value, source, target)

    def _truncate(self, value: str, target: str) -> str:
        out, found = self._out, super()._truncate(value, target)
        least, beyond = _OUTSIDE[target]
        large = out.value(f"fcmp uge double {value}, {constant(beyond, 'F')}")
        small = out.value(f"fcmp ule double {value}, {constant(least, 'F')}")
        outside = out.value(f"or i1 {large}, {small}")
        back = out.value(f"sitofp {llvm_type(target)} {found} to double")
        differs = out.value(f"fcmp une double {back}, {value}")
        inexact = out.value(f"select i1 {differs}, i32 {INEXACT}, i32 0")
        self._note(out.value(f"select i1 {outside}, i32 {INVALID}, i32 {inexact}"))
        return found


# The functions


def helpers() -> str:
    """Return the text of the functions that this code calls."""
    return "\n".join([_COMMON, *(_function(name) for name in _X86)])


def _function(name: str) -> str:
    kinds, result = _OPERANDS.get(name, _TWO), _RESULTS.get(name, "double")
    given = "".join(f", {kind} %x{n}" for n, kind in enumerate(kinds))
    passed = ", ".join(f"{kind} %x{n}" for n, kind in enumerate(kinds))
    body = _on_arm(name, passed, result) if IS_ARM else _on_x86(name, passed, result)
    return f"""
define internal {{{result}, i32}} {PREFIX}{name}(ptr %s{given}) noinline {{
 %wp = getelementptr i64, ptr %s, i64 {State.FLOATING:d}
 %floating = load i64, ptr %wp
 %control = trunc i64 %floating to i32
{body}
{_tiny(result)}
 %all = or i32 %raised, %tiny
 %first = insertvalue {{{result}, i32}} undef, {result} %r, 0
 %both = insertvalue {{{result}, i32}} %first, i32 %all, 1
 ret {{{result}, i32}} %both
}}
"""


def _on_x86(name: str, passed: str, result: str) -> str:
    is_unary = name in _OPERANDS
    saved, word = (2, 3) if is_unary else (3, 4)
    taken = ("r" if name == "real" else "x") if is_unary else "0,x"
    steps = (
        f"stmxcsr (${saved})", f"ldmxcsr (${word})", _X86[name],
        f"stmxcsr (${word})", f"ldmxcsr (${saved})",
    )  # fmt: skip
    bound = f"=&x,{taken},r,r,~{{memory}},~{{dirflag}},~{{fpsr}},~{{flags}}"
    assembly = f'asm sideeffect "{_lines(steps)}", "{bound}"'
    return f""" %saved = alloca i32
 %word = alloca i32
 %mode = and i32 %control, 768
 %rounding = shl i32 %mode, 5
 %own = or i32 %rounding, 8064
 store i32 %own, ptr %word
 %r = call {result} {assembly}({passed}, ptr %saved, ptr %word)
 %status = load i32, ptr %word
 %invalid = and i32 %status, 1
 %rest = lshr i32 %status, 1
 %others = and i32 %rest, 30
 %raised = or i32 %invalid, %others"""


def _on_arm(name: str, passed: str, result: str) -> str:
    is_unary = name in _OPERANDS
    taken = ("r" if name == "real" else "w") if is_unary else "w,w"
    mode = 4 if is_unary else 5
    steps = (
        "mrs $1, fpcr", f"msr fpcr, ${mode}", "msr fpsr, xzr", _ARM[name],
        "mrs $2, fpsr", "msr fpcr, $1",
    )  # fmt: skip
    assembly = f'asm sideeffect "{_lines(steps)}", "=&w,=&r,=&r,{taken},r"'
    three = f"{{{result}, i64, i64}}"
    return f""" %down = and i32 %control, 256
 %up = and i32 %control, 512
 %down1 = shl i32 %down, 15
 %up1 = shl i32 %up, 13
 %mode = or i32 %down1, %up1
 %own = zext i32 %mode to i64
 %three = call {three} {assembly}({passed}, i64 %own)
 %r = extractvalue {three} %three, 0
 %status = extractvalue {three} %three, 2
 %short = trunc i64 %status to i32
 %raised = and i32 %short, {EXCEPTIONS}"""


def _lines(steps: tuple[str, ...]) -> str:
    return "\\0A".join(steps)


def _tiny(result: str) -> str:
    """Return code for what the processor does not tell: tiny results that are exact.

    One that is found tiny before it is rounded is told of by some processors, not so here.
    """
    kind, least, exponent = ("i32", 1 << 23, 0xFF << 23)
    if result == "double":
        kind, least, exponent = "i64", 1 << 52, 0x7FF << 52
    unsure = _UNSURE if IS_ARM else 0
    return f""" %bits = bitcast {result} %r to {kind}
 %size = and {kind} %bits, {exponent | (least - 1)}
 %under = sub {kind} %size, 1
 %is_tiny = icmp ult {kind} %under, {least - 1}
 %wanted = and i32 %control, {UNDERFLOW}
 %least = icmp eq {kind} %size, {least}
 %edge = select i1 %least, i32 {unsure}, i32 0
 %tiny = select i1 %is_tiny, i32 %wanted, i32 %edge"""


_COMMON = f"""
define internal i1 {PREFIX}traps(ptr %s, i32 %raised) noinline {{
 %wp = getelementptr i64, ptr %s, i64 {State.FLOATING:d}
 %floating = load i64, ptr %wp
 %control = trunc i64 %floating to i32
 %wanted = and i32 %control, {EXCEPTIONS}
 %which = or i32 %wanted, {_UNSURE}
 %hit = and i32 %raised, %which
 %traps = icmp ne i32 %hit, 0
 br i1 %traps, label %leave, label %note
note:
 %wide = zext i32 %raised to i64
 %shifted = shl i64 %wide, {HAPPENED}
 %after = or i64 %floating, %shifted
 store i64 %after, ptr %wp
 ret i1 false
leave:
 ret i1 true
}}

define internal i32 {PREFIX}signals(double %x) {{
 %bits = bitcast double %x to i64
 %nan = fcmp uno double %x, %x
 %quiet = and i64 %bits, {1 << 51}
 %loud = icmp eq i64 %quiet, 0
 %both = and i1 %nan, %loud
 %raised = select i1 %both, i32 {INVALID}, i32 0
 ret i32 %raised
}}
"""
