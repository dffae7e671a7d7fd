"""What graphs are lowered to, over the whole operation table, against float64 definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llmbol_core.ml.dtypes import TYPES
from llmbol_core.ml.engine import Engine
from llmbol_core.ml.graph import Graph
from llmbol_core.ml.kernels.target import TARGETS, target
from llmbol_core.ml.ops import OPS
from llmbol_core.ml.plan import parts
from llmbol_core.ml.plan.rules import RULES
from llmbol_core.ml.quantization import quantize
from llmbol_core.native.processor import host_processor

pytestmark = pytest.mark.skipif(target() is None, reason="there are no kernels here")

TOLERANCE = {"linear": 4e-6, "matmul": 4e-6, "gelu": 4e-6, "mish": 2e-6, "exp": 2e-6}
"""Where the error may be more than 1e-6 of the greatest value."""


def graph_of(name: str, inputs: tuple[Any, ...], attributes: dict[str, Any], given: int) -> Any:
    """Return a graph of one operation whose first inputs come with the batch, and its weights."""
    graph, values, weights = Graph(), [], {}
    for i, array in enumerate(inputs):
        if i < given:
            values.append(graph.input(f"x{i}", array.shape[1:]))
        else:
            weights[f"w{i}"] = array
            values.append(graph.weight(f"w{i}", array.shape))
    graph.output(graph.op(name, *values, **attributes))
    return graph, weights


def exact(name: str, inputs: tuple[Any, ...], attributes: dict[str, Any]) -> Any:
    """Return the definition's result in float64."""
    wide = [np.asarray(a, np.float64) for a in inputs]
    return OPS[name].run(*wide, **OPS[name].conform(attributes))


def check(engine: Engine, name: str, arrays: Any, rest: Any, attributes: dict[str, Any]) -> None:
    """Hold an engine's results against the definition, in batches of several sizes."""
    whole = engine.run(*arrays)
    expected = exact(name, (*arrays, *rest), attributes)
    greatest = max(np.abs(expected).max(initial=0), 1e-30)
    assert whole.shape == expected.shape
    assert np.abs(whole - expected).max(initial=0) <= TOLERANCE.get(name, 1e-6) * greatest
    for size in (1, 2, 3, 5):
        pieces = [
            engine.run(*(a[i : i + size] for a in arrays)) for i in range(0, len(whole), size)
        ]
        assert np.concatenate(pieces).tobytes() == whole.tobytes()


def batches(name: str, example: Any, given: int, rng: np.random.Generator) -> Any:
    """Return inputs like those of an example for a batch of 11."""
    low, high = float(example[0].min()), float(example[0].max())
    return [rng.uniform(low, high, (11, *a.shape[1:])).astype("f4") for a in example[:given]]


def first_inputs(name: str) -> int:
    """Return how many inputs of an operation depend on the batch."""
    if name in ("concat", "attention"):
        return 2 if name == "concat" else 3
    return 1


@pytest.mark.parametrize("name", sorted(set(RULES) & set(OPS) - {"mul_mat", "matmul", "power"}))
def test_every_rule_gives_what_the_definition_says(name, rng):
    example, attributes = OPS[name].example(rng)
    given = first_inputs(name)
    if name == "attention":
        example = example[:3]
    if name in ("squeeze", "unsqueeze", "slice", "repeat", "pad"):
        attributes = {"axis": 1} | attributes
    if name == "permute":
        attributes = {"axes": (0, 2, 1)}
    if name == "pad":
        attributes = attributes | {"value": 0.0}
    arrays, rest = batches(name, example, given, rng), example[given:]
    if name == "squeeze":
        arrays = [rng.normal(size=(11, 1, 4)).astype("f4")]
    graph, weights = graph_of(name, (*arrays, *rest), attributes, given)
    engine = Engine(graph, weights)
    assert lowered(engine) == [parts.Part]
    check(engine, name, arrays, rest, attributes)


def lowered(engine: Engine) -> list[type]:
    """Return what the parts of an engine are."""
    assert engine._native is not None
    return [type(part) for part in engine._native.order]


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "maximum", "minimum", "less"])
def test_pairs_of_values(name, rng):
    arrays = [rng.normal(size=(11, 3, 5)).astype("f4") for _ in range(2)]
    graph, weights = graph_of(name, tuple(arrays), {}, 2)
    engine = Engine(graph, weights)
    assert lowered(engine) == [parts.Part]
    check(engine, name, arrays, (), {})


