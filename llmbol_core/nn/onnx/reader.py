"""ONNX files read into models: folded, traced, simplified, lifted to layers.

Everything that cannot be imported is told at once. What does not depend on the input is computed by
ONNX's own reference evaluator.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from llmbol_core.errors import ModelError, UsageError, nearest
from llmbol_core.nn.layers.graph import Graph
from llmbol_core.nn.layers.shape import Identity
from llmbol_core.nn.model import Input, Model
from llmbol_core.nn.onnx import arithmetic as _arithmetic  # noqa: F401 -- fills the table
from llmbol_core.nn.onnx import einsum as _einsum  # noqa: F401
from llmbol_core.nn.onnx import picking as _picking  # noqa: F401
from llmbol_core.nn.onnx import products as _products  # noqa: F401
from llmbol_core.nn.onnx import recurrent as _recurrent  # noqa: F401
from llmbol_core.nn.onnx import shapes as _shapes  # noqa: F401
from llmbol_core.nn.onnx.document import Document, opset_of
from llmbol_core.nn.onnx.importers import importer
from llmbol_core.nn.onnx.lifting import Lifted, lift
from llmbol_core.nn.onnx.node import Node
from llmbol_core.nn.onnx.operands import Constant, Operand, Traced, Unavailable, Unsupported
from llmbol_core.nn.onnx.simplify import Simplifier
from llmbol_core.nn.onnx.tracing import Tracer

_PRIMES = (37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109, 113, 127)
_RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli")
_SMALL = 64
"""Constants of no more integers than this may be sizes."""
_MOST_LISTED = 20

Environment = dict[str, Operand | Unavailable | None]


@dataclass(frozen=True)
class Given:
    """An input of the file: sizes as they are, the batch's axis, and whether it holds integers."""

    name: str
    sizes: tuple[int, ...]
    """Of one sample."""
    batch_axis: int
    static_batch: int
    """The size of the batch that the file is made for; 0 if it takes any."""
    whole: bool


@dataclass(frozen=True)
class Imported:
    """A model made from a file, and what the file has that the model has not."""

    model: Model
    inputs: tuple[Given, ...]
    output: str
    batch_axis: int
    """Of the file's output."""
    left_out: tuple[str, ...]
    """Outputs of the file that the model does not give."""


