"""A model as a Dis module: its graph as calls of ``$Ml``, its weights behind the object.

    init(ctxt, argv)   reads the samples in the file argv names, or on standard input, and prints
                       one line of numbers for each, as ``nn infer`` does
    forward(x)         the network: ref Tensor to ref Tensor, for other Dis modules to load
    labels()           what the outputs stand for: list of string
    info()             name, input and output shape as JSON

The graph is the one that the inference engine runs, step by step, so both give the same bits.
A slot that holds a step's result is used again once nobody needs it, which releases the tensor.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from llmbol_core.builtins import signature_of
from llmbol_core.deploy.listing import NIL, Listing, Routine
from llmbol_core.ml import gguf
from llmbol_core.ml.dtypes import F32
from llmbol_core.ml.graph import Graph, Step, Value
from llmbol_core.ml.ops import OPS
from llmbol_core.ml.tensor import Tensor
from llmbol_core.native.files import atomic_write, check_target, map_file
from llmbol_core.nn.checkpoint import InferenceModel, inference_model, model_of, tensors_of
from llmbol_core.vm.assembly import parse_assembly
from llmbol_core.vm.limbo import parse_declarations, signature
from llmbol_core.vm.objectfile import write_module
from llmbol_core.vm.payload import attach

_INIT = 0x4244B354
"""Signature of ``init: fn(nil: ref Draw->Context, argv: list of string)``."""
_FORWARD = "Tensor: adt { rank: int; size: int; }; forward: fn(x: ref Tensor): ref Tensor;"


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
    payload = map_file(source)
    text = _listing_of(payload, source)
    module = parse_assembly(text, f"<listing of {source}>", signature_of)
    code = write_module(module)
    with atomic_write(output) as out:
        size = sum(out.write(piece) for piece in attach(code, payload))
    return Compiled(output, module.name, len(module.instructions), len(code), len(payload), size)


def list_file(source: str) -> str:
    """Return the Dis assembly that a checkpoint compiles to."""
    return _listing_of(map_file(source), source)


def _listing_of(payload: memoryview, source: str) -> str:
    file = gguf.read_buffer(payload, source)
    return listing(inference_model(file), tensors_of(file, model_of(file)))


def listing(model: InferenceModel, stored: dict[str, Tensor]) -> str:
    """Return the Dis assembly of a model whose tensors are stored like that."""
    out = Listing()
    out.imports.update({"Sys": [], "Ml": []})
    constant = model.graph.constant_steps()
    bind = _bind(out, model.graph, constant, stored)
    forward = _forward(out, model.graph, constant, bind)
    _init(out, model, bind, forward)
    _labels(out, model.labels)
    _info(out, model)
    return out.text(_module_name(model.name), f"{model.name}: {_described(model)}", "init")


def _bind(out: Listing, graph: Graph, constant: list[Step], stored: dict[str, Tensor]) -> Routine:
    """Add the function that loads the built-in modules and takes the weights, once.

    What depends on weights alone is computed here and kept beside them.
    """
    bind = out.routine("bind", comment="Load the built-in modules and take the weights, once.")
    bind.code("bnew\tready(mp),$0,bound")
    for module in out.imports:
        handle = out.load(bind, module)
        bind.code(f"bnew\t{handle},{NIL},has{module}")
        bind.code(f"raise\t{out.string(f'fail: no ${module} here')}")
        bind.label(f"has{module}")
    for name, value in graph.weights.items():
        _take(out, bind, value, stored[name], graph.takes_blocks(value))
    places = _weight_places(graph, constant)
    for step in constant:
        _step(out, bind, step, places, out.pointer(f"w{step.output.index}"))
    bind.code("movw\t$1,ready(mp)")
    bind.label("bound")
    bind.code("ret")
    return bind


def _weight_places(graph: Graph, constant: list[Step]) -> dict[int, str]:
    """Return where the weights and what was computed from them stay: in the module data."""
    kept = [*graph.weights.values(), *(step.output for step in constant)]
    return {value.index: f"w{value.index}(mp)" for value in kept}


def _take(out: Listing, bind: Routine, value: Value, tensor: Tensor, blocks: bool) -> None:
    """Take one weight from the payload, in the form that its operations read."""
    place = out.pointer(f"w{value.index}")
    out.call(bind, "Ml.payload", [out.string(value.name)], place, f"{value.name} {tensor!r}")
    if tensor.dtype is not F32 and not (blocks and tensor.dtype.is_blocked):
        out.call(bind, "Ml.dequantize", [place], place)
    if tensor.shape != value.shape:
        out.call(bind, "Ml.reshape", [place, out.number_list(bind, value.shape)], place)


def _forward(out: Listing, graph: Graph, constant: list[Step], bind: Routine) -> Routine:
    """Add the network: one call for each step of the graph that depends on the input."""
    forward = out.routine("forward", ["x"], "The network: a batch of inputs to a batch of outputs.")
    out.export(forward, signature(parse_declarations(_FORWARD)["forward"]))
    forward.code(f"call\t{out.invoke(forward, bind)},bind")
    places = _weight_places(graph, constant)
    places[graph.inputs[0].index] = forward.slot("x")
    steps = [step for step in graph.steps if step.output.index not in places]
    last = {v.index: n for n, step in enumerate(steps) for v in step.inputs}
    free: list[str] = []
    for number, step in enumerate(steps):
        finished = {v.index for v in step.inputs if last[v.index] == number}
        free += [places[i] for i in finished if not places[i].endswith("(mp)")]
        place = free.pop() if free else forward.slot(f"t{step.output.index}")
        _step(out, forward, step, places, place)
        places[step.output.index] = place
    forward.code(f"movp\t{places[graph.outputs[0].index]},0(16(fp))")
    forward.code("ret")
    return forward


def _step(out: Listing, forward: Routine, step: Step, places: dict[int, str], place: str) -> None:
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
            attributes.append(out.number_list(forward, value, attribute.name))
        else:
            attributes.append(f"${int(value)}")
    shape = "x".join(map(str, step.output.shape))
    out.call(forward, f"Ml.{step.op}", [*inputs, *attributes], place, f"{step.op} to {shape}")


def _init(out: Listing, model: InferenceModel, bind: Routine, forward: Routine) -> None:
    """Add the program: samples from a file or standard input, outputs to standard output."""
    init = out.routine("init", ["context", "argv"], "Print the outputs for the samples of a file.")
    out.export(init, _INIT)
    rest, path, file = init.slot("rest"), init.slot("path"), init.slot("file")
    x, y = init.slot("samples"), init.slot("outputs")
    init.code(f"call\t{out.invoke(init, bind)},bind")
    init.code(f"beqw\t{init.slot('argv')},{NIL},stdin")
    init.code(f"tail\t{init.slot('argv')},{rest}")
    init.code(f"beqw\t{rest},{NIL},stdin")
    init.code(f"headp\t{rest},{path}")
    init.code(f"beqc\t{path},{out.string('-')},stdin")
    out.call(init, "Sys.open", [path, "$0"], file)
    init.code(f"bnew\t{file},{NIL},opened")
    out.call(init, "Sys.fildes", ["$2"], file)
    out.call(init, "Sys.fprint", [file, out.string("%s: %r\n"), path])
    init.code(f"raise\t{out.string('fail:open')}")
    init.label("stdin")
    out.call(init, "Sys.fildes", ["$0"], file)
    init.label("opened")
    training = model.model.train
    names = (training.inputs, training.targets) if training else ("inputs", "targets")
    shape = out.number_list(init, model.input_shape)
    out.call(init, "Ml.samples", [file, *map(out.string, names), shape], x)
    frame = out.invoke(init, forward, [x])
    init.code(f"lea\t{y},16({frame})")
    init.code(f"call\t{frame},forward")
    out.call(init, "Sys.fildes", ["$1"], file)
    out.call(init, "Ml.print", [file, y])
    init.code("ret")


def _labels(out: Listing, labels: tuple[str, ...]) -> None:
    """Add the function that tells what the outputs stand for."""
    routine = out.routine("labels", comment="What the outputs stand for.")
    out.export(routine, signature("fn(): list of string"))
    place = routine.slot("list")
    for label in reversed(labels):
        routine.code(f"consp\t{out.string(label)},{place}")
    routine.code(f"movp\t{place},0(16(fp))")
    routine.code("ret")


def _info(out: Listing, model: InferenceModel) -> None:
    """Add the function that describes the model."""
    routine = out.routine("info", comment="The model's name and shapes, as JSON.")
    out.export(routine, signature("fn(): string"))
    facts = {"name": model.name, "input": model.input_shape, "output": model.output_shape}
    routine.code(f"movp\t{out.string(json.dumps(facts))},0(16(fp))")
    routine.code("ret")


def _described(model: InferenceModel) -> str:
    shapes = ["x".join(map(str, shape)) for shape in (model.input_shape, model.output_shape)]
    return f"{shapes[0]} to {shapes[1]}, {len(model.graph.steps)} operations"


def _module_name(name: str) -> str:
    """Return a model's name as a module may be called.

    >>> _module_name("digits-mlp")
    'DigitsMlp'
    """
    words = re.findall(r"[A-Za-z0-9]+", name)
    return (
        "".join(word[:1].upper() + word[1:] for word in words)[:63].lstrip("0123456789") or "Model"
    )
