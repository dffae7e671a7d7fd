"""Operations in machine code from the call on: arrays of float32 in, a new one out.

What a kernel does not take (other numbers, orders of axes that nothing can be joined of, arrays of
no length) is left to the definition. Results are the same however an array lies and however many
threads there are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from inspect import Signature, signature
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.kernels.target import target

Array = NDArray[Any]
Function = Callable[..., Any]

_MAPS = (
    "neg", "abs", "sign", "floor", "ceil", "round", "square", "sqrt", "reciprocal", "exp", "tanh",
    "sigmoid", "relu", "relu6", "erf", "gelu", "gelu_tanh", "silu", "mish", "log_sigmoid",
    "softsign", "hard_sigmoid", "hard_swish", "selu",
    "add", "sub", "mul", "div", "maximum", "minimum", "equal", "less", "less_equal", "greater",
    "greater_equal", "where",
)  # fmt: skip
_NUMBERS: dict[str, tuple[str, ...]] = {
    "leaky_relu": ("slope",),
    "elu": ("alpha",),
    "softplus": ("beta", "threshold"),
    "clamp": ("low", "high"),
    "scale": ("factor", "offset"),
}
"""Operations with attributes that are numbers."""
_FOLDS = ("sum", "mean", "max", "min", "sum_squares")
_SCANS = ("cumsum", "softmax", "log_softmax")
DIRECT = (*_MAPS, *_NUMBERS, *_FOLDS, *_SCANS)
"""The operations that there is machine code for."""
_WORTH = 1 << 17
"""Numbers times operations on each from which on threads share the work."""


class Direct:
    """An operation that machine code does where it can, and else its definition."""

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
        name = self.name
        if name in _MAPS:
            return self._machine_code(self.apart) or self.apart
        if name in _NUMBERS:
            count = len(_NUMBERS[name])
            made = self._machine_code(lambda x, *numbers: self.apart(x, *numbers[:count]))
            return self.apart if made is None else self._with_numbers(made)
        if name in _FOLDS:
            made = self._machine_code(self.apart)
            return self.apart if made is None else _with_axis(made, self.apart)
        made = self._machine_code(lambda x, axis, _: self.apart(x, axis))
        return self.apart if made is None else _with_axis_kept(made, self.apart)

    @functools.cached_property
    def short(self) -> Function:
        """What is called as operations are called, and gives None for all that it leaves."""
        made = self._machine_code(_never)
        if made is None or self.name in _MAPS:
            return made or _never
        return _checked(made, signature(self.slow), _NUMBERS.get(self.name, ()))

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
        from llmbol_core.ml.kernels.entries import fold_words, map_words
        from llmbol_core.native.arrays import on_arrays

        is_map = self.name in _MAPS or self.name in _NUMBERS
        kernel, words = (map_words if is_map else fold_words)(self.name, self._many)
        return on_arrays(kernel, words, other)

    def _with_numbers(self, made: Function) -> Function:
        """Return a function that hands on attributes as floats."""
        names, apart = _NUMBERS[self.name], self.apart
        defaults = [float(signature(self.slow).parameters[name].default) for name in names]
        given = (*defaults, 0.0)[:2]

        def run(x: Any, *numbers: float, **named: Any) -> Any:
            if not numbers and not named:
                return made(x, *given)
            values = [*numbers, *defaults[len(numbers) :]]
            for name in named:
                if name not in names[len(numbers) :]:
                    return apart(x, *numbers, **named)
                values[names.index(name)] = named[name]
            return made(x, *map(float, (*values, 0.0)[:2]))

        return run


def _never(*inputs: Any, **attributes: Any) -> None:
    """Compute nothing."""


def _plain(x: Any) -> Any:
    """Return a mapped array as an array like others."""
    return np.asarray(x) if isinstance(x, np.memmap) else x


def _with_axis(made: Function, apart: Function) -> Function:
    def run(x: Any, axis: int = -1, keepdims: bool = False) -> Any:
        return made(x, axis, keepdims)

    return run


def _with_axis_kept(made: Function, apart: Function) -> Function:
    def run(x: Any, axis: int = -1, out: Array | None = None) -> Any:
        return made(x, axis, False) if out is None else apart(x, axis, out=out)

    return run


def _checked(made: Function, form: Signature, numbers: Sequence[str]) -> Function:
    """Return a function of an array and attributes that leaves what is not as declared."""
    names = [name for name in form.parameters if name not in ("x", "out")]
    defaults = {name: form.parameters[name].default for name in names}
    kinds = {n: (float, int) if type(d) is float else (type(d),) for n, d in defaults.items()}

    def run(*inputs: Any, **attributes: Any) -> Any:
        if len(inputs) != 1 or not attributes.keys() <= defaults.keys():
            return None
        full = {**defaults, **attributes}
        values = list(full.values())
        if any(type(value) not in kinds[name] for name, value in full.items()):
            return None
        if full.get("low", 0) > full.get("high", 0):
            return None
        if numbers:
            return made(*inputs, *map(float, (*values, 0.0)[:2]))
        return made(*inputs, *(*values, False)[:2])

    return run
