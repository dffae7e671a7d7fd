"""The meanings of scalar instructions as LLVM code: the expressions that ``meaning.py`` defines.

What traps becomes a guard: the interpreter then runs the instruction again and raises.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

from llmbol_core.vm.isa import CONVERSIONS, TYPES, ZERO_DIVIDE, Op, type_of
from llmbol_core.vm.jit.emitter import Emitter, constant, llvm_type
from llmbol_core.vm.jit.texts import UNKNOWN

# fmt: off
_INTEGER_OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.BitAnd: "and", ast.BitOr: "or",
    ast.BitXor: "xor", ast.LShift: "shl", ast.RShift: "ashr",
}
_REAL_OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "fadd", ast.Sub: "fsub", ast.Mult: "fmul", ast.Div: "fdiv",
}
_COMPARISONS: dict[type[ast.AST], str] = {
    ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge",
}
# fmt: on
_NO_REAL_FITS = {"W": 2.0**31, "L": 2.0**63}
"""The least real above all that fit an integer type."""

HELPERS = """
declare i32 @llvm.fptosi.sat.i32.f64(double)
declare i64 @llvm.fptosi.sat.i64.f64(double)
"""


def lower_meaning(meaning: ast.expr, op: Op, operands: Mapping[str, str], out: Emitter) -> str:
    """Emit the code for a meaning, given the values of the operands; return the result's name."""
    return Lowering(op, operands, out).lower(meaning, op.result if op.result in TYPES else "W")


