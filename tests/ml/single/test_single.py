"""Operations that are prepared for their shapes, against their definitions in float64."""

from __future__ import annotations

import importlib
import math
import threading
from typing import Any

import numpy as np
import pytest

from llmbol_core.ml.kernels.target import TARGETS, target
from llmbol_core.ml.ops import OPS, quick
from llmbol_core.native.entry import is_possible
from llmbol_core.native.processor import host_processor

pytestmark = pytest.mark.skipif(
    target() is None or not is_possible(), reason="there are no kernels here"
)

RUNNABLE = [name for name, row in TARGETS.items() if row.fits(host_processor())]
Case = tuple[tuple[tuple[int, ...] | None, ...], dict[str, Any]]


def some(rng, low, high, count=1):
    return tuple(int(n) for n in rng.integers(low, high, count))


def convolution(rng, rank) -> Case:
    groups, inside, outside = some(rng, 1, 4)[0], some(rng, 1, 4)[0], some(rng, 1, 19)[0]
    if rng.random() < 0.3:
        groups, inside, outside = some(rng, 1, 9)[0], 1, 1
    numbers: dict[str, Any] = {
        "stride": some(rng, 1, 4, rank),
        "padding": some(rng, 0, 4, rank),
        "dilation": some(rng, 1, 3, rank),
    }
    if rank == 1:
        numbers = {key: value[0] for key, value in numbers.items()}
    sides, count = some(rng, 5, 40, rank), some(rng, 1, 4)
    if rng.random() < 0.3:  # small planes of many samples
        sides, count = some(rng, 5, 9, rank), some(rng, 10, 40)
    x = (*count, groups * inside, *sides)
    weight = (groups * outside, inside, *some(rng, 1, 4, rank))
    return (x, weight, None if rng.random() < 0.3 else weight[:1]), {**numbers, "groups": groups}


def transposed(rng, rank) -> Case:
    groups, inside, outside = some(rng, 1, 4)[0], some(rng, 1, 4)[0], some(rng, 1, 11)[0]
    kernel, stride, dilation = some(rng, 1, 5, rank), some(rng, 1, 4, rank), some(rng, 1, 3, rank)
    numbers: dict[str, Any] = {
        "stride": stride,
        "padding": some(rng, 0, 3, rank),
        "dilation": dilation,
        "output_padding": tuple(
            some(rng, 0, max(pair))[0] for pair in zip(stride, dilation, strict=True)
        ),
    }
    if rank == 1:
        numbers = {key: value[0] for key, value in numbers.items()}
    x = (*some(rng, 1, 4), groups * inside, *some(rng, 5, 20, rank))
    weight = (groups * inside, outside, *kernel)
    bias = None if rng.random() < 0.3 else (groups * outside,)
    return (x, weight, bias), {**numbers, "groups": groups}


def recurrent(rng, gates) -> Case:
    count, steps, inside, size = some(rng, 1, 40, 4)
    rows = gates * size
    biases = [(rows,) if rng.random() < 0.7 else None for _ in range(2)]
    shapes = ((count, steps, inside), (rows, inside), (rows, size), *biases)
    return shapes, {"reverse": bool(rng.random() < 0.5)}


def attention(rng) -> Case:
    groups, shared = some(rng, 1, 4, 2)
    front = [(), (2,), (2, 3)][some(rng, 0, 3)[0]]
    queries, keys, width, values = some(rng, 1, 70, 4)
    queries = some(rng, 1, 5)[0] if rng.random() < 0.3 else queries
    scores = (*front, groups * shared, queries, keys)
    masks = (None, scores[-2:], (1, keys), (queries, 1), (scores[-3], 1, keys), scores, ())
    shapes = (
        (*scores[:-1], width), (*front, groups, keys, width), (*front, groups, keys, values),
        masks[some(rng, 0, len(masks))[0]],
    )  # fmt: skip
    return shapes, {"causal": bool(rng.random() < 0.5) and queries <= keys, "scale": 0.3}


def resampled(rng, **attributes) -> Case:
    rank = some(rng, 1, 4)[0]
    shape = (*some(rng, 1, 4, 2), *some(rng, 1, 20, rank))
    return (shape,), {"size": some(rng, 1, 40, rank), **attributes}


