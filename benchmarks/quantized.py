"""Rows of ``benchmarks.ml``: quantized products, conversions, files; beside ggml and the machine.

ggml takes part where ``LLMBOL_GGML`` names a build of it (``benchmarks.ggml``).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import numpy as np

from benchmarks.ggml import ggml
from benchmarks.reading import reading
from benchmarks.rows import Row, best
from llmbol_core.ml import gguf
from llmbol_core.ml.kernels.declaration import Group
from llmbol_core.ml.kernels.forms import BLOCK
from llmbol_core.ml.kernels.kinds import f32, i8, i32
from llmbol_core.ml.kernels.target import target
from llmbol_core.ml.packed import packed_weights
from llmbol_core.ml.quantization import dequantize, quantize
from llmbol_core.ml.tensor import Tensor
from llmbol_core.native.threads import thread_count

SIZE = 4096
COPIES = 40
"""So many matrices of that size exceed any cache."""
TYPES = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")
K_TYPES = ("Q4_K", "Q5_K", "Q6_K")

GROUP = Group("byte products", __file__)
SUMS = 12


@GROUP.kernel("given:u8* scale:f32* out:f32*")
def multiply_blocks(k: Any, given: Any, scale: Any, out: Any) -> None:
    """Multiply as many blocks of 32 bytes as the processor can: SUMS vectors of rows an item.

    The sum of a block's eight products of four bytes is scaled twice, as for rows and columns.
    """
    a, b = (given.load(4 * k.lanes * i, 4 * k.lanes) for i in range(2))
    factor = scale.load(0, k.lanes)
    totals = [k.variable(k.zeros(f32, k.lanes)) for _ in range(SUMS)]
    for _ in k.items():
        dots = k.settle(*(k.zeros(i32, k.lanes) for _ in totals))
        for _ in range(8):
            dots = k.settle(*(k.dot(dot, a, b.bits(i8)) for dot in dots))
        for total, dot in zip(totals, dots, strict=True):
            (found,) = k.settle(factor)
            total.value = total.value + dot.to(f32) * (found * factor)
    whole = totals[0].value
    for total in totals[1:]:
        whole = whole + total.value
    out.store(whole, k.thread * k.lanes)


def at_peak(amount: int) -> Any:
    """Return what multiplies so many pairs of numbers in blocks that are always at hand."""
    chosen, threads = target(), thread_count()
    if chosen is None or not has_byte_products():
        return None
    given, scale, out = (
        np.ones(256, np.uint8),
        np.ones(16, np.float32),
        np.empty((threads, 16), "f"),
    )
    items = amount // (BLOCK * SUMS * chosen.lanes)
    chunk = -(-items // (8 * threads))
    return partial(multiply_blocks.run, items, given, scale, out, chunk=chunk)


@cache
def matrices(name: str, rows: int, columns: int, count: int) -> list[Tensor]:
    x = np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)
    first = quantize(x, name)
    return [Tensor(np.roll(first.data, i, axis=0), name) for i in range(count)]


def has_byte_products() -> bool:
    """Return whether the processor, as far as it may be used, multiplies bytes in one step."""
    chosen = target()
    return chosen is not None and chosen.dot == "vnni"


def product(weights: list[Tensor], x: Any, out: Any) -> None:
    for tensor in weights:
        packed = packed_weights(tensor)
        assert packed is not None
        packed.product(x, out)


def packed(weights: list[Tensor]) -> Any:
    """Return packed weights in one piece."""
    forms = [packed_weights(tensor) for tensor in weights]
    return np.concatenate([form.data for form in forms if form is not None])


def vectors() -> Iterator[Row]:
    """Matrix times vector, in GB of weights a second: in the caches, and from memory."""
    peer, threads = ggml(), thread_count()
    places = (("L2", 768, 2048, 1), ("L3", SIZE, SIZE, 1), ("memory", SIZE, SIZE, COPIES))
    for place, rows, columns, count in places:
        for name in (*TYPES, *K_TYPES) if count == 1 else (*TYPES[:2], "Q4_K", "Q6_K"):
            weights = matrices(name, rows, columns, count)
            x = np.random.default_rng(1).normal(size=(1, columns)).astype(np.float32)
            ours = partial(product, weights, x, np.empty((1, rows), np.float32))
            theirs = peer and peer.product(weights, x, threads)
            amount = sum(tensor.nbytes for tensor in weights) / 1e9
            wanted, name_of = 1.5 if has_byte_products() else 1.4, f"{name} x vector, {place}"
            read = reading(packed(weights)) if place == "memory" else None
            yield Row(name_of, amount, "GB/s", ours, theirs, "ggml", wanted, limit=read)
            if read is not None:
                goal = 0.85 if name == "Q8_0" else 0.75
                yield Row(name_of, amount, "GB/s", ours, read, "reading", goal)
        matrices.cache_clear()


def batches() -> Iterator[Row]:
    """Matrix times batch, in billions of operations a second."""
    peer, threads = ggml(), thread_count()
    for name in (*TYPES, *K_TYPES):
        weights = matrices(name, SIZE, SIZE, 1)
        for batch, goal in ((8, 1.7), (64, 3.0), (512, 3.0)):
            x = np.random.default_rng(1).normal(size=(batch, SIZE)).astype(np.float32)
            ours = partial(product, weights, x, np.empty((batch, SIZE), np.float32))
            theirs = peer and peer.product(weights, x, threads)
            amount = 2 * batch * SIZE * SIZE / 1e9
            wanted = goal if has_byte_products() else 1.4
            peak = at_peak(batch * SIZE * SIZE)
            yield Row(
                f"{name} x {batch}", amount, "GOP/s", ours, theirs, "ggml", wanted, limit=peak
            )


def conversions() -> Iterator[Row]:
    """Quantize and dequantize, in billions of weights a second."""
    peer = ggml()
    x = np.random.default_rng(2).normal(size=(SIZE, SIZE)).astype(np.float32)
    amount = x.size / 1e9
    for name in TYPES:
        stored = quantize(x, name)
        room, back = np.empty_like(stored.data), np.empty_like(x)

        def call(function: str, source: Any, target: Any) -> Any:
            row = peer and peer.row_function(function)
            return row and partial(row, source.ctypes.data, target.ctypes.data, x.size)

        theirs = call(f"quantize_row_{name.lower()}_ref", x, room)
        ours = partial(quantize, x, name)
        yield Row(f"quantize {name}", amount, "Gw/s", ours, theirs, "ggml C", least=1.0)
        if name == "Q8_0":
            theirs = call("quantize_row_q8_0", x, room)
            yield Row(f"quantize {name}", amount, "Gw/s", ours, theirs, "ggml SIMD", least=1.0)
        theirs = call(f"dequantize_row_{name.lower()}", stored.data, back)
        yield Row(
            f"dequantize {name}", amount, "Gw/s", partial(dequantize, stored), theirs, "ggml C",
            least=1.0,
        )  # fmt: skip
    part = x[:512]
    for name in K_TYPES:
        room = np.empty_like(quantize(part, name).data)
        row = peer and peer.row_function(f"quantize_row_{name.lower().replace('k', 'K')}_ref")
        theirs = row and partial(row, part.ctypes.data, room.ctypes.data, part.size)
        ours = partial(quantize, part, name)
        yield Row(f"quantize {name}", part.size / 1e9, "Gw/s", ours, theirs, "ggml C")


def large_files() -> Iterator[Row]:
    """A 1 GB file of float32, quantized to a file: as fast as 1 Gw/s and the disk, to 80 %."""
    from llmbol_core.nn.quantize import quantize_checkpoint

    with tempfile.TemporaryDirectory() as folder:
        path, out = f"{folder}/f32.gguf", f"{folder}/q4_0.gguf"
        base = np.random.default_rng(3).normal(size=(SIZE, SIZE)).astype(np.float32)
        gguf.write(path, {}, {f"blk.{i}.weight": Tensor(np.roll(base, i)) for i in range(16)})
        stored = quantize(base, "Q4_0").tobytes()

        def write() -> None:
            with open(out, "wb") as file:
                for _ in range(16):
                    file.write(stored)
                os.fsync(file.fileno())

        ours, disk = best(partial(quantize_checkpoint, path, out, "q4_0"), write)
        assert ours is not None
        assert disk is not None
        weights = 16 * base.size / 1e9
        yield Row.of("1 GB file to Q4_0", weights / ours, "Gw/s", least=0.8 / (1 + disk / weights))


READY = """
import sys, time
import numpy as np
from llmbol_core.ml import gguf
from llmbol_core.ml.engine import Engine
from llmbol_core.ml.graph import Graph
start = time.perf_counter()
file = gguf.read(sys.argv[1])
graph = Graph()
value = graph.input("x", (4096,))
for name, tensor in file.tensors.items():
    value = graph.op("linear", value, graph.weight(name, tensor.shape))
