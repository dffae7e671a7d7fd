"""The commands of ``nn`` that look at models and change how weights are stored."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from llmbol_core.ml import gguf
from llmbol_core.ml.ops import OPS
from llmbol_core.ml.quantization import quantize
from llmbol_core.ml.tensor import Tensor
from llmbol_core.nn import compare
from llmbol_core.nn.builder import build_model
from llmbol_core.nn.checkpoint import load, load_for_inference, save
from tests.cli.test_nn import nn  # noqa: F401 -- a fixture


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network with a convolution and rows of 64, its inputs, a foreign GGUF file."""
    folder = tmp_path_factory.mktemp("tools")
    layers = build_model("net", [64]).linear(64, 96).batch_norm(96).relu().linear(96, 5)
    save(layers.build(), str(folder / "net.gguf"))
    save(build_model("other", [64]).linear(64, 5).build(), str(folder / "other.gguf"))
    save(build_model("wide", [8]).linear(8, 5).build(), str(folder / "wide.gguf"))
    rng = np.random.default_rng(3)
    np.save(folder / "x.npy", rng.normal(size=(40, 64)).astype(np.float32))
    tensors = {
        "token_embd.weight": Tensor(rng.normal(size=(9, 256)).astype(np.float32)),
        "blk.0.ffn.weight": Tensor(rng.normal(size=(4, 256)).astype(np.float16)),
        "norm.weight": Tensor(np.ones(256, np.float32)),
        "ids": Tensor(np.arange(6, dtype=np.int32).reshape(2, 3)),
    }
    words = {"tokenizer.ggml.tokens": [f"w{i}" for i in range(9)]}
    gguf.write(folder / "llama.gguf", {"general.architecture": "llama", **words}, tensors)
    return folder


def test_types_by_pattern_and_dry_run(nn, folder, tmp_path):  # noqa: F811
    out = tmp_path / "q.gguf"
    rules = ["--tensor-type", "3.*=q8_0", "--tensor-type", "*.bias=f16"]
    words = ["quantize", folder / "net.gguf", "-t", "q4_0", *rules, "--json"]
    dry = json.loads(nn(*words, "--dry-run").out)
    wet = json.loads(nn(*words, "-o", out).out)
    assert dry == wet | {"path": None}
    after = {row["tensor"]: row["after"] for row in wet["tensors"]}
    assert (after["0.weight"], after["3.weight"], after["3.bias"]) == ("Q4_0", "Q8_0", "F32")
    assert {n: t.dtype.name for n, t in gguf.read(out).tensors.items()} == after
    assert [row["rmse"] > 0 for row in wet["tensors"] if row["after"] != "F32"] == [True, True]
    assert nn("quantize", folder / "net.gguf", "-t", "q4_0").code == 2


def test_models_through_a_pipe(folder, tmp_path):
    import subprocess
    import sys

    def piped(data, *words):
        code = "import sys; from llmbol_cli.entry import nn; sys.argv[0] = 'nn'; sys.exit(nn())"
        line = [sys.executable, "-c", code, *words]
        return subprocess.run(line, input=data, capture_output=True, check=False)

    plain = (folder / "net.gguf").read_bytes()
    small = piped(plain, "quantize", "-", "-t", "q8_0", "-o", "-")
    assert (small.returncode, small.stderr) == (0, b"")
    (tmp_path / "small.gguf").write_bytes(small.stdout)
    assert load_for_inference(str(tmp_path / "small.gguf"))
    assert gguf.read(tmp_path / "small.gguf").tensors["0.weight"].dtype.name == "Q8_0"
    large = piped(small.stdout, "dequantize", "-", "-o", "-")
    (tmp_path / "large.gguf").write_bytes(large.stdout)
    assert gguf.read(tmp_path / "large.gguf").tensors["0.weight"].dtype.name == "F32"
    refused = piped(plain, "quantize", "-", "-t", "q8_0", "-o", "-", "--json")
    assert (refused.returncode, refused.stdout) == (2, b"")