@pytest.mark.parametrize("depth", [1, 7, 784, 5000])
@pytest.mark.parametrize("columns", [1, 10, 16, 31, 32, 100, 130])
def test_products_of_all_sizes(depth, columns, rng):
    x = rng.normal(size=(29, depth)).astype("f4")
    w = rng.normal(size=(columns, depth)).astype("f4")
    b = rng.normal(size=columns).astype("f4")
    graph, weights = graph_of("linear", (x, w, b), {}, 1)
    check(Engine(graph, weights), "linear", [x], (w, b), {})


def test_products_with_known_matrices(rng):
    x, w = rng.normal(size=(9, 3, 50)).astype("f4"), rng.normal(size=(50, 33)).astype("f4")
    graph = Graph()
    given = graph.input("x", (3, 50))
    graph.output(graph.op("matmul", given, graph.weight("w", w.shape)))
    graph.output(graph.op("mul_mat", graph.weight("v", w.T.shape), given))
    engine = Engine(graph, {"w": w, "v": np.ascontiguousarray(w.T)})
    assert lowered(engine) == [parts.Part]
    first, second = engine.run_all(x)
    np.testing.assert_allclose(first, x.astype("f8") @ w, atol=1e-4)
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("shapes", [((4, 7, 9), (4, 9, 5)), ((3, 40, 600), (1, 600, 70))])
def test_products_of_values(shapes, rng):
    arrays = [rng.normal(size=(11, *shape)).astype("f4") for shape in shapes]
    graph, weights = graph_of("matmul", tuple(arrays), {}, 2)
    engine = Engine(graph, weights)
    assert lowered(engine) == [parts.Part]
    check(engine, "matmul", arrays, (), {})


def test_squares(rng):
    x, two = rng.normal(size=(11, 3, 5)).astype("f4"), np.full((1,), 2, np.float32)
    graph, weights = graph_of("power", (x, two), {}, 1)
    engine = Engine(graph, weights)
    assert lowered(engine) == [parts.Part]
    check(engine, "power", [x], [two], {})


@pytest.mark.parametrize("dtype", ["Q8_0", "Q4_0", "Q5_1", "Q4_K", "Q6_K"])
@pytest.mark.parametrize("front", [(), (3,)])
def test_quantized_products_are_those_of_the_operation(dtype, front, rng):
    width = 2 * TYPES[dtype].elements
    weight = quantize(rng.normal(size=(50, width)), dtype)
    bias = rng.normal(size=50).astype("f4")
    graph = Graph()
    y = graph.op("linear", graph.input("x", (*front, width)), graph.weight("w", (50, width)),
                 graph.weight("b", (50,)))  # fmt: skip
    graph.output(graph.op("relu", y))
    engine = Engine(graph, {"w": weight, "b": bias})
    assert lowered(engine) == [parts.Part]
    x = rng.normal(size=(70, *front, width)).astype("f4")
    expected = np.maximum(OPS["linear"].run(x, weight, bias), 0)
    for part in (slice(0, 70), slice(0, 1), slice(60, 65)):
        assert engine.run(x[part]).tobytes() == expected[part].tobytes()


CONVOLUTIONS = [
    # shape, out, kernel, stride, padding, dilation, groups
    ((1, 28, 28), 6, (5, 5), (1, 1), (2, 2), (1, 1), 1),
    ((3, 9, 8), 33, (3, 2), (2, 1), (1, 0), (1, 1), 1),
    ((4, 12, 12), 8, (3, 3), (1, 1), (2, 2), (2, 2), 2),
    ((20, 6, 5), 20, (3, 3), (1, 1), (1, 1), (1, 1), 20),
    ((6, 7, 7), 70, (1, 1), (1, 1), (0, 0), (1, 1), 1),
]


