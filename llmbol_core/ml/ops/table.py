"""What a row of the operation table is, and how a function becomes one.

The annotated signature of a function declares the operation: a parameter of type ``Array`` is an
input, ``Weights`` one that may stay in quantized blocks, ``Indices`` one of whole numbers, and
``| None`` makes it optional; ``int``, ``float``, ``bool`` and ``Ints`` are attributes. With a
parameter ``out: Out`` the function can be given the array that its result goes to. The docstring is
its description. The decorator adds what a signature cannot say.
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.errors import DtypeError, ShapeError
from llmbol_core.ml.dtypes import F32, I32, StorageType
from llmbol_core.ml.ops.direct import DIRECT, Direct
from llmbol_core.ml.ops.quick import QUICK, Quick
from llmbol_core.ml.quantization import dequantize
from llmbol_core.ml.tensor import Shape, Tensor

Array = NDArray[Any]
Indices = NDArray[Any]
Weights = NDArray[Any] | Tensor
Ints = tuple[int, ...]
Out = NDArray[Any] | None
"""Where a result goes: a contiguous array of its shape and type, or None for a new one."""

Short = Callable[..., Array | None]
"""Computes what it can of small arrays, without a look at anything else; None for all the rest."""

Example = Callable[["np.random.Generator"], tuple[tuple[Any, ...], dict[str, Any]]]


@dataclass(frozen=True)
class Attribute:
    """A number that belongs to an operation, not to its data."""

    name: str
    kind: type
    """int, float, bool, or tuple for several ints."""
    default: Any
    """None if it must be given."""

    def conform(self, operation: str, value: Any) -> Any:
        """Return the value as the attribute's type, or raise DtypeError."""
        if self.kind is tuple:
            if isinstance(value, list | tuple) and all(_is(int, v) for v in value):
                return tuple(map(int, value))
        elif _is(self.kind, value):
            return self.kind(value)
        wanted = "a list of int" if self.kind is tuple else self.kind.__name__
        numbers = value if isinstance(value, list | tuple) else [value]
        if any(type(v) is int and abs(v) >= _LONGEST for v in numbers):
            wanted += " of 64 bits"
        raise DtypeError(operation, f"{self.name} must be {wanted}, not {value!r}")


_LONGEST = 1 << 63
"""Whole numbers are below that."""
_WIDTH = 4
"""Bytes of a number of a result."""


def _is(kind: type, value: Any) -> bool:
    """Return whether a value can stand for an int, float or bool; a bool is no number."""
    allowed = {bool: bool | np.bool_, int: int | np.integer, float: int | float | np.number}
    truth = isinstance(value, bool | np.bool_)
    fits = kind is not int or not isinstance(value, int) or abs(value) < _LONGEST
    return fits and truth == (kind is bool) and isinstance(value, allowed[kind])