def pooled(rng, rank, **attributes) -> Case:
    kernel, stride = some(rng, 1, 7, rank), some(rng, 0, 6, rank)
    padding = tuple(some(rng, 0, size // 2 + 1)[0] for size in kernel)
    sides = tuple(size + some(rng, 0, 40)[0] for size in kernel)
    numbers: dict[str, Any] = {"kernel": kernel, "stride": stride, "padding": padding}
    if rank == 1:
        numbers = {key: value[0] for key, value in numbers.items()}
    x = (*some(rng, 1, 4, 2), *sides)
    return (x,), {**numbers, "ceil": bool(rng.random() < 0.5), **attributes}


def normalized(rng, name) -> Case:
    groups, share = some(rng, 1, 9, 2)
    channels = (groups * share,)
    x = (*some(rng, 1, 9), *channels, *some(rng, 1, 9, some(rng, 0, 3)[0]))
    if name == "batch_norm":
        return (x, *[channels] * 4), {}
    return (x, *[channels if rng.random() < 0.7 else None] * 2), {"groups": groups}


CASES: dict[str, Any] = {
    "conv1d": lambda rng: convolution(rng, 1),
    "conv2d": lambda rng: convolution(rng, 2),
    "conv_transpose1d": lambda rng: transposed(rng, 1),
    "conv_transpose2d": lambda rng: transposed(rng, 2),
    "attention": attention,
    "lstm": lambda rng: recurrent(rng, 4),
    "gru": lambda rng: recurrent(rng, 3),
    "rnn_tanh": lambda rng: recurrent(rng, 1),
    "rnn_relu": lambda rng: recurrent(rng, 1),
    "batch_norm": lambda rng: normalized(rng, "batch_norm"),
    "group_norm": lambda rng: normalized(rng, "group_norm"),
    "upsample_nearest": resampled,
    "upsample_linear": lambda rng: resampled(rng, corners=bool(rng.random() < 0.5)),
    "top_k": lambda rng: ranked(rng),
    "argsort": lambda rng: sorted_rows(rng),
    "max_pool1d": lambda rng: pooled(rng, 1),
    "max_pool2d": lambda rng: pooled(rng, 2),
    "avg_pool1d": lambda rng: pooled(rng, 1, count_padding=bool(rng.random() < 0.5)),
    "avg_pool2d": lambda rng: pooled(rng, 2, count_padding=bool(rng.random() < 0.5)),
}


def ranked(rng) -> Case:
    length = int(rng.choice([1, 2, 5, 15, 16, 17, 33, 100, 1000]))
    front = some(rng, 1, 6, some(rng, 0, 3)[0])
    return ((*front, length),), {"k": some(rng, 1, min(length, 40) + 1)[0]}


def sorted_rows(rng) -> Case:
    length = int(rng.choice([1, 2, 5, 16, 17, 33, 127, 128, 129, 300, 5000]))
    front = some(rng, 1, 6, some(rng, 0, 3)[0])
    return ((*front, length),), {"descending": bool(rng.random() < 0.5)}


def drawn(rng, name, shapes):
    """Return inputs; weights are small, variances positive."""
    found: list[Any] = []
    for number, shape in enumerate(shapes):
        if shape is None:
            found.append(None)
            continue
        x = rng.normal(size=shape).astype(np.float32)
        if name in ("lstm", "gru", "rnn_tanh", "rnn_relu") and number:
            x *= 0.3 / math.sqrt(shape[-1])
        if name == "batch_norm" and number == 4:
            x = np.abs(x) + np.float32(0.1)
        if name == "attention" and number == 3:
            x = np.where(rng.random(shape) < 0.3, np.float32(-np.inf), x)
        if name in ("top_k", "argsort"):
            x = np.round(x) if rng.random() < 0.3 else x
            for value in (np.nan, np.inf, -np.inf, 0.0, -0.0):
                x = np.where(rng.random(shape) < 0.1, np.float32(value), x)
            x = np.sort(x) if rng.random() < 0.3 else x
        found.append(np.asarray(x, np.float32))
    return found


def expected(name, inputs, attributes):
    wide = [None if x is None else x.astype(np.float64) for x in inputs]
    with np.errstate(all="ignore"):
        return OPS[name].definition(*wide, **attributes)


def check(name, made, inputs, attributes):
    wanted = expected(name, inputs, attributes)
    assert made.shape == wanted.shape
    assert made.dtype == OPS[name].dtype.layout
    if made.dtype == np.int32:
        np.testing.assert_array_equal(made, wanted)
    else:
        np.testing.assert_allclose(made, wanted, rtol=2e-5, atol=2e-5)


def test_all_operations_have_cases():
    assert set(CASES) == set(quick.QUICK)


@pytest.mark.parametrize("name", CASES)
def test_as_defined(name, rng):
    for _ in range(25):
        shapes, attributes = CASES[name](rng)
        inputs = drawn(rng, name, shapes)
        made = OPS[name].run(*inputs, **attributes)
        check(name, made, inputs, attributes)
        assert OPS[name](*inputs, **attributes).tobytes() == made.tobytes()


@pytest.mark.parametrize("chosen", RUNNABLE[1:])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.slow
def test_other_instruction_sets(name, chosen, rng, monkeypatch):
    monkeypatch.setenv("LLMBOL_KERNELS", chosen)
    for _ in range(8):
        shapes, attributes = CASES[name](rng)
        single = quick.prepare(OPS[name], shapes, attributes)
        if single is not None:
            inputs = drawn(rng, name, shapes)
            check(name, single.run(inputs), inputs, attributes)


@pytest.mark.parametrize("name", CASES)
def test_the_result_does_not_depend_on_threads_nor_on_where_it_goes(name, rng, monkeypatch):
    for _ in range(4):
        shapes, attributes = CASES[name](rng)
        inputs = drawn(rng, name, shapes)
        made = OPS[name].run(*inputs, **attributes)
        results = []
        for threads in (1, 2):
            monkeypatch.setattr("llmbol_core.ml.single.draft.thread_count", lambda n=threads: n)
            single = quick.prepare(OPS[name], shapes, attributes)
            if single is not None:
                results.append(single.run(inputs))
        assert all(result.tobytes() == made.tobytes() for result in results)
        if OPS[name].takes_out:
            out = np.empty_like(made)
            assert OPS[name].run(*inputs, **attributes, out=out) is out
            assert out.tobytes() == made.tobytes()


def test_what_buffers_take_is_known_before_the_first_call(rng):
    for name, case in CASES.items():
        shapes, attributes = case(rng)
        full = OPS[name].conform(attributes)
        single = quick.prepare(OPS[name], shapes, full)
        assert OPS[name].buffers(shapes, full) == (0 if single is None else single.bytes)
    assert OPS["relu"].buffers(((3, 4),), {}) == 0


def test_borders_that_take_much_memory_are_left_to_the_definition(rng):
    x, weight = rng.normal(size=(1, 2, 9, 9)).astype("f"), rng.normal(size=(3, 2, 3, 3)).astype("f")
    assert quick.prepare(OPS["conv2d"], [x.shape, weight.shape], {"padding": (3000, 3000)}) is None
    far = {"padding": (300, 300), "dilation": (250, 251)}
    assert quick.prepare(OPS["conv2d"], [x.shape, weight.shape], far) is None
    check("conv2d", OPS["conv2d"].run(x, weight, **far), (x, weight), far)


def test_attention_with_ever_more_keys_is_prepared_once(rng):
    query = rng.normal(size=(1, 4, 1, 8)).astype(np.float32)
    keys = rng.normal(size=(1, 2, 200, 8)).astype(np.float32)
    single = importlib.import_module("llmbol_core.ml.single.attention")
    made = []
    for count in range(1, 200):
        inputs = (query, keys[:, :, :count], keys[:, :, :count])
        check("attention", OPS["attention"].run(*inputs), inputs, {})
        made.append(len(single._pools))
    assert made[-1] - made[0] <= 8


def test_several_python_threads_at_a_time(rng):
    shapes, attributes = ((3, 20, 30), (160, 30), (160, 40)), {"reverse": False}
    given = [drawn(rng, "lstm", shapes) for _ in range(4)]
    wanted = [OPS["lstm"].run(*inputs, **attributes).tobytes() for inputs in given]
    wrong = []

    def work(inputs, result):
        for _ in range(60):
            if OPS["lstm"].run(*inputs, **attributes).tobytes() != result:
                wrong.append(inputs)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(given, wanted, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_kernels_do_not_take_is_left_to_the_definition(rng, tmp_path):
    x, w = rng.normal(size=(2, 3, 8, 9)), rng.normal(size=(4, 3, 3, 3))
    row = OPS["conv2d"]
    assert row.run(x, w).dtype == np.float64
    single = x.astype(np.float32), w.astype(np.float32)
    wanted = row.run(*single)
    apart = np.asfortranarray(single[0]), np.repeat(single[1], 2, axis=-1)[..., ::2]
    assert row.run(*apart).tobytes() == wanted.tobytes()
    np.save(tmp_path / "x.npy", single[0])
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert row.run(mapped, single[1]).tobytes() == wanted.tobytes()
    np.testing.assert_allclose(row.run(single[0], w), wanted, rtol=1e-5, atol=1e-5)
    assert row.run(single[0][:0], single[1]).shape == (0, 4, 6, 7)


def test_what_is_prepared_takes_little_memory(rng, monkeypatch):
    monkeypatch.setattr(quick, "_prepared", quick._Prepared())
    monkeypatch.setattr(quick, "_MOST", 5)
    weight = rng.normal(size=(2, 3, 3)).astype(np.float32)
    for length in range(10, 30):
        x = rng.normal(size=(2, 3, length)).astype(np.float32)
        for _ in range(2):
            check("conv1d", OPS["conv1d"].run(x, weight), (x, weight), {})
    assert len(quick._prepared._found) == 5
    assert 0 < quick._prepared._bytes < 1 << 20
    monkeypatch.setattr(quick, "_LIMIT", 1)
    check("conv1d", OPS["conv1d"].run(x[..., 1:], weight), (x[..., 1:], weight), {})
    assert len(quick._prepared._found) == 5


def test_windows_along_other_axes_are_left_to_the_definition(rng):
    for axes in (0, 3):
        x = rng.normal(size=(2, 3, *(4, 5, 6)[:axes])).astype(np.float32)
        for name in ("max_pool2d", "avg_pool2d"):
            sides = {key: (n,) * axes for key, n in (("kernel", 2), ("stride", 1), ("padding", 1))}
            check(name, OPS[name](x, **sides), [x], OPS[name].conform(sides))
