"""Functions in machine code that Python calls."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from llmbol_core.ml.engine import Engine
from llmbol_core.ml.graph import Graph
from llmbol_core.ml.kernels.target import target
from llmbol_core.native.entry import is_possible

pytestmark = pytest.mark.skipif(
    target() is None or not is_possible(), reason="there are no such functions here"
)


def made(rng, depth=6):
    """Return a function of a small network, its engine, and the calls of the other way."""
    graph, calls = Graph(), []
    weight = rng.normal(size=(4, depth)).astype("f4")
    x = graph.input("x", (depth,))
    graph.output(graph.op("relu", graph.op("linear", x, graph.weight("w", (4, depth)))))
    engine = Engine(graph, {"w": weight})

    def other(given):
        calls.append(np.shape(given))
        return engine.run(np.asarray(given, np.float32))

    return engine.function(other), engine, calls


def test_batches_that_come_again_need_no_python(rng):
    run, engine, calls = made(rng)
    x = rng.normal(size=(5, 6)).astype("f4")
    for _ in range(3):
        assert run(x).tobytes() == engine.run(x).tobytes()
    assert calls == [(5, 6)]
    y = rng.normal(size=(2, 6)).astype("f4")
    for given in (y, y, x, y):
        assert run(given).tobytes() == engine.run(given).tobytes()
    assert calls == [(5, 6), (2, 6), (5, 6), (2, 6)]


def test_what_is_not_as_expected_goes_the_other_way(rng):
    run, engine, calls = made(rng)
    x = rng.normal(size=(5, 6)).astype("f4")
    run(x)
    del calls[:]
    wanted = engine.run(x)
    wide = np.repeat(x, 2, axis=1)
    others = [
        x.astype("f8"), x.astype(">f4"), np.asfortranarray(x), wide[:, ::2], x.tolist(),
        x.view(np.memmap), np.frombuffer(b"0" + x.tobytes(), "f4", offset=1, count=30).reshape(5, 6)
    ]  # fmt: skip
    for given in others:
        np.testing.assert_array_equal(run(given), wanted)
    assert len(calls) == len(others)
    with pytest.raises(TypeError):
        run()
    with pytest.raises(ValueError, match="could not convert"):
        run("no numbers")


def test_results_are_new_and_keep_nothing(rng):
    run, _, _ = made(rng)
    x = rng.normal(size=(3, 6)).astype("f4")
    run(x)
    first = run(x)
    kept = first.copy()
    run(2 * x)
    assert first.tobytes() == kept.tobytes()
    assert first.flags.owndata
    assert first.flags.writeable


def test_the_function_keeps_what_it_needs(rng):
    run, engine, _ = made(rng, depth=500)
    x = rng.normal(size=(3, 500)).astype("f4")
    wanted = engine.run(x).tobytes()
    run(x)
    del engine
    gc.collect()
    junk = [np.full(2000, np.nan, np.float32) for _ in range(500)]
    assert run(x).tobytes() == wanted
    del junk
