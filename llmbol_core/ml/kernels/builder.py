"""The builder: loops, branches, constants and arithmetic of one kernel as it is being written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llvmlite import ir

from llmbol_core.ml.kernels import dots, half
from llmbol_core.ml.kernels.kinds import Kind, f16, f32, i64, u16
from llmbol_core.ml.kernels.vectors import (
    ADDRESS,
    BYTE,
    WORD,
    Number,
    Pointer,
    Value,
    Variable,
    constant,
    scalar_type,
    suffix,
    type_of,
)

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.declaration import Kernel
    from llmbol_core.ml.kernels.target import Target


class Builder:
    """The code of one kernel as it is being written."""

    def __init__(self, module: Any, kernel: Kernel, target: Target) -> None:
        """Begin the function ``kernel.name``, and within it the body with its arguments."""
        self.target, self.lanes = target, target.lanes
        self._module = module
        types = [ADDRESS if p.is_pointer else scalar_type(p.kind) for p in kernel.parameters]
        signature = ir.FunctionType(ir.VoidType(), [*types, WORD, WORD, WORD])
        body = ir.Function(module, signature, f"{kernel.name}.body")
        body.linkage = "internal"
        for attribute in ("noinline", "noduplicate"):  # the latter allows no copies for constants
            body.attributes.add(attribute)
        self._enter(kernel, body, types)
        for argument, parameter in zip(body.args, kernel.parameters, strict=False):
            if parameter.is_pointer:
                argument.add_attribute("noalias")
        self.ir = ir.IRBuilder(body.append_basic_block("start"))
        given = [
            Pointer(self, argument, p.kind) if p.is_pointer else Value(self, argument, p.kind, 1)
            for argument, p in zip(body.args, kernel.parameters, strict=False)
        ]
        self.begin, self.end, self.thread = (Value(self, a, i64, 1) for a in body.args[-3:])
        kernel.author(self, *given)
        self.ir.ret_void()

    @staticmethod
    def _enter(kernel: Kernel, body: Any, types: list[Any]) -> None:
        """Write the function that unpacks the arguments and calls the body."""
        signature = ir.FunctionType(ir.VoidType(), [ADDRESS, WORD, WORD, WORD])
        outer = ir.Function(body.module, signature, kernel.name)
        code = ir.IRBuilder(outer.append_basic_block("start"))
        given = [
            code.load(code.gep(outer.args[0], [WORD(8 * i)], source_etype=BYTE), typ=t, align=8)
            for i, t in enumerate(types)
        ]
        code.call(body, [*given, *outer.args[1:]])
        code.ret_void()

    # ---- control ----

    def range(
        self, start: Value | int, stop: Value | int | None = None, step: Value | int = 1
    ) -> Iterator[Value]:
        """Write a loop: the body of ``for i in k.range(n)`` is written once, and runs n times."""
        first, last = (0, start) if stop is None else (start, stop)
        begin, end, stride = (self.value(x, i64) for x in (first, last, step))
        before, function = self.ir.block, self.ir.function
        body, after = (function.append_basic_block(name) for name in ("loop", "after"))
        self.ir.cbranch((begin < end).ir, body, after)
        self.ir.position_at_end(body)
        counter = self.ir.phi(WORD)
        counter.add_incoming(begin.ir, before)
        index = Value(self, counter, i64, 1)
        yield index
        following = index + stride
        counter.add_incoming(following.ir, self.ir.block)
        self.ir.cbranch((following < end).ir, body, after)
        self.ir.position_at_end(after)

    def items(self, step: Value | int = 1) -> Iterator[Value]:
        """Write a loop over the items to compute."""
        return self.range(self.begin, self.end, step)

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """Write code that runs if a condition holds."""
        with self.ir.if_then(condition.ir):
            yield

    @contextmanager
    def repeat(self) -> Iterator[Callable[[Value], None]]:
        """Write a loop: ``with k.repeat() as again: ... again(condition)``; runs at least once."""
        body, after = (self.ir.function.append_basic_block(name) for name in ("again", "after"))
        self.ir.branch(body)
        self.ir.position_at_end(body)
        yield lambda condition: self.ir.cbranch(condition.ir, body, after)
        self.ir.position_at_end(after)

    @contextmanager
    def either(self, condition: Value) -> Iterator[tuple[Any, Any]]:
        """Write two branches: ``with k.either(c) as (yes, no): with yes: ... with no: ...``."""
        with self.ir.if_else(condition.ir) as branches:
            yield branches

    def cases(self, value: Value, numbers: Sequence[int]) -> Iterator[int]:
        """Write a branch for each number: ``for n in k.cases(x, (1, 2))`` is run where x is n."""
        function = self.ir.function
        after = function.append_basic_block("after")
        choice = self.ir.switch(value.ir, after)
        for number in numbers:
            block = function.append_basic_block("case")
            choice.add_case(WORD(number), block)
            self.ir.position_at_end(block)
            yield number
            self.ir.branch(after)
        self.ir.position_at_end(after)

    def in_order(self) -> None:
        """Keep the loads that follow after all code before them, which saves registers."""
        self.ir.asm(ir.FunctionType(ir.VoidType(), []), "", "~{memory}", [], side_effect=True)

    def settle(self, *values: Value) -> list[Value]:
        """Return vectors that are computed here: after the code before, before the code after."""
        letter = "v" if self.target.architecture == "x86_64" else "w"
        settled = []
        for value in values:
            kind = ir.FunctionType(value.ir.type, [value.ir.type])
            code = self.ir.asm(kind, "", f"={letter},0,~{{memory}}", [value.ir], side_effect=True)
            settled.append(Value(self, code, value.kind, value.lanes))
        return settled

    def settled(self, place: Pointer) -> Pointer:
        """Return a pointer that stands in a register of its own from here on."""
        kind = ir.FunctionType(ADDRESS, [ADDRESS])
        code = self.ir.asm(kind, "", "=r,0", [place.ir], side_effect=False)
        return Pointer(self, code, place.kind)

    def variable(self, initial: Value) -> Variable:
        """Return a variable that begins with a value."""
        return Variable(self, initial)

    def room(self, kind: Kind, count: int) -> Pointer:
        """Return room for so many numbers on the stack, aligned for vectors."""
        with self.ir.goto_entry_block():
            place = self.ir.alloca(ir.ArrayType(scalar_type(kind), count))
            place.align = 64
            place.type = ADDRESS  # llvmlite would take it for a pointer to arrays only
        return Pointer(self, place, kind)

    # ---- values ----

    def value(self, x: Value | Number, kind: Kind, lanes: int = 1) -> Value:
        """Return a constant of a kind; a value as it is, or repeated."""
        if isinstance(x, Value):
            return x if x.lanes == lanes else x.splat(lanes)
        number = float(x) if kind.is_float else int(x)
        return Value(self, constant(kind, lanes, number), kind, lanes)

    def vector(self, kind: Kind, numbers: Sequence[Number]) -> Value:
        """Return a constant vector."""
        return Value(self, ir.Constant(type_of(kind, len(numbers)), list(numbers)), kind,
                     len(numbers))  # fmt: skip

    def ramp(self, lanes: int, kind: Kind) -> Value:
        """Return the vector 0, 1, 2 and so on."""
        return self.vector(kind, range(lanes))

    def zeros(self, kind: Kind, lanes: int = 1) -> Value:
        """Return zeros."""
        return self.value(0, kind, lanes)

    def alike(self, a: Value, b: Value | Number) -> tuple[Value, Value]:
        """Return both with the kind and lanes that they have together."""
        if not isinstance(b, Value):
            return a, self.value(b, a.kind, a.lanes)
        if (a.kind.bits, a.kind.is_float) != (b.kind.bits, b.kind.is_float):
            raise TypeError(f"{a.kind} and {b.kind} do not mix")
        lanes = max(a.lanes, b.lanes)
        return self.value(a, a.kind, lanes), self.value(b, b.kind, lanes)

    def select(self, condition: Value, a: Value, b: Value | Number) -> Value:
        """Return a where the condition holds and b elsewhere."""
        first, second = self.alike(a, b)
        lanes = max(condition.lanes, first.lanes)
        chosen = [self.value(x, first.kind, lanes) for x in (first, second)]
        made = self.ir.select(condition.ir, chosen[0].ir, chosen[1].ir)
        return Value(self, made, first.kind, lanes)

    def place(self, condition: Value, yes: Pointer, no: Pointer) -> Pointer:
        """Return one place where a scalar condition holds and another one elsewhere."""
        return Pointer(self, self.ir.select(condition.ir, yes.ir, no.ir), yes.kind)

    # ---- arithmetic that has no sign in Python ----

    def fma(self, a: Value, b: Value | Number, c: Value | Number) -> Value:
        """Return a * b + c, rounded once where the machine can, else twice."""
        if not self.target.fuses:
            return a * b + c
        lanes = max(x.lanes for x in (a, b, c) if isinstance(x, Value))
        return self._plain("llvm.fma", *(self.value(x, a.kind, lanes) for x in (a, b, c)))

    def abs(self, x: Value) -> Value:
        """Return the absolute value of floats."""
        return self._plain("llvm.fabs", x)

    def sqrt(self, x: Value) -> Value:
        """Return the square root."""
        return self._plain("llvm.sqrt", x)

    def rint(self, x: Value) -> Value:
        """Round to whole numbers, halves to even."""
        return self._plain("llvm.nearbyint", x)

    def round(self, x: Value) -> Value:
        """Round to whole numbers, halves away from zero."""
        return self._plain("llvm.round", x)

    def floor(self, x: Value) -> Value:
        """Round down to whole numbers."""
        return self._plain("llvm.floor", x)

    def copysign(self, x: Value, sign: Value) -> Value:
        """Return x with another's sign."""
        return self._plain("llvm.copysign", *self.alike(x, sign))

    def max(self, a: Value, b: Value | Number) -> Value:
        """Return the greater; of floats, the second if either is NaN."""
        return self._extreme(">", a, b)

    def min(self, a: Value, b: Value | Number) -> Value:
        """Return the lesser; of floats, the second if either is NaN."""
        return self._extreme("<", a, b)

    def _extreme(self, sign: str, a: Value, b: Value | Number) -> Value:
        x, y = self.alike(a, b)
        return self.select(x._compare(sign, y), x, y)

    def trailing_zeros(self, x: Value) -> Value:
        """Return how many zeros an integer ends with."""
        name = f"llvm.cttz.{suffix(x)}"
        made = self.call(name, x.ir.type, [x.ir, ir.IntType(1)(0)])
        return Value(self, made, x.kind, x.lanes)

    def bits_of(self, condition: Value) -> Value:
        """Return a vector of truths as a number whose lowest bit is the first of them."""
        kind = Kind(f"u{condition.lanes}", condition.lanes, is_signed=False)
        return condition.bits(kind).to(i64)

    def dot(self, total: Value, unsigned: Value, signed: Value, wide: bool = False) -> Value:
        """Add products of bytes, four to each lane of int32: ``total`` + unsigned * signed.

        ``unsigned`` is below 128; with ``wide`` it may be more, which takes longer without VNNI.
        """
        return dots.dot(self, total, unsigned, signed, wide)

    def dot_signed(self, total: Value, a: Value, b: Value) -> Value:
        """Add products of signed bytes, four to each lane of int32; a is never -128."""
        return dots.dot_signed(self, total, a, b)

    def pairs(self, unsigned: Value, signed: Value) -> Value:
        """Return sums of two products of bytes in int16; there is ``maddubs``, and they fit."""
        return dots.pairs(self, unsigned, signed)

    def add_pairs(self, total: Value, pairs: Value) -> Value:
        """Add two int16 to each lane of int32."""
        return dots.add_pairs(self, total, pairs)

    def add_products(self, total: Value, a: Value, b: Value) -> Value:
        """Add products of int16, two to each lane of int32."""
        return dots.add_products(self, total, a, b)

    def lookup(self, table: Value, index: Value) -> Value:
        """Look bytes up in a table of 16, by numbers below 16."""
        return dots.lookup(self, table, index)

    def half(self, x: Value) -> Value:
        """Round float32 to what float16 can hold."""
        return x.to(f16).to(f32)

    # ---- LLVM's intrinsic functions ----

    def _plain(self, name: str, *values: Value) -> Value:
        """Call an intrinsic function whose values are all of one type."""
        first = values[0]
        return self.intrinsic(f"{name}.{suffix(first)}", first.kind, first.lanes, *values)

    def intrinsic(self, name: str, kind: Kind, lanes: int, *values: Value) -> Value:
        """Call an intrinsic function by its full name; the result has that kind and lanes."""
        made = self.call(name, type_of(kind, lanes), [v.ir for v in values])
        return Value(self, made, kind, lanes)

    def call(self, name: str, result: Any, arguments: Sequence[Any]) -> Any:
        """Call an intrinsic function by its full name; types and values are LLVM's."""
        function = self._module.globals.get(name)
        if function is None:
            signature = ir.FunctionType(result, [a.type for a in arguments])
            function = ir.Function(self._module, signature, name)
        return self.ir.call(function, arguments)

    def call_kernel(
        self, kernel: Kernel, begin: Value, end: Value, *values: Value | Pointer
    ) -> None:
        """Compute some items of a kernel that stands before this one in its group.

        So code that several kernels need is there once.
        """
        body = self._module.get_global(f"{kernel.name}.body")
        bounds = (begin, end, self.thread)
        self.ir.call(body, [value.ir for value in (*values, *bounds)])

    def pointer(self, address: Value, kind: Kind) -> Pointer:
        """Return a pointer to an address that is given as a number."""
        return Pointer(self, self.ir.inttoptr(address.ir, ADDRESS), kind)

    def call_at(self, address: Value, result: Kind, *values: Value | Pointer) -> Value:
        """Call a function of the C convention by its address."""
        given = [value.ir for value in values]
        signature = ir.FunctionType(scalar_type(result), [v.type for v in given])
        function = _Found(self.ir.inttoptr(address.ir, ADDRESS), signature)
        return Value(self, self.ir.call(function, given), result, 1)

    def convert_half(self, x: Value, kind: Kind) -> Value:
        """Convert from or to float16 with integer arithmetic, for machines that have no other."""
        if kind is f16:
            return half.to_half(self, x.to(f32)).bits(f16)
        return half.from_half(self, x.bits(u16)).to(kind)


class _Found:
    """A function that is known by its address: what llvmlite wants of one to call it."""

    calling_convention = ""

    def __init__(self, pointer: Any, signature: Any) -> None:
        self.function_type, self.type = signature, pointer.type
        self.get_reference = pointer.get_reference