@dataclass(frozen=True)
class Op:
    """One row of the table. Values are arrays whose first axis usually is the batch."""

    name: str
    summary: str
    """One sentence."""
    inputs: tuple[str, ...]
    """Names in order; those that may be left out end with '?'."""
    packed: frozenset[str]
    """The inputs that may be tensors of quantized blocks."""
    indices: frozenset[str]
    """The inputs that hold whole numbers."""
    attributes: tuple[Attribute, ...]
    dtype: StorageType
    """What the result is made of: F32 or I32."""
    shape: Callable[..., Shape]
    """From the shapes of the inputs, None for those left out, and attributes; may raise."""
    run: Callable[..., Array]
    """On NumPy arrays: same inputs, same bits; float64 in gives float64 out.

    Kernels do what they are faster at; their results differ by rounding.
    """
    definition: Callable[..., Array]
    """Its meaning, in NumPy."""
    gradient: Callable[..., tuple[Array | None, ...]] | None
    """From output gradient, output, inputs and attributes to one gradient for each input."""
    flops: Callable[..., int]
    """From the output's shape, the inputs' shapes and attributes."""
    example: Example
    """Inputs and attributes to try the operation with."""
    takes_out: bool
    """Whether ``run`` takes the array for its result as ``out``; it gives the same bits then."""
    is_view: bool
    """Whether the result may share the memory of the first input."""
    short: Callable[[], Short] | None
    """What a call tries first; it returns None for all that needs care."""

    @property
    def bare(self) -> Callable[..., Array]:
        """The function that runs it for callers that have silenced NumPy's warnings themselves."""
        if isinstance(self.run, Direct):
            return self.run.function
        return self.run if self.name in QUICK else self.definition

    @property
    def required(self) -> int:
        """How many inputs must be given."""
        return sum(not name.endswith("?") for name in self.inputs)

    def conform(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return all attributes, defaults included, with their declared types."""
        known = {attribute.name: attribute for attribute in self.attributes}
        if unknown := set(given) - set(known):
            raise TypeError(f"{self.name} has no attribute {unknown.pop()!r}, only {list(known)}")
        full = {}
        for name, attribute in known.items():
            value = given.get(name, attribute.default)
            if value is None:
                raise TypeError(f"{self.name} needs the attribute {name!r}")
            full[name] = attribute.conform(self.name, value)
        return full

    def check_count(self, count: int) -> None:
        """Raise TypeError unless that many inputs may be given."""
        if not self.required <= count <= len(self.inputs):
            raise TypeError(f"{self.name} takes {', '.join(self.inputs)}: {count} inputs given")

    def check_dtypes(self, *dtypes: StorageType) -> None:
        """Raise DtypeError unless indices are I32 and all other inputs F32."""
        for name, dtype in zip(self.inputs, dtypes, strict=False):
            wanted = I32 if name.rstrip("?") in self.indices else F32
            if dtype is not wanted:
                raise DtypeError(self.name, f"{name} must be {wanted}, not {dtype}")

    def __call__(self, *inputs: Any, **attributes: Any) -> Array:
        """Run after checking everything: counts, types, shapes.

        Numbers become float32 arrays; quantized tensors are expanded where blocks are not taken.
        """
        if self.short and (self.attributes or not attributes):
            made = self.short()(*inputs, **attributes)
            if made is not None:
                return made
        self.check_count(len(inputs))
        full = self.conform(attributes)
        values = self._values(inputs)
        shapes = [None if v is None else tuple(v.shape) for v in values]
        result = self.shape(*shapes, *[None] * (len(self.inputs) - len(shapes)), **full)
        with suppress(MemoryError):
            if _WIDTH * math.prod(result) <= sys.maxsize:
                return self.run(*values, **full)
        raise ShapeError(self.name, f"no memory for a result of shape {result}")

    def _values(self, inputs: tuple[Any, ...]) -> list[Array | Tensor | None]:
        """Return all inputs in the form that ``run`` wants."""
        try:
            return [self.value(name, x) for name, x in zip(self.inputs, inputs, strict=False)]
        except MemoryError:
            shapes = " and ".join(str(getattr(x, "shape", "a list")) for x in inputs)
            raise ShapeError(self.name, f"no memory for inputs of shape {shapes}") from None

    def value(self, name: str, value: Any) -> Array | Tensor | None:
        """Return one input in the form that ``run`` wants."""
        plain = name.rstrip("?")
        if value is None and name.endswith("?"):
            return None
        is_index = plain in self.indices
        tensor = Tensor.of(_whole_numbers(value) if is_index else value)
        if is_index:
            if tensor.dtype.layout.kind not in "iu" or tensor.dtype.is_blocked:
                raise DtypeError(self.name, f"{plain} must hold whole numbers, not {tensor.dtype}")
            return tensor.data.astype(np.int64)
        if plain in self.packed and tensor.dtype.is_blocked:
            return tensor
        return np.asarray(dequantize(tensor), order="C")

    def buffers(self, inputs: Sequence[Shape | None], attributes: dict[str, Any]) -> int:
        """Return how many bytes kernels keep for float32 inputs of these shapes."""
        return self.run.buffers(inputs, attributes) if isinstance(self.run, Quick) else 0

    def cost(self, inputs: Sequence[Shape | None], **attributes: Any) -> tuple[int, int]:
        """Return (flops, bytes moved) for float32 inputs of these shapes."""
        output = self.shape(*inputs, **attributes)
        moved = sum(math.prod(shape) for shape in inputs if shape is not None) + math.prod(output)
        return self.flops(output, *inputs, **attributes), 4 * moved


def _whole_numbers(value: Any) -> Any:
    """Return a list of whole numbers as an array of them; everything else as it is."""
    if not isinstance(value, list | tuple | int):
        return value
    with suppress(ValueError, OverflowError):
        numbers = np.asarray(value)
        return numbers if numbers.dtype.kind == "i" else value
    return value


OPS: dict[str, Op] = {}
"""Every operation by name."""


def op(
    shape: Callable[..., Shape],
    flops: Callable[..., int],
    example: Example,
    gradient: Callable[..., tuple[Array | None, ...]] | None = None,
    name: str = "",
    dtype: StorageType = F32,
    is_view: bool = False,
    short: Callable[[], Short] | None = None,
) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """Make the decorated function a row of the table.

    Its results follow IEEE 754 in silence: overflow is infinity, 0/0 is NaN, nothing warns.
    """

    def register(function: Callable[..., Array]) -> Callable[..., Array]:
        parameters = inspect.signature(function).parameters.values()
        named = name or function.__name__
        slow = function if is_view else _silently(function)
        run = _run(named, slow, short, flops)
        values = [p for p in parameters if str(p.annotation).split(" ")[0] in _VALUES]
        kinds = {p.name: str(p.annotation).split(" ")[0] for p in values}
        row = Op(
            name=named,
            summary=(function.__doc__ or "").split("\n")[0],
            inputs=tuple(p.name + "?" * ("None" in p.annotation) for p in values),
            packed=frozenset(n for n, kind in kinds.items() if kind == "Weights"),
            indices=frozenset(n for n, kind in kinds.items() if kind == "Indices"),
            attributes=tuple(
                Attribute(p.name, _KINDS[p.annotation], None if p.default is p.empty else p.default)
                for p in parameters
                if p not in values and p.name != "out"
            ),
            dtype=dtype,
            shape=shape,
            run=run,
            short=(lambda: run.short) if isinstance(run, Direct | Quick) else short,
            definition=function,
            gradient=gradient and _silently(gradient),
            flops=flops,
            example=example,
            takes_out=any(p.name == "out" for p in parameters),
            is_view=is_view,
        )
        OPS[row.name] = row
        if isinstance(run, Quick):
            run.row = row
        return row.run

    return register


_VALUES = ("Array", "Weights", "Indices")
_KINDS: dict[str, type] = {"int": int, "float": float, "bool": bool, "Ints": tuple}


def _run(
    name: str, slow: Callable[..., Array], short: Callable[[], Short] | None,
    flops: Callable[..., int],
) -> Callable[..., Array]:  # fmt: skip
    if name in DIRECT:
        return Direct(name, slow, flops((1,), (1,), (1,), (1,)))
    if name in QUICK:
        return Quick(name, slow)
    return slow if short is None else _at_once(short, slow)


def _at_once(short: Callable[[], Short], slow: Callable[..., Array]) -> Callable[..., Array]:
    """Return a function that tries a short one first, which costs a tenth of a microsecond."""
    attempt: Short | None = None

    def run(*inputs: Any, **attributes: Any) -> Array:
        nonlocal attempt
        if attempt is None:
            attempt = short()
        if not attributes and (made := attempt(*inputs)) is not None:
            return made
        return slow(*inputs, **attributes)

    return functools.update_wrapper(run, slow)


def _silently(function: Callable[..., Any]) -> Callable[..., Any]:
    return np.errstate(all="ignore")(function)


# ---- rules that many rows share ----


def same(x: Shape, *others: Shape | None, **attributes: Any) -> Shape:
    """Return the first input's shape."""
    return x


def broadcast(*shapes: Shape | None, **attributes: Any) -> Shape:
    """Return the shape that NumPy's broadcasting gives, or raise ShapeError."""
    given = [shape for shape in shapes if shape is not None]
    try:
        return np.broadcast_shapes(*given)
    except ValueError:
        raise ShapeError("broadcast", f"{' and '.join(map(str, given))} do not fit") from None


def axis_of(operation: str, shape: Shape, axis: int) -> int:
    """Return an axis counted from the front, or raise ShapeError."""
    if not -len(shape) <= axis < len(shape):
        raise ShapeError(operation, f"there is no axis {axis} in shape {shape}")
    return axis % len(shape)


def per_output(count: int) -> Callable[..., int]:
    """Return the cost rule of so many operations for each element of the result."""
    return lambda output, *inputs, **attributes: count * math.prod(output)


def per_input(count: int) -> Callable[..., int]:
    """Return the cost rule of so many operations for each element of the first input."""
    return lambda output, x, *inputs, **attributes: count * math.prod(x)


def unbroadcast(gradient: Array, shape: Shape) -> Array:
    """Sum a gradient over the axes along which its input was repeated."""
    extra = gradient.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(
        extra + i for i, n in enumerate(shape) if n == 1 and gradient.shape[extra + i] != 1
    )
    total: Array = gradient.sum(axis=axes) if axes else gradient
    return total.reshape(shape)


def flat_rows(x: Array) -> Array:
    """Return all axes but the last as one, also where there is nothing along them."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def contiguous(x: Array, out: Out = None) -> Array:
    """Return an array in rows, or its copy in the array for the result."""
    if out is None:
        return np.ascontiguousarray(x)
    out[...] = x
    return out


def sample(*shapes: Shape, low: float = -2.0, high: float = 2.0, **attributes: Any) -> Example:
    """Return an example of uniform float32 arrays of these shapes, with attributes."""

    def build(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return tuple(rng.uniform(low, high, s).astype(np.float32) for s in shapes), attributes

    return build


__all__ = [
    "F32",
    "I32",
    "OPS",
    "Array",
    "Attribute",
    "Example",
    "Indices",
    "Ints",
    "Op",
    "Out",
    "Shape",
    "Short",
    "Weights",
    "axis_of",
    "broadcast",
    "contiguous",
    "flat_rows",
    "op",
    "per_input",
    "per_output",
    "same",
    "sample",
    "unbroadcast",
]