def test_threads_are_counted_as_wished(nn, folder, monkeypatch):  # noqa: F811
    monkeypatch.setenv("LLMBOL_THREADS", "2")
    words = ["bench", folder / "net.gguf", "--batch", "1", "--seconds", "0", "--json"]
    assert json.loads(nn(*words).out)["threads"] == 2
    assert json.loads(nn(*words, "--threads", "1").out)["threads"] == 1
    assert nn(*words, "--threads", "0").code == 2
    assert nn("bench", folder / "net.gguf", "--seconds", "nan").code == 2


def test_a_model_is_split_into_shards(nn, folder, tmp_path):  # noqa: F811
    words = ["quantize", folder / "llama.gguf", "-t", "q8_0", "-o", tmp_path / "small.gguf"]
    report = json.loads(nn(*words, "--max-shard", "1K", "--json").out)
    assert report["path"].endswith("small-00001-of-00004.gguf")
    whole = gguf.read(tmp_path / "small-00003-of-00004.gguf")
    assert list(whole.tensors) == [row["tensor"] for row in report["tensors"]]
    assert nn(*words, "--max-shard", "much").code == 2


def test_any_gguf_file_can_be_quantized_and_expanded(nn, folder, tmp_path):  # noqa: F811
    small, back = tmp_path / "small.gguf", tmp_path / "back.gguf"
    report = json.loads(
        nn("quantize", folder / "llama.gguf", "-t", "q4_k", "-o", small, "--json").out
    )
    kept = {row["tensor"]: row["kept_because"] for row in report["tensors"]}
    assert kept["norm.weight"] == "a vector"
    assert kept["ids"] == "numbers in I32"
    file = gguf.read(small)
    assert file.tensors["blk.0.ffn.weight"].dtype.name == "Q4_K"
    assert file.metadata["general.file_type"] == 15
    assert file.metadata["tokenizer.ggml.tokens"] == [f"w{i}" for i in range(9)]
    assert nn("dequantize", small, "-o", back).code == 0
    original, found = gguf.read(folder / "llama.gguf").tensors, gguf.read(back).tensors
    assert {t.dtype.name for t in found.values()} == {"F32", "I32"}
    gap = found["token_embd.weight"].numpy() - original["token_embd.weight"].numpy()
    assert 0 < np.abs(gap).max() < 0.3
    assert (found["ids"].numpy() == np.arange(6).reshape(2, 3)).all()


def test_dequantized_checkpoints_can_be_trained_again(nn, tmp_path):  # noqa: F811
    model = build_model("conv", [4, 16]).conv1d(4, 8, 8).flatten().linear(72, 3).build()
    paths = [str(tmp_path / name) for name in ("a", "b", "c")]
    save(model, paths[0])
    assert nn("quantize", paths[0], "-t", "q8_0", "-o", paths[1]).code == 0
    assert gguf.read(paths[1]).tensors["0.weight"].shape == (8, 32)
    assert nn("dequantize", paths[1], "-o", paths[2]).code == 0
    again = load(paths[2])
    x = np.ones((2, 4, 16), np.float32)
    expected = load_for_inference(paths[1]).run(x)
    np.testing.assert_allclose(again.evaluate().forward(x), expected, rtol=1e-2, atol=1e-3)


