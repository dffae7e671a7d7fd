"""The module protocol of Torch7, and the registry of layers.

A layer states three things: its output, its input gradient and its parameter gradients. Calling,
walking, flattening, casting, cloning and printing are written once, here. Names are Torch7's in
snake_case; shapes, initial values and 0-based indices are PyTorch's.

    forward(x)       -> update_output(x)
    backward(x, g)   -> update_grad_input(x, g), then acc_grad_parameters(x, g)

Arrays hold a batch: ``[N, *shape]``; a *shape* in this package is that of one sample. Parameters
are float32; ``double()`` makes them float64 for gradient checks.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from llmbol_core.errors import ModelError, ShapeError
from llmbol_core.nn.declared import Declared, Name
from llmbol_core.nn.lowering import Scope
from llmbol_core.nn.randomness import TRAINING_LANES, Stream

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
Data = Any
"""What flows between modules: an array, or a table, which is a tuple of data."""
Form = Any
"""The shape of one sample of data: a ``Shape``, or for a table a tuple of forms."""

_LANES = itertools.count()
"""A layer takes the next lane when it is made, so that two alike layers start differently."""


class Module(Declared, family="layer"):
    """Base of all layers: override the three ``update``/``acc`` methods and what else differs.

    ``params``, ``grads`` and ``buffers`` map names to arrays, made when they are first touched, so
    that a summary or a loaded checkpoint costs no random numbers.
    """

    name: Name = dataclasses.field(default="", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.train = True
        self.output: Data = np.zeros(0, np.float32)
        self.grad_input: Data = np.zeros(0, np.float32)
        self._stream = Stream(0, next(_LANES))

    # What a layer says about itself.

    takes: ClassVar[str] = "an array"
    """What flows in: "an array", "a table", or "anything"."""

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Return a small instance and a sample shape that it takes, for tests and help."""
        return cls(), (4,)

    @classmethod
    def example_batch(cls, rng: np.random.Generator, count: int) -> Array:
        """Return so many samples that the example takes."""
        return rng.normal(size=(count, *cls.example()[1]))

    def parameter_shapes(self) -> dict[str, Shape]:
        """Return the shape of each parameter; none by default."""
        return {}

    def initial_parameters(self, stream: Stream) -> dict[str, Array]:
        """Return initial values for each parameter, as PyTorch draws them."""
        return {}

    def initial_buffers(self) -> dict[str, Array]:
        """Return the state that is saved but not trained, at its start."""
        return {}

    def output_shape(self, shape: Form) -> Form:
        """Return the shape of one output sample, or raise ``ShapeError``."""
        return shape

    def checked_shape(self, shape: Form) -> Form:
        """Return the output shape, having checked the input against what this module takes."""
        if self.takes != "anything" and is_table(shape) != (self.takes == "a table"):
            found = f"a table of {len(shape)}" if is_table(shape) else f"shape {list(shape)}"
            raise ShapeError(self.label, f"expected {self.takes}, got {found}")
        return self.output_shape(shape)

    def natural_input(self) -> Shape | None:
        """Return the sample shape that the fields call for, or None if they leave it open."""
        return None

    def macs(self, shape: Form) -> int:
        """Return the multiply-accumulate operations for one input sample of this shape."""
        return 0

    def details(self) -> str:
        """Return what the printed form says after the type, such as ``(784 -> 128)``."""
        return ""

    # What a layer computes.

    def update_output(self, x: Data) -> Data:
        """Return the output for a batch."""
        raise NotImplementedError

    def update_grad_input(self, x: Data, grad_output: Data) -> Data:
        """Return the gradient with respect to the input that ``forward`` was last called with."""
        raise NotImplementedError

    def acc_grad_parameters(self, x: Data, grad_output: Data, scale: float = 1.0) -> None:
        """Add the parameter gradients, times scale, to ``grads``."""

    def lower(self, graph: Scope, x: Any) -> Any:
        """Append what this layer does in evaluation mode to a graph; return its output.

        A table is a tuple of values.
        """
        raise NotImplementedError

    # What follows from that.

    def forward(self, x: Data) -> Data:
        """Compute, keep and return the output."""
        if self.takes != "anything" and isinstance(x, tuple) != (self.takes == "a table"):
            raise ShapeError(self.label, f"expected {self.takes}, got {type(x).__name__}")
        self.output = self.update_output(x)
        return self.output

    def backward(self, x: Data, grad_output: Data, scale: float = 1.0) -> Data:
        """Add parameter gradients; return and keep the input gradient. Call after ``forward``."""
        self.grad_input = self.update_grad_input(x, grad_output)
        self.acc_grad_parameters(x, grad_output, scale)
        return self.grad_input

    __call__ = forward

    def training(self) -> Self:
        """Switch the whole tree to training: dropout drops, batch norm uses the batch."""
        return self.apply(lambda module: setattr(module, "train", True))

    def evaluate(self) -> Self:
        """Switch the whole tree to evaluation."""
        return self.apply(lambda module: setattr(module, "train", False))

    # Parameters.

    @cached_property
    def params(self) -> dict[str, Array]:
        """The parameters by name; made on first use."""
        return self.initial_parameters(self._stream)

    @cached_property
    def grads(self) -> dict[str, Array]:
        """The gradients by parameter name, zero until something is accumulated."""
        return {name: np.zeros_like(value) for name, value in self.params.items()}

    @cached_property
    def buffers(self) -> dict[str, Array]:
        """State that is saved but not trained, such as running means."""
        return self.initial_buffers()

    def reset(self, seed: int = 0) -> Self:
        """Give the tree the initial values of a seed; each layer's position is its lane."""
        for lane, module in enumerate(self.list_modules()):
            module._stream = Stream(seed, lane)
            fresh = (module.initial_parameters(module._stream), module.initial_buffers())
            for old, new in zip((module.params, module.buffers), fresh, strict=True):
                for name, value in new.items():
                    old[name][...] = value
        return self

    def seed_training(self, seed: int) -> None:
        """Restart the random streams that the layers draw from while they train."""
        for lane, module in enumerate(self.list_modules()):
            module._stream = Stream(seed, TRAINING_LANES + lane)

    def parameters(self) -> tuple[list[Array], list[Array]]:
        """Return all parameters and their gradients, in pre-order over the tree."""
        modules = self.list_modules()
        weights = [value for module in modules for value in module.params.values()]
        grads = [value for module in modules for value in module.grads.values()]
        return weights, grads

    def get_parameters(self) -> tuple[Array, Array]:
        """Return all parameters and all gradients as two flat vectors; the layers hold views.

        The first call moves the values; call it on the whole model, after casts. A parameter that
        two layers share appears once.
        """
        weights, grads = self.parameters()
        if not _is_flat(weights) or not _is_flat(grads):
            self._rehome("params")
            self._rehome("grads")
            weights, grads = self.parameters()
        empty = np.zeros(0, np.float32)
        return (weights[0].base, grads[0].base) if weights else (empty, empty)  # type: ignore[return-value]

    def _rehome(self, kind: str) -> None:
        """Move the arrays of one kind into one vector."""
        places = [
            (arrays, name, array)
            for arrays in (getattr(module, kind) for module in self.list_modules())
            for name, array in arrays.items()
        ]
        distinct = {id(array): array for _, _, array in places}
        if not distinct:
            return
        flat = np.concatenate([value.ravel() for value in distinct.values()])
        ends = np.cumsum([value.size for value in distinct.values()])
        views = {
            key: flat[end - value.size : end].reshape(value.shape)
            for (key, value), end in zip(distinct.items(), ends, strict=True)
        }
        for arrays, name, array in places:
            arrays[name] = views[id(array)]

    def zero_grad_parameters(self) -> None:
        """Set all gradients to zero."""
        for grad in self.parameters()[1]:
            grad.fill(0)

    def update_parameters(self, learning_rate: float) -> None:
        """Take one step of plain gradient descent."""
        for weight, grad in zip(*self.parameters(), strict=True):
            weight -= learning_rate * grad

    def double(self) -> Self:
        """Turn all parameters and buffers into float64."""
        return self._cast(np.float64)

    def float(self) -> Self:
        """Turn all parameters and buffers into float32."""
        return self._cast(np.float32)

    def _cast(self, dtype: type) -> Self:
        for module in self.list_modules():
            for arrays in (module.params, module.grads, module.buffers):
                for name, value in arrays.items():
                    arrays[name] = value.astype(dtype)
        return self

    def parameter_count(self) -> int:
        """Return the number of trained values in the tree; none is made for it."""
        shapes = (m.parameter_shapes().values() for m in self.list_modules())
        return sum(math.prod(shape) for group in shapes for shape in group)

    def state_shapes(self) -> dict[str, Shape]:
        """Return the shape of every tensor that a checkpoint holds, by dotted 0-based name."""
        shapes: dict[str, Shape] = {}
        for path, module in self.named_modules():
            buffers = {name: value.shape for name, value in module.initial_buffers().items()}
            for name, shape in {**module.parameter_shapes(), **buffers}.items():
                shapes[join(path, name)] = shape
        return shapes

    def state(self) -> dict[str, Array]:
        """Return every parameter and buffer by dotted 0-based name, such as ``0.weight``."""
        return {
            join(path, name): value
            for path, module in self.named_modules()
            for name, value in {**module.params, **module.buffers}.items()
        }

    def load_state(self, state: dict[str, Array]) -> None:
        """Copy values into the parameters and buffers; names and shapes must be the same."""
        mine = self.state()
        if missing := [name for name in mine if name not in state]:
            raise ModelError(type(self).__name__, f"no values for {', '.join(missing)}")
        for name, value in mine.items():
            if state[name].shape != value.shape:
                raise ShapeError(name, f"expected {value.shape}, got {state[name].shape}")
            value[...] = state[name]

    # Walking.

    def children(self) -> list[Module]:
        """Return the modules directly inside."""
        return []

    def named_modules(self, path: str = "") -> Iterator[tuple[str, Module]]:
        """Yield this module and all inside, parents first, with dotted 0-based paths."""
        yield path, self
        for index, child in enumerate(self.children()):
            yield from child.named_modules(join(path, str(index)))

    def list_modules(self) -> list[Module]:
        """Return this module and all inside, parents first."""
        return [module for _, module in self.named_modules()]

    def find_modules(self, kind: type[Module] | str) -> list[Module]:
        """Return the modules of a class, given itself or by name, in pre-order."""
        cls = Module.lookup(kind) if isinstance(kind, str) else kind
        return [module for module in self.list_modules() if isinstance(module, cls)]

    def apply(self, function: Callable[[Module], object]) -> Self:
        """Call a function with each module, parents first; return this module."""
        for module in self.list_modules():
            function(module)
        return self

    def clone(self) -> Self:
        """Return a deep copy."""
        return copy.deepcopy(self)

    def clear_state(self) -> Self:
        """Forget the outputs and gradients that the last calls left."""
        return self.apply(lambda module: module.forget())

    def forget(self) -> None:
        """Forget what this module's last calls left."""
        self.output = self.grad_input = np.zeros(0, np.float32)

    @property
    def label(self) -> str:
        """The layer's own name, or else its type, as errors show it."""
        return self.name or type(self).__name__

    def shape_error(self, expected: str, shape: tuple[int, ...]) -> ShapeError:
        """Return the error that an input of this shape is not what was expected."""
        return ShapeError(self.label, f"expected {expected}, got shape {list(shape)}")

    def __repr__(self) -> str:
        return f"nn.{type(self).__name__}{self.details()}"


def is_table(shape: Form) -> bool:
    """Whether a shape is that of a table, and not of an array."""
    return bool(shape) and isinstance(shape[0], tuple)


def join(path: str, name: str) -> str:
    """Return a dotted path with another part appended."""
    return f"{path}.{name}" if path else name


def _is_flat(arrays: list[Array]) -> bool:
    """Whether the arrays are views that together fill one vector."""
    if not arrays:
        return True
    base = arrays[0].base
    distinct = {id(array): array for array in arrays}.values()
    return (
        base is not None
        and base.ndim == 1
        and all(array.base is base for array in distinct)
        and sum(array.size for array in distinct) == base.size
    )
