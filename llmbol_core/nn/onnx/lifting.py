"""Steps of operations turned into layers, where a layer of the registry says the same.

Where all that follows needs one value only, the steps can be cut. A piece that is one layer becomes
that layer; what lies between becomes a ``Graph``. A layer is found by its operation and proved
right: its attributes and the shapes of its parameters must be those of the step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from llmbol_core.errors import LlmbolError
from llmbol_core.ml.ops import OPS
from llmbol_core.nn.declared import convert, field_types
from llmbol_core.nn.layers.embedding import Embedding
from llmbol_core.nn.layers.graph import Buffer, Graph, Held, Parameter, Step
from llmbol_core.nn.layers.normalization import BatchNorm, BatchNorm1d, BatchNorm2d
from llmbol_core.nn.layers.operation import Operation
from llmbol_core.nn.layers.recurrent import GRU, LSTM, RNN, Recurrent
from llmbol_core.nn.layers.shape import Flatten, Permute, Reshape, Select
from llmbol_core.nn.module import Array, Module, Shape
from llmbol_core.nn.onnx.simplify import used_weights
from llmbol_core.nn.onnx.tracing import TracedStep, Tracer


@dataclass(frozen=True)
class Lifted:
    """A layer, and its parameters and buffers by name."""

    layer: Module
    state: dict[str, Array] = field(default_factory=dict)


def lift(tracer: Tracer, source: str, output: str) -> list[Lifted]:
    """Return the layers that do what a tracer's steps do from a value to another."""
    layers: list[Lifted] = []
    loose: list[TracedStep] = []
    start = source
    for piece in _pieces(tracer, source):
        found = _layer(tracer, piece)
        if found is None:
            loose += piece
            continue
        if loose:
            layers.append(_graph(tracer, loose, start))
        layers.append(found)
        loose, start = [], piece[-1].output
    return [*layers, _graph(tracer, loose, start)] if loose else layers


def _pieces(tracer: Tracer, source: str) -> list[list[TracedStep]]:
    """Return the steps, cut wherever what follows needs one value only."""
    last = {name: i for i, step in enumerate(tracer.steps) for name in step.inputs}
    pieces: list[list[TracedStep]] = [[]]
    alive = {source}
    for number, step in enumerate(tracer.steps):
        pieces[-1].append(step)
        alive.add(step.output)
        alive = {name for name in alive if last.get(name, -1) > number}
        if alive <= {step.output} and tracer.values[step.output].shape[0] == tracer.prime:
            pieces.append([])
    return _paired([piece for piece in pieces if piece])


_PAIRS = (("slice", "squeeze"), ("to_indices", "get_rows"))
"""Two operations that are one layer."""


def _paired(pieces: list[list[TracedStep]]) -> list[list[TracedStep]]:
    """Return the pieces, those of two operations that are one layer joined."""
    joined: list[list[TracedStep]] = []
    for piece in pieces:
        before = joined[-1] if joined else []
        if len(piece) == 1 and len(before) == 1 and (before[0].op, piece[0].op) in _PAIRS:
            joined[-1] = before + piece
        else:
            joined.append(piece)
    return joined


def _layer(tracer: Tracer, piece: list[TracedStep]) -> Lifted | None:
    """Return the layer that a piece is, if it is one."""
    step = piece[-1]
    weights = {name: tracer.weights[name] for name in used_weights(piece, tracer)}
    trained = [w.trained for w in weights.values()]
    if step.op != "batch_norm" and not all(trained):
        return None
    if len(piece) == 2 and (piece[0].op, piece[1].op) in _PAIRS:
        return _SPECIAL[piece[0].op](tracer, piece)
    if len(piece) == 3 and step.op == "concat":
        return _both_directions(tracer, piece)
    if len(piece) > 1:
        return None
    if step.op in _SPECIAL:
        return _SPECIAL[step.op](tracer, piece)
    return _operation(tracer, step)


# ---- layers that are one operation ----


