"""A model as a Dis module: its graph as calls of ``$Ml``, its weights after the object.

    init(ctxt, argv)   reads the samples in the file argv names, or on standard input, and prints
                       the outputs for each as ``nn infer`` does; --json and --top-k K
    forward(x)         the network: ref Tensor to ref Tensor, for other Dis modules to load
    labels()           what the outputs stand for: list of string
    shape()            the shape of one sample of the input: list of int
    info()             name, input and output shape as JSON

The first call of a function puts the network together, one call of ``$Ml`` for each operation of
the graph, and has ``$Ml`` plan it. That is the inference engine's own graph and plan, so both give
the same bits in the same time.
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass

import numpy as np

from llmbol_core.builtins import signature_of
from llmbol_core.deploy import program
from llmbol_core.deploy.interface import FORWARD, INFO
from llmbol_core.deploy.listing import NIL, Listing, Routine
from llmbol_core.ml import gguf
from llmbol_core.ml.gguf.shards import is_shard
from llmbol_core.ml.graph import Step, Value
from llmbol_core.ml.ops import OPS
from llmbol_core.ml.tensor import Shape, Tensor
from llmbol_core.native.files import atomic_write, check_target, map_file
from llmbol_core.nn.checkpoint import (
    metadata,
    model_of,
    tensors_of,
)
from llmbol_core.nn.container import carried
from llmbol_core.nn.model import Model
from llmbol_core.vm.assembly import parse_assembly
from llmbol_core.vm.module import Module
from llmbol_core.vm.objectfile import write_module
from llmbol_core.vm.payload import attach
from llmbol_core.vm.signature import type_signature


@dataclass(frozen=True)
class Compiled:
    """What came of a model: sizes in bytes of its parts, and how much code it is."""

    path: str
    name: str
    instructions: int
    code_bytes: int
    payload_bytes: int
    bytes: int


def compile_file(source: str, output: str) -> Compiled:
    """Compile a checkpoint to a ``.dis`` file; the same checkpoint gives the same bytes."""
    check_target(output, source)
    return _write(_payload(source), source, output)


def compile_checkpoint(source: str, output: str | None) -> Compiled | bytes:
    """Compile a checkpoint to a file, or return the file's bytes without a path."""
    if output is not None:
        return compile_file(source, output)
    return b"".join(_compiled(_payload(source), source)[0])


def compile_model(model: Model, output: str | None = None) -> Compiled | bytes:
    """Compile a model in memory to a ``.dis`` file, or return the file's bytes without a path."""
    payload = io.BytesIO()
    state = model.network.state().items()
    tensors = {name: Tensor(np.ascontiguousarray(value, np.float32)) for name, value in state}
    gguf.write_stream(payload, metadata(model, output or "model.dis"), tensors)
    if output is not None:
        check_target(output)
        return _write(payload.getbuffer(), model.name, output)
    pieces, _ = _compiled(payload.getbuffer(), model.name)
    return b"".join(pieces)


def _compiled(payload: memoryview, source: str) -> tuple[list[bytes | memoryview], Module]:
    """Return the pieces of the file that a checkpoint compiles to, and its module."""
    text = _listing_of(payload, source)
    module = parse_assembly(text, f"<listing of {source}>", signature_of)
    return list(attach(write_module(module), payload)), module


def _write(payload: memoryview, source: str, output: str) -> Compiled:
    pieces, module = _compiled(payload, source)
    with atomic_write(output) as out:
        size = sum(out.write(piece) for piece in pieces)
    counts = (len(module.instructions), len(pieces[0]), len(payload), size)
    return Compiled(output, module.name, *counts)


def list_file(source: str) -> str:
    """Return the Dis assembly that a checkpoint compiles to."""
    return _listing_of(_payload(source), source)


def _payload(source: str) -> memoryview:
    """Return the checkpoint's bytes; shards are joined."""
    data = carried(map_file(source), source)
    if not is_shard(gguf.read_buffer(data, source)):
        return data
    whole, joined = gguf.read(source), io.BytesIO()
    gguf.write_stream(joined, whole.metadata, whole.tensors, whole.types)
    return joined.getbuffer()


def _listing_of(payload: memoryview, source: str) -> str:
    file = gguf.read_buffer(payload, source)
    model = model_of(file)
    return listing(model, tensors_of(file, model))


def listing(model: Model, stored: dict[str, Tensor]) -> str:
    """Return the Dis assembly of a model whose tensors are stored like that."""
    out = Listing()
    out.imports.update({"Sys": [], "Ml": []})
    bind = _bind(out, model, stored)
    forward = _forward(out, bind)
    program.add(out, model, bind, forward)
    _info(out, model)
    return out.text(_module_name(model.name), f"{model.name}: {_described(model)}", "init")


