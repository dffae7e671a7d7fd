"""Our GGUF files in llama.cpp's own reader; skipped unless LLMBOL_GGML names a build of it."""

from __future__ import annotations

import ctypes
import os
from ctypes import c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path

import numpy as np
import pytest

from llmbol_core.ml import gguf
from llmbol_core.ml.quantization import quantize
from llmbol_core.ml.tensor import Tensor

DIRECTORY = os.environ.get("LLMBOL_GGML", "")

pytestmark = pytest.mark.skipif(not DIRECTORY, reason="no build of llama.cpp")


class Parameters(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", c_void_p))


@pytest.fixture(scope="module")
def library():
    found = ctypes.CDLL(str(Path(DIRECTORY) / "libggml-base.so"))
    for name, result, *parameters in (
        ("gguf_init_from_file", c_void_p, c_char_p, Parameters),
        ("gguf_get_n_tensors", c_int64, c_void_p),
        ("gguf_get_n_kv", c_int64, c_void_p),
        ("gguf_get_tensor_name", c_char_p, c_void_p, c_int64),
        ("gguf_get_tensor_offset", c_size_t, c_void_p, c_int64),
        ("gguf_get_tensor_type", c_int, c_void_p, c_int64),
        ("gguf_get_tensor_size", c_size_t, c_void_p, c_int64),
        ("gguf_get_data_offset", c_size_t, c_void_p),
    ):
        function = getattr(found, name)
        function.restype, function.argtypes = result, parameters
    return found


def assert_reads(library, path, tensors, keys):
    context = library.gguf_init_from_file(os.fsencode(path), Parameters(True, None))
    assert context, path
    assert library.gguf_get_n_kv(context) == keys
    assert library.gguf_get_n_tensors(context) == len(tensors)
    data = Path(path).read_bytes()
    start = library.gguf_get_data_offset(context)
    for number, (name, tensor) in enumerate(tensors.items()):
        assert library.gguf_get_tensor_name(context, number).decode() == name
        assert library.gguf_get_tensor_type(context, number) == tensor.dtype.number
        offset = start + library.gguf_get_tensor_offset(context, number)
        size = library.gguf_get_tensor_size(context, number)
        assert data[offset : offset + size] == tensor.tobytes()


def model():
    x = np.random.default_rng(0).normal(size=(8, 256)).astype(np.float32)
    names = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q6_K", "F16", "BF16")
    made = {f"blk.0.{name}": quantize(x[: 3 + len(name)], name) for name in names}
    return {"plain": Tensor(x), "ids": Tensor(np.arange(7, dtype=np.int32)), **made}


METADATA: dict[str, gguf.Value] = {
    "general.architecture": "llama", "a.float": 0.5, "a.flag": True, "a.words": ["x", "yz", ""],
    "a.numbers": np.arange(5, dtype=np.float32), "a.large": 1 << 40, "general.alignment": 128,
}  # fmt: skip


def test_files_are_read(library, tmp_path):
    tensors = model()
    gguf.write(tmp_path / "a.gguf", METADATA, tensors)
    assert_reads(library, tmp_path / "a.gguf", tensors, len(METADATA))


def test_shards_are_read(library, tmp_path):
    tensors = model()
    paths = gguf.write_shards(tmp_path / "a.gguf", METADATA, tensors, 4096)
    assert len(paths) > 2
    rest = list(tensors.items())
    for number, path in enumerate(paths):
        count = len(gguf_names(path))
        part, rest = dict(rest[:count]), rest[count:]
        assert_reads(library, path, part, len(METADATA) + 3 if number == 0 else 4)
    assert not rest


def gguf_names(path):
    import gguf as theirs

    return [tensor.name for tensor in theirs.GGUFReader(path).tensors]


def test_encoders_are_those_of_the_c_code(library):
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(4096, 256)) * 10.0 ** rng.integers(-6, 6, (4096, 1))).astype(np.float32)
    for name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"):
        ours = quantize(x, name)
        theirs = np.zeros(ours.nbytes, np.uint8)
        function = getattr(library, f"quantize_row_{name.lower()}_ref")
        function.argtypes, function.restype = (c_void_p, c_void_p, c_int64), None
        function(x.ctypes.data, theirs.ctypes.data, x.size)
        assert ours.tobytes() == theirs.tobytes(), name