def _operation(tracer: Tracer, step: TracedStep) -> Lifted | None:
    """Return the layer of the registry whose operation, attributes and shapes these are."""
    arrays = [tracer.weights[n].array for n in step.inputs if n in tracer.weights]
    if len(arrays) != len(step.inputs) - 1 or step.inputs[0] in tracer.weights:
        return None
    shape = tracer.values[step.inputs[0]].shape
    for cls in Module.table.values():
        if not issubclass(cls, Operation) or cls.operation != step.op:
            continue
        known = _fields(step, [array.shape for array in arrays], shape)
        try:
            fields = {
                name: convert(hint, known[name])
                for name, hint in field_types(cls).items()
                if name in known
            }
            layer = cls(**fields)
        except (LlmbolError, ValueError, TypeError):
            continue
        names = layer.parameter_shapes()
        same = OPS[step.op].conform(layer.attributes()) == _normal(step, shape)
        if same and list(names.values()) == [array.shape for array in arrays]:
            return Lifted(layer, dict(zip(names, arrays, strict=True)))
    return None


def _normal(step: TracedStep, shape: Shape) -> dict[str, Any]:
    """Return a step's attributes, the last axis counted from the end as layers do."""
    attributes = dict(step.attributes)
    if step.op in ("softmax", "log_softmax") and attributes["axis"] == len(shape) - 1:
        attributes["axis"] = -1
    return attributes


_RENAMED = {
    "kernel_size": "kernel",
    "ceil_mode": "ceil",
    "count_include_pad": "count_padding",
}
"""Fields of layers that have another name than the attribute."""


def _fields(step: TracedStep, weights: list[Shape], shape: Shape) -> dict[str, Any]:
    """Return all that a layer's fields may want to know of a step."""
    known = {k: _one(v) for k, v in _normal(step, shape).items() if k != "axes"}
    known |= {new: known[old] for new, old in _RENAMED.items() if old in known}
    if known.get("stride") == 0:  # as long as the kernel, which is the default
        del known["stride"]
    if step.op == "permute":
        known["axes"] = step.attributes["axes"][1:]
    known["features"] = shape[-1]
    if not weights:
        return known
    first = weights[0]
    known["bias"] = len(weights) == 2
    known |= {"features": first[0], "out_features": first[0], "out_channels": first[0]}
    if len(first) >= 2:
        groups = known.get("groups", 1)
        known |= {"in_features": first[1], "in_channels": first[1] * groups}
    if len(first) > 2 and len(set(first[2:])) == 1:
        known["kernel_size"] = first[2]
    if step.op.startswith("conv_transpose"):
        known |= {"in_channels": first[0], "out_channels": first[1] * known["groups"]}
    return known


def _one(value: Any) -> Any:
    """Return numbers that are all the same as one."""
    is_same = isinstance(value, tuple) and len(set(value)) == 1
    return value[0] if is_same else value


# ---- layers that are said in another way ----


def _batch_norm(tracer: Tracer, piece: list[TracedStep]) -> Lifted | None:
    """Return the batch norm for the rank of its input."""
    (step,) = piece
    arrays = [tracer.weights[n].array for n in step.inputs[1:] if n in tracer.weights]
    if len(arrays) != 4:
        return None
    rank = len(tracer.values[step.inputs[0]].shape)
    kinds: dict[int, type[BatchNorm]] = {2: BatchNorm1d, 3: BatchNorm1d, 4: BatchNorm2d}
    if rank not in kinds:
        return None
    layer = kinds[rank](len(arrays[0]), eps=step.attributes["eps"])
    names = [*layer.parameter_shapes(), *layer.initial_buffers()]
    return Lifted(layer, dict(zip(names, arrays, strict=True)))


def _reshape(tracer: Tracer, piece: list[TracedStep]) -> Lifted | None:
    """Return ``Flatten`` or ``Reshape`` if the batch stays in front."""
    (step,) = piece
    before, after = tracer.values[step.inputs[0]].shape, tracer.values[step.output].shape
    if before[0] != tracer.prime or after[:1] != before[:1] or len(after) < 2:
        return None
    if len(after) == 2:
        return Lifted(Flatten())
    return Lifted(Reshape(after[1:]))


