"""Checkpoints: a model as one GGUF file that carries its own spec.

    llmbol.spec   the spec as JSON: name, input, layers, labels, training
    tensors       parameters and buffers by dotted 0-based name: ``0.weight``, ``1.running_mean``

A data path in the spec is relative to the file that the spec stands in, the checkpoint as much as
the YAML file. Weights that are quantized stay so; such a file serves inference only.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from llmbol_core.errors import ModelError
from llmbol_core.ml import gguf
from llmbol_core.ml.dtypes import F32
from llmbol_core.ml.quantization import dequantize
from llmbol_core.ml.tensor import Tensor
from llmbol_core.nn.container import is_container, read_container
from llmbol_core.nn.data import conform
from llmbol_core.nn.model import Model
from llmbol_core.nn.module import Array, Shape
from llmbol_core.nn.spec import format_json_spec, parse_json_spec, read_spec

if TYPE_CHECKING:
    from llmbol_core.ml.engine import Engine
    from llmbol_core.ml.graph import Graph

SPEC_KEY = "llmbol.spec"


def save(model: Model, path: str) -> None:
    """Write a checkpoint; it appears complete or not at all."""
    state = model.network.state().items()
    tensors = {name: Tensor(np.ascontiguousarray(value, np.float32)) for name, value in state}
    gguf.write(path, metadata(model, path), tensors)


def metadata(model: Model, path: str) -> dict[str, gguf.Value]:
    """Return the keys of a checkpoint that is going to be written to a path."""
    relocated = model.config()
    if model.train is not None:
        here = os.path.dirname(os.path.abspath(path))
        data = os.path.relpath(model.data_path, here)
        relocated["train"] = model.train.config() | {"data": data}
    return {
        "general.architecture": "llmbol",
        "general.name": model.name,
        SPEC_KEY: format_json_spec(relocated),
    }


def load(path: str) -> Model:
    """Return the model of a checkpoint, ready to be trained on; its weights must be F32."""
    file = read_container(path)
    model = model_of(file)
    tensors = tensors_of(file, model)
    if packed := [name for name, tensor in tensors.items() if tensor.dtype is not F32]:
        kind = tensors[packed[0]].dtype.name
        why = f"{packed[0]} is {kind}: a quantized model cannot be trained, take the one in F32"
        raise ModelError(path, why)
    model.network.load_state({name: tensor.data for name, tensor in tensors.items()})
    return model


def open_model(path: str) -> Model:
    """Return the model that a spec, a checkpoint or a compiled model describes; no weights."""
    return model_of(read_container(path)) if is_container(path) else read_spec(path)


def model_of(file: gguf.GgufFile) -> Model:
    """Return the model whose spec a GGUF file carries."""
    spec = file.metadata.get(SPEC_KEY)
    if not isinstance(spec, str):
        raise ModelError(file.path, f"a GGUF file without {SPEC_KEY!r}: not made by 'nn build'")
    return parse_json_spec(spec, file.path)


def tensors_of(file: gguf.GgufFile, model: Model) -> dict[str, Tensor]:
    """Return the tensors that the model needs, having held their sizes against its layers."""
    shapes = model.network.state_shapes()
    for name, shape in shapes.items():
        if name not in file.tensors:
            raise ModelError(file.path, f"the tensor {name!r} is missing")
        found = file.tensors[name].shape
        if found not in (shape, matrix_shape(shape)):
            raise ModelError(file.path, f"{name} has shape {list(found)}, expected {list(shape)}")
    return {name: file.tensors[name] for name in shapes}


def matrix_shape(shape: Shape) -> Shape:
    """Return the shape as a matrix, one row per output, as quantized convolutions are stored."""
    return (shape[0], math.prod(shape[1:])) if len(shape) > 2 else shape


@dataclass(frozen=True)
class InferenceModel:
    """A model that only computes: its spec, a graph, and the weights as they are stored."""

    model: Model
    graph: Graph
    weights: dict[str, Tensor]

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def input_shape(self) -> Shape:
        """The shape of one input sample."""
        return self.model.input.shape

    @property
    def output_shape(self) -> Shape:
        """The shape of one output sample."""
        return self.model.output_shape

    @property
    def labels(self) -> tuple[str, ...]:
        """What the output values stand for; empty if the spec does not say."""
        return self.model.labels

    @cached_property
    def engine(self) -> Engine:
        """The planned graph; made on first use."""
        from llmbol_core.ml.engine import Engine

        return Engine(self.graph, self.weights)

    @cached_property
    def run(self) -> Callable[[Any], Array]:
        """A function of a batch of inputs, or one sample, to the outputs ``[N, ...]``."""
        engine, shape, name = self.engine, self.input_shape, self.name

        def run(x: Any) -> Array:
            return engine.run(conform(x, shape, name))

        return engine.function(run)


def load_for_inference(path: str) -> InferenceModel:
    """Return the model of a checkpoint, its weights mapped as they lie in the file."""
    return inference_model(read_container(path))


def inference_model(file: gguf.GgufFile) -> InferenceModel:
    """Return the model that an opened GGUF file holds."""
    model = model_of(file)
    return _inference(model, tensors_of(file, model))


def freeze(model: Model) -> InferenceModel:
    """Return a model in memory as one that only computes.

    It shares the weights until it first runs; what becomes of them later does not matter to it.
    """
    return _inference(model, {name: Tensor(v) for name, v in model.network.state().items()})


def expanded(model: InferenceModel) -> InferenceModel:
    """Return a model whose weights are all float32, planned as such."""
    weights = {name: Tensor(dequantize(tensor)) for name, tensor in model.weights.items()}
    return _inference(model.model, weights)


def _inference(model: Model, weights: dict[str, Tensor]) -> InferenceModel:
    """Lower a model and give each operation its weights in their own shapes.

    A convolution that was quantized as a matrix is expanded to float32: its operation takes no
    blocks. Linear weights stay as they are. Batch norms go into the layer before them unless its
    weight stays in blocks.
    """
    from llmbol_core.ml import constants
    from llmbol_core.ml.folding import fold_batch_norm

    shapes = model.network.state_shapes()
    ready = {
        name: tensor
        if tensor.shape == shapes[name]
        else Tensor(constants.expanded(tensor).reshape(shapes[name]))
        for name, tensor in weights.items()
    }
    blocked = {name for name, tensor in ready.items() if tensor.dtype.is_blocked}
    return InferenceModel(model, fold_batch_norm(model.lower(), blocked), ready)