graph.output(value)
engine = Engine(graph, file.tensors)
ready = time.perf_counter() - start
engine.run(np.ones((1, 4096), np.float32))
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
held = 1024 * int(status["VmRSS"].split()[0])
print(ready, held / sum(tensor.nbytes for tensor in file.tensors.values()))
"""

FIRST = """
import sys
import numpy as np
from llmbol_core.ml import gguf, ops
weight = next(iter(gguf.read(sys.argv[1]).tensors.values()))
ops.linear(np.ones((1, 4096), np.float32), weight)
"""


def starts() -> Iterator[Row]:
    """A 1 GB file made ready, what it then takes, and a first product, each in a new process.

    Packed for the first time, it is not ready before as many bytes are written.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/q8_0.gguf"
        blocks = quantize(np.random.default_rng(4).normal(size=(SIZE, SIZE)) / 64, "Q8_0").data
        names = range(-(-1_000_000_000 // blocks.nbytes))
        gguf.write(path, {}, {f"{i}": Tensor(np.roll(blocks, i), "Q8_0") for i in names})

        def run(script: str) -> list[float]:
            words = [sys.executable, "-c", script, path]
            done = subprocess.run(words, capture_output=True, check=True)
            return [float(word) for word in done.stdout.split()]

        cold, held = run(READY)
        warm = min(run(READY)[0] for _ in range(3))
        yield Row.of("1 GB ready, packed before", warm, "s", most=0.6)
        yield Row.of("1 GB ready, packed now", cold, "s", most=0.6)
        start, raw = time.perf_counter(), blocks.tobytes()
        with open(f"{folder}/written", "wb") as file:
            for _ in names:
                file.write(raw)
        written = time.perf_counter() - start
        yield Row.of("1 GB written, no more", written, "s")
        yield Row.of("1 GB resident / weights", held, "", most=1.1)

        def first() -> float:
            start = time.perf_counter()
            run(FIRST)
            return time.perf_counter() - start

        yield Row.of("first product", min(first() for _ in range(5)), "s", most=0.35)
