"""The code that authors write, run on every instruction set against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from llmbol_core.errors import UsageError
from llmbol_core.ml.kernels import library
from llmbol_core.ml.kernels.declaration import Group
from llmbol_core.ml.kernels.kinds import f16, f32, i8, i16, i32, i64, u8, u16, u32
from llmbol_core.ml.kernels.target import TARGETS
from llmbol_core.ml.kernels.target import target as chosen_target

GROUP = Group("test", __file__)


@GROUP.kernel("x:f32* y:f32* out:f32* a:f32 n:i64")
def arithmetic(k, x, y, out, a, n):
    lanes = k.lanes
    for i in k.items(lanes):
        p, q = x.load(i, lanes), y.load(i, lanes)
        for row, value in enumerate(
            (
                p + q, p - q, p * q, p / q, -p, 1 - p, 2 / q, p * a + 0.5,
                k.abs(p), k.sqrt(k.abs(p)), k.rint(p), k.round(p), k.floor(p), k.copysign(p, q),
                k.max(p, q), k.min(p, 0), k.select(p < q, p, q), k.select(p >= 0, p, a),
                k.ramp(lanes, f32) * 0 + p.sum(), k.zeros(f32, lanes) + p.max(),
                k.zeros(f32, lanes) + p.min(), p.shuffle(range(lanes - 1, -1, -1)),
                p.to(i32).to(f32), p.bits(u32).to(f32), p.bits(i32).bits(f32),
                (p.to(i32) >> 1).to(f32), ((p.to(i32) & 7) | 8).to(f32), (p.to(i32) << 2).to(f32),
            )
        ):  # fmt: skip
            out.store(value, i + n * row)


def test_arithmetic_is_numpys(target):
    rng = np.random.default_rng(0)
    n = 64
    x, y = (rng.normal(size=(2, n)) * 5).astype(np.float32)
    x[:6] = [0.5, -0.5, 1.5, 2.5, -2.5, 0.49999997]
    out, a = np.zeros((28, n), np.float32), np.float32(3)
    arithmetic.run(n, x, y, out, a, n)
    whole = x.astype(np.int32)
    lanes = target.lanes

    def folded(combine, values):
        parts = values.reshape(-1, lanes)
        while parts.shape[1] > 1:
            half = parts.shape[1] // 2
            parts = combine(parts[:, :half], parts[:, half:])
        return parts.repeat(lanes, axis=1).reshape(-1)

    halves_away = np.trunc(x + np.copysign(np.nextafter(np.float32(0.5), np.float32(0)), x))
    wanted = [
        x + y, x - y, x * y, x / y, -x, 1 - x, 2 / y, x * a + np.float32(0.5),
        abs(x), np.sqrt(abs(x)), np.rint(x), halves_away, np.floor(x), np.copysign(x, y),
        np.maximum(x, y), np.minimum(x, 0), np.minimum(x, y), np.where(x >= 0, x, a),
        folded(np.add, x), folded(np.maximum, x), folded(np.minimum, x),
        x.reshape(-1, lanes)[:, ::-1].reshape(-1), np.trunc(x), x.view(np.uint32), x,
        whole >> 1, (whole & 7) | 8, whole << 2,
    ]  # fmt: skip
    for row, (found, right) in enumerate(zip(out, wanted, strict=True)):
        np.testing.assert_array_equal(found, np.asarray(right, np.float32), str(row))


@GROUP.kernel("x:f32* y:f32* z:f32* out:f32*")
def fused(k, x, y, z, out):
    for i in k.items():
        out.store(k.fma(x.load(i), y.load(i), z.load(i)), i)


def test_fused_multiplication_rounds_once(target):
    if not target.fuses:
        pytest.skip("no such instruction")
    x, y, z = np.random.default_rng(1).normal(size=(3, 100)).astype(np.float32)
    out = np.zeros(100, np.float32)
    fused.run(100, x, y, z, out)
    exact = (x.astype(np.float64) * y + z).astype(np.float32)
    np.testing.assert_array_equal(out, exact)


@GROUP.kernel("half:f16* wide:f32* back:f16*")
def halves(k, half, wide, back):
    for i in k.items(k.lanes):
        value = half.load(i, k.lanes).to(f32)
        wide.store(value, i)
        back.store(value, i)


@GROUP.kernel("x:f32* half:f16*")
def to_half(k, x, half):
    for i in k.items():
        half.store(x.load(i), i)


def test_float16_converts_as_numpy_does(target):
    bits = np.arange(1 << 16, dtype=np.uint16)
    half = bits.view(np.float16)
    wide, back = np.zeros(1 << 16, np.float32), np.zeros(1 << 16, np.float16)
    halves.run(1 << 16, half, wide, back)
    number = ~np.isnan(half)
    np.testing.assert_array_equal(wide[number], half[number].astype(np.float32))
    np.testing.assert_array_equal(back[number].view(np.uint16), bits[number])
    assert np.isnan(wide[~number]).all()
    x = np.concatenate([wide[number], np.random.default_rng(2).normal(size=50_000) * 2e-6])
    x = np.concatenate([x, x * 1.0004883, [65519, 65520, 1e9, -1e9, 2.0**-25, 3 * 2.0**-26]])
    x = x.astype(np.float32)
    found = np.zeros(len(x), np.float16)
    to_half.run(len(x), x, found)
    with np.errstate(over="ignore"):
        right = x.astype(np.float16)
    np.testing.assert_array_equal(found.view(np.uint16), right.view(np.uint16))


@GROUP.kernel("a:u8* b:i8* small:i32* wide:i32* both:i32*")
def dots(k, a, b, small, wide, both):
    lanes = k.lanes
    for i in k.items():
        u, s = a.load(i * 4 * lanes, 4 * lanes), b.load(i * 4 * lanes, 4 * lanes)
        one = k.value(1, i32, lanes)
        small.store(k.dot(one, u & 127, s), i * lanes)
        wide.store(k.dot(one, u, s, wide=True), i * lanes)
        negative = k.max(u.bits(i8), -127)
        both.store(k.dot_signed(one, negative, s), i * lanes)


def test_dot_products_of_bytes_are_exact(target):
    rng, lanes, n = np.random.default_rng(3), target.lanes, 500
    a = rng.integers(0, 256, (n, lanes, 4), dtype=np.uint8)
    b = rng.integers(-128, 128, (n, lanes, 4), dtype=np.int8)
    a[0], b[0] = 255, -128
    a[1], b[1] = 127, 127
    b[2:] = np.maximum(b[2:], -127)
    results = np.zeros((3, n, lanes), np.int32)
    dots.run(n, a, b, *results)
    wide = b.astype(np.int32)
    np.testing.assert_array_equal(results[0], 1 + ((a & 127) * wide).sum(-1))
    np.testing.assert_array_equal(results[1], 1 + (a * wide).sum(-1))
    signed = np.maximum(a.view(np.int8), -127) * wide
    np.testing.assert_array_equal(results[2][1:], 1 + signed.sum(-1)[1:])


@GROUP.kernel("x:f32* out:f32* n:i64 count:i64*")
def control(k, x, out, n, count):
    total = k.variable(k.zeros(f32))
    for i in k.range(n):
        for j in k.range(i, n, 3):
            with k.when(x.load(j) > 0):
                total.value += x.load(j)
        with k.either((i % 2).equals(0)) as (even, odd):
            with even:
                out.store(total.value, i)
            with odd:
                out.store(-total.value, i)
    count.add_atomic(k.end - k.begin)
    x.prefetch(n // 2)
    room = k.room(f32, 4)
    room.store(x.load_some(n, 4), 0)
    x.store_some(room.load(0, 4) + 1, k.value(2, i64))


def test_loops_and_branches(target):
    n = 20
    x = np.random.default_rng(4).normal(size=n).astype(np.float32)
    out, count, before = np.zeros(n, np.float32), np.array([5]), x.copy()
    control.run(3, x, out, n, count)
    total, wanted = np.float32(0), []
    for i in range(n):
        for j in range(i, n, 3):
            total += before[j] if before[j] > 0 else np.float32(0)
        wanted.append(-total if i % 2 else total)
    np.testing.assert_array_equal(out, np.array(wanted, np.float32))
    assert count[0] == 8
    np.testing.assert_array_equal(x[:2], before[:2] + 1)
    np.testing.assert_array_equal(x[2:], before[2:])


@GROUP.kernel("x:i8* y:u8* z:i16* out:i32*")
def widening(k, x, y, z, out):
    for i in k.items(8):
        out.store(x.load(i, 8).to(i32) + y.load(i, 8).to(i32) * 1000, i)
        z.store(x.load(i, 8).to(i16) * y.load(i, 8).to(i16), i)


def test_integers_widen_by_their_signs(target):
    x, y = np.arange(-64, 64, dtype=np.int8), np.arange(128, 256, dtype=np.uint8)
    z, out = np.zeros(128, np.int16), np.zeros(128, np.int32)
    widening.run(128, x, y, z, out)
    np.testing.assert_array_equal(out, x + y.astype(np.int32) * 1000)
    np.testing.assert_array_equal(z, x * y.astype(np.int16))


def test_a_program_runs_its_operations_in_order_and_again(target):
    x, out = np.ones(1 << 12, np.float32), np.zeros(1 << 12, np.float32)
    zeros = np.zeros_like(x)
    program = library.Program(
        [
            fused.operation(1 << 12, x, x, x, out, chunk=64),
            fused.operation(1 << 12, out, out, zeros, x, chunk=64),
        ]
    )
    program.run()
    assert (x == 4).all()
    program.run()
    assert (x == 400).all()


def test_objects_are_kept_on_disk_and_loaded_without_writing_code(target, monkeypatch, tmp_path):
    monkeypatch.setenv("LLMBOL_CACHE", str(tmp_path))
    loaded = library._loaded.__wrapped__
    loaded(GROUP, target)
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(library, "text_of", None)
    assert set(loaded(GROUP, target).addresses) == set(GROUP.kernels)


def test_instruction_sets_are_forced_by_name(monkeypatch):
    monkeypatch.setenv("LLMBOL_KERNELS", "none")
    assert chosen_target() is None
    with pytest.raises(RuntimeError, match="no instruction set"):
        library.address_of(fused)
    monkeypatch.setenv("LLMBOL_KERNELS", "avx3")
    with pytest.raises(UsageError, match=r"named 'avx3' \(did you mean"):
        chosen_target()
    monkeypatch.setenv("LLMBOL_KERNELS", next(n for n, t in TARGETS.items() if t.dot == "sdot"))
    monkeypatch.setattr("llmbol_core.ml.kernels.target.Target.fits", lambda *a: False)
    with pytest.raises(UsageError, match="cannot run"):
        chosen_target.__globals__["_chosen"].__wrapped__("neon")


def test_kinds_that_differ_do_not_mix():
    group = Group("mixed")

    @group.kernel("x:f32* y:i64*")
    def mixed(k, x, y):
        x.store(x.load() + y.load())

    with pytest.raises(TypeError, match="f32 and i64 do not mix"):
        library.text_of(group, TARGETS["generic"])
    with pytest.raises(ValueError, match="two kernels 'mixed'"):
        group.kernel("", name="mixed")(mixed.author)


def test_sizes_of_kinds():
    assert [k.size for k in (f16, i8, u8, u16, i64)] == [2, 1, 1, 2, 8]
