"""Models in a line of Python: builder methods and factories that follow from the layer registry.

    build_model("my-model", [784]).linear(784, 128).relu().dropout(0.2).linear(128, 10).build()
    nn().add(linear(784, 128)).add(relu())      # nn is the package itself

A layer's factory is its name in lower case, with or without underscores. It takes the fields of the
layer: ``nn layers NAME`` shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

from llmbol_core.errors import LlmbolError, ModelError
from llmbol_core.nn import tables as _tables  # noqa: F401 -- fills the registry
from llmbol_core.nn.model import Input, Model
from llmbol_core.nn.module import Form, Module


class ModelBuilder:
    """Collects layers: each layer of the registry is a method that appends it.

    A method raises ModelError if its layer does not take what the one before gives.
    """

    def __init__(self, name: str, input_shape: Sequence[int]) -> None:
        self.name = name
        self.input = Input(tuple(input_shape))
        self._layers: list[Module] = []
        self._shape: Form = self.input.shape

    def add(self, layer: Module) -> Self:
        """Append a layer; raises ModelError if it does not fit."""
        try:
            self._shape = layer.checked_shape(self._shape)
        except LlmbolError as error:
            raise ModelError(self.name, f"{len(self._layers)}.{error}") from error
        self._layers.append(layer)
        return self

    def build(self, seed: int = 0, labels: Sequence[str] = ()) -> Model:
        """Return the model, with the initial values that belong to the seed."""
        return Model(self.name, self.input, list(self._layers), tuple(labels)).seeded(seed)

    def __getattr__(self, name: str) -> Callable[..., Self]:
        """Return the method that appends the layer of this name."""
        try:
            cls = layer_class(name)
        except AttributeError:
            raise AttributeError(f"no layer and no method is called {name!r}") from None
        return lambda *arguments, **fields: self.add(cls(*arguments, **fields))

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *FACTORIES]


def build_model(name: str, input_shape: Sequence[int]) -> ModelBuilder:
    """Start a model that takes float32 samples of this shape; the batch is not part of it.

    >>> build_model("tiny", [4]).linear(4, 3).relu().build()
    tiny: nn.Sequential {
      [input -> (0) -> (1) -> output]
      (0): nn.Linear(4 -> 3)
      (1): nn.ReLU
    }
    """
    return ModelBuilder(name, input_shape)


FACTORIES: dict[str, type[Module]] = {name.lower(): cls for name, cls in Module.table.items()}
"""The layers by the names of their factories."""


def layer_class(name: str) -> type[Module]:
    """Return the layer with this factory name, or raise ``AttributeError``."""
    try:
        return FACTORIES[name.replace("_", "")]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __getattr__(name: str) -> type[Module]:
    """Return the factory of a layer: ``linear(784, 128)``."""
    return layer_class(name)


def __dir__() -> list[str]:
    return sorted([*globals(), *FACTORIES])
