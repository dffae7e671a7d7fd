"""Every importer against another implementation, on models of one operator with random values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from llmbol_core.errors import ModelError
from llmbol_core.nn.checkpoint import freeze
from llmbol_core.nn.onnx import reader as _reader  # noqa: F401 -- fills the table
from llmbol_core.nn.onnx.importers import IMPORTERS
from llmbol_core.nn.onnx.reader import import_document
from tests.nn.onnx.runtime import HAS_RUNTIME, run_onnx

BATCH = 3
RNG = np.random.default_rng(7)
# Where the reference evaluator of onnx gives something else than ONNX Runtime, or nothing.
UNEVALUATED = {
    *("AveragePool", "ConvTranspose", "GRU", "LSTM", "RNN", "Resize", "MaxPool", "CumSum"),
    *("GroupNormalization", "Mean", "DequantizeLinear", "OneHot", "Pad", "GlobalMaxPool"),
    *("LpNormalization",),
}


@dataclass
class Case:
    """A node: a shape stands for an input of such samples, an array for a constant."""

    operator: str
    operands: tuple[Any, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 17
    low: float = -2.0
    high: float = 2.0
    whole: str = ""
    """``int`` or ``bool`` inputs."""
    outputs: int = 1


def f(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def i(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def n(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def bounds(*shape: int) -> np.ndarray:
    return RNG.uniform(0.5, 2, shape).astype(np.float32)


X, IMAGE, SIGNAL, STEPS = (4, 5), (2, 7, 6), (3, 9), (5, 3)


def recurrent(operator: str, gates: int, **attributes: Any) -> Case:
    ways = 2 if attributes.get("direction") == "bidirectional" else 1
    operands = (f(ways, gates * 4, 3), f(ways, gates * 4, 4), f(ways, gates * 8))
    return Case(operator, ((5, 3), *operands), {"hidden_size": 4, **attributes})


# fmt: off
CASES = [
    *(Case(op, (X,)) for op in ("Abs", "Neg", "Exp", "Sin", "Cos", "Tanh", "Sigmoid", "Relu", "Erf",
      "Softplus", "Softsign", "HardSwish", "Floor", "Ceil", "Round", "Sign", "Identity", "Dropout",
      "IsNaN", "IsInf", "Sinh", "Cosh")),
    *(Case(op, (X,), low=0.2) for op in ("Log", "Sqrt", "Reciprocal", "Tan")),
    *(Case(op, (X, (4, 5))) for op in ("Add", "Sub", "Mul", "Div", "Equal", "Less", "LessOrEqual",
      "Greater", "GreaterOrEqual", "Min", "Max", "Sum", "Mean")),
    *(Case(op, (X, f(5))) for op in ("Add", "Sub", "Mul", "Div", "Less", "Min", "Max", "Sum")),
    *(Case(op, (f(4, 1), X)) for op in ("Add", "Sub", "Mul", "Div")),
    *(Case(op, (n(1.5), X)) for op in ("Add", "Sub", "Mul", "Div")),
    *(Case(op, (X, n(-2.5))) for op in ("Add", "Sub", "Mul", "Div", "GreaterOrEqual")),
    *(Case("Div", (X, i(3)), whole="int", low=-9, high=9) for _ in "1"),
    *(Case("Pow", (X, n(e)), low=0.2) for e in (1, 2, 3, 0.5, -1, 1.7)),
    Case("Pow", (X, bounds(5)), low=0.2), Case("Pow", (X, n(2))),
    Case("Mod", (X, n(0.7)), {"fmod": 1}), Case("Mod", (X, i(3)), whole="int", low=-9, high=9),
    *(Case(op, (X, (4, 5)), whole="bool") for op in ("And", "Or", "Xor")),
    Case("Not", (X,), whole="bool"),
    *(Case("Cast", (X,), {"to": to}) for to in (1, 6, 7, 9)),
    Case("Cast", (X,), {"to": 1}, whole="int"),
    Case("LeakyRelu", (X,), {"alpha": 0.1}), Case("Elu", (X,), {"alpha": 0.7}), Case("Selu", (X,)),
    Case("Selu", (X,), {"alpha": 1.5, "gamma": 2.0}), Case("Celu", (X,), {"alpha": 0.6}),
    Case("PRelu", (X, f(5))), Case("PRelu", (X, n(0.2))), Case("PRelu", (IMAGE, f(2, 1, 1))),
    Case("ThresholdedRelu", (X,), {"alpha": 0.5}), Case("Shrink", (X,), {"lambd": 0.4, "bias": 0.1}),
    Case("HardSigmoid", (X,)), Case("HardSigmoid", (X,), {"alpha": 1 / 6, "beta": 0.5}),
    Case("Mish", (X,), opset=18), Case("Gelu", (X,), opset=20),
    Case("Gelu", (X,), {"approximate": "tanh"}, opset=20),
    Case("Clip", (X, n(-0.5), n(0.5))), Case("Clip", (X, n(-0.5))), Case("Clip", (X, None, n(0.5))),
    Case("Clip", (X, n(0), n(6))),
    Case("Where", (np.array([True, False, True, False, True]), X, (4, 5))),
    Case("Where", (np.array([True, False, True, False, True]), X, n(-1e4))),
    Case("QuantizeLinear", (X, n(0.05), np.uint8(120))), Case("QuantizeLinear", (X, n(0.05), np.int8(3))),
    Case("QuantizeLinear", (X, bounds(4), np.zeros(4, np.int8)), {"axis": 1}, opset=13),
    Case("DequantizeLinear", (X, n(0.05), np.uint8(120)), whole="uint8", low=0, high=255),
    # shapes
    Case("Reshape", (X, i(0, 2, -1))), Case("Reshape", (X, i(-1, 20))),
    Case("Flatten", (IMAGE,)), Case("Flatten", (IMAGE,), {"axis": -3}),
    Case("Transpose", (IMAGE,), {"perm": [0, 2, 3, 1]}),
    Case("Squeeze", ((1, 4, 1), i(1))), Case("Squeeze", ((1, 4, 1), i(-1, 1))), Case("Squeeze", ((1, 4, 1),)),
    Case("Unsqueeze", (X, i(1))), Case("Unsqueeze", (X, i(-1, 2))),
    Case("Concat", (X, (4, 2)), {"axis": 2}), Case("Concat", (X, (3, 5)), {"axis": 1}),
    Case("Concat", (X, (2, 5), (1, 5)), {"axis": 1}),
    Case("Split", (IMAGE,), {"axis": 2}, outputs=7), Case("Split", (IMAGE, i(3, 4)), {"axis": 2}, outputs=2),
    Case("Split", (IMAGE,), {"axis": 2, "num_outputs": 2}, opset=18, outputs=2),
    Case("Slice", (IMAGE, i(1), i(5), i(2))), Case("Slice", (IMAGE, i(1, 0), i(5, 9), i(2, 3), i(2, 3))),
    Case("Slice", (IMAGE, i(-1), i(-9), i(3), i(-1))), Case("Slice", (IMAGE, i(0, 0, 1), i(2**62, 9, 3))),
    Case("Gather", (IMAGE, i(1)), {"axis": 3}), Case("Gather", (IMAGE, np.int64(-1)), {"axis": 2}),
    Case("Gather", (IMAGE, i(2, 3, 4)), {"axis": 2}), Case("Gather", (IMAGE, i(4, 0, 0)), {"axis": 2}),
    Case("Gather", (IMAGE, np.array([[1, 2], [0, 5]])), {"axis": 3}),
    Case("GatherElements", (np.tile(f(9, 1), (1, 4)), (4,)), {"axis": 0}, whole="int", low=0, high=8),
    Case("GatherND", (STEPS, np.array([[[0], [4]], [[-1], [4]]]))), Case("GatherND", (STEPS, i(2).reshape(1, 1))),
    Case("Gather", (f(9, 4), (3,)), whole="int", low=0, high=8),
    Case("Gather", (f(9), (3,)), whole="int", low=0, high=8),
    Case("Gather", (f(4, 9, 2), (3,)), {"axis": 1}, whole="int", low=0, high=8),
    Case("OneHot", ((3,), i(5), np.array([0.1, 0.9], np.float32)), whole="int", low=0, high=4),
    Case("Expand", ((1, 5), i(1, 4, 5))), Case("Expand", (X, i(1, 1, 1))),
    Case("Tile", (X, i(1, 2, 3))),
    Case("Pad", (IMAGE, i(0, 0, 1, 2, 0, 0, 0, 1), n(0.5))), Case("Pad", (IMAGE, i(0, 0, 1, 2, 0, 0, 0, 1)), {"mode": "reflect"}),
    Case("Pad", (IMAGE, i(0, 0, 1, 2, 0, 0, 0, 1)), {"mode": "edge"}), Case("Pad", (IMAGE, i(0, 0, -1, 0, 0, 0, 0, -2))),
    Case("Pad", (IMAGE, i(1, 2, 2, 1), None, i(2, 3)), {"mode": "wrap"}, opset=19),
    Case("DepthToSpace", ((8, 3, 2),), {"blocksize": 2}), Case("DepthToSpace", ((8, 3, 2),), {"blocksize": 2, "mode": "CRD"}),
    Case("SpaceToDepth", ((2, 4, 6),), {"blocksize": 2}),
    Case("Trilu", (X,)), Case("Trilu", (X, np.int64(1)), {"upper": 0}),
    # reductions
    *(Case(op, (IMAGE,), {"axes": [2, -1], "keepdims": k}) for k in (0, 1) for op in ("ReduceMean",
      "ReduceMax", "ReduceMin", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSumExp")),
    Case("ReduceLogSum", (X,), {"axes": [1]}, low=0.2), Case("ReduceSum", (IMAGE, i(2, 3)), {"keepdims": 0}),
    Case("ReduceMean", (IMAGE, i(1)), opset=18), Case("ReduceMax", (IMAGE, i(1)), {"keepdims": 0}, opset=20),
    Case("ReduceSum", (IMAGE,), {"noop_with_empty_axes": 1}),
    Case("ArgMax", (X,), {"axis": 1}), Case("ArgMin", (X,), {"axis": -1, "keepdims": 0}),
    Case("CumSum", (X, np.int64(1))),
    *(Case("TopK", (X, i(2)), {"axis": a, "largest": g}, outputs=2) for a in (-1, 1) for g in (0, 1)), Case("TopK", ((7,), i(7)), outputs=2),
    Case("TopK", ((9,), i(3)), whole="int", low=0, high=3, outputs=2),
    # products
    Case("Einsum", (X, f(5, 3)), {"equation": "bij,jk->bik"}), Case("Einsum", (X, f(5, 4, 3)), {"equation": "bij,jik -> bk"}),
    Case("Einsum", ((2, 4, 5), (2, 3, 5)), {"equation": "bhqd,bhkd->bhqk"}), Case("Einsum", ((2, 4, 3), (2, 3, 5)), {"equation": "bhqk,bhkd->bqhd"}),
    Case("Einsum", ((4, 2, 3), f(2, 3, 5), f(5)), {"equation": "bthd,hde,e->bte"}), Case("Einsum", ((4, 5), (4,)), {"equation": "...ij,...i->...j"}),
    Case("Einsum", ((4, 2, 3), f(2, 3, 5)), {"equation": "bthd,hde->bhte"}), Case("Einsum", (X,), {"equation": "bij->bji"}), Case("Einsum", (X,), {"equation": "bij->bj"}),
    Case("Einsum", ((5,), (5,)), {"equation": "bi,bi->b"}), Case("Einsum", ((4,), (5,)), {"equation": "bi,bj->bij"}), Case("Einsum", (f(3, 4), X), {"equation": "ki,bij->bkj"}),
    Case("Einsum", (X, f(5, 3)), {"equation": "bij,jk"}), Case("Einsum", ((5,), f(3, 5, 4), (4,)), {"equation": "bi,kij,bj->bk"}),
    Case("MatMul", (X, f(5, 3))), Case("MatMul", (X, (5, 2))), Case("MatMul", (f(6, 4), X)),
    Case("MatMul", (X, f(5))), Case("MatMul", ((5,), f(5, 3))), Case("MatMul", (f(4), X)),
    Case("Gemm", ((5,), f(5, 3), f(3))), Case("Gemm", ((5,), f(3, 5), f(3)), {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    Case("Gemm", ((5,), f(5, 3))), Case("Gemm", ((5,), f(5, 3), n(0.5))),
    Case("Conv", (SIGNAL, f(4, 3, 3), f(4)), {"pads": [1, 1], "strides": [2]}),
    Case("Conv", (IMAGE, f(4, 2, 3, 3))), Case("Conv", (IMAGE, f(4, 1, 3, 2)), {"group": 2, "dilations": [1, 2]}),
    Case("Conv", (IMAGE, f(4, 2, 3, 3), f(4)), {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
    Case("Conv", (IMAGE, f(4, 2, 3, 4)), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    Case("Conv", (IMAGE, f(4, 2, 3, 4)), {"auto_pad": "SAME_LOWER"}), Case("Conv", (IMAGE, f(4, 2, 3, 3)), {"auto_pad": "VALID"}),
    Case("ConvTranspose", (SIGNAL, f(3, 4, 3), f(4)), {"strides": [2], "pads": [1, 1], "output_padding": [1]}),
    Case("ConvTranspose", (IMAGE, f(2, 3, 2, 3)), {"strides": [2, 1]}),
    Case("ConvTranspose", (IMAGE, f(2, 3, 3, 3)), {"strides": [2, 2], "pads": [0, 1, 1, 0]}),
    *(Case(op, (IMAGE,), {"kernel_shape": [2, 3], "strides": [2, 1], **more}) for op in ("MaxPool", "AveragePool")
      for more in ({}, {"pads": [1, 1, 1, 1]}, {"pads": [0, 1, 1, 0]}, {"ceil_mode": 1}, {"auto_pad": "SAME_UPPER"})),
    Case("MaxPool", (SIGNAL,), {"kernel_shape": [3], "pads": [2, 2]}), Case("MaxPool", (SIGNAL,), {"kernel_shape": [2], "strides": [2]}),
    Case("AveragePool", (SIGNAL,), {"kernel_shape": [3], "pads": [1, 1], "count_include_pad": 1}),
    Case("AveragePool", (SIGNAL,), {"kernel_shape": [3], "pads": [2, 1], "count_include_pad": 1}),
    Case("GlobalAveragePool", (IMAGE,)), Case("GlobalMaxPool", (SIGNAL,)),
    Case("Resize", (IMAGE, None, np.array([1, 1, 2, 3], np.float32)), {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
    Case("Resize", (IMAGE, None, np.array([1, 1, 2, 2], np.float32)), {"mode": "nearest"}),
    Case("Resize", (IMAGE, None, np.array([1, 1, 2, 1.5], np.float32)), {"mode": "linear"}),
    Case("Resize", (IMAGE, None, np.array([1, 1, 2, 2], np.float32)), {"mode": "linear", "coordinate_transformation_mode": "align_corners"}),
    Case("Resize", (SIGNAL, None, np.array([1, 1, 3], np.float32)), {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"}),
    # normalizations
    Case("Softmax", (IMAGE,)), Case("Softmax", (IMAGE,), {"axis": 1}), Case("LogSoftmax", (X,), {"axis": -2}),
    *(Case("BatchNormalization", (shape, f(c), f(c), f(c), bounds(c)), {"epsilon": 1e-3}) for shape, c in ((IMAGE, 2), (SIGNAL, 3), ((4,), 4))),
    Case("InstanceNormalization", (IMAGE, f(2), f(2))),
    Case("GroupNormalization", ((4, 5, 2), f(2), f(2)), {"num_groups": 2}, opset=18),
    Case("GroupNormalization", ((4, 5, 2), f(4), f(4)), {"num_groups": 2}, opset=21),
    Case("LayerNormalization", (X, f(5), f(5))), Case("LayerNormalization", (X, f(4, 5)), {"axis": 1, "epsilon": 1e-3}),
    Case("LpNormalization", (X,)), Case("LpNormalization", (X,), {"p": 1, "axis": 1}),
    # sequences, with the steps first
    *(recurrent(op, gates, **({"linear_before_reset": 1} if op == "GRU" else {}), direction=way)
      for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)) for way in ("forward", "reverse", "bidirectional")),
    recurrent("GRU", 3), recurrent("GRU", 3, direction="bidirectional"), recurrent("RNN", 1, activations=["Relu"]),
    Case("LSTM", ((5, 2), f(1, 16, 2), f(1, 16, 4), f(1, 32), None, (1, 4), (1, 4)), {"hidden_size": 4}, outputs=3),
    Case("GRU", ((5, 2), f(1, 12, 2), f(1, 12, 4), None, None, (1, 4)), {"hidden_size": 4, "linear_before_reset": 1}, outputs=2),
    Case("RNN", ((5, 2), f(1, 4, 2), f(1, 4, 4), None, None, (1, 4)), {"hidden_size": 4}, outputs=2),
    Case("LSTM", ((5, 3), f(1, 16, 3), f(1, 16, 4)), {"hidden_size": 4}, outputs=3),
]
# fmt: on

STEPS_FIRST = ("LSTM", "GRU", "RNN", "GatherND")
NEVER_TRACED = {"CastLike"}


def document(case: Case, fixed: int = 0) -> tuple[Any, dict[str, np.ndarray]]:
    """Return a model of the one node, and random inputs; its batch is open, or of a fixed size."""
    rng = np.random.default_rng(3)
    kind = {"": np.float32, "int": np.int64, "bool": bool, "uint8": np.uint8}[case.whole]
    inputs, constants, names, feeds = [], [], [], {}
    for place, operand in enumerate(case.operands):
        name = "" if operand is None else f"in{place}"
        names.append(name)
        if isinstance(operand, tuple):
            shape: tuple[Any, ...] = (fixed or "N", *operand)
            real: tuple[int, ...] = (fixed or BATCH, *operand)
            if case.operator in STEPS_FIRST:
                shape, real = (operand[0], "N", operand[1]), (operand[0], BATCH, operand[1])
            x = rng.uniform(case.low, case.high, real)
            feeds[name] = x > 0 if kind is bool else x.astype(kind)
            element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
            inputs.append(helper.make_tensor_value_info(name, element, shape))
        elif operand is not None:
            constants.append(numpy_helper.from_array(np.asarray(operand), name))
    outputs = [f"out{place}" for place in range(case.outputs)]
    node = helper.make_node(case.operator, names, outputs, name="it", **case.attributes)
    results = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph([node], "one", inputs, results, constants)
    opsets = [helper.make_opsetid("", case.opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    inferred = onnx.shape_inference.infer_shapes(model)
    for value in inferred.graph.output:
        if not value.type.tensor_type.elem_type:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return inferred, feeds


def label(case: Case) -> str:
    return f"{case.operator}-{case.opset}"


@pytest.mark.parametrize("case", CASES, ids=label)
def test_operator(case):
    check(case)


# fmt: off
OF_TWO = [
    *(Case("Reshape", (X, i(*to))) for to in ((2, 2, 10), (2, -1), (2, 4, 5, 1), (2, 1, 20), (1, 2, 4, 5))),
    Case("Reshape", ((2, 2, 2), i(2, 4, 2))),
    Case("Expand", ((1, 5), i(2, 4, 5))), Case("Expand", (X, i(2, 4, 5))),
    Case("Add", (X, np.ones((2, 4, 5), np.float32) * f(4, 5))), Case("Mul", (np.ones((2, 1, 1), np.float32), X)),
    Case("MatMul", (np.ones((2, 1, 1), np.float32) * f(3, 4), X)), Case("MatMul", (X, np.ones((2, 1, 1), np.float32) * f(5, 2))),
    Case("Where", (np.ones((2, 4, 1), bool), X, n(0.5))), Case("MatMul", (X, f(5, 2))),
    Case("Concat", (np.zeros((2, 1, 5), np.float32), X), {"axis": 1}), Case("Gemm", ((5,), f(2, 5), f(2)), {"transB": 1}),
]
# fmt: on


@pytest.mark.parametrize(
    "case", [c for c in [*CASES, *OF_TWO] if c.operator not in STEPS_FIRST], ids=label
)
def test_operator_of_a_file_for_a_batch_of_two(case):
    check(case, 2)


@pytest.mark.parametrize("dims", [0, 1])
@pytest.mark.parametrize("product", [False, True])
def test_places_of_each_sample(dims, product):
    grid = np.stack(np.meshgrid([1, 0], [2, 2, 6], indexing="ij"), -1)
    places = grid if product else np.array([[0, 1], [1, 6], [0, -2]])
    places = np.broadcast_to(places, (2, *places.shape))
    if not dims:
        samples = np.broadcast_to(np.indices(places.shape[:-1])[0], places.shape[:-1])
        places = np.concatenate([samples[..., None], places], -1)
    check_places("GatherND", places, batch_dims=dims)


def test_elements_of_each_sample():
    places = np.broadcast_to(np.array([[6], [0], [-2]]), (2, 2, 3, 6))
    check_places("GatherElements", places, axis=2)


def check_places(operator: str, places: np.ndarray, **attributes: int) -> None:
    """Import a file for a batch of two that picks at these places."""
    model, feeds = document(Case("Identity", (IMAGE,)), 2)
    node = model.graph.node[0]
    node.op_type, node.input[:] = operator, ["in0", "places"]
    node.attribute.extend(helper.make_attribute(*pair) for pair in attributes.items())
    model.graph.initializer.append(numpy_helper.from_array(places.astype(np.int64), "places"))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    (wanted,) = run_onnx(model, feeds)
    imported = import_document(model, "x.onnx", "one")
    np.testing.assert_allclose(freeze(imported.model).run(feeds["in0"]), wanted, rtol=1e-6)


def check(case: Case, fixed: int = 0) -> None:
    """Import the model of a case and compare it with another implementation."""
    if case.operator in UNEVALUATED and not HAS_RUNTIME:
        pytest.skip("the reference evaluator of onnx does not run it")
    model, feeds = document(case, fixed)
    expected = run_onnx(model, feeds)
    for place, wanted in enumerate(expected):
        imported = import_document(model, "x.onnx", "one", f"out{place}")
        axes = [g.batch_axis for g in imported.inputs]
        parts = [np.moveaxis(x, a, 0) for x, a in zip(feeds.values(), axes, strict=True)]
        x = (
            parts[0]
            if len(parts) == 1
            else np.concatenate([p.reshape(len(p), -1) for p in parts], 1)
        )
        got = freeze(imported.model).run(x.astype(np.float32))
        wanted = np.moveaxis(wanted, imported.batch_axis, 0).astype(np.float32)
        scale = np.abs(wanted[np.isfinite(wanted)]).max(initial=1e-3)
        np.testing.assert_allclose(got.reshape(wanted.shape), wanted, rtol=1e-4, atol=1e-5 * scale)


def test_every_importer_has_a_case():
    assert {case.operator for case in CASES} == {name for name, _ in IMPORTERS} - NEVER_TRACED


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (
            Case("Einsum", ((4, 4), f(4)), {"equation": "bii,i->b"}),
            "the term 'bii' takes a diagonal",
        ),
        (Case("Gelu", (X,), opset=17), "it exists since opset 20, the file says 17"),
        (Case("Softmax", (X,), {"axis": 0}), "the axis of the batch"),
        (Case("ReduceSum", (X, i(0))), "it reduces the axis of the batch"),
        (Case("Reshape", (X, (3,)), whole="int"), "the shape depends on the input"),
        (Case("Conv", ((2, 3, 4, 5), f(1, 2, 2, 2, 2))), "3 axes to slide along: expected 1 or 2"),
        (Case("NonZero", (X,)), "not supported (near it: Where)"),
        (Case("GatherND", ((2, 3), i(0, 1).reshape(1, 2))), "the axis of the batch"),
        (
            Case("Gather", (X, (2,)), whole="int"),
            "both the data and the places depend on the input",
        ),
    ],
    ids=lambda value: label(value) if isinstance(value, Case) else "",
)
def test_what_cannot_be_imported_is_told(case, said):
    model, _ = document(case)
    with pytest.raises(ModelError) as caught:
        import_document(model, "x.onnx", "one")
    assert str(caught.value).startswith(f"x.onnx: node 'it' ({case.operator}): ")
    assert said in str(caught.value)