def test_inspect_shows_any_file(nn, folder):  # noqa: F811
    found = json.loads(nn("inspect", folder / "llama.gguf", "--json").out)
    assert found["parameters"] == 13 * 256 + 256 + 6
    keys = {row["key"]: (row["type"], row["value"]) for row in found["metadata"]}
    assert keys["tokenizer.ggml.tokens"] == (
        "array of string",
        "['w0', 'w1', 'w2', 'w3', ...] (9)",
    )
    assert found["tensors"][1] == {
        "tensor": "blk.0.ffn.weight",
        "type": "F16",
        "shape": [4, 256],
        "bytes": 2048,
    }
    rows = json.loads(nn("inspect", folder / "llama.gguf", "--histogram", "--json").out)
    first = rows[0]
    x = gguf.read(folder / "llama.gguf").tensors["token_embd.weight"].numpy()
    assert first["counts"] == np.histogram(x, 16)[0].tolist()
    assert first["mean"] == pytest.approx(x.mean(), abs=1e-6)
    assert first["deviation"] == pytest.approx(x.std(), rel=1e-5)
    assert re.search(
        r"^norm.weight +F32 +1 +1 +1 +0 +0 +0 +\d{16}$",
        nn("inspect", folder / "llama.gguf", "--histogram").out,
        re.MULTILINE,
    )


def test_histograms_leave_out_what_is_not_finite(tmp_path, nn):  # noqa: F811
    x = np.array([[np.nan, 1, 2, np.inf], [3, -np.inf, 0, 0]], np.float32)
    tensors = {"some": Tensor(x), "none": Tensor(np.full(3, np.nan, np.float32))}
    gguf.write(tmp_path / "x.gguf", {}, tensors)
    some, none = json.loads(nn("inspect", tmp_path / "x.gguf", "--histogram", "--json").out)
    assert (some["least"], some["greatest"], some["zeros"], some["not_finite"]) == (0, 3, 2, 3)
    assert (some["mean"], sum(some["counts"])) == (1.2, 5)
    assert (none["least"], none["mean"], none["not_finite"], none["counts"]) == (None, None, 3, [])
    assert nn("inspect", tmp_path / "x.gguf", "--histogram").code == 0


def test_quantize_keeps_what_is_in_blocks_already(tmp_path, nn, rng):  # noqa: F811
    x = rng.normal(size=(8, 64)).astype(np.float32)
    tensors = {"a": Tensor(x), "b": quantize(x, "q5_1"), "c": Tensor(x[:, :50].copy())}
    source, target = tmp_path / "mixed.gguf", tmp_path / "q.gguf"
    gguf.write(source, {}, tensors)
    words = ("quantize", source, "-t", "q4_0", "-o", target, "--tensor-type", "c=f16", "--json")
    rows = {row["tensor"]: row for row in json.loads(nn(*words).out)["tensors"]}
    assert (rows["a"]["after"], rows["a"]["kept_because"]) == ("Q4_0", "")
    assert (rows["b"]["after"], rows["b"]["kept_because"]) == ("Q5_1", "Q5_1 already")
    assert (rows["c"]["after"], rows["b"]["rmse"]) == ("F16", 0)
    error = x[:, :50].astype(np.float64) - x[:, :50].astype(np.float16)
    assert rows["c"]["rmse"] == pytest.approx(np.sqrt(np.square(error).mean()), rel=1e-4)
    assert gguf.read(target).tensors["b"].tobytes() == tensors["b"].tobytes()
    again = nn("quantize", target, "-t", "q4_0", "-o", tmp_path / "again.gguf")
    assert again.code == 1
    assert again.err == f"error: {target}: a is Q4_0 already: start from F32\n"


def test_closeness_of_known_vectors():
    for x, y, relative, cosine in (
        ([3, 4], [4, 3], math.sqrt(2) / 5, 0.96),
        ([1, 1], [2, 2], 1, 1),
        ([1, 0], [-3, 0], 4, -1),
        ([0, 0], [0, 0], 0, 1),
        ([0, 0], [0, 1], math.inf, 0),
    ):
        found = compare._closeness(np.array(x, np.float32), np.array(y, np.float32))
        assert found == pytest.approx((relative, cosine))


def test_compare_tells_nothing_of_what_is_not_finite(nn, folder, tmp_path):  # noqa: F811
    x = np.load(folder / "x.npy")
    np.save(tmp_path / "x.npy", np.full_like(x, np.inf))
    net = folder / "net.gguf"
    found = json.loads(nn("compare", net, net, "--input", tmp_path / "x.npy", "--json").out)
    assert (found["max_abs"], found["cosine"], found["samples"]) == (None, None, len(x))