def _permute(tracer: Tracer, piece: list[TracedStep]) -> Lifted | None:
    """Return ``Permute`` if the batch stays in front."""
    axes = piece[0].attributes["axes"]
    return Lifted(Permute(axes[1:])) if axes[0] == 0 else None


def _select(tracer: Tracer, piece: list[TracedStep]) -> Lifted | None:
    """Return ``Select`` for one place along an axis that is not the batch's."""
    part, squeeze = piece
    axis, start = part.attributes["axis"], part.attributes["start"]
    if axis == 0 or squeeze.attributes["axis"] != axis:
        return None
    size = tracer.values[part.inputs[0]].shape[axis]
    return Lifted(Select(axis, start if start < size - 1 else -1))


def _embedding(tracer: Tracer, piece: list[TracedStep]) -> Lifted | None:
    """Return ``Embedding``."""
    table = tracer.weights.get(piece[1].inputs[0])
    if table is None or piece[1].inputs[1] != piece[0].output:
        return None
    rows, features = table.array.shape
    layer = Embedding(rows, features)
    return Lifted(layer, {next(iter(layer.parameter_shapes())): table.array})


def _recurrent(tracer: Tracer, piece: list[TracedStep]) -> Lifted | None:
    """Return a recurrent layer of one direction."""
    (step,) = piece
    arrays = [tracer.weights[n].array for n in step.inputs[1:] if n in tracer.weights]
    if len(arrays) != 4 or step.attributes["reverse"]:
        return None
    layer = _RECURRENT[step.op](arrays[0].shape[1], arrays[1].shape[1])
    return Lifted(layer, dict(zip(layer.parameter_shapes(), arrays, strict=True)))


_RECURRENT: dict[str, Callable[..., Recurrent]] = {
    "lstm": LSTM,
    "gru": GRU,
    "rnn_tanh": RNN,
    "rnn_relu": partial(RNN, nonlinearity="relu"),
}


def _both_directions(tracer: Tracer, piece: list[TracedStep]) -> Lifted | None:
    """Return a recurrent layer of both directions, whose states are joined side by side."""
    forward, backward, joined = piece
    sides = (forward.output, backward.output)
    rank = len(tracer.values[joined.output].shape)
    if joined.inputs != sides or joined.attributes["axis"] not in (-1, rank - 1):
        return None
    if forward.op not in _RECURRENT or forward.op != backward.op:
        return None
    if forward.inputs[0] != backward.inputs[0] or not backward.attributes["reverse"]:
        return None
    names = [name for step in (forward, backward) for name in step.inputs[1:]]
    arrays = [tracer.weights[n].array for n in names if n in tracer.weights]
    if len(arrays) != 8 or forward.attributes["reverse"]:
        return None
    sizes = arrays[0].shape[1], arrays[1].shape[1]
    layer = _RECURRENT[forward.op](*sizes, bidirectional=True)
    return Lifted(layer, dict(zip(layer.parameter_shapes(), arrays, strict=True)))


_SPECIAL: dict[str, Callable[[Tracer, list[TracedStep]], Lifted | None]] = {
    "batch_norm": _batch_norm,
    **dict.fromkeys(("reshape", "flatten", "squeeze", "unsqueeze"), _reshape),
    "permute": _permute,
    "slice": lambda tracer, piece: _select(tracer, piece) if len(piece) == 2 else None,
    "to_indices": lambda tracer, piece: _embedding(tracer, piece) if len(piece) == 2 else None,
    **dict.fromkeys(_RECURRENT, _recurrent),
}


# ---- what no layer says ----


def _graph(tracer: Tracer, steps: list[TracedStep], source: str) -> Lifted:
    """Return a layer that is these steps."""
    weights = {name: tracer.weights[name] for name in used_weights(steps, tracer)}
    held: list[Held] = [
        (Parameter if weight.trained else Buffer)(name, weight.array.shape)
        for name, weight in weights.items()
    ]
    members = [Step.table[s.op](s.inputs, s.output, **s.attributes) for s in steps]
    layer = Graph(steps=members, weights=held, inputs=(source,))
    return Lifted(layer, {name: weight.array for name, weight in weights.items()})
