"""Translates functions written in a small part of Python to LLVM's language: see ``source.py``.

Variables are slots of the stack, which LLVM's first pass turns into registers.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable
from typing import Any

from llmbol_core.vm.jit.emitter import Emitter, constant
from llmbol_core.vm.jit.operators import (
    COMPARISONS,
    CONSTANT_OPERATORS,
    HOST_MEMORIES,
    MEMORIES,
    OPERATORS,
    REAL_COMPARISONS,
    REAL_OPERATORS,
)
from llmbol_core.vm.jit.runtime import State
from llmbol_core.vm.jit.source import EXTERNAL, FUNCTIONS, Function
from llmbol_core.vm.parsing import parse_module


class _Value(str):
    """A value's name or, if it has no type yet, a constant."""

    type: str

    def __new__(cls, text: object, type_: str = "") -> _Value:
        value = super().__new__(cls, text)
        value.type = type_
        return value


class Translator(Emitter):
    """Translates one function."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function
        self._globals = function.python.__globals__
        self._variables = dict(function.parameters)
        self._loops: list[tuple[str, str]] = []
        self.called: set[str] = set()
        tree = _definitions(function.python.__code__.co_filename)[function.name]
        self._body = [s for s in tree.body if not _is_docstring(s)]
        self._locals = frozenset(function.python.__code__.co_varnames)

    def text(self) -> str:
        """Return the whole function."""
        function = self.function
        for name in function.parameters:
            self.emit(f"store {self._variables[name]} %p.{name}, ptr %x.{name}")
        self._block(self._body)
        if not self._is_closed():
            self.emit("ret void" if function.result == "void" else "unreachable")
        parameters = [f"{kind} %p.{name}" for name, kind in function.parameters.items()]
        head = ", ".join(["ptr %m", "ptr %s", *parameters])
        slots = [f" %x.{name} = alloca {kind}" for name, kind in self._variables.items()]
        lines = [
            f"define internal {function.result} @{function.name}({head}) {function.attributes} {{",
            "start:", *slots, *self.lines, "}",
        ]  # fmt: skip
        return "\n".join(lines) + "\n"

    def _is_closed(self) -> bool:
        last = self.lines[-1].lstrip() if self.lines else ""
        return last.startswith(("br ", "ret ", "unreachable"))

    # Statements

    def _block(self, body: list[ast.stmt]) -> None:
        for statement in body:
            self._statement(statement)

    def _statement(self, node: ast.stmt) -> None:
        if self._is_closed():
            return
        match node:
            case ast.Assign(targets=[target], value=value):
                self._assign_all(target, value)
            case ast.AugAssign(target=ast.Name(id=name) as target, op=op, value=value):
                left = ast.Name(id=name, ctx=ast.Load())
                self._assign(target, ast.BinOp(left=left, op=op, right=value))
            case ast.If(test=test, body=body, orelse=other):
                self._if(test, body, other)
            case ast.While(test=test, body=body):
                self._while(test, body)
            case ast.Return(value=value):
                self._return(value)
            case ast.Expr(value=value):
                self._expression(value)
            case ast.Break() | ast.Continue():
                self.jump(self._loops[-1][isinstance(node, ast.Break)])
            case _:
                raise TypeError(f"no code for {ast.unparse(node)}")

    def _return(self, node: ast.expr | None) -> None:
        kind = self.function.result
        value = "" if node is None else f" {self._typed(self._expression(node), kind)}"
        self.emit(f"ret {kind}{value}")

    def _assign_all(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Tuple):
            assert isinstance(value, ast.Tuple)
            for one, part in zip(target.elts, value.elts, strict=True):
                self._assign(one, part)
        else:
            self._assign(target, value)

    def _assign(self, target: ast.expr, node: ast.expr) -> None:
        value = self._expression(node)
        if isinstance(target, ast.Name):
            kind = self._variables.setdefault(target.id, value.type or "i32")
            self.emit(f"store {kind} {self._typed(value, kind)}, ptr %x.{target.id}")
            return
        assert isinstance(target, ast.Subscript)
        kind, pointer = self._place(target)
        if kind == "i8":
            value = _Value(self.value(f"trunc i32 {self._typed(value, 'i32')} to i8"), "i8")
        self.emit(f"store {kind} {self._typed(value, kind)}, ptr {pointer}, align 1")

    def _if(self, test: ast.expr, body: list[ast.stmt], other: list[ast.stmt]) -> None:
        yes, no, done = self.label(), self.label(), self.label()
        self._test(test, yes, no)
        for label, statements in ((yes, body), (no, other)):
            self.begin(label)
            self._block(statements)
            if self.lines[-1] == f"{label}:" or not self._is_closed():
                self.jump(done)
        self.begin(done)

    def _while(self, test: ast.expr, body: list[ast.stmt]) -> None:
        head, inside, done = self.label(), self.label(), self.label()
        self.jump(head)
        self.begin(head)
        self._test(test, inside, done)
        self.begin(inside)
        self._loops.append((head, done))
        self._block(body)
        self._loops.pop()
        if not self._is_closed():
            self.jump(head)
        self.begin(done)

    def _test(self, node: ast.expr, yes: str, no: str) -> None:
        """Branch to one of two blocks, evaluating no more than is needed to decide."""
        match node:
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self._test(operand, no, yes)
            case ast.BoolOp(op=joint, values=values):
                for part in values[:-1]:
                    following = self.label()
                    is_and = isinstance(joint, ast.And)
                    self._test(part, *((following, no) if is_and else (yes, following)))
                    self.begin(following)
                self._test(values[-1], yes, no)
            case _:
                value = self._expression(node)
                kind = value.type or "i32"
                claim = value if kind == "i1" else self.value(f"icmp ne {kind} {value}, 0")
                self.branch(claim, yes, no)

    # Expressions

    def _expression(self, node: ast.expr) -> _Value:
        known = self._constant(node)
        if isinstance(known, float):
            return _Value(constant(known, "F"), "double")
        if known is not None:
            return _Value(known)
        match node:
            case ast.Name(id=name):
                kind = self._variables[name]
                return _Value(self.value(f"load {kind}, ptr %x.{name}"), kind)
            case ast.BinOp(left=left, op=op, right=right):
                x, y, kind = self._same(left, right)
                operators = REAL_OPERATORS if kind == "double" else OPERATORS
                return _Value(self.value(f"{operators[type(op)]} {kind} {x}, {y}"), kind)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                value = self._expression(operand)
                how = "fneg double" if value.type == "double" else f"sub {value.type} 0,"
                return _Value(self.value(f"{how} {value}"), value.type)
            case ast.Subscript():
                return self._load(node)
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return self._call(name, arguments)
        return self._claim(node)

    def _claim(self, node: ast.expr) -> _Value:
        """Translate comparisons and other expressions that are true or false."""
        match node:
            case ast.Compare(left=left, ops=[ast.In()], comparators=[ast.Tuple(elts=parts)]):
                return self._membership(self._expression(left), parts)
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                x, y, kind = self._same(left, right)
                claim = f"icmp {COMPARISONS[type(op)]}"
                if kind == "double":
                    claim = f"fcmp {REAL_COMPARISONS[type(op)]}"
                return _Value(self.value(f"{claim} {kind} {x}, {y}"), "i1")
            case ast.IfExp(test=test, body=body, orelse=other):
                return self._choice(test, body, other)
            case ast.BoolOp() | ast.UnaryOp(op=ast.Not()):
                return self._choice(node, ast.Constant(True), ast.Constant(False), "i1")
        raise TypeError(f"no code for {ast.unparse(node)}")

    def _membership(self, value: _Value, parts: list[ast.expr]) -> _Value:
        """Return whether a value is one of some constants."""
        claim = "false"
        for part in parts:
            other = self._typed(self._expression(part), value.type)
            one = self.value(f"icmp eq {value.type} {value}, {other}")
            claim = self.value(f"or i1 {claim}, {one}")
        return _Value(claim, "i1")

    def _load(self, node: ast.Subscript) -> _Value:
        kind, pointer = self._place(node)
        value = self.value(f"load {kind}, ptr {pointer}, align 1")
        if kind == "i8":
            return _Value(self.value(f"zext i8 {value} to i32"), "i32")
        return _Value(value, kind)

    def _constant(self, node: ast.expr) -> int | float | None:
        """Return the value of an expression of constants only, else None."""
        match node:
            case ast.Constant(value=int() | float() as known):
                return known if isinstance(known, float) else int(known)
            case ast.Name(id=name):
                return None if name in self._locals else self._number(self._globals[name])
            case ast.Attribute(value=ast.Name(id=name), attr=attribute):
                return self._number(getattr(self._globals[name], attribute))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                x = self._constant(operand)
                return None if x is None else -x
            case ast.BinOp(left=left, op=op, right=right):
                x = self._constant(left)
                y = None if x is None else self._constant(right)
                return None if x is None or y is None else CONSTANT_OPERATORS[type(op)](x, y)
        return None

    @staticmethod
    def _number(value: Any) -> int | float:
        return value if isinstance(value, float) else int(value)

    def _same(self, left: ast.expr, right: ast.expr) -> tuple[_Value, _Value, str]:
        """Return two values and their common type; a constant takes the other's type."""
        x, y = self._expression(left), self._expression(right)
        kind = x.type or y.type or "i32"
        return self._typed(x, kind), self._typed(y, kind), kind

    def _typed(self, value: _Value, kind: str) -> _Value:
        """Return a value that must have a type; a constant takes that type."""
        if value.type == kind:
            return value
        if value.type:
            raise TypeError(f"{self.function.name}: {value.type} where {kind} is wanted")
        if kind == "double":
            return _Value(constant(float(value), "F"), kind)
        bits = int(kind[1:])
        number = int(value) & ((1 << bits) - 1)
        signed = number - (1 << bits) if bits > 1 and number >> (bits - 1) else number
        return _Value(signed, kind)

    def _choice(self, test: ast.expr, body: ast.expr, other: ast.expr, kind: str = "") -> _Value:
        yes, no, done = self.label(), self.label(), self.label()
        self._test(test, yes, no)
        found = []
        for label, node in ((yes, body), (no, other)):
            self.begin(label)
            value = self._expression(node)
            kind = kind or value.type
            found.append((value, self.block))
            self.jump(done)
        self.begin(done)
        kind = kind or "i32"
        parts = ", ".join(f"[{self._typed(value, kind)}, %{block}]" for value, block in found)
        return _Value(self.value(f"phi {kind} {parts}"), kind)

    def _place(self, node: ast.Subscript) -> tuple[str, str]:
        """Return the type and the pointer that a subscript stands for."""
        assert isinstance(node.value, ast.Name)
        name, index = node.value.id, self._expression(node.slice)
        if name in MEMORIES:
            return MEMORIES[name], self._pointer(index)
        if name in HOST_MEMORIES:
            return HOST_MEMORIES[name], self.value(
                f"inttoptr i64 {self._typed(index, 'i64')} to ptr"
            )
        base = "%s"
        if name == "machine":
            word = self.value(f"getelementptr i64, ptr %s, i64 {State.MACHINE:d}")
            base = self.value(f"load ptr, ptr {word}")
        return "i64", self.value(f"getelementptr i64, ptr {base}, i64 {self._typed(index, 'i64')}")

    def _pointer(self, address: _Value) -> str:
        return self.value(f"call ptr @at(ptr %m, i32 {self._typed(address, 'i32')})")

    def _call(self, name: str, nodes: list[ast.expr]) -> _Value:
        arguments = [self._expression(node) for node in nodes]
        if name in _INTRINSICS:
            return _INTRINSICS[name](self, *arguments)
        function = FUNCTIONS.get(name) or EXTERNAL[name]
        if name in FUNCTIONS:
            self.called.add(name)
        kinds = function.parameters.values()
        passed = [
            f"{kind} {self._typed(value, kind)}"
            for value, kind in zip(arguments, kinds, strict=True)
        ]
        if not function.is_of_c:
            passed = ["ptr %m", "ptr %s", *passed]
        call = f"call {function.result} @{name}({', '.join(passed)})"
        if function.result == "void":
            self.emit(call)
            return _Value("")
        return _Value(self.value(call), function.result)

    # Intrinsics

    def _cast(self, how: str, source: str, target: str, value: _Value) -> _Value:
        text = f"{how} {source} {self._typed(value, source)} to {target}"
        return _Value(self.value(text), target)

    def _wide(self, value: _Value) -> _Value:
        return self._cast("zext", "i32", "i64", value)

    def _extended(self, value: _Value) -> _Value:
        return self._cast("sext", "i32", "i64", value)

    def _narrow(self, value: _Value) -> _Value:
        return self._cast("trunc", "i64", "i32", value)

    def _real(self, value: _Value) -> _Value:
        return self._cast("sitofp", "i64", "double", value)

    def _whole(self, value: _Value) -> _Value:
        return self._cast("fptosi", "double", "i64", value)

    def _bits(self, value: _Value) -> _Value:
        return self._cast("bitcast", "double", "i64", value)

    def _invoke(self, address: _Value, argument: _Value) -> _Value:
        pointer = self.value(f"inttoptr i64 {self._typed(address, 'i64')} to ptr")
        passed = f"ptr %m, ptr %s, i32 {self._typed(argument, 'i32')}"
        return _Value(self.value(f"call i32 {pointer}({passed})"), "i32")

    def _below(self, x: _Value, y: _Value) -> _Value:
        kind = x.type or y.type
        claim = f"icmp ult {kind} {self._typed(x, kind)}, {self._typed(y, kind)}"
        return _Value(self.value(claim), "i1")

    def _move(self, target: _Value, source: _Value, size: _Value) -> _Value:
        pointers = f"ptr {self._pointer(target)}, ptr {self._pointer(source)}"
        self.emit(
            f"call void @llvm.memmove.p0.p0.i64({pointers}, i64 {self._wide(size)}, i1 false)"
        )
        return _Value("")

    def _fill(self, target: _Value, byte: _Value, size: _Value) -> _Value:
        what = f"ptr {self._pointer(target)}, i8 {self._typed(byte, 'i8')}"
        self.emit(f"call void @llvm.memset.p0.i64({what}, i64 {self._wide(size)}, i1 false)")
        return _Value("")


_INTRINSICS: dict[str, Callable[..., _Value]] = {
    "wide": Translator._wide,
    "extended": Translator._extended,
    "narrow": Translator._narrow,
    "real": Translator._real,
    "whole": Translator._whole,
    "bits": Translator._bits,
    "invoke": Translator._invoke,
    "below": Translator._below,
    "move": Translator._move,
    "fill": Translator._fill,
}


@functools.cache
def _definitions(file: str) -> dict[str, ast.FunctionDef]:
    """Return the definitions of the functions in a file by their names."""
    with open(file, encoding="utf-8") as text:
        tree = parse_module(text.read())
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
