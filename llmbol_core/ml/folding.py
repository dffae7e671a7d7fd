"""Batch norm folded into the linear layer or convolution before it, as a pass over the graph.

With f = weight / sqrt(variance + eps), normalizing x W + b is the same as x (W f) + (b - mean) f +
bias. The pass writes these products down as operations on weights: steps that depend on no input,
which whoever runs the graph computes once. So the pass knows no numbers, and every runner of the
graph gets the same bits.
"""

from __future__ import annotations

from collections.abc import Collection

from llmbol_core.ml.graph import Graph, Step, Value

_BEFORE = frozenset({"linear", "conv1d", "conv2d"})
"""The operations whose output channels are the first axis of their weight."""
FACTORS = frozenset({"sqrt", "scale", "div", "reshape", "sub", "neg", "mul", "add"})
"""The operations on weights that the pass writes down: none of them is a product of matrices."""


def fold_batch_norm(graph: Graph, blocked: Collection[str] = ()) -> Graph:
    """Return a graph without the batch norms that can be folded.

    Weights named in ``blocked`` stay in quantized blocks and so as they are.
    """
    folded = _foldable(graph, blocked)
    result = Graph()
    places = {v.index: result.input(v.name, v.shape[1:], v.dtype) for v in graph.inputs}
    before = {step.output.index: step for step in graph.steps}
    for step in graph.steps:
        if step.output.index in folded.values():
            continue  # comes with its batch norm
        source = before.get(folded.get(step.output.index, -1))
        if source is None:
            values = [_moved(result, places, value) for value in step.inputs]
            places[step.output.index] = result.op(step.op, *values, **step.attributes)
        else:
            places[step.output.index] = _folded(result, places, source, step)
    for value in graph.outputs:
        result.output(_moved(result, places, value))
    return result


def _moved(graph: Graph, places: dict[int, Value], value: Value) -> Value:
    """Return what stands for a value in the new graph; weights appear when they are needed."""
    return places[value.index] if value.index in places else graph.weight(value.name, value.shape)


def _foldable(graph: Graph, blocked: Collection[str]) -> dict[int, int]:
    """Return for each batch norm that can be folded whose output it normalizes."""
    weights = {value.index: name for name, value in graph.weights.items()}
    uses = [value.index for step in graph.steps for value in step.inputs]
    uses += [value.index for value in graph.outputs]
    made = {step.output.index: step for step in graph.steps}
    found = {}
    for step in graph.steps:
        before = made.get(step.inputs[0].index)
        if step.op != "batch_norm" or before is None or before.op not in _BEFORE:
            continue
        given = [value.index for value in (*before.inputs[1:], *step.inputs[1:])]
        if any(index not in weights or weights[index] in blocked for index in given):
            continue
        # Of more axes, channels are the last ones of a linear layer but axis 1 of a batch norm.
        fits = before.op != "linear" or len(before.output.shape) == 2
        if fits and uses.count(before.output.index) == 1:
            found[step.output.index] = before.output.index
    return found


def _folded(graph: Graph, places: dict[int, Value], before: Step, norm: Step) -> Value:
    """Append an operation with the weights that make its batch norm needless."""
    x, kernel, *biases = [_moved(graph, places, value) for value in before.inputs]
    weight, bias, mean, variance = [_moved(graph, places, value) for value in norm.inputs[1:]]
    root = graph.op("sqrt", graph.op("scale", variance, offset=norm.attributes["eps"]))
    factor = graph.op("div", weight, root)
    column = graph.op("reshape", factor, shape=(-1, *(1,) * (len(kernel.shape) - 1)))
    rest = graph.op("sub", biases[0], mean) if biases else graph.op("neg", mean)
    shift = graph.op("add", graph.op("mul", rest, factor), bias)
    return graph.op(before.op, x, graph.op("mul", kernel, column), shift, **before.attributes)
