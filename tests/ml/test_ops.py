"""The whole operation table: against float64 definitions, numeric gradients, its own rules."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbol_core.errors import DtypeError, ShapeError
from llmbol_core.ml import ops
from llmbol_core.ml.cache import KeyValueCache
from llmbol_core.ml.codecs import UNPACKABLE
from llmbol_core.ml.dtypes import TYPES
from llmbol_core.ml.kquants import K_TYPES, encode_activations
from llmbol_core.ml.ops import OPS, convolution
from llmbol_core.ml.quantization import dequantize, quantize
from llmbol_core.ml.tensor import Tensor
from tests.ml.oracles import ORACLES
from tests.ml.test_quantization import vector

# Operations without a gradient: their results are steps or places.
STEPS = {
    *("sign", "floor", "ceil", "round", "equal", "less", "less_equal", "greater"),
    *("greater_equal", "argmax", "argmin", "argsort", "top_k", "to_indices", "to_numbers"),
}
# Operations whose first axis is not the batch of independent samples in their example.
MIXED = {"permute", "mul_mat", "get_rows", "where"}
# How many of the inputs after the first have a sample for each of the first's.
BATCHES = {"matmul": 1, "concat": 1, "attention": 2}


def test_oracles_cover_the_table():
    assert set(ORACLES) == set(OPS)
    assert {name for name, row in OPS.items() if row.gradient is None} == STEPS


@pytest.mark.parametrize("name", OPS)
def test_definition(name, rng):
    row = OPS[name]
    inputs, attributes = row.example(rng)
    result = row(*inputs, **attributes)
    wide = [x.astype(np.float64) if x.dtype == np.float32 else x for x in inputs]
    expected = ORACLES[name](*wide, **attributes)
    np.testing.assert_allclose(result, expected, rtol=3e-6, atol=1e-6)
    assert result.dtype == row.dtype.layout
    assert row.run(*inputs, **row.conform(attributes)).tobytes() == result.tobytes()


@pytest.mark.parametrize("name", OPS)
def test_where_the_result_lies(name, rng):
    row = OPS[name]
    inputs, attributes = row.example(rng)
    full = row.conform(attributes)
    result = np.asarray(row.run(*inputs, **full), order="C")
    assert row.is_view or not any(np.shares_memory(result, x) for x in inputs)
    if row.takes_out:
        out = np.full(result.shape, np.nan, row.dtype.layout)
        given = row.run(*inputs, **full, out=out)
        assert np.shares_memory(given, out)
        assert out.tobytes() == result.tobytes()


@pytest.mark.parametrize("name", OPS)
def test_shape_rule_and_cost(name, rng):
    row = OPS[name]
    inputs, attributes = row.example(rng)
    full = row.conform(attributes)
    shapes = [x.shape for x in inputs]
    result = row(*inputs, **attributes)
    assert row.shape(*shapes, **full) == result.shape
    flops, moved = row.cost(shapes, **full)
    assert flops >= 0
    assert moved == 4 * (sum(x.size for x in inputs) + result.size)


@pytest.mark.parametrize("name", OPS)
def test_description(name):
    row = OPS[name]
    assert re.fullmatch(r"[A-Z].*\.", row.summary)
    assert row.required == len([i for i in row.inputs if not i.endswith("?")]) >= 1
    assert row.packed | row.indices <= {i.rstrip("?") for i in row.inputs}
    assert all(a.kind in (int, float, bool, tuple) for a in row.attributes)


@pytest.mark.parametrize("name", [n for n in OPS if n not in STEPS])
def test_gradient_equals_the_numeric_one(name, rng):
    row = OPS[name]
    inputs, attributes = row.example(rng)
    full = row.conform(attributes)
    wide = [x.astype(np.float64) if x.dtype == np.float32 else x for x in inputs]
    y = row.run(*wide, **full)
    assert y.dtype == np.float64
    g = rng.normal(size=y.shape)
    assert row.gradient is not None
    gradients = row.gradient(g, y, *wide, **full)
    assert len(gradients) >= len(wide)
    for i, (x, along) in enumerate(zip(wide, gradients, strict=False)):
        if along is None:
            assert row.inputs[i].rstrip("?") in (*row.indices, "condition")
            continue
        assert along.shape == x.shape
        for _ in range(3):
            direction, eps = rng.normal(size=x.shape), 1e-6
            ends = []
            for sign in (1, -1):
                moved = [*wide]
                moved[i] = x + sign * eps * direction
                ends.append((row.run(*moved, **full) * g).sum())
            numeric = (ends[0] - ends[1]) / (2 * eps)
            assert (along * direction).sum() == pytest.approx(numeric, rel=2e-5, abs=2e-6)


@pytest.mark.parametrize("name", [n for n in OPS if n not in MIXED])
def test_samples_do_not_depend_on_their_batch(name, rng):
    row = OPS[name]
    inputs, attributes = row.example(rng)
    x, *others = inputs
    batch = rng.uniform(0.5, 3, (45, *x.shape[1:])).astype(np.float32)
    batches = BATCHES.get(name, 0)
    for i, other in enumerate(others[:batches]):
        others[i] = rng.uniform(0.5, 3, (45, *other.shape[1:])).astype(np.float32)
    full = row.conform(attributes)
    whole = np.ascontiguousarray(row.run(batch, *others, **full))
    for start, stop in ((0, 1), (7, 8), (30, 44)):
        rest = [other[start:stop] if i < batches else other for i, other in enumerate(others)]
        part = np.ascontiguousarray(row.run(batch[start:stop], *rest, **full))
        assert part.tobytes() == whole[start:stop].tobytes()


@pytest.mark.parametrize("name", [n for n in OPS if n not in MIXED])
def test_an_empty_batch_gives_an_empty_result(name, rng):
    row = OPS[name]
    inputs, attributes = row.example(rng)
    x, *others = inputs
    batches = BATCHES.get(name, 0)
    others = [other[:0] if i < batches else other for i, other in enumerate(others)]
    empty = row(x[:0], *others, **attributes)
    shapes = [x[:0].shape, *(other.shape for other in others)]
    assert empty.shape == row.shape(*shapes, **row.conform(attributes))
    assert empty.size == 0


def without(shapes):
    """Yield shapes in which all axes of a length, or up to two others, have no length."""
    for length in sorted({n for shape in shapes for n in shape}):
        yield tuple(tuple(0 if n == length else n for n in shape) for shape in shapes)
    places = [(i, axis) for i, shape in enumerate(shapes) for axis in range(len(shape))]
    for chosen in itertools.combinations_with_replacement(places, 2):
        changed = [list(shape) for shape in shapes]
        for i, axis in chosen:
            changed[i][axis] = 0
        yield tuple(map(tuple, changed))


@pytest.mark.parametrize("name", OPS)
def test_axes_without_length_are_taken_or_refused(name, rng):
    row = OPS[name]
    inputs, attributes = row.example(rng)
    full = row.conform(attributes)
    for shapes in dict.fromkeys(without([x.shape for x in inputs])):
        try:
            wanted = row.shape(*shapes, **full)
            given = [np.zeros(n, x.dtype) for n, x in zip(shapes, inputs, strict=True)]
            made = row(*given, **attributes)
        except ShapeError:
            continue
        assert made.shape == wanted
        if row.gradient is not None:
            along = row.gradient(np.zeros(wanted), made, *given, **full)
            for x, gradient in zip(given, along, strict=False):
                assert gradient is None or gradient.shape == x.shape


DIMS = st.lists(st.integers(0, 4), max_size=4).map(tuple)
VALUES = {
    int: st.integers(-3, 5),
    float: st.floats(-3, 3, width=32),
    bool: st.booleans(),
    tuple: st.lists(st.integers(-2, 4), max_size=4).map(tuple),
}


@settings(max_examples=800)
@given(st.data())
def test_any_shapes_and_attributes_fit_or_are_refused(data):
    row = OPS[data.draw(st.sampled_from(list(OPS)))]
    first = data.draw(DIMS)
    shapes = [first] + [
        data.draw(st.sampled_from([first, first[-1:], first[1:2], first[::-1]]) | DIMS)
        for _ in row.inputs[1:]
    ]
    attributes = row.conform({a.name: data.draw(VALUES[a.kind]) for a in row.attributes})
    values = [
        np.zeros(shape, np.int64 if name.rstrip("?") in row.indices else np.float32)
        for name, shape in zip(row.inputs, shapes, strict=True)
    ]
    try:
        expected = row.shape(*shapes, **attributes)
    except ShapeError:
        with pytest.raises(ShapeError):
            row(*values, **attributes)
        return
    if row.name == "get_rows" and not shapes[0][0] and values[1].size:
        with pytest.raises(ShapeError, match="there is no row 0 in a table of 0"):
            row(*values)
        return
    assert row(*values, **attributes).shape == expected
    assert row.flops(expected, *shapes, **attributes) >= 0


# ---- products in detail ----


def test_convolutions_in_parts_equal_the_whole(rng, monkeypatch):
    for name in ("conv1d", "conv2d"):
        inputs, attributes = OPS[name].example(rng)
        whole = OPS[name].definition(*inputs, **attributes)
        for limit in (1, 50, 200):
            monkeypatch.setattr(convolution, "_WINDOWS", limit)
            assert OPS[name].definition(*inputs, **attributes).tobytes() == whole.tobytes()


def test_a_wide_padding_costs_no_memory():
    x, weight = np.ones((1, 1, 2), np.float32), np.ones((1, 1, 1), np.float32)
    far = 1 << 40
    result = OPS["conv1d"](x, weight, stride=far, padding=far)
    assert result.tolist() == [[[0, 1, 0]]]


@pytest.mark.parametrize("size", [(33, 7, 5), (1, 64, 10), (70, 784, 128), (64, 1, 1)])
def test_linear_rows_are_independent(size, rng):
    m, k, n = size
    x, w = rng.normal(size=(m, k)).astype("f4"), rng.normal(size=(n, k)).astype("f4")
    whole = ops.linear(x, w)
    np.testing.assert_allclose(whole, x.astype("f8") @ w.T, rtol=1e-4, atol=1e-4)
    order = rng.permutation(m)
    assert ops.linear(x[order], w).tobytes() == whole[order].tobytes()
    for i in range(0, m, 9):
        assert ops.linear(x[i : i + 1], w).tobytes() == whole[i].tobytes()


@pytest.mark.parametrize("kernels", ["", "none"])
def test_products_of_nothing(kernels, monkeypatch):
    monkeypatch.setenv("LLMBOL_KERNELS", kernels)
    for m, n, k in ((9, 3, 0), (0, 3, 2), (9, 0, 2), (0, 0, 0)):
        x, y = np.ones((m, k)), np.ones((k, n), np.float32)
        for made in (OPS["matmul"](x, y), OPS["linear"](x, y.T), OPS["mul_mat"](y.T, x)):
            assert made.shape == (m, n)
            assert not made.any()


@pytest.mark.parametrize("name", ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_K", "q6_K"])
def test_quantized_products_equal_ggml(name):
    kind = name.upper()
    a = vector("mm_A")
    weight = Tensor.from_buffer(vector(f"mm_{name}_wq").tobytes(), kind, (24, 512))
    ours = ops.linear(a, weight)
    theirs, exact = vector(f"mm_{name}_x86"), vector(f"mm_{name}_exact_f64")
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6 * np.abs(theirs).max())
    # Types with a minimum use sums of activations that were rounded to float16.
    bound = 2e-3 if name.endswith("_1") else 4e-6 * np.abs(exact).max()
    np.testing.assert_allclose(ours, exact, rtol=0, atol=bound)
    assert ops.mul_mat(weight, a).tobytes() == ours.tobytes()
    for i in range(len(a)):
        assert ops.linear(a[i : i + 1], weight).tobytes() == ours[i].tobytes()


@pytest.mark.parametrize("name", ["Q4_0", "Q5_1", "Q8_0", "F16", "BF16"])
def test_quantized_linear_is_close_to_the_float_one(name, rng):
    x = rng.normal(size=(3, 2, 64)).astype(np.float32)
    weight, bias = rng.normal(size=(700, 64)).astype("f4"), rng.normal(size=700).astype("f4")
    stored = quantize(weight, name)
    exact = x.astype("f8") @ dequantize(stored).astype("f8").T + bias
    result = OPS["linear"](x, stored, bias)
    assert result.shape == (3, 2, 700)
    assert np.abs(result - exact).max() < (1e-4 if name.endswith("16") else 0.2)


@pytest.mark.parametrize("name", sorted(K_TYPES))
def test_all_k_types_multiply(name, rng):
    kind = TYPES[name]
    blocks = np.frombuffer(rng.bytes(kind.block_bytes * 8), kind.layout).copy().reshape(4, 2)
    for field in {"d", "dmin"} & set(kind.layout.names or ()):
        blocks[field] = rng.uniform(0.001, 0.01, (4, 2))
    weight, x = Tensor(blocks, kind), rng.normal(size=(3, 512)).astype(np.float32)
    levels = dequantize(Tensor(encode_activations(x.reshape(-1, 256)), "Q8_K")).reshape(x.shape)
    exact = levels.astype("f8") @ dequantize(weight).astype("f8").T
    np.testing.assert_allclose(
        ops.mul_mat(weight, x), exact, rtol=0, atol=1e-5 * np.abs(exact).max()
    )


@pytest.mark.parametrize("name", sorted({*UNPACKABLE, *K_TYPES}))
@pytest.mark.parametrize("kernels", ["", "none"])
def test_quantized_products_of_nothing(name, kernels, monkeypatch):
    monkeypatch.setenv("LLMBOL_KERNELS", kernels)
    for m, n, k in ((0, 3, 512), (2, 0, 512), (2, 3, 0), (0, 0, 0)):
        weight = Tensor(np.zeros(TYPES[name].block_shape((n, k)), TYPES[name].layout), name)
        made = OPS["mul_mat"](weight, np.ones((m, k), np.float32))
        assert made.shape == (m, n)
        assert not made.any()


@pytest.mark.parametrize("name", ["F32", "F16", "Q8_0"])
def test_get_rows_from_any_type(name, rng):
    table = quantize(rng.normal(size=(9, 32)).astype("f4"), name)
    found = OPS["get_rows"](table, np.array([[8], [0]]))
    np.testing.assert_array_equal(found[:, 0], dequantize(table)[[8, 0]])


# ---- what is refused ----

X = np.zeros((2, 3, 4), np.float32)


@pytest.mark.parametrize(
    ("name", "inputs", "attributes", "why"),
    [
        ("linear", (X, np.zeros((5, 3))), {}, r"linear: rows of \(2, 3, 4\) do not fit"),
        ("linear", (X, np.zeros((5, 4)), np.zeros(4)), {}, r"the bias is \(4,\), not \(5,\)"),
        ("mul_mat", (np.zeros((5, 3)), X), {}, "mul_mat: rows of"),
        ("matmul", (X, X), {}, "matmul: .* do not fit"),
        ("add", (X, np.zeros(3)), {}, r"\(2, 3, 4\) and \(3,\) do not fit"),
        ("softmax", (X,), {"axis": 3}, r"there is no axis 3 in shape \(2, 3, 4\)"),
        ("sum", (X[:0],), {"axis": 0}, "nothing lies along axis 0"),
        ("reshape", (X,), {"shape": (5, -1)}, r"\(2, 3, 4\) does not fit into \(5, -1\)"),
        ("reshape", (X,), {"shape": (-1, -1)}, "is no shape"),
        ("reshape", (X,), {"shape": (0, 0, 0, 0)}, "does not have"),
        ("permute", (X,), {"axes": (0, 1, 1)}, "no order of the axes"),
        ("squeeze", (X,), {"axis": 0}, "has not length 1"),
        ("concat", (X, X[:1]), {"axis": 1}, "do not fit along axis 1"),
        ("max_pool1d", (X,), {"kernel": 5}, "windows of 5, steps of 5, borders of 0 do not fit"),
        ("slice", (X,), {"axis": 1, "start": 1, "stop": 9}, "does not lie in axis 1"),
        ("pad", (X,), {"axis": 1, "before": -1, "after": 0}, "no negative width"),
        ("repeat", (X,), {"axis": 1, "times": 0}, "not a number of repetitions"),
        ("top_k", (X,), {"k": 5}, "5 values cannot be chosen"),
        ("clamp", (X,), {"low": 2.0}, r"low 2\.0 is above high 1\.0"),
        ("batch_norm", (X, *[np.zeros(4)] * 4), {}, "do not fit the channels"),
        ("layer_norm", (X, np.zeros(3)), {}, "do not fit the rows"),
        ("conv1d", (X, np.zeros((5, 2, 2))), {}, "does not fit the weight"),
        ("conv1d", (X, np.zeros((5, 3, 9))), {}, "a kernel of .* does not fit into"),
        ("conv1d", (X, np.zeros((5, 3, 2))), {"stride": 0}, "at least 1"),
        ("conv1d", (X, np.zeros((5, 3, 2))), {"groups": 0}, "does not fit"),
        ("conv1d", (X, np.zeros((5, 1, 2))), {"groups": 3}, "bias None and 3 groups do not fit"),
        ("conv2d", (X[None], np.zeros((5, 2, 2, 2))), {"stride": (1,)}, "stride needs 2 numbers"),
        ("get_rows", (X[0], np.array([3])), {}, "there is no row 3 in a table of 3"),
        ("get_rows", (X, np.array([0])), {}, "the table must be"),
        ("rope", (X[..., :3],), {}, "make no pairs"),
        ("rope", (X, np.arange(2)), {}, r"positions \(2,\) do not fit the rows"),
        ("attention", (X, X, X[:, :2]), {}, r"do not fit: \[\.\.\., rows, width\]"),
        ("attention", (X, X[:, :2], X[:, :2]), {"causal": True}, "3 queries cannot be the last"),
        ("attention", (X, X, X, np.zeros(4)), {}, r"\(2, 3, 3\) and \(4,\) do not fit"),
        ("group_norm", (X,), {"groups": 2}, "do not divide into 2 groups"),
        ("conv_transpose1d", (X, np.zeros((3, 5, 2))), {"output_padding": 1}, "is not below"),
        ("conv_transpose1d", (X, np.zeros((4, 5, 2))), {}, "does not fit the weight"),
        ("upsample_nearest", (X,), {"size": (0,)}, r"cannot become \(0,\) positions"),
        ("adaptive_avg_pool", (X,), {"size": (2, 2)}, "cannot become"),
        ("pad_reflect", (X,), {"axis": 1, "before": 3, "after": 0}, "too wide for axis 1"),
        ("pad_circular", (X,), {"axis": 1, "before": 0, "after": -1}, "no negative width"),
        ("max_pool1d", (X,), {"kernel": 3, "padding": 2}, "borders of 2 do not fit"),
    ],
)
def test_shapes_that_do_not_fit(name, inputs, attributes, why):
    with pytest.raises(ShapeError, match=why):
        OPS[name](*inputs, **attributes)


def test_attributes_and_inputs_are_checked():
    with pytest.raises(DtypeError, match="axis must be int, not 'a'"):
        OPS["softmax"](X, axis="a")
    with pytest.raises(DtypeError, match="keepdims must be bool, not 1"):
        OPS["sum"](X, keepdims=1)
    with pytest.raises(DtypeError, match=r"axis must be int, not 1\.0"):
        OPS["sum"](X, axis=1.0)
    for bad in (3, ("a",), (1.5,)):
        with pytest.raises(DtypeError, match="shape must be a list of int, not "):
            OPS["reshape"](X, shape=bad)
    with pytest.raises(DtypeError, match="indices must hold whole numbers, not F32"):
        OPS["get_rows"](X[0], np.array([0.0], np.float32))
    with pytest.raises(TypeError, match="has no attribute 'axes', only"):
        OPS["softmax"](X, axes=1)
    with pytest.raises(TypeError, match="needs the attribute 'k'"):
        OPS["top_k"](X)
    with pytest.raises(TypeError, match="takes x, y: 1 inputs given"):
        OPS["add"](X)
    assert OPS["scale"](X, factor=2).dtype == np.float32


def test_nothing_warns_and_ieee_rules_hold():
    x = np.array([-np.inf, -1, 0, np.inf, np.nan, 1e38], np.float32)
    for name in ("exp", "log", "sqrt", "reciprocal", "sigmoid", "gelu", "mish", "softplus"):
        assert OPS[name](x).shape == x.shape
    assert OPS["log"](x)[2] == -np.inf
    assert np.isnan(OPS["sqrt"](x)[1])
    assert OPS["sigmoid"](x)[:1] == 0
    assert OPS["div"](x, np.zeros(6))[1] == -np.inf


@pytest.mark.parametrize("name", ["l2_norm", "rms_norm", "layer_norm", "softmax", "log_softmax"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_with_what_is_no_number_becomes_what_its_definition_says(name, value, rng):
    x = rng.normal(size=(3, 37)).astype(np.float32)
    x[1, 5] = value
    with np.errstate(all="ignore"):
        wanted = OPS[name].definition(x)
    assert np.isnan(wanted[1]).any()
    np.testing.assert_allclose(OPS[name](x), wanted, rtol=1e-5, atol=1e-6)


def test_gelu_is_accurate_far_out():
    x = np.linspace(-12, 12, 2001, dtype=np.float32)
    exact = ORACLES["gelu"](x.astype(np.float64))
    near = np.abs(x) < 5
    np.testing.assert_allclose(OPS["gelu"](x)[near], exact[near], rtol=1e-5, atol=1e-9)
    assert np.abs(OPS["gelu"](x) - exact).max() < 2e-6


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh"])
def test_definitions_of_gelu_are_accurate_far_out(name):
    x = np.linspace(-6, 3, 1000, dtype=np.float32)
    np.testing.assert_allclose(OPS[name].definition(x), OPS[name](x), rtol=1e-5)


def test_names_that_do_not_exist():
    with pytest.raises(AttributeError, match="no attribute 'relux'"):
        ops.relux  # noqa: B018
    assert "relu" in dir(ops)
    assert all(callable(getattr(ops, name)) for name in OPS)


# ---- attention, positions, sizes ----


def test_attention_with_a_cache_equals_attention_over_all_positions(rng):
    q, k, v = (rng.normal(size=(2, heads, 9, 8)).astype("f4") for heads in (6, 3, 3))
    whole = OPS["attention"](q, k, v, causal=True)
    cache, parts = KeyValueCache(9), []
    for at in (slice(0, 4), slice(4, 5), slice(5, 9)):
        parts.append(
            OPS["attention"](q[:, :, at], *cache.append(k[:, :, at], v[:, :, at]), causal=True)
        )
    np.testing.assert_allclose(np.concatenate(parts, axis=2), whole, rtol=2e-5, atol=1e-6)
    with pytest.raises(ShapeError, match="cache: 10 positions do not fit into 9"):
        cache.append(k[:, :, :1], v[:, :, :1])


def test_a_query_that_may_look_at_nothing_gets_zeros(rng):
    x = rng.normal(size=(1, 3, 4)).astype(np.float32)
    mask = np.zeros((3, 3), np.float32)
    mask[1] = -np.inf
    assert OPS["attention"](x, x, x, mask)[0, 1].tolist() == [0] * 4


@pytest.mark.parametrize("neighbours", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 4, 8), (5, 6), (3, 9, 34), (1, 1, 2), (2, 7, 128)])
def test_rope_by_kernels_equals_its_definition_bit_for_bit(shape, neighbours, rng, monkeypatch):
    x, positions = rng.normal(size=shape).astype(np.float32), rng.integers(0, 99, shape[-2])
    for dims in (0, 2, shape[-1] // 4 * 2):
        given = {"dims": dims, "base": 500.0, "scale": 0.7, "neighbours": neighbours, "offset": 3}
        found = OPS["rope"](x, positions, **given), OPS["rope"](x.swapaxes(0, -2), **given)
        with monkeypatch.context() as without:
            without.setenv("LLMBOL_KERNELS", "none")
            plain = OPS["rope"](x, positions, **given), OPS["rope"](x.swapaxes(0, -2), **given)
        assert [y.tobytes() for y in found] == [y.tobytes() for y in plain]


def test_both_conventions_of_rope_turn_the_same_pairs(rng):
    x = rng.normal(size=(5, 8)).astype(np.float32)
    halves = np.concatenate([x[:, 0::2], x[:, 1::2]], axis=1)
    near, far = OPS["rope"](x, offset=3), OPS["rope"](halves, offset=3, neighbours=False)
    assert near[:, 0::2].tobytes() == far[:, :4].tobytes()
    np.testing.assert_array_equal(near, OPS["rope"](x, np.arange(5) + 3))
    slow = OPS["rope"](x, scale=0.5)
    np.testing.assert_array_equal(slow[2:3], OPS["rope"](x[2:3], offset=1))


def test_upsampling_keeps_the_corners():
    x = np.array([[[0, 3]]], np.float32)
    assert OPS["upsample_linear"](x, size=(4,), corners=True).tolist() == [[[0, 1, 2, 3]]]
    assert OPS["upsample_linear"](x, size=(4,)).tolist() == [[[0, 0.75, 2.25, 3]]]
    assert OPS["upsample_nearest"](x, size=(3,)).tolist() == [[[0, 0, 3]]]


def test_results_larger_than_memory_are_refused():
    x = np.ones((2, 3, 4), np.float32)
    for name, attributes in (
        ("pad", {"axis": 0, "before": 10**15, "after": 0}),
        ("repeat", {"axis": 0, "times": 10**15}),
        ("upsample_nearest", {"size": (10**15,)}),
        # What not even addresses would do for.
        ("pad", {"axis": 0, "before": 2**63 - 1, "after": 0}),
        ("repeat", {"axis": 0, "times": 2**62}),
        ("upsample_linear", {"size": (2**61,)}),
        ("adaptive_avg_pool", {"size": (2**62,)}),
    ):
        with pytest.raises(ShapeError, match="no memory"):
            OPS[name](x, **attributes)
    weight = np.ones((3, 3, 1), np.float32)
    for name, attributes in (
        ("conv1d", {"padding": 2**63 - 1}),
        ("conv_transpose1d", {"stride": 2**63 - 1}),
    ):
        with pytest.raises(ShapeError, match="no memory"):
            OPS[name](x, weight, **attributes)


def test_numbers_out_of_range_are_refused_or_infinite():
    x = np.ones((2, 3, 4), np.float32)
    for name, attributes in (
        ("rope", {"offset": 2**63}),
        ("avg_pool1d", {"kernel": 2, "stride": 10**30}),
        ("upsample_linear", {"size": (2, -(10**30))}),
    ):
        with pytest.raises(DtypeError, match=r"must be .*int of 64 bits, not"):
            OPS[name](x, **attributes)
    ones = [np.ones(3, np.float32)] * 4
    assert (OPS["batch_norm"](x, *ones, eps=1e300) == 1).all()
    assert (OPS["group_norm"](x, eps=1e300) == 0).all()
    assert not np.isfinite(OPS["attention"](x, x, x, scale=1e300)).any()
