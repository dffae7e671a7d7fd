"""The ML core beside ggml, NumPy and the gguf package, in one run: rates and ratios.

Run on an idle machine: ``python -m benchmarks.ml [WORD ...]``; words choose families and rows by
their names.
Each side takes turns with its peer and the best of many runs counts. BLAS has one thread, the
kernels and ggml have ``LLMBOL_THREADS``. ``LLMBOL_GGML`` names a build of ggml
(``benchmarks.ggml``); for AVX2 only, set ``LLMBOL_KERNELS=avx2`` and name a build for that.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import gguf
import numpy as np

from benchmarks.floats import floats
from benchmarks.operations import operations
from benchmarks.quantized import batches, conversions, large_files, starts, vectors
from benchmarks.rows import TITLE, Row
from benchmarks.shaped import shaped
from llmbol_core.ml import gguf as container
from llmbol_core.ml import ops
from llmbol_core.ml.engine import Engine
from llmbol_core.ml.folding import fold_batch_norm
from llmbol_core.ml.graph import Graph
from llmbol_core.ml.kquants import K_TYPES
from llmbol_core.ml.quantization import dequantize, quantize
from llmbol_core.native.threads import single_threaded_blas

WEIGHTS = 1 << 21


def quantizing() -> Iterator[Row]:
    """Quantize and dequantize, in millions of weights a second; the peer has no K encoders."""
    x = np.random.default_rng(0).normal(size=(WEIGHTS // 2048, 2048)).astype(np.float32)
    for name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "F16", "BF16"):
        theirs = gguf.GGMLQuantizationType[name]
        part = x[: len(x) // 8] if name in K_TYPES else x

        def encode(part: Any = part, name: str = name) -> Any:
            return quantize(part, name)

        def encode_peer(part: Any = part, kind: Any = theirs) -> Any:
            return gguf.quants.quantize(part, kind)

        millions = part.size / 1e6
        peer = None if name in K_TYPES else encode_peer
        yield Row(f"quantize {name}", millions, "Mw/s", encode, peer, "gguf.quants")
        stored = quantize(part, name)
        raw = stored.data.view(np.uint8).reshape(len(part), -1)
        raw = raw.view(np.float16) if name == "F16" else raw

        def decode(stored: Any = stored) -> Any:
            return dequantize(stored)

        def decode_peer(raw: Any = raw, kind: Any = theirs) -> Any:
            return gguf.quants.dequantize(raw, kind)

        yield Row(f"dequantize {name}", millions, "Mw/s", decode, decode_peer, "gguf.quants")


def products() -> Iterator[Row]:
    """Products with weights, in billions of operations a second, beside NumPy's float32."""
    rng = np.random.default_rng(1)
    w = rng.normal(size=(1024, 2048)).astype(np.float32)
    for name in ("F32", "Q8_0", "Q4_0", "Q5_1", "Q4_K", "Q6_K"):
        stored = w if name == "F32" else quantize(w, name)
        for batch in (1, 64, 512):
            x = rng.normal(size=(batch, 2048)).astype(np.float32)

            def multiply(x: Any = x, stored: Any = stored) -> Any:
                return ops.linear(x, stored)

            def multiply_peer(x: Any = x) -> Any:
                return x @ w.T

            amount = 2 * batch * w.size / 1e9
            yield Row(
                f"mul_mat {name} x {batch}", amount, "GOP/s", multiply, multiply_peer, "NumPy"
            )


def network() -> tuple[Graph, dict[str, Any]]:
    """Return three wide layers with batch norm between them, and their weights."""
    rng, graph, weights = np.random.default_rng(2), Graph(), {}

    def weight(name: str, *shape: int) -> Any:
        weights[name] = rng.uniform(0.01, 0.05, shape).astype(np.float32)
        return graph.weight(name, shape)

    value = graph.input("x", (256,))
    for i, (wide, out) in enumerate(((256, 512), (512, 512), (512, 10))):
        value = graph.op("linear", value, weight(f"w{i}", out, wide), weight(f"b{i}", out))
        if out != 10:
            names = [weight(f"{part}{i}", out) for part in ("gain", "shift", "mean", "var")]
            value = graph.op("relu", graph.op("batch_norm", value, *names))
    graph.output(graph.op("softmax", value))
    return graph, weights


def engines() -> Iterator[Row]:
    """A whole network, in thousands of samples a second, beside the same lines in NumPy."""
    graph, w = network()
    planned, plain = Engine(fold_batch_norm(graph), w), Engine(graph, w)
    for batch in (1, 16, 256):
        x = np.random.default_rng(3).normal(size=(batch, 256)).astype(np.float32)

        def by_hand(h: Any = x) -> Any:
            for i in range(2):
                h = h @ w[f"w{i}"].T + w[f"b{i}"]
                h = (h - w[f"mean{i}"]) / np.sqrt(w[f"var{i}"] + 1e-5) * w[f"gain{i}"]
                h = np.maximum(h + w[f"shift{i}"], 0)
            h = h @ w["w2"].T + w["b2"]
            h = np.exp(h - h.max(axis=1, keepdims=True))
            return h / h.sum(axis=1, keepdims=True)

        def ours(x: Any = x) -> Any:
            return planned.run(x)

        def unfolded(x: Any = x) -> Any:
            return plain.run(x)

        yield Row(f"engine x {batch}", batch / 1e3, "k/s", ours, by_hand, "NumPy")
        yield Row(f"engine x {batch}, folded", batch / 1e3, "k/s", ours, unfolded, "unfolded")


def files() -> Iterator[Row]:
    """Open a file with a vocabulary of 32,000 words, in files a second."""
    words = [f"word{i}" for i in range(32_000)]
    keys: dict[str, container.Value] = {"words": words, "scores": np.zeros(32_000, np.float32)}
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/words.gguf"
        container.write(path, keys, {"x": quantize(np.zeros((64, 64)), "Q8_0")})

        def ours() -> Any:
            return container.read(path)

        def theirs() -> Any:
            return gguf.GGUFReader(path)

        yield Row("open 32,000 words", 1, "/s", ours, theirs, "gguf")


FAMILIES = (
    vectors,
    batches,
    floats,
    operations,
    shaped,
    conversions,
    large_files,
    starts,
    quantizing,
    products,
    engines,
    files,
)


def main() -> None:
    """Print a line for each row: both rates, their ratio, and whether it reaches the goal."""
    words = sys.argv[1:]
    names = [family.__name__ for family in FAMILIES]
    print(TITLE)
    with single_threaded_blas():
        for family in FAMILIES:
            if {*words} & {*names} and family.__name__ not in words:
                continue
            for row in family():
                if any(word not in names and word not in row.name for word in words):
                    continue
                print(row.line(), flush=True)


if __name__ == "__main__":
    main()