@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("pool", [None, (2, 2), (1, 2), (3, 1), (3, 3)])
def test_convolutions_with_what_follows(case, pool, rng):
    shape, out, kernel, stride, padding, dilation, groups = case
    graph = Graph()
    w = rng.normal(size=(out, shape[0] // groups, *kernel)).astype("f4")
    b = rng.normal(size=out).astype("f4")
    attributes = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    x = graph.input("x", shape)
    y = graph.op("conv2d", x, graph.weight("w", w.shape), graph.weight("b", b.shape), **attributes)
    y = graph.op("relu", y)
    if pool is not None:
        y = graph.op("max_pool2d", y, kernel=pool)
    second = rng.normal(size=(5, out, 2, 2)).astype("f4")
    y = graph.op("conv2d", y, graph.weight("v", second.shape), padding=(1, 1))
    graph.output(graph.op("flatten", y))
    engine = Engine(graph, {"w": w, "b": b, "v": second})
    assert lowered(engine) == [parts.Part]
    given = rng.normal(size=(7, *shape)).astype("f4")
    h = np.maximum(exact("conv2d", (given, w, b), attributes), 0)
    if pool is not None:
        h = exact("max_pool2d", (h,), {"kernel": pool})
    expected = exact("conv2d", (h, second), {"padding": (1, 1)}).reshape(7, -1)
    whole = engine.run(given)
    np.testing.assert_allclose(whole, expected, atol=2e-6 * np.abs(expected).max())
    alone = np.concatenate([engine.run(sample[None]) for sample in given])
    assert alone.tobytes() == whole.tobytes()


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn_tanh", "rnn_relu"])
@pytest.mark.parametrize("size", [5, 16, 40])
@pytest.mark.parametrize("reverse", [False, True])
def test_recurrent_layers(kind, size, reverse, rng):
    gates = {"lstm": 4, "gru": 3}.get(kind, 1)
    shapes = ((gates * size, 9), (gates * size, size), (gates * size,), (gates * size,))
    rest = [rng.uniform(-0.3, 0.3, s).astype("f4") for s in shapes]
    x = rng.normal(size=(15, 6, 9)).astype("f4")
    graph, weights = graph_of(kind, (x, *rest), {"reverse": reverse}, 1)
    check(Engine(graph, weights), kind, [x], rest, {"reverse": reverse})


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("positions", [1, 5, 70])
@pytest.mark.parametrize("width", [3, 32, 40])
def test_attention(causal, positions, width, rng):
    shapes = ((4, positions, width), (2, positions, width), (2, positions, 7))
    arrays = [rng.normal(size=(11, *shape)).astype("f4") for shape in shapes]
    graph, weights = graph_of("attention", tuple(arrays), {"causal": causal}, 3)
    check(Engine(graph, weights), "attention", arrays, (), {"causal": causal})


def test_steps_without_a_rule_run_between_the_parts(rng):
    graph = Graph()
    x = graph.op("relu", graph.input("x", (6,)))
    y = graph.op("add", graph.op("sin", x), x)
    graph.output(graph.op("exp", y))
    graph.output(x)
    engine = Engine(graph, {})
    assert [kind is parts.Part for kind in lowered(engine)] == [True, False, True]
    given = rng.normal(size=(9, 6)).astype("f4")
    first, second = engine.run_all(given)
    held = np.maximum(given, 0)
    np.testing.assert_allclose(first, np.exp(np.sin(held) + held), rtol=1e-6)
    assert second.tobytes() == held.tobytes()


def test_axes_of_the_batch_are_left_to_the_definition(rng):
    graph = Graph()
    x = graph.input("x", (4,))
    graph.output(graph.op("softmax", x, axis=0))
    graph.output(graph.op("concat", x, x, axis=0))
    engine, given = Engine(graph, {}), rng.normal(size=(5, 4)).astype("f4")
    first, second = engine.run_all(given)
    np.testing.assert_allclose(first.sum(0), np.ones(4), rtol=1e-6)
    assert second.tobytes() == np.concatenate([given, given]).tobytes()


def test_nothing_but_finite_numbers_is_assumed(rng):
    x = np.array([[np.nan, 1.0], [np.inf, 0.0], [-np.inf, 0.0], [-0.0, 1e30]], np.float32)
    for name in ("relu", "exp", "tanh", "sigmoid", "relu6", "abs"):
        graph, weights = graph_of(name, (x,), {}, 1)
        expected = OPS[name].run(x)
        np.testing.assert_allclose(Engine(graph, weights).run(x), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(
    "chosen", [t for t in TARGETS.values() if t.fits(host_processor())], ids=lambda t: t.name
)
def test_every_instruction_set_gives_the_same(chosen, monkeypatch, rng):
    monkeypatch.setenv("LLMBOL_KERNELS", chosen.name)
    test_convolutions_with_what_follows(CONVOLUTIONS[1], (1, 2), rng)
    for name in sorted(set(RULES) & set(OPS) - {"mul_mat", "matmul", "power"}):
        test_every_rule_gives_what_the_definition_says(name, rng)
    test_products_of_all_sizes(784, 130, rng)
    test_recurrent_layers("lstm", 40, False, rng)