def test_compare_finds_equal_and_near_models(nn, folder, tmp_path):  # noqa: F811
    net, x = folder / "net.gguf", folder / "x.npy"
    same = json.loads(nn("compare", net, net, "--input", x, "--json").out)
    assert (same["max_abs"], same["top_1_agreement"], same["samples"]) == (0, 1, 40)
    nn("quantize", net, "-t", "q4_0", "-o", tmp_path / "q.gguf")
    near = json.loads(nn("compare", net, tmp_path / "q.gguf", "--input", x, "--json").out)
    assert 0 < near["relative"] < 0.3
    assert 0.95 < near["cosine"] < 1
    layers = {(row["layer"], row["operation"]): row for row in near["layers"]}
    assert 0 < layers["0", "linear"]["relative"] < 0.2
    assert layers["1", "batch_norm"]["shape"] == [96]
    assert near["layers"][-1]["max_abs"] == pytest.approx(near["max_abs"], rel=1e-3)
    other = json.loads(nn("compare", net, folder / "other.gguf", "--input", x, "--json").out)
    assert other["layers"] == []


def test_bench_measures_each_size(nn, folder, tmp_path):  # noqa: F811
    nn("quantize", folder / "net.gguf", "-t", "q8_0", "-o", tmp_path / "q.gguf")
    words = ["--batch", "1,8", "--seconds", "0", "--json"]
    report = json.loads(nn("bench", tmp_path / "q.gguf", *words).out)
    assert report["weights_bytes"] < report["float_bytes"]
    assert [row["batch"] for row in report["batches"]] == [1, 8]
    for row in report["batches"]:
        assert 0 < row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
        assert row["vs_float"] > 0
        assert row["runs"] >= 5
    plain = json.loads(nn("bench", folder / "net.gguf", *words).out)
    assert plain["batches"][0]["vs_float"] is None


def test_ops_are_those_of_the_table(nn):  # noqa: F811
    assert [row["operation"] for row in json.loads(nn("ops", "--json").out)] == list(OPS)
    entry = json.loads(nn("ops", "conv1d", "--json").out)
    assert entry["attributes"][0] == {
        "attribute": "stride",
        "type": "int",
        "default": 1,
        "required": False,
    }
    assert "weight          may be quantized" in nn("ops", "linear").out
    for name in ("rope", "softmax", "conv2d"):
        assert nn("ops", name).out.startswith(f"{name}(")


def test_infer_goes_through_files_in_parts(nn, folder, tmp_path, monkeypatch):  # noqa: F811
    from llmbol_core.nn import data

    net, x = folder / "net.gguf", folder / "x.npy"
    whole = nn("infer", net, x).out
    monkeypatch.setattr(data, "_MOST_SAMPLES", 7)
    assert nn("infer", net, x).out == whole
    assert nn("infer", net, x, "-o", tmp_path / "y.npy").code == 0
    rows = [[np.float32(word) for word in line.split("\t")] for line in whole.splitlines()]
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), rows)
    said = nn("infer", net, x, "--stats")
    assert said.out == whole
    assert re.match(r"40 samples in 6 parts: p50 .* ms a part, .* samples/s, peak \d+ MB", said.err)
    top = json.loads(nn("infer", net, x, "--top-k", 1, "--json").out)
    assert [row["sample"] for row in top] == list(range(40))


