"""A compiled model from Python: arrays in, arrays out, in a machine of its own.

    model = deploy.open("digits.dis")
    model.run(x)           # float32 [N, ...], the same bits as the engine gives
    model.labels           # what the outputs stand for

The program's own ``forward`` computes, within the limits of the machine. Several models may run at
once, each in a thread of its own; one model is used by one thread at a time, others are refused.
"""

from __future__ import annotations

import json
import os
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.deploy.interface import FORWARD
from llmbol_core.errors import LinkError, ModelError
from llmbol_core.nn.data import conform
from llmbol_core.vm import engines
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.calling import lend, take_back
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.onethread import by_one_thread

Array = npt.NDArray[Any]


@by_one_thread("run", "__call__", "close")
class CompiledModel:
    """A compiled model that has been loaded into a machine."""

    def __init__(
        self,
        file: str | os.PathLike[str] | bytes,
        limits: Limits | None = None,
        key: str | None = None,
        engine: str = "auto",
    ) -> None:
        """Load a file, or its bytes; with a key it must be signed with that.

        Raises FileError, DisFormatError, VerifyError, SignatureError, and ModelError if the program
        is no compiled model.
        """
        self._machine = InfernoVM(HOST_MODULES, None, limits, None, True, engines.engine(engine))
        if key is not None:
            from llmbol_core.deploy.security import requirement

            self._machine.loader.check = requirement(key)
        self.path = "<bytes>" if isinstance(file, bytes) else os.fspath(file)
        try:
            self._machine.load_module("model", file)
            info = json.loads(self._machine.execute("model", "info"))
            self.name: str = info["name"]
            self.input_shape = tuple(map(int, info["input"]))
            self.output_shape = tuple(map(int, info["output"]))
            self.labels: tuple[str, ...] = tuple(self._machine.execute("model", "labels"))
        except (LinkError, ValueError, KeyError, TypeError, RecursionError) as error:
            self.close()
            raise ModelError(self.path, f"no compiled model: {error}") from error
        except BaseException:
            self.close()
            raise

    def run(self, x: npt.ArrayLike) -> Array:
        """Return the outputs [N, ...] for a batch of inputs, or for one sample as a batch of one.

        Raises ShapeError for inputs of another shape, Trap and LimitError as the program does.
        """
        from llmbol_core.builtins.ml.tensors import keep, tensor_of
        from llmbol_core.ml.tensor import Tensor

        batch, heap = conform(x, self.input_shape, self.name), self._machine.heap
        (argument,) = FORWARD.arguments
        given = lend(heap, keep(heap, Tensor(batch)), argument.type)
        try:
            made = self._machine.execute("model", "forward", [given], FORWARD)
        finally:
            take_back(heap, given, argument.type)
        try:
            return np.array(tensor_of(heap, made or NIL).numpy())
        finally:
            take_back(heap, made, FORWARD.result)

    __call__ = run

    def close(self) -> None:
        """Let the machine go."""
        self._machine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()
