"""Products by kernels against NumPy's, as matrices lie."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from llmbol_core.errors import ShapeError
from llmbol_core.ml import matrices
from llmbol_core.ml.api import create_ml_module
from llmbol_core.ml.kernels.library import address_of
from llmbol_core.ml.kernels.target import target
from llmbol_core.ml.matrices import multiply, never, short_products
from llmbol_core.ml.ops import OPS
from llmbol_core.ml.ops.tiles import product, product_by_definition

pytestmark = pytest.mark.skipif(target() is None, reason="there are no kernels here")

CHOSEN: Any = target()
SIZES = [(1, 1, 1), (5, 33, 7), (1, 784, 128), (9, 600, 130), (2, 70, 1500), (33, 1100, 41),
         (150, 2100, 9), (80, 1030, 161), (1, 300, 1025), (8, 64, 64), (40, 1, 300),
         (67, 1100, 333), (1100, 40, 75), (197, 270, 1050), (18, 300, 601)]  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("turned", [False, True])
def test_products_of_all_sizes(size, turned, rng):
    m, k, n = size
    x = rng.normal(size=(m, k)).astype("f4")
    y = rng.normal(size=(n, k)).astype("f4").T if turned else rng.normal(size=(k, n)).astype("f4")
    out = np.full((m, n), np.nan, np.float32)
    expected = x.astype("f8") @ y
    assert multiply(x, y, out, target() or CHOSEN) is out
    np.testing.assert_allclose(out, expected, atol=3e-6 * np.abs(expected).max())
    np.testing.assert_allclose(out, product_by_definition(x, y, np.empty_like(out)), atol=1e-3)
    order = rng.permutation(m)
    assert product(x[order], y).tobytes() == out[order].tobytes()
    assert product(x[:1], y).tobytes() == out[:1].tobytes()


def test_parts_of_larger_matrices(rng):
    x, y = rng.normal(size=(20, 50)).astype("f4"), rng.normal(size=(60, 80)).astype("f4")
    for left, right in (
        (x[:, 3:33], y[5:35, 7:40]),
        (x[::2, :30], y[:60:2]),
        (x.T[:20], y[:20, ::-1]),
        (x[:, ::2], y[:25].T[:25, :25]),
        (np.broadcast_to(x[0], (4, 50)), y[:50]),
    ):
        out = np.zeros((len(left), right.shape[1]), np.float32)
        expected = left.astype("f8") @ right.astype("f8")
        np.testing.assert_allclose(multiply(left, right, out, CHOSEN), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("left", "right"),
    [((12, 64, 64), (12, 64, 70)), ((2, 1, 9, 170), (3, 170, 233)), ((40, 400), (5, 400, 17)),
     ((2, 300, 300), (1, 300, 300)), ((3, 2, 5), (3, 5, 2)), ((3, 2, 130), (3, 130, 133)),
     ((7, 8, 128), (7, 128, 128)), ((3, 1, 8, 150), (2, 150, 110)), ((9, 40, 60), (9, 60, 40)),
     ((2, 1300, 20), (2, 20, 30))],
)  # fmt: skip
def test_batches_of_matrices(left, right, rng):
    x, y = rng.normal(size=left).astype("f4"), rng.normal(size=right).astype("f4")
    expected = np.matmul(x.astype("f8"), y)
    found = OPS["matmul"](x, y)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=3e-6 * np.abs(expected).max())
    turned = np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)
    for out in (np.full(found.shape, np.nan, "f4"), np.full(found.shape, np.nan, "f4", order="F")):
        assert OPS["matmul"].definition(turned, y, out=out) is out
        np.testing.assert_allclose(out, found, atol=3e-6 * np.abs(expected).max())
    if len(right) == 3 and right[0] == left[0]:
        for i in range(len(x)):
            assert OPS["matmul"](x[i : i + 1], y[i : i + 1]).tobytes() == found[i : i + 1].tobytes()


def test_nothing_to_multiply():
    for m, k, n in ((0, 3, 2), (3, 0, 2), (3, 2, 0)):
        out = product(np.ones((m, k), np.float32), np.ones((k, n), np.float32))
        assert out.shape == (m, n)
        assert not out.any()


def test_other_numbers_are_left_to_numpy(rng):
    x, y = rng.normal(size=(3, 4)), rng.normal(size=(4, 5))
    assert product(x, y).dtype == np.float64
    np.testing.assert_allclose(product(x, y), x @ y)


@pytest.mark.slow
@pytest.mark.parametrize("chosen", ["avx2", "sse4", "generic", "neon"])
def test_every_instruction_set_gives_the_same(chosen, monkeypatch, rng):
    from llmbol_core.ml.kernels.target import TARGETS
    from llmbol_core.native.processor import host_processor

    if not TARGETS[chosen].fits(host_processor()):
        pytest.skip("not on this machine")
    monkeypatch.setenv("LLMBOL_KERNELS", chosen)
    for size in SIZES:
        for turned in (False, True):
            test_products_of_all_sizes(size, turned, rng)
    test_threads_and_forks_make_the_same_bits()


@pytest.fixture(scope="module")
def shorts():
    for right in (np.ones((2, 3), np.float32), np.ones((3, 2), np.float32).T):
        multiply(np.ones((2, 2), np.float32), right, np.empty((2, 3), np.float32), CHOSEN)
    found = short_products(CHOSEN)
    if found[0] is never:
        pytest.skip("there are no short products in machine code here")
    return found


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 64, 64), (3, 7, 300), (9, 40, 70), (33, 200, 41)])
def test_short_products_have_the_bits_of_long_ones(size, shorts, rng):
    m, k, n = size
    x, y = rng.normal(size=(m, k)).astype("f4"), rng.normal(size=(k, n)).astype("f4")
    bias = rng.normal(size=n).astype("f4")
    for right, turned in ((y, False), (np.asfortranarray(y), False), (np.array(y.T), True)):
        made = shorts[turned](x, right)
        given = right.T if turned else right
        np.testing.assert_allclose(made, x @ y, atol=1e-5 * k)
        assert made.flags.owndata
        assert made.flags.c_contiguous
        assert made.tobytes() == multiply(x[:, :], given, np.empty((m, n), "f4"), CHOSEN).tobytes()
        assert shorts[turned](x, right, bias).tobytes() == (made + bias).tobytes()
        assert shorts[turned](x, right, None).tobytes() == made.tobytes()
        room = np.empty((m, n + 5), np.float32)[:, 3:-2]
        assert shorts[turned](x, right, None, room) is room
        np.testing.assert_array_equal(room, made)
    wide = np.zeros((2 * m, k + 3), np.float32)[::2, 1:-2]
    wide[...] = x
    assert shorts[0](wide, y).tobytes() == shorts[0](x, y).tobytes()


def test_short_products_are_those_of_kernels_that_are_there(monkeypatch):
    loaded = []

    def found(kernel):
        loaded.append(kernel.name)
        return address_of(kernel)

    monkeypatch.setattr(matrices, "address_of", found)
    made = matrices._Kernels(CHOSEN)
    x, y = np.ones((2, 3), np.float32), np.ones((3, 4), np.float32)
    turned = np.asfortranarray(y)
    assert made.shorts[0](x, y) is made.shorts[0](x, turned) is None
    made.address(True)
    assert loaded == ["dots"]
    assert made.shorts[0](x, y) is None
    if made.shorts[0] is not never:
        np.testing.assert_array_equal(made.shorts[0](x, turned), 3)
        np.testing.assert_array_equal(made.shorts[1](x, turned.T), 3)


class Subclass(np.ndarray[Any, Any]):
    """An array that might do something else."""


def test_short_products_leave_the_rest_alone(shorts, rng):
    x, y = rng.normal(size=(4, 6)).astype("f4"), rng.normal(size=(6, 8)).astype("f4")
    others = (
        (), (x,), (x, y, None, x, x), (x, x), (x, y.astype("f8")), (x.tolist(), y), (x, None),
        (x[0], y), (x[None], y), (x, y[:, 0]), (x[:0], y), (x[:, :0], y[:0]), (x, y[:, :0]),
        (x[:, ::-1], y[:, :]), (x[::-1], y), (x, y[:, ::-1]), (x, y[:, ::2]), (x[:, ::2], y[:3]),
        (x.view(Subclass), y), (x.astype(">f4"), y), (x, y, np.ones(7, "f4")), (x, y, 1.0),
        (x, y, np.ones((1, 8), "f4")), (x, y, np.ones(8)), (x, y, np.ones(16, "f4")[::2]),
        (np.broadcast_to(np.float32(1), (4, 6)), y),
    )  # fmt: skip
    for arguments in others:
        assert shorts[0](*arguments) is None
    fixed = np.zeros((4, 8), np.float32)
    fixed.flags.writeable = False
    for room in (fixed, np.zeros((3, 8), "f4"), np.zeros((4, 9), "f4"), np.zeros((4, 8)), None,
                 np.zeros((8, 4), "f4").T, np.zeros(32, "f4"), np.zeros((4, 16), "f4")[:, ::2],
                 np.zeros((4, 8), "f4")[::-1]):  # fmt: skip
        assert shorts[0](x, y, None, room) is None
        assert room is None or not room.any()
    large = np.zeros((1 << 12, 1 << 13), np.float32)
    assert shorts[0](large, large.T) is None
    with pytest.raises(TypeError, match="keyword"):
        shorts[0](x, y=y)


def test_short_products_hold_and_leak_nothing(shorts):
    x, y = np.ones((2, 3), np.float32), np.ones((3, 4), np.float32)
    room = np.empty((2, 4), np.float32)
    before = [sys.getrefcount(value) for value in (x, y, room)]
    for _ in range(100):
        assert shorts[0](x, y).sum() == 24
        assert shorts[0](x, y, None, room) is room
        assert shorts[0](x, 1) is None
    assert [sys.getrefcount(value) for value in (x, y, room)] == before
    made, other = shorts[0](x, y), np.empty(1)
    assert sys.getrefcount(made) == sys.getrefcount(other)


def test_operations_say_what_does_not_fit(rng):
    x, y = rng.normal(size=(2, 3)).astype("f4"), rng.normal(size=(4, 5)).astype("f4")
    for operation in (OPS["matmul"], create_ml_module().matmul):
        with pytest.raises(ShapeError, match=r"\(2, 3\) and \(4, 5\) do not fit"):
            operation(x, y)
    product = create_ml_module().matmul(create_ml_module().create_tensor(x), y[:3])
    np.testing.assert_allclose(product.numpy(), x @ y[:3], atol=1e-6)


@pytest.mark.parametrize("offset", [0, 4, 12, 16, 33, 60, 64, 6])
@pytest.mark.parametrize("size", [(3, 5), (48, 9), (80, 16), (1072, 11), (2080, 24), (100, 8)])
def test_a_single_row_has_the_same_bits_wherever_the_matrix_lies(offset, size, rng):
    depth, columns = size
    x, w = rng.normal(size=(2, depth)).astype("f4"), rng.normal(size=(columns, depth)).astype("f4")
    room = np.zeros(w.nbytes + 256, np.uint8)
    start = -room.ctypes.data % 64 + offset
    moved = room[start : start + w.nbytes].view(np.float32).reshape(w.shape)
    moved[...] = w
    assert moved.ctypes.data % 64 == offset % 64
    room[:start], room[start + w.nbytes :] = 255, 255  # NaN all around
    for right in (w.T, moved.T):
        assert product(x[:1], right).tobytes() == product(x, w.T)[:1].tobytes()


THREADS = """
import os, sys
import numpy as np
from llmbol_core.ml import ops
from llmbol_core.native.team import team
assert team().threads == 3
rng = np.random.default_rng(5)
sizes = ((1, 640, 640), (3, 700, 900), (1, 500, 2010), (40, 512, 520), (300, 300, 300))
made = b""
for m, k, n in sizes:
    x, y = rng.normal(size=(m, k)).astype("f4"), rng.normal(size=(k, n)).astype("f4")
    w, bias = y.T.copy(), rng.normal(size=n).astype("f4")
    made += ops.matmul(x, y).tobytes() + ops.linear(x, w, bias).tobytes()
    np.testing.assert_allclose(ops.matmul(x, y), x @ y, atol=1e-3)
child = os.fork()
if not child:
    again = ops.matmul(x, y).tobytes() + ops.linear(x, w, bias).tobytes()
    os._exit(not made.endswith(again))
assert os.waitpid(child, 0)[1] == 0
sys.stdout.buffer.write(made)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no processes to fork")
def test_threads_and_forks_make_the_same_bits():
    def run(threads, script):
        given = {**os.environ, "LLMBOL_THREADS": str(threads)}
        words = [sys.executable, "-W", "error", "-c", script]
        return subprocess.run(words, env=given, stdout=subprocess.PIPE, check=True).stdout

    assert run(3, THREADS) == run(1, THREADS.replace("== 3", "== 1"))


def test_a_single_column_is_summed_alike_in_all_batches(rng):
    x, y = rng.normal(size=(20, 700)).astype("f4"), rng.normal(size=(700, 1)).astype("f4")
    whole = product(x, y)
    assert product(x[:1], y).tobytes() == whole[:1].tobytes()