def test_a_file_larger_than_memory_is_not_read_at_once(folder, tmp_path):
    """Samples of 1 TiB, a hole in a file: only the first ones are ever touched."""
    from llmbol_core.nn.infer import infer_parts, read_inputs

    model = load_for_inference(str(folder / "net.gguf"))
    with open(tmp_path / "big.npy", "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 32, 64)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + (1 << 40))
    samples = read_inputs(model, str(tmp_path / "big.npy"))
    parts = infer_parts(model, samples)
    part = next(parts)
    assert part.tobytes() == model.run(np.zeros((len(part), 64), np.float32)).tobytes()
    status = Path("/proc/self/status")
    if status.exists():  # what has been used does not stay in memory: 150 MB go by
        before = int(status.read_text().split("RssFile:")[1].split()[0])
        for _ in range(600):
            next(parts)
        assert int(status.read_text().split("RssFile:")[1].split()[0]) < before + (80 << 10)


MISTAKES = {
    "rule": (
        ["quantize", "net.gguf", "-t", "q4_0", "--dry-run", "--tensor-type", "q8_0"],
        "--tensor-type q8_0: expected PATTERN=TYPE",
    ),
    "type in a rule": (
        ["quantize", "net.gguf", "-t", "q4_0", "--dry-run", "--tensor-type", "*=q9"],
        "no storage type is named 'q9'",
    ),
    "nothing fits": (
        ["quantize", "net.gguf", "-t", "q4_0", "--dry-run", "--tensor-type", "9*=f16"],
        r"--tensor-type 9\*=f16: no tensor has a name like that",
    ),
    "onto itself": (["dequantize", "net.gguf", "-o", "net.gguf"], "this file is read|to be read"),
    "no gguf": (["inspect", "x.npy"], "x.npy: at byte 0: not a GGUF file"),
    "no checkpoint": (["bench", "llama.gguf"], "without 'llmbol.spec'"),
    "other inputs": (
        ["compare", "net.gguf", "wide.gguf", "--input", "x.npy"],
        r"its input is \[8\], that of .* \[64\]",
    ),
    "operation": (["ops", "sofmax"], r"unknown operation 'sofmax' \(did you mean 'softmax'\?\)"),
}


@pytest.mark.parametrize(("words", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_one_clear_line(nn, folder, words, said):  # noqa: F811
    result = nn(*[str(folder / w) if (folder / w).exists() else w for w in words])
    assert (result.code, result.out) == (1, "")
    assert re.match(f"error: .*({said})", result.err)
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    "option",
    [
        ("bench", "--batch", "1,,2"),
        ("bench", "--batch", "0"),
        ("bench", "--batch", "8,00"),
        ("quantize", "--max-shard", "x"),
    ],
)
def test_values_of_options_that_cannot_be_read_are_misuse(nn, folder, option):  # noqa: F811
    command, *words = option
    more = ["-t", "q4_0", "-o", "out.gguf"] if command == "quantize" else []
    result = nn(command, str(folder / "net.gguf"), *more, *words)
    assert (result.code, result.out) == (2, "")
    assert "Invalid value" in result.err


def test_samples_from_a_pipe_are_answered_as_they_come(folder, tmp_path):
    import subprocess
    import sys

    command = [sys.executable, "-c", "from llmbol_cli.nn import main; main()", "infer"]
    words = [str(folder / "net.gguf"), "-"]
    row = ",".join(["0.5"] * 64) + "\n"
    with subprocess.Popen(
        [*command, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        first = []
        for _ in range(3):
            process.stdin.write(row)
            process.stdin.flush()
            first.append(process.stdout.readline())
        rest, _ = process.communicate(row * 500)
    assert len(set(first + rest.splitlines(keepends=True))) == 1
    assert rest.count("\n") == 500


def test_labels_from_a_file(nn, folder, tmp_path):  # noqa: F811
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne\n")
    words = ("infer", folder / "net.gguf", folder / "x.npy", "--top-k", "1", "--json", "--labels")
    found = json.loads(nn(*words, tmp_path / "names.txt").out)
    assert {row["label"] for row in found} <= set("abcde")
    (tmp_path / "names.txt").write_text("a\nb\n")
    result = nn(*words, tmp_path / "names.txt")
    assert result.code == 1
    assert "2 labels for an output of 5 values" in result.err