def _bind(out: Listing, model: Model, stored: dict[str, Tensor]) -> Routine:
    """Add the function that puts the network together and has it planned, once."""
    bind = out.routine("bind", comment="Put the network together and plan it, once.")
    plan = out.pointer("plan")
    bind.code(f"bnew\t{plan},{NIL},bound")
    for module in out.imports:
        handle = out.load(bind, module)
        bind.code(f"bnew\t{handle},{NIL},has{module}")
        bind.code(f"raise\t{out.string(f'no module ${module} here')}")
        bind.label(f"has{module}")
    _network(out, bind, model, stored)
    out.call(bind, "Ml.plan", [bind.slot("x"), bind.slot("y")], plan)
    bind.label("bound")
    bind.code("ret")
    return bind


def _network(out: Listing, bind: Routine, model: Model, stored: dict[str, Tensor]) -> None:
    """Add the calls that lead from the input, in slot x, to the output, in slot y."""
    graph = model.lower()
    source, (result,) = graph.inputs[0], graph.outputs
    shape = out.number_list(bind, model.input.shape)
    out.call(bind, "Ml.input", [shape], bind.slot("x"), f"{_times(model.input.shape)} a sample")
    places = {source.index: bind.slot("x")}
    weights = {value.index: value for value in graph.weights.values()}
    last = {v.index: n for n, step in enumerate(graph.steps) for v in step.inputs}
    free: list[str] = []
    for number, step in enumerate(graph.steps):
        for value in step.inputs:
            if value.index not in places:
                places[value.index] = free.pop() if free else bind.slot(f"t{value.index}")
                _take(out, bind, weights[value.index], stored[value.name], places[value.index])
        ended = {v.index for v in step.inputs if last[v.index] == number} - {
            source.index,
            result.index,
        }
        free += [places[index] for index in sorted(ended)]
        place = free.pop() if free else bind.slot(f"t{step.output.index}")
        _step(out, bind, step, places, place)
        places[step.output.index] = place
    bind.code(f"movp\t{places[result.index]},{bind.slot('y')}")


def _take(out: Listing, bind: Routine, value: Value, tensor: Tensor, place: str) -> None:
    """Take one weight from the payload, in the shape that its operations want."""
    out.call(bind, "Ml.payload", [out.string(value.name)], place, f"{value.name} {tensor!r}")
    if tensor.shape != value.shape:
        out.call(bind, "Ml.dequantize", [place], place)
        out.call(bind, "Ml.reshape", [place, out.number_list(bind, value.shape)], place)


def _forward(out: Listing, bind: Routine) -> Routine:
    """Add the network as a function: one call of its plan."""
    forward = out.routine("forward", ["x"], "The network: a batch of inputs to a batch of outputs.")
    out.export(forward, type_signature(FORWARD))
    forward.code(f"call\t{out.invoke(forward, bind)},bind")
    out.call(forward, "Ml.run", ["plan(mp)", forward.slot("x")], forward.slot("y"))
    forward.code(f"movp\t{forward.slot('y')},0(16(fp))")
    forward.code("ret")
    return forward


def _step(out: Listing, bind: Routine, step: Step, places: dict[int, str], place: str) -> None:
    """Add the call of one operation."""
    row = OPS[step.op]
    inputs: list[str | None] = [places[value.index] for value in step.inputs]
    inputs += [None] * (len(row.inputs) - len(inputs))
    attributes = []
    for attribute in row.attributes:
        value = step.attributes[attribute.name]
        if attribute.kind is float:
            attributes.append(out.real(value))
        elif attribute.kind is tuple:
            attributes.append(out.number_list(bind, value, attribute.name))
        else:
            attributes.append(f"${int(value)}")
    note = f"{step.op} to {_times(step.output.shape)}"
    out.call(bind, f"Ml.{step.op}", [*inputs, *attributes], place, note)


def _info(out: Listing, model: Model) -> None:
    """Add the function that describes the model."""
    routine = out.routine("info", comment="The model's name and shapes, as JSON.")
    out.export(routine, type_signature(INFO))
    facts = {"name": model.name, "input": model.input.shape, "output": model.output_shape}
    routine.code(f"movp\t{out.string(json.dumps(facts))},0(16(fp))")
    routine.code("ret")


def _described(model: Model) -> str:
    ends = f"{_times(model.input.shape)} to {_times(model.output_shape)}"
    return f"{ends}, {len(model.lower().steps)} operations"


def _times(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _module_name(name: str) -> str:
    """Return a model's name as a module may be called.

    >>> _module_name("digits-mlp")
    'DigitsMlp'
    """
    words = re.findall(r"[A-Za-z0-9]+", name)
    return (
        "".join(word[:1].upper() + word[1:] for word in words)[:63].lstrip("0123456789") or "Model"
    )
