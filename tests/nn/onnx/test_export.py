"""Every operation and every layer written as ONNX and run by another implementation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
import pytest

from llmbol_core.errors import ModelError
from llmbol_core.ml.graph import Graph
from llmbol_core.ml.ops import OPS
from llmbol_core.ml.tensor import Tensor
from llmbol_core.nn import tables as _tables  # noqa: F401
from llmbol_core.nn.checkpoint import InferenceModel, freeze
from llmbol_core.nn.layers.activation import Tanh
from llmbol_core.nn.layers.linear import Linear
from llmbol_core.nn.model import Input, Model
from llmbol_core.nn.module import Module
from llmbol_core.nn.onnx.agreement import compare_with_document
from llmbol_core.nn.onnx.export import export_model
from llmbol_core.nn.onnx.reader import Given, import_document
from llmbol_core.nn.onnx.writer import EXPORTERS, Writer
from tests.nn.onnx.runtime import HAS_RUNTIME, run_onnx

WEIGHTS = {
    *("weight", "bias", "weight_ih", "weight_hh", "bias_ih", "bias_hh", "table"),
    *("mean", "variance"),
}
WITHOUT = {"rope"}
# What the reference evaluator of onnx does not run; ONNX Runtime does.
UNEVALUATED = {
    *("avg_pool1d", "conv_transpose1d", "conv_transpose2d", "cumsum", "rnn_relu"),
    *("ConvTranspose1d",),
}
needs_runtime = pytest.mark.skipif(not HAS_RUNTIME, reason="the reference evaluator cannot")


def rows(names: Iterable[str]) -> list[Any]:
    """Return names as parameters, those that only ONNX Runtime can run marked."""
    return [pytest.param(n, marks=needs_runtime if n in UNEVALUATED else ()) for n in names]


def test_every_operation_has_a_row():
    assert set(OPS) - set(EXPORTERS) == WITHOUT


@pytest.mark.parametrize("name", rows(sorted(set(OPS) - WITHOUT)))
def test_operation(name, rng):
    row = OPS[name]
    given, attributes = row.example(rng)
    arrays = list(given)
    if name == "attention":
        arrays[1:3] = [a.repeat(2, axis=1) for a in arrays[1:3]]
    graph, weights, feeds = Graph(), {}, {}
    values = []
    for place, (slot, array) in enumerate(zip(row.inputs, arrays, strict=False)):
        if slot.rstrip("?") in WEIGHTS and name != "mul_mat":
            values.append(graph.weight(f"w{place}", array.shape))
            weights[f"w{place}"] = Tensor(array)
        else:
            values.append(graph.input(f"x{place}", array.shape))
            values[-1] = values[-1].__class__(values[-1].index, array.shape, row.dtype, f"x{place}")
            feeds[f"x{place}"] = array
    full = row.conform(attributes)
    # A graph infers with a batch of one; the example has its own.
    graph.steps.append(_step(row, values, full, graph.size))
    graph.output(graph.steps[0].output)
    model = InferenceModel(Model("one", Input((1,)), [Tanh()]), graph, weights)
    writer = Writer(graph, weights)
    writer._names = {value.index: value.name for value in values if value.name in feeds}
    document = writer.write(model)
    for value in [*document.graph.input, *document.graph.output]:
        value.type.tensor_type.ClearField("shape")
    for value in document.graph.input:
        if feeds[value.name].dtype.kind == "i":
            value.type.tensor_type.elem_type = onnx.TensorProto.INT64
    expected = row.run(*arrays, **full)
    if row.dtype.name == "I32":
        document.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    (got,) = run_onnx(document, feeds)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=2e-6)


def _step(row, values, attributes, index):
    from llmbol_core.ml.graph import Step, Value

    shape = row.shape(*(v.shape for v in values), **attributes)
    return Step(row.name, tuple(values), attributes, Value(index, shape, row.dtype))


@pytest.mark.parametrize("name", rows(Module.table))
class TestEveryLayer:
    def test_another_runtime_gives_the_same_and_it_comes_back(self, name, rng):
        cls = Module.table[name]
        layer, shape = cls.example()
        layer.reset(5)
        for value in layer.state().values():
            value += rng.uniform(0.1, 0.5, value.shape).astype(np.float32)
        model = freeze(Model("one", Input(shape), [layer, Tanh()]).evaluate())
        document = export_model(model)
        x = cls.example_batch(rng, 5).astype(np.float32)
        (got,) = run_onnx(document, {"input": x})
        np.testing.assert_allclose(got, model.run(x), rtol=1e-4, atol=2e-6)
        again = freeze(import_document(document, "x.onnx", "one").model)
        np.testing.assert_allclose(again.run(x), model.run(x), rtol=1e-4, atol=2e-6)


def test_layers_come_back_as_themselves():
    names = ("Linear", "Conv2d", "BatchNorm2d", "MaxPool2d", "ReLU", "LSTM", "LayerNorm", "GELU")
    for name in names:
        layer, shape = Module.table[name].example()
        kept = {"bidirectional": False, "num_layers": 1, "dropout": 0.0}
        for field, value in kept.items() if name == "LSTM" else ():
            setattr(layer, field, value)
        document = export_model(freeze(Model("one", Input(shape), [layer]).evaluate()))
        (again,) = import_document(document, "x.onnx", "one").model.layers
        assert again.config() == layer.config()


def test_what_onnx_cannot_say_is_told(rng):
    graph = Graph()
    graph.output(graph.op("rope", graph.input("input", (3, 2, 4))))
    model = InferenceModel(Model("one", Input((3, 2, 4)), [Tanh()]), graph, {})
    with pytest.raises(ModelError, match="step 0, rope: ONNX has no operator for it"):
        Writer(graph, {}).write(model)


def test_agreement_tells_right_from_wrong(rng):
    layer = Linear(4, 3).reset(1)
    model = freeze(Model("one", Input((4,)), [layer]).evaluate())
    document = export_model(model)
    given = [Given("input", (4,), 0, 0, False)]
    assert compare_with_document(model, document, given, "output").holds
    layer.params["weight"] += 1
    model = freeze(Model("one", Input((4,)), [layer]).evaluate())
    assert not compare_with_document(model, document, given, "output").holds