class Lowering:
    """Lowers one instruction's meaning."""

    def __init__(self, op: Op, operands: Mapping[str, str], out: Emitter) -> None:
        self._op, self._operands, self._out = op, operands, out

    def lower(self, node: ast.expr, neighbour: str) -> str:
        """Emit an expression; a constant has its neighbour's type."""
        match node:
            case ast.Name(id=name):
                return self._operands[name]
            case ast.Constant(value=int() | float() as value):
                return constant(value, neighbour)
            case ast.UnaryOp(operand=operand):
                return self._negative(self.lower(operand, neighbour), self._type(node, neighbour))
            case ast.BinOp():
                return self._binary(node, neighbour)
            case ast.Compare(left=left, ops=[operator], comparators=[right]):
                return self._compare(left, operator, right)
            case ast.BoolOp(op=joint, values=values):
                return self._joined("and" if isinstance(joint, ast.And) else "or", values)
            case ast.IfExp(test=test, body=body, orelse=other):
                letter = self._type(node, neighbour)
                return self._choice(self.lower(test, "W"), body, other, letter)
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return self._call(name, arguments, neighbour)
        raise TypeError(f"no code for {ast.dump(node)}")

    def _type(self, node: ast.expr, neighbour: str) -> str:
        return type_of(node, self._op, neighbour)

    def _negative(self, value: str, letter: str) -> str:
        if letter in "FR":
            return self._out.value(f"fneg {llvm_type(letter)} {value}")
        return self._out.value(f"sub {llvm_type(letter)} 0, {value}")

    def _binary(self, node: ast.BinOp, neighbour: str) -> str:
        letter = self._type(node, neighbour)
        left = self.lower(node.left, letter)
        if isinstance(node.op, ast.LShift | ast.RShift):
            right = self._count(self.lower(node.right, "W"), letter)
        else:
            right = self.lower(node.right, letter)
        if letter == "F":
            return self._real(node.op, left, right)
        operator = _INTEGER_OPERATORS[type(node.op)]
        return self._out.value(f"{operator} {llvm_type(letter)} {left}, {right}")

    def _real(self, how: ast.operator, left: str, right: str) -> str:
        """Emit an operation on reals."""
        return self._out.value(f"{_REAL_OPERATORS[type(how)]} double {left}, {right}")

    def _count(self, value: str, letter: str) -> str:
        """Return a shift count, masked, in the type of what is shifted."""
        if letter == "L":
            value = self._out.value(f"zext i32 {value} to i64")
        return self._out.value(f"and {llvm_type(letter)} {value}, {8 * TYPES[letter].size - 1}")

    def _compare(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> str:
        letter = self._type(right if isinstance(left, ast.Constant) else left, "W")
        name = _COMPARISONS[type(operator)]
        how = f"icmp {name}"
        if letter != "F" and name not in ("eq", "ne"):
            how = f"icmp {'u' if TYPES[letter].kind == 'unsigned' else 's'}{name}"
        x, y = self.lower(left, letter), self.lower(right, letter)
        if letter == "C":
            function = "equal" if name in ("eq", "ne") else "order"
            found = self._out.value(f"call i32 @{function}(ptr %m, ptr %s, i32 {x}, i32 {y})")
            self._out.guard(self._out.value(f"icmp eq i32 {found}, {UNKNOWN}"))
            claim = name if name in ("eq", "ne") else f"s{name}"
            return self._out.value(f"icmp {claim} i32 {found}, 0")
        if letter == "F":
            return self._compare_reals(name, x, y)
        kind = "i1" if letter == "?" else llvm_type(letter)
        return self._out.value(f"{how} {kind} {x}, {y}")

    def _compare_reals(self, name: str, x: str, y: str) -> str:
        """Emit a comparison of reals, given its name for integers."""
        return self._out.value(f"fcmp {'une' if name == 'ne' else 'o' + name} double {x}, {y}")

    def _joined(self, how: str, values: list[ast.expr]) -> str:
        """Emit claims that cannot trap, so that all of them can be evaluated."""
        result = self.lower(values[0], "W")
        for value in values[1:]:
            result = self._out.value(f"{how} i1 {result}, {self.lower(value, 'W')}")
        return result

    def _choice(self, test: str, body: ast.expr, other: ast.expr, letter: str) -> str:
        out = self._out
        yes, no, done = out.label(), out.label(), out.label()
        out.branch(test, yes, no)
        found = []
        for label, node in ((yes, body), (no, other)):
            out.begin(label)
            value = self.lower(node, letter)
            found.append(f"[{value}, %{out.block}]")
            out.jump(done)
        out.begin(done)
        return out.value(f"phi {llvm_type(letter)} {', '.join(found)}")

    def _call(self, name: str, arguments: list[ast.expr], neighbour: str) -> str:
        if name in CONVERSIONS:
            source = self._type(arguments[0], "W")
            return self._convert(self.lower(arguments[0], source), source, CONVERSIONS[name])
        letter = self._type(arguments[0], neighbour)
        x = self.lower(arguments[0], letter)
        if name == "lsr":
            count = self._count(self.lower(arguments[1], "W"), letter)
            return self._out.value(f"lshr {llvm_type(letter)} {x}, {count}")
        if name == "power":
            return self._power(x, self.lower(arguments[1], "W"), letter)
        y = self.lower(arguments[1], letter)
        return self._divide("div" if name == "quo" else "rem", x, y, letter)

    def _divide(self, what: str, x: str, y: str, letter: str) -> str:
        """Emit quo or rem with the checks that the table asks for."""
        out, kind = self._out, llvm_type(letter)
        is_known = y.lstrip("-").isdigit()
        if not is_known or int(y) == 0:
            out.guard(out.value(f"icmp eq {kind} {y}, 0"), ZERO_DIVIDE)
        if TYPES[letter].kind == "unsigned":
            return out.value(f"u{what} {kind} {x}, {y}")
        if is_known and int(y) != -1:
            return out.value(f"s{what} {kind} {x}, {y}")
        minus = out.value(f"icmp eq {kind} {y}, -1")
        if letter == "W":
            least = out.value(f"icmp eq i32 {x}, {-(1 << 31)}")
            out.guard(out.value(f"and i1 {minus}, {least}"), ZERO_DIVIDE)
            return out.value(f"s{what} i32 {x}, {y}")
        safe = out.value(f"select i1 {minus}, {kind} 1, {kind} {y}")
        found = out.value(f"s{what} {kind} {x}, {safe}")
        wrapped = out.value(f"sub {kind} 0, {x}") if what == "div" else "0"
        return out.value(f"select i1 {minus}, {kind} {wrapped}, {kind} {found}")

    def _power(self, x: str, n: str, letter: str) -> str:
        """Emit repeated squaring, low bits of the exponent first."""
        out, kind = self._out, llvm_type(letter)
        is_real = letter == "F"
        one = constant(1, letter)
        times = "fmul" if is_real else "mul"
        is_negative = out.value(f"icmp slt i32 {n}, 0")
        positive = out.value(
            f"select i1 {is_negative}, i32 {out.value(f'sub i32 0, {n}')}, i32 {n}"
        )
        before, head, body, done = out.block, out.label(), out.label(), out.label()
        out.jump(head)
        out.begin(head)
        names = {key: f"%{head}.{key}" for key in ("r", "x", "n", "r2", "x2", "n2")}
        start = {"r": (kind, one), "x": (kind, x), "n": ("i32", positive)}
        for key, (type_, value) in start.items():
            again = f"[{names[key + '2']}, %{body}]"
            out.emit(f"{names[key]} = phi {type_} [{value}, %{before}], {again}")
        out.branch(out.value(f"icmp eq i32 {names['n']}, 0"), done, body)
        out.begin(body)
        odd = out.value(f"trunc i32 {names['n']} to i1")
        product = out.value(f"{times} {kind} {names['r']}, {names['x']}")
        out.emit(f"{names['r2']} = select i1 {odd}, {kind} {product}, {kind} {names['r']}")
        out.emit(f"{names['x2']} = {times} {kind} {names['x']}, {names['x']}")
        out.emit(f"{names['n2']} = lshr i32 {names['n']}, 1")
        out.jump(head)
        out.begin(done)
        result = names["r"]
        if is_real:
            inverse = out.value(f"fdiv double {one}, {result}")
        else:
            is_zero = out.value(f"icmp eq {kind} {result}, 0")
            out.guard(out.value(f"and i1 {is_negative}, {is_zero}"))
            divisor = out.value(f"select i1 {is_zero}, {kind} 1, {kind} {result}")
            inverse = out.value(f"sdiv {kind} 1, {divisor}")
        return out.value(f"select i1 {is_negative}, {kind} {inverse}, {kind} {result}")

    def _convert(self, value: str, source: str, target: str) -> str:
        out, have, want = self._out, llvm_type(source), llvm_type(target)
        if source == target:
            return value
        if source in "FR" and target in "FR":
            how = "fpext" if target == "F" else "fptrunc"
            return out.value(f"{how} {have} {value} to {want}")
        if target in "FR":
            how = "uitofp" if TYPES[source].kind == "unsigned" else "sitofp"
            return out.value(f"{how} {have} {value} to {want}")
        if source in "FR":
            return self._truncate(value, target)
        if TYPES[source].size > TYPES[target].size:
            return out.value(f"trunc {have} {value} to {want}")
        how = "zext" if TYPES[source].kind == "unsigned" else "sext"
        return out.value(f"{how} {have} {value} to {want}")

    def _truncate(self, value: str, target: str) -> str:
        """Emit a real's integer part, or the most negative integer if it does not fit."""
        out, kind = self._out, llvm_type(target)
        found = out.value(f"call {kind} @llvm.fptosi.sat.{kind}.f64(double {value})")
        bound = constant(_NO_REAL_FITS[target], "F")
        is_outside = out.value(f"fcmp uge double {value}, {bound}")
        least = -(1 << (8 * TYPES[target].size - 1))
        return out.value(f"select i1 {is_outside}, {kind} {least}, {kind} {found}")
