"""Operations in machine code from the call on: arrays of float32 in, a new one out.

What a kernel does not take (other types, axes in orders that cannot be joined, arrays of no length)
is left to the definition. Results are the same whatever an array's layout and however many threads
there are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.kernels.target import target

Array = NDArray[Any]
Function = Callable[..., Any]

_MAPS = (
    "neg", "abs", "sign", "floor", "ceil", "round", "square", "sqrt", "reciprocal", "exp", "log",
    "tanh", "sigmoid", "relu", "relu6", "erf", "gelu", "gelu_tanh", "silu", "mish", "log_sigmoid",
    "softsign", "hard_sigmoid", "hard_swish", "selu",
    "add", "sub", "mul", "div", "maximum", "minimum", "equal", "less", "less_equal", "greater",
    "greater_equal", "where",
)  # fmt: skip
_NUMBERS = ("leaky_relu", "elu", "softplus", "clamp", "scale")
_FOLDS = ("sum", "mean", "max", "min", "sum_squares")
_SCANS = ("cumsum", "softmax", "log_softmax")
_COPY = "copy"
"""What ``in_rows`` does; not an operation of the table."""
_NORMS = ("layer_norm", "rms_norm", "l2_norm")
DIRECT = (*_MAPS, *_NUMBERS, *_FOLDS, *_SCANS, *_NORMS)
"""The operations that there is machine code for."""
_WORTH = 1 << 16
"""Numbers, times the operations on each, from which on threads share the work."""


class Direct:
    """An operation that machine code does where it can, and its definition elsewhere."""

    def __init__(self, name: str, slow: Function, work: int) -> None:
        """Take an operation by its name, its definition, and operations for each number."""
        functools.update_wrapper(self, slow)
        self.name, self.slow, self._many = name, slow, _WORTH // work

    def __call__(self, *inputs: Any, **attributes: Any) -> Array:
        """Run the operation; see the table."""
        made: Array = self.function(*inputs, **attributes)
        return made

    @functools.cached_property
    def function(self) -> Function:
        """What is called, with the least on the way to machine code."""
        family, apart = _family(self.name), self.apart
        made = self._machine_code(family.turned(apart, self._form))
        return apart if made is None else family.called(made, apart, self._form)

    @functools.cached_property
    def short(self) -> Function:
        """What is called as operations are called, and gives None for all that it leaves."""
        made = self._machine_code(_never)
        return _never if made is None else _family(self.name).checked(made, self._form)

    @property
    def _form(self) -> Form:
        """The attributes and their defaults, and how many inputs there may be."""
        parameters = signature(self.slow).parameters.values()
        values = [p for p in parameters if p.name != "out"]
        attributes = {p.name: p.default for p in values if type(p.default) in (int, float, bool)}
        return Form(attributes, len(values) - len(attributes))

    def apart(self, *inputs: Any, out: Array | None = None, **attributes: Any) -> Array:
        """Do what machine code does not; put what it does where it is wanted."""
        if out is not None:
            out[...] = self(*inputs, **attributes)
            return out
        if any(isinstance(x, np.memmap) for x in inputs):
            return self(*(_plain(x) for x in inputs), **attributes)
        made: Array = self.slow(*inputs, **attributes)
        return made

    def _machine_code(self, other: Function) -> Function | None:
        """Return the operation with another function for what it leaves, None without kernels."""
        if target() is None:
            return None
        from llmbol_core.ml.kernels import entries
        from llmbol_core.native.arrays import on_arrays

        kernel, words = getattr(entries, _family(self.name).words)(self.name, self._many)
        return on_arrays(kernel, entries.share(), words, other)


def _never(*inputs: Any, **attributes: Any) -> None:
    """Compute nothing."""


def _plain(x: Any) -> Any:
    """Return a mapped array as an array like others."""
    return np.asarray(x) if isinstance(x, np.memmap) else x


@dataclass(frozen=True)
class Form:
    """How an operation may be called."""

    attributes: dict[str, Any]
    inputs: int

    def checked(self, inputs: Sequence[Any], given: dict[str, Any]) -> list[Any] | None:
        """Return all attributes, None if something is not as declared."""
        if not 1 <= len(inputs) <= self.inputs or not given.keys() <= self.attributes.keys():
            return None
        full = {**self.attributes, **given}
        for name, default in self.attributes.items():
            kinds = (float, int) if type(default) is float else (type(default),)
            if type(full[name]) not in kinds:
                return None
        return list(full.values())


class _Map:
    """``f(x, ...)``: single values."""

    words = "map_words"

    @staticmethod
    def turned(apart: Function, form: Form) -> Function:
        """Return the function that machine code calls, with its arguments, for what it leaves."""
        return apart

    @staticmethod
    def called(made: Function, apart: Function, form: Form) -> Function:
        """Return what is called as an operation is."""
        return made

    @staticmethod
    def checked(made: Function, form: Form) -> Function:
        """Return what is called as an operation is, and gives None for what needs care."""
        return made


class _Numbers(_Map):
    """``f(x, a, b)``: single values, with one or two numbers."""

    @staticmethod
    def turned(apart: Function, form: Form) -> Function:
        count = len(form.attributes)
        return lambda x, *numbers: apart(x, *numbers[:count])

    @staticmethod
    def called(made: Function, apart: Function, form: Form) -> Function:
        names, defaults = list(form.attributes), list(form.attributes.values())

        def run(x: Any, *numbers: float, **named: Any) -> Any:
            values = [*numbers, *defaults[len(numbers) :]]
            for name in named:
                if name not in names[len(numbers) :]:
                    return apart(x, *numbers, **named)
                values[names.index(name)] = named[name]
            return made(x, *map(float, (*values, 0.0)[:2]))

        return run

    @staticmethod
    def checked(made: Function, form: Form) -> Function:
        def run(*inputs: Any, **given: Any) -> Any:
            values = form.checked(inputs, given)
            if values is None or ("low" in form.attributes and values[0] > values[1]):
                return None
            return made(*inputs, *map(float, (*values, 0.0)[:2]))

        return run


class _Fold(_Map):
    """``f(x, axis, keepdims)``: many values to one."""

    words = "fold_words"

    @staticmethod
    def called(made: Function, apart: Function, form: Form) -> Function:
        def run(x: Any, axis: int = -1, keepdims: bool = False) -> Any:
            return made(x, axis, keepdims)

        return run

    @staticmethod
    def checked(made: Function, form: Form) -> Function:
        def run(*inputs: Any, **given: Any) -> Any:
            values = form.checked(inputs, given)
            return None if values is None else made(*inputs, *(*values, False)[:2])

        return run


class _Scan(_Fold):
    """``f(x, axis, False)``: as many values as there are."""

    @staticmethod
    def turned(apart: Function, form: Form) -> Function:
        return lambda x, axis, keepdims: apart(x, axis)

    @staticmethod
    def called(made: Function, apart: Function, form: Form) -> Function:
        def run(x: Any, axis: int = -1, out: Array | None = None) -> Any:
            return made(x, axis, False) if out is None else apart(x, axis, out=out)

        return run


class _Norm(_Map):
    """``f(x, weight, bias, eps)``: rows, with None for what there is not."""

    words = "norm_words"

    @staticmethod
    def turned(apart: Function, form: Form) -> Function:
        count = form.inputs - 1
        return lambda x, weight, bias, eps: apart(x, *(weight, bias)[:count], eps=eps)

    @staticmethod
    def called(made: Function, apart: Function, form: Form) -> Function:
        default, most = form.attributes["eps"], form.inputs

        def run(*inputs: Any, eps: float = default, **named: Any) -> Any:
            if named or not 0 < len(inputs) <= most:
                return apart(*inputs, eps=eps, **named)
            return made(*(*inputs, None, None)[:3], float(eps))

        return run

    @staticmethod
    def checked(made: Function, form: Form) -> Function:
        def run(*inputs: Any, **given: Any) -> Any:
            values = form.checked(inputs, given)
            return None if values is None else made(*(*inputs, None, None)[:3], float(values[0]))

        return run


_FAMILIES: tuple[tuple[Sequence[str], type[_Map]], ...] = (
    ((*_MAPS, _COPY), _Map),
    (_NUMBERS, _Numbers),
    (_FOLDS, _Fold),
    (_SCANS, _Scan),
    (_NORMS, _Norm),
)


def _family(name: str) -> type[_Map]:
    return next(family for names, family in _FAMILIES if name in names)


_copy = Direct(_COPY, np.ascontiguousarray, 1)


def in_rows(x: Array) -> Array:
    """Return an array in rows: as it is if it is so, else a copy."""
    if x.flags.c_contiguous:
        return x
    made: Array = _copy.function(x)
    return made