def import_document(
    document: Document,
    path: str,
    name: str,
    output: str | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Imported:
    """Return the model that does what a document says for one of its outputs.

    ``sizes`` gives lengths to named axes that the file leaves open, other than the batch.
    """
    graph = document.graph
    outputs = [value.name for value in graph.output]
    chosen = output if output is not None else outputs[0]
    if chosen not in outputs:
        known = nearest(chosen, outputs) or f": expected one of {', '.join(outputs)}"
        raise UsageError(f"{path}: no output is called {chosen!r}{known}")
    given = _inputs(graph, path, dict(sizes or {}))
    reader = _Reader(document, path, _prime(graph, given), _static(given))
    source = reader.declare(given)
    result, axis = reader.run(chosen)
    tracer = reader.tracer
    result_name = Simplifier(tracer, result.name).run()
    lifted = lift(tracer, source.name, result_name)
    scale, lifted = _scale(lifted)
    layers = [part.layer for part in lifted] or [Identity()]
    model = Model(name, Input(source.shape[1:], scale), layers)
    model.network.load_state(dict(_state(lifted)))
    others = tuple(other for other in outputs if other != chosen)
    return Imported(model.evaluate(), given, chosen, axis, others)


def _scale(lifted: list[Lifted]) -> tuple[float, list[Lifted]]:
    """Return the factor that all begins with, as the declared input has it, and what follows."""
    first = lifted[0].layer if lifted else None
    if isinstance(first, Graph) and len(first.steps) == 1 and first.steps[0].operation == "scale":
        numbers = first.steps[0].attributes()
        if numbers["offset"] == 0 and numbers["factor"] > 0:
            return numbers["factor"], lifted[1:]
    return 1.0, lifted


def _state(lifted: list[Lifted]) -> Iterator[tuple[str, Any]]:
    for index, part in enumerate(lifted):
        for name, array in part.state.items():
            yield f"{index}.{name}", np.asarray(array, np.float32)


# ---- inputs ----


def _inputs(graph: Any, path: str, sizes: dict[str, int]) -> tuple[Given, ...]:
    """Return the inputs with the axis of the batch apart and every other size known."""
    held = {tensor.name for tensor in graph.initializer}
    values = [value for value in graph.input if value.name not in held]
    if not values:
        raise ModelError(path, "the graph has no input")
    names = {d.dim_param for value in values for d in value.type.tensor_type.shape.dim}
    if unknown := [name for name in sizes if name not in names]:
        known = nearest(unknown[0], names)
        raise UsageError(f"{path}: no axis is called {unknown[0]!r}{known}")
    named = {value.name: _dims(value, path, sizes) for value in values}
    batch = {name for dims in named.values() if (name := _batch_name(dims))}
    return tuple(_given(value, path, named[value.name], batch) for value in values)


def _dims(value: Any, path: str, sizes: dict[str, int]) -> list[int | str]:
    """Return the sizes of an input, those that stay open by name."""
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.shape.dim:
        raise ModelError(path, f"the input {value.name!r} is no tensor with a batch of samples")
    return [
        sizes.get(d.dim_param, d.dim_value if d.dim_value > 0 else d.dim_param or f"axis {i}")
        for i, d in enumerate(kind.shape.dim)
    ]


def _batch_name(dims: list[int | str]) -> str:
    """Return what an input calls its batch: its first axis, or its only open one."""
    if isinstance(dims[0], str):
        return dims[0]
    open_axes = [n for n in dims if isinstance(n, str)]
    return open_axes[0] if dims[0] > 1 and len(open_axes) == 1 else ""


def _given(value: Any, path: str, dims: list[int | str], batch: set[str]) -> Given:
    """Return an input with its batch apart: an axis called so, else the first one."""
    axis = next((i for i, n in enumerate(dims) if n in batch), 0)
    static = dims[axis]
    rest = [n for i, n in enumerate(dims) if i != axis]
    for n in rest:
        if isinstance(n, str):
            why = f"the axis {n!r} of the input {value.name!r} has no fixed size"
            raise UsageError(f"{path}: {why}: give it with --size {n}=LENGTH")
    kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    fixed = tuple(n for n in rest if isinstance(n, int))
    is_integer = np.dtype(kind).kind in "iub"
    return Given(value.name, fixed, axis, static if isinstance(static, int) else 0, is_integer)


def _static(given: Sequence[Given]) -> int:
    """Return the size of batch that a file was made for, 0 if that is 1 or open."""
    sizes = {g.static_batch for g in given}
    only = sizes.pop() if len(sizes) == 1 else 0
    return only if only > 1 else 0


def _prime(graph: Any, given: Sequence[Given]) -> int:
    """Return a batch size to follow the graph with: none of its other sizes is a multiple."""
    seen = {n for g in given for n in g.sizes}
    for tensor in _all_tensors(graph):
        seen.update(tensor.dims)
        is_integer = tensor.data_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
        if is_integer and math.prod(tensor.dims) <= _SMALL:
            seen.update(int(n) for n in numpy_helper.to_array(tensor).reshape(-1))
    for prime in _PRIMES:
        if not any(n and n % prime == 0 for n in seen):
            return prime
    return 7919


def _all_tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t


# ---- nodes ----


class _Reader:
    """Follows a graph node by node; notes what cannot be imported and goes on."""

    def __init__(self, document: Document, path: str, prime: int, static: int) -> None:
        self.graph, self.path = document.graph, path
        self.opset = opset_of(document)
        self.opsets = list(document.opset_import)
        self.tracer = Tracer(prime, static)
        self.values: Environment = {"": None}
        self.complaints: dict[str, None] = {}

    def declare(self, given: Sequence[Given]) -> Traced:
        """Make the inputs known; several come as one row, one after the other."""
        tracer = self.tracer
        if len(given) == 1:
            (only,) = given
            shape = only.sizes or (1,)
            source = tracer.input(only.name, (tracer.prime, *shape), only.whole)
            self.values[only.name] = self._placed(only, source)
            return source
        total = sum(math.prod(g.sizes) for g in given)
        source = tracer.input("inputs", (tracer.prime, total), False)
        start = 0
        for each in given:
            stop = start + math.prod(each.sizes)
            tracer.hint = each.name
            part = replace(tracer.part(source, 1, start, stop), whole=each.whole)
            self.values[each.name] = self._placed(each, part)
            start = stop
        return source

    def _placed(self, given: Given, x: Traced) -> Traced:
        """Return an input in its own shape, with the batch on its axis."""
        x = self.tracer.reshape(x, [self.tracer.prime, *given.sizes])
        order = list(range(1, len(x.shape)))
        return self.tracer.permute(x, [*order[: given.batch_axis], 0, *order[given.batch_axis :]])

    def run(self, output: str) -> tuple[Traced, int]:
        """Follow what an output needs; return it with the batch in front, and where that was."""
        for tensor in self.graph.initializer:
            self.values[tensor.name] = Constant(numpy_helper.to_array(tensor), tensor.name)
        self._follow(self.graph.node, [output])
        if self.complaints:
            raise ModelError(self.path, self._complaint())
        result = self.values.get(output)
        if not isinstance(result, Traced):
            why = result.why if isinstance(result, Unavailable) else "it depends on no input"
            raise ModelError(self.path, f"the output {output!r} cannot be imported: {why}")
        result = self.tracer.numbers(result)
        assert isinstance(result, Traced)
        axis = self.tracer.batch_axis(result)
        if axis is None or result.shape[axis] != self.tracer.prime:
            shown = self.tracer.shown(result.shape)
            why = f"the output {output!r} of shape {shown} has no value for each sample"
            raise ModelError(self.path, why)
        order = [axis, *(i for i in range(len(result.shape)) if i != axis)]
        result = self.tracer.permute(result, order)
        if len(result.shape) == 1:
            result = self.tracer.reshape(result, [self.tracer.prime, 1])
        return result, axis

    def _follow(self, nodes: Sequence[Any], outputs: Sequence[str]) -> None:
        """Follow the nodes that outputs need, in the order in which they stand."""
        needed, kept = set(outputs), []
        for node in reversed(nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                for attribute in node.attribute:
                    if attribute.HasField("g"):
                        needed.update(n for inner in attribute.g.node for n in inner.input)
                        needed.update(value.name for value in attribute.g.output)
                kept.append(node)
        for node in reversed(kept):
            used = [name if name in needed else "" for name in node.output]
            try:
                results = self._results(node, used)
            except Unsupported as error:
                self._complain(node, str(error))
                results = (Unavailable(""),) * len(node.output)
            for name, result in zip(node.output, results, strict=False):
                if name:
                    self.values[name] = result
            for name in node.output[len(results) :]:
                why = f"the result {name!r} of {node.op_type} is not supported"
                self.values[name] = Unavailable(why)

    def _results(self, node: Any, used: list[str]) -> tuple[Operand | Unavailable | None, ...]:
        """Return what a node gives."""
        operands = tuple(self.values.get(name) for name in node.input)
        if any(isinstance(x, Unavailable) and not x.why for x in operands):
            return (Unavailable(""),) * len(node.output)
        if node.domain not in ("", "ai.onnx"):
            raise Unsupported(f"operators of the domain {node.domain!r} are not supported")
        if missing := [n for n in node.input if n and n not in self.values]:
            raise Unsupported(f"nothing gives its input {missing[0]!r}")
        if node.op_type in _RANDOM:
            raise Unsupported("its result is random")
        if node.op_type == "If":
            return self._branch(node, operands)
        first = operands[0] if operands else None
        if node.op_type in ("Shape", "Size") and isinstance(first, Traced):
            return (self._sizes(node, first),)
        if all(x is None or isinstance(x, Constant) for x in operands):
            return self._folded(node, operands)
        attributes = {a.name: _attribute(a) for a in node.attribute}
        seen = Node(node.op_type, self.opset, operands, attributes, tuple(used))
        if node.op_type == "CastLike":
            return (self._cast_like(seen),)
        self.tracer.hint = next(iter(node.output), "")
        outcome = importer(node.op_type, self.opset)(self.tracer, seen)
        return outcome if isinstance(outcome, tuple) else (outcome,)

    def _cast_like(self, node: Node) -> Operand:
        from llmbol_core.nn.onnx.arithmetic import cast_to

        return cast_to(self.tracer, node[0], 7 if node[1].whole else 1)

    def _branch(
        self, node: Any, operands: Sequence[Any]
    ) -> tuple[Operand | Unavailable | None, ...]:
        """Follow the branch of a condition that does not depend on the input."""
        if not isinstance(operands[0], Constant):
            raise Unsupported("the condition of an If depends on the input")
        wanted = "then_branch" if operands[0].array.reshape(-1)[0] else "else_branch"
        (graph,) = (a.g for a in node.attribute if a.name == wanted)
        for tensor in graph.initializer:
            self.values[tensor.name] = Constant(numpy_helper.to_array(tensor), tensor.name)
        names = [value.name for value in graph.output]
        self._follow(graph.node, names)
        return tuple(self.values[name] for name in names)

    def _sizes(self, node: Any, x: Traced) -> Constant:
        """Return the shape of a value, the prime standing for the batch."""
        attributes = {a.name: a.i for a in node.attribute}
        if node.op_type == "Size":
            return Constant(np.array(math.prod(x.shape), np.int64))
        part = slice(attributes.get("start", 0), attributes.get("end"))
        return Constant(np.array(x.shape[part], np.int64))

    def _folded(self, node: Any, operands: Sequence[Any]) -> tuple[Constant, ...]:
        """Return what a node gives for constants, computed by ONNX's reference."""
        if node.op_type == "Expand":
            operands = (self.tracer.expandable(*operands), operands[1])
        given = {n: x.array for n, x in zip(node.input, operands, strict=True) if n and x}
        inputs = [onnx.helper.make_empty_tensor_value_info(name) for name in given]
        outputs = [onnx.helper.make_empty_tensor_value_info(n) for n in node.output if n]
        graph = onnx.helper.make_graph([node], "constant", inputs, outputs)
        model = onnx.helper.make_model(graph, opset_imports=self.opsets)
        try:
            with np.errstate(all="ignore"):
                arrays = ReferenceEvaluator(model).run(None, given)
        except Exception as error:
            raise Unsupported(f"what it computes from constants fails: {error}") from error
        floats = [x for x in operands if isinstance(x, Constant) and x.name and not x.whole]
        name = max(floats, key=lambda x: x.array.size).name if floats else ""
        results = iter(Constant(np.asarray(a), name) for a in arrays)
        return tuple(next(results) if name else Constant(np.zeros(0)) for name in node.output)

    # Complaints.

    def _complain(self, node: Any, why: str) -> None:
        label = node.name or next(iter(node.output), "")
        self.complaints[f"node {label!r} ({node.op_type}): {why}"] = None

    def _complaint(self) -> str:
        """Return one line for all that is wrong, or several lines for several things."""
        lines = list(self.complaints)
        shown = lines[:_MOST_LISTED]
        if len(lines) > _MOST_LISTED:
            shown.append(f"and {len(lines) - _MOST_LISTED} more")
        if len(lines) == 1:
            return shown[0]
        return "\n  ".join([f"{len(lines)} nodes cannot be imported", *shown])


def _attribute(attribute: Any) -> Any:
    """Return an attribute's value, texts as str."""
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float):  # stored as float32: 1e-5, not 9.99999974e-06
        return float(str(np.float32(value)))
    if isinstance(value, list) and value and isinstance(value[0], bytes):
        return [part.decode("utf-8", "replace") for part in value]
    return value
