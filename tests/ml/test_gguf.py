"""The GGUF reader and writer against the gguf package, and against damaged files."""

import contextlib
import dataclasses
import io
import struct

import gguf as theirs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbol_core.errors import FileError, GgufFormatError, ModelError, UsageError
from llmbol_core.ml import gguf
from llmbol_core.ml.dtypes import BY_NUMBER
from llmbol_core.ml.quantization import quantize
from llmbol_core.ml.tensor import Tensor, zeros

METADATA: dict[str, gguf.Value] = {
    "general.architecture": "llmbol",
    "a.bool": True,
    "a.int": 7,
    "a.negative": -7,
    "a.big": 1 << 40,
    "a.huge": (1 << 64) - 1,
    "a.low": -(1 << 40),
    "a.real": 1e-5,
    "a.words": ["", "é", "<|end|>"],
    "a.numbers": [1, 2, -3],
    "a.reals": [0.5, 1],
    "a.flags": [True, False],
    "a.float32": np.float32(0.1),
    "a.uint8": np.uint8(9),
    "a.int16s": np.array([1, -2], np.int16),
    "a.big_endian": np.array([1, 2], ">f4"),
    "a.none": np.zeros(0, np.int32),
}
TYPES = {
    "a.bool": "bool",
    "a.int": "uint32",
    "a.negative": "int32",
    "a.big": "uint64",
    "a.huge": "uint64",
    "a.low": "int64",
    "a.real": "float64",
    "a.words": "array of string",
    "a.numbers": "array of int32",
    "a.reals": "array of float64",
    "a.flags": "array of bool",
    "a.float32": "float32",
    "a.uint8": "uint8",
    "a.int16s": "array of int16",
    "a.big_endian": "array of float32",
}


def tensors() -> dict[str, Tensor | gguf.Deferred]:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3, 64)).astype(np.float32)
    later = quantize(x, "Q4_0")
    return {
        "0.weight": Tensor(x),
        "0.bias": Tensor(x[0, :5]),
        "half": quantize(x, "F16"),
        "blocks": quantize(x, "Q8_0"),
        "later": gguf.Deferred(later.dtype, later.shape, lambda: later),
        "scalar": Tensor(np.array(2.5, np.float32)),
        "empty": Tensor(np.zeros((0, 4), np.int32)),
        "cube": Tensor(np.arange(24, dtype=np.int64).reshape(2, 3, 4).transpose(2, 0, 1)),
    }


def as_bytes(
    metadata: dict[str, gguf.Value] | None = None,
    some: dict[str, Tensor | gguf.Deferred] | None = None,
    types: dict[str, str] | None = None,
) -> bytes:
    stream = io.BytesIO()
    size = gguf.write_stream(
        stream,
        METADATA if metadata is None else metadata,
        tensors() if some is None else some,
        types,
    )
    assert size == len(stream.getvalue())
    return stream.getvalue()


def plain(value: object) -> object:
    """Return a metadata value in a form that compares with ==."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return list(value) if isinstance(value, gguf.StringArray) else value


def whole(tensor: Tensor | gguf.Deferred) -> Tensor:
    made = tensor.make() if isinstance(tensor, gguf.Deferred) else tensor
    assert isinstance(made, Tensor)
    return made


def assert_same(ours: dict[str, Tensor], expected: dict[str, Tensor | gguf.Deferred]) -> None:
    assert list(ours) == list(expected)
    for name, tensor in expected.items():
        made = whole(tensor)
        assert (ours[name].dtype, ours[name].shape) == (made.dtype, made.shape)
        assert ours[name].tobytes() == made.tobytes()


def test_what_is_written_is_read(tmp_path):
    steps = []
    gguf.write(tmp_path / "a.gguf", METADATA, tensors(), progress=lambda *step: steps.append(step))
    file = gguf.read(tmp_path / "a.gguf")
    assert {k: plain(v) for k, v in file.metadata.items()} == {
        k: plain(v) for k, v in METADATA.items()
    }
    assert file.types == {**file.types, **TYPES}
    assert_same(file.tensors, tensors())
    assert (tmp_path / "a.gguf").read_bytes() == as_bytes()
    assert [name for _, _, name in steps] == [*tensors(), ""]
    assert steps[-1][0] == steps[-1][1]


def test_tensors_are_views_of_the_file():
    data = as_bytes()
    tensor = gguf.read_buffer(data).tensors["0.weight"]
    assert np.shares_memory(tensor.data, np.frombuffer(data, np.uint8))
    assert not tensor.data.flags.writeable


def test_rewriting_with_types_gives_the_same_bytes():
    data = as_bytes(types={"a.int": "int8", "a.numbers": "array of int64", "a.real": "float32"})
    file = gguf.read_buffer(data)
    assert (file.types["a.int"], file.types["a.numbers"]) == ("int8", "array of int64")
    assert as_bytes(file.metadata, dict(file.tensors), file.types) == data


@pytest.mark.parametrize("alignment", [8, 64, 4096])
def test_alignment(alignment):
    data = as_bytes({"general.alignment": alignment})
    file = gguf.read_buffer(data)
    assert file.alignment == alignment
    assert len(data) % alignment == 0
    assert_same(file.tensors, tensors())


@pytest.mark.parametrize("alignment", [32, 128])
def test_the_gguf_package_reads_ours(tmp_path, alignment):
    metadata = {**METADATA, "general.alignment": alignment}
    some = {k: v for k, v in tensors().items() if k != "empty"}
    del metadata["a.none"]
    gguf.write(tmp_path / "a.gguf", metadata, some)
    reader = theirs.GGUFReader(tmp_path / "a.gguf")
    found = {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}
    assert found == {k: plain(v) for k, v in metadata.items()}
    for tensor, (name, expected) in zip(reader.tensors, some.items(), strict=True):
        made = whole(expected)
        assert tensor.name == name
        assert tuple(int(n) for n in reversed(tensor.shape)) == made.shape
        assert tensor.tensor_type.value == made.dtype.number
        assert tensor.data.tobytes() == made.tobytes()


def test_we_read_the_gguf_packages(tmp_path):
    writer = theirs.GGUFWriter(tmp_path / "a.gguf", "llmbol")
    writer.add_uint8("u8", 1)
    writer.add_int64("i64", -2)
    writer.add_float32("f32", 0.5)
    writer.add_bool("yes", True)
    writer.add_array("words", ["a", "b"])
    writer.add_array("numbers", [1, -2])
    for name, tensor in tensors().items():
        if isinstance(tensor, Tensor) and tensor.size and name != "cube":
            assert tensor.dtype.number is not None
            raw = tensor.data.view(np.uint8) if tensor.dtype.is_blocked else tensor.data
            kind = theirs.GGMLQuantizationType(tensor.dtype.number)
            writer.add_tensor(name, raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = gguf.read(tmp_path / "a.gguf")
    assert {k: plain(v) for k, v in file.metadata.items()} == {
        "general.architecture": "llmbol",
        "u8": 1,
        "i64": -2,
        "f32": 0.5,
        "yes": True,
        "words": ["a", "b"],
        "numbers": [1, -2],
    }
    expected = tensors()
    assert_same(file.tensors, {name: expected[name] for name in file.tensors})
    assert set(file.tensors) == set(expected) - {"later", "empty", "cube"}


@pytest.mark.parametrize("number", BY_NUMBER)
def test_every_type_goes_through_a_file(number):
    tensor = zeros((2, 256), BY_NUMBER[number])
    assert_same(gguf.read_buffer(as_bytes({}, {"t": tensor})).tensors, {"t": tensor})


def test_string_arrays_behave_as_sequences():
    words = gguf.read_buffer(as_bytes()).metadata["a.words"]
    assert isinstance(words, gguf.StringArray)
    assert words == ["", "é", "<|end|>"]
    assert words != ["", "é", "<|end"]
    assert words != 3
    assert words[-1] == "<|end|>"
    assert words[:2] == ["", "é"]
    assert words.raw(1) == "é".encode()
    assert repr(words) == "<3 strings>"
    with pytest.raises(IndexError):
        words[3]


# ---- damaged files ----

KEY = b"\x01\0\0\0\0\0\0\0k"


def head(tensors: int, keys: int, version: int = 3) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", version, tensors, keys)


def info(name=b"t", lengths=(4,), kind=0, offset=0) -> bytes:
    axes = struct.pack(f"<I{len(lengths)}Q", len(lengths), *lengths)
    return b"".join([struct.pack("<Q", len(name)), name, axes, struct.pack("<IQ", kind, offset)])


HUGE = (1 << 64) - 1
DAMAGED = {
    "empty": (b"", "does not start with 'GGUF'"),
    "other": (b"GGML" * 8, "does not start with 'GGUF'"),
    "short": (head(0, 0)[:-1], "cannot fit into the 23 bytes"),
    "old": (head(0, 0, 1), "version 1 cannot be read"),
    "big-endian": (head(0, 0, 3 << 24), "a big-endian file cannot be read"),
    "keys": (head(0, HUGE), "18446744073709551615 keys cannot fit into the 0 bytes"),
    "tensors": (head(HUGE, 0), "tensors cannot fit"),
    "key length": (head(0, 1) + b"\xff" * 20, "bytes of a string cannot fit"),
    "key utf-8": (head(0, 1) + struct.pack("<Q", 1) + b"\xff" + bytes(9), "not UTF-8"),
    "key empty": (head(0, 1) + bytes(20), "an empty key"),
    "key twice": (head(0, 2) + (KEY + b"\0\0\0\0" + b"\1") * 2, "the key 'k' occurs twice"),
    "value type": (head(0, 1) + KEY + struct.pack("<I", 13) + b"\0", "value type 13"),
    "array": (head(0, 1) + KEY + struct.pack("<IIQ", 9, 4, HUGE), "numbers cannot fit"),
    "strings": (head(0, 1) + KEY + struct.pack("<IIQ", 9, 8, 1 << 60), "strings cannot fit"),
    "string": (head(0, 1) + KEY + struct.pack("<IIQQ", 9, 8, 1, 9), "runs past the end"),
    "array ends": (
        head(0, 1) + KEY + struct.pack("<IIQQ", 9, 8, 2, 8) + bytes(8),
        "array of strings ends early",
    ),
    "nested": (head(0, 1) + KEY + struct.pack("<IIQ", 9, 9, 0), "elements of type 9"),
    "alignment": (
        head(0, 1) + struct.pack("<Q17sII", 17, b"general.alignment", 4, 33),
        "general.alignment must be a uint32 and a power of two",
    ),
    "axes": (head(1, 0) + info(lengths=(1,) * 5), "has 5 axes"),
    "name": (head(1, 0) + info(name=b"n" * 64), "at most 63 bytes"),
    "type": (head(1, 0) + info(kind=4), "the unknown type 4"),
    "shape": (head(1, 0) + info(lengths=(1 << 40, 1 << 40)), "cannot have the shape"),
    "shape 0": (head(1, 0) + info(lengths=(0, 1 << 62)), "cannot have the shape"),
    "row": (head(1, 0) + info(lengths=(33,), kind=8), "a row of 33 is no multiple"),
    "offset": (head(1, 0) + info(offset=32) + bytes(99), "lies at offset 32, it should be 0"),
    "data": (head(1, 0) + info() + bytes(8), "the data of tensor 't' lack"),
    "tensor twice": (head(2, 0) + info() + info(offset=32) + bytes(99), "occurs twice"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_named(name):
    data, why = DAMAGED[name]
    with pytest.raises(GgufFormatError, match=why):
        gguf.read_buffer(data)


def test_every_truncation_is_refused():
    data = as_bytes()
    end = gguf.read_buffer(data).extent
    for length in range(end):
        with pytest.raises(GgufFormatError):
            gguf.read_buffer(data[:length])
    gguf.read_buffer(data[:end])


SEED = as_bytes()


@settings(max_examples=500)
@given(
    st.lists(
        st.tuples(st.integers(0, len(SEED) - 8), st.binary(min_size=1, max_size=8)), max_size=5
    )
)
def test_mutations_give_a_file_or_a_format_error(changes):
    data = bytearray(SEED)
    for at, patch in changes:
        data[at : at + len(patch)] = patch
    try:
        file = gguf.read_buffer(data)
    except GgufFormatError:
        return
    for tensor in file.tensors.values():
        tensor.tobytes()
    for value in file.metadata.values():
        repr(plain(value))


@settings(max_examples=300)
@given(st.sampled_from([b"", head(1, 1), head(0, 1) + KEY, head(1, 0)]), st.binary(max_size=200))
def test_random_bytes_give_a_file_or_a_format_error(start, data):
    with contextlib.suppress(GgufFormatError):
        gguf.read_buffer(start + data)


# ---- what cannot be written ----


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ({"": 1}, "a key cannot be empty"),
        ({"k": 1 << 64}, "the key 'k' cannot hold"),
        ({"k": [1, "a"]}, "the key 'k' cannot hold"),
        ({"k": None}, "the key 'k' cannot hold"),
        ({"k": {"a": 1}}, "the key 'k' cannot hold"),
        ({"k": np.zeros((2, 2))}, "arrays have one axis"),
        ({"k": [[1], [2]]}, "the key 'k' cannot hold"),
        ({"k": 1j}, "the key 'k' cannot hold"),
        ({"general.alignment": 24}, "must be a power of two, not 24"),
    ],
)
def test_metadata_that_cannot_be_written(metadata, why):
    with pytest.raises(ModelError, match=why):
        as_bytes(metadata, {})


@pytest.mark.parametrize(
    ("name", "tensor", "why"),
    [
        ("n" * 64, zeros((1,)), "longer than 63 bytes"),
        ("t", zeros((1,) * 5), "more than 4 axes"),
        ("t", zeros((1,), "U8"), "GGUF has no type U8"),
    ],
)
def test_tensors_that_cannot_be_written(name, tensor, why):
    with pytest.raises(ModelError, match=why):
        as_bytes({}, {name: tensor})


def test_a_type_that_does_not_fit_is_refused():
    with pytest.raises(ModelError, match="it does not fit into int8"):
        as_bytes({"k": 300}, {}, {"k": "int8"})


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(b"old")
    for make in (lambda: zeros((5,)), lambda: [zeros((2,))], lambda: [zeros((4,), "F16")]):
        wrong = gguf.Deferred(zeros((4,)).dtype, (4,), make)
        with pytest.raises(ValueError, match="not as announced"):
            gguf.write(path, {}, {"t": wrong})
        assert path.read_bytes() == b"old"


def test_a_tensor_can_come_in_parts(tmp_path):
    tensor = quantize(np.arange(320, dtype=np.float32).reshape(5, 64), "Q8_0")
    parts = gguf.Deferred(
        tensor.dtype, tensor.shape, lambda: (tensor[i : i + 2] for i in (0, 2, 4))
    )
    gguf.write(tmp_path / "a.gguf", {}, {"t": parts, "u": tensor})
    found = gguf.read(tmp_path / "a.gguf").tensors
    assert found["t"].tobytes() == found["u"].tobytes() == tensor.tobytes()


def test_missing_file_and_path_in_errors(tmp_path):
    with pytest.raises(FileError, match="no such file"):
        gguf.read(tmp_path / "none.gguf")
    (tmp_path / "bad.gguf").write_bytes(b"x")
    with pytest.raises(GgufFormatError, match=r"bad\.gguf: at byte 0: not a GGUF file"):
        gguf.read(tmp_path / "bad.gguf")


def test_a_payload_may_be_followed_by_other_bytes():
    data = as_bytes()
    file = gguf.read_buffer(memoryview(data + b"trailer"))
    assert file.extent <= len(data)
    assert dataclasses.replace(file, path="x").tensors.keys() == tensors().keys()


# ---- several files, big files ----


def split(folder):
    """Let the gguf package split a model into shards of two tensors."""
    writer = theirs.GGUFWriter(folder / "big.gguf", "llama", split_max_tensors=2)
    writer.add_uint32("llama.block_count", 3)
    made = {f"t{i}": np.full((2, 32), i, np.float32) for i in range(5)}
    for name, array in made.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return made, sorted(folder.glob("big-*.gguf"))


def test_shards_are_read_as_one(tmp_path):
    made, paths = split(tmp_path)
    assert [p.name for p in paths] == [f"big-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    for path in paths:
        file = gguf.read(path)
        assert file.path == str(paths[0])
        assert list(file.tensors) == list(made)
        assert all((file.tensors[n].numpy() == made[n]).all() for n in made)
        assert not [key for key in file.metadata if key.startswith("split.")]
        assert file.metadata["llama.block_count"] == 3
        assert file.extent == sum(gguf.read_buffer(p.read_bytes()).extent for p in paths)
    gguf.write(tmp_path / "whole.gguf", file.metadata, file.tensors, file.types)
    assert list(theirs.GGUFReader(tmp_path / "whole.gguf").tensors[4].data[0])[:1] == [4]


def test_shards_that_do_not_belong_together(tmp_path):
    _, (first, second, third) = split(tmp_path)
    data = second.read_bytes()
    second.write_bytes(third.read_bytes())
    with pytest.raises(GgufFormatError, match=r"00002-of.*expected shard 2 of 3, found 3 of 3"):
        gguf.read(first)
    second.unlink()
    with pytest.raises(FileError, match=r"00002-of-00003\.gguf: no such file"):
        gguf.read(third)
    second.write_bytes(data.replace(b"t2", b"t1"))
    with pytest.raises(GgufFormatError, match="the tensor 't1' is in another shard too"):
        gguf.read(first)
    (tmp_path / "alone.gguf").write_bytes(data)
    with pytest.raises(GgufFormatError, match=r"one of 3 shards cannot be called 'alone\.gguf'"):
        gguf.read(tmp_path / "alone.gguf")


def test_shards_are_written_as_llama_cpp_names_them(tmp_path):
    keys: dict[str, gguf.Value] = {"general.architecture": "llama", "general.alignment": 64}
    keys["words"] = ["a", "b"]
    made = {f"t{i}": Tensor(np.full((i + 1, 32), i, np.float32)) for i in range(5)}
    steps: list[tuple[int, int]] = []
    paths = gguf.write_shards(
        tmp_path / "big.gguf", keys, made, 3 * 128,
        progress=lambda done, total, note: steps.append((done, total)),
    )  # fmt: skip
    assert steps == sorted(steps)
    assert steps[-1] == (15 * 128, 15 * 128)
    assert [p.rpartition("/")[2] for p in paths] == [
        f"big-0000{n}-of-00004.gguf" for n in range(1, 5)
    ]
    whole = gguf.read(paths[2])
    assert {k: plain(v) for k, v in whole.metadata.items()} == keys
    assert whole.alignment == 64
    assert_same(whole.tensors, dict(made))
    first = theirs.GGUFReader(paths[0])
    fields = {name: first.fields[name] for name in ("split.no", "split.count")}
    assert [f.types for f in fields.values()] == [[theirs.GGUFValueType.UINT16]] * 2
    assert [f.contents() for f in fields.values()] == [0, 4]
    assert first.fields["split.tensors.count"].types == [theirs.GGUFValueType.INT32]
    assert list(theirs.GGUFReader(paths[3]).fields)[-4:] == [
        "general.alignment", "split.no", "split.count", "split.tensors.count"
    ]  # fmt: skip


def test_shards_do_not_take_the_place_of_what_is_read(tmp_path):
    made = {f"t{i}": zeros((4, 32)) for i in range(2)}
    paths = gguf.write_shards(tmp_path / "a.gguf", {}, made, 512)
    with pytest.raises(FileError, match="this file is read"):
        gguf.write_shards(tmp_path / "a.gguf", {}, made, 512, sources=paths[1:])


def test_one_shard_is_a_file(tmp_path):
    made = {"t": zeros((4, 32))}
    (path,) = gguf.write_shards(tmp_path / "small.gguf", {}, made, 1 << 20)
    assert path.endswith("/small.gguf")
    assert not gguf.read(path).metadata
    with pytest.raises(UsageError, match="at least one byte"):
        gguf.write_shards(tmp_path / "small.gguf", {}, made, 0)


def test_failing_shards_leave_nothing(tmp_path):
    wrong = gguf.Deferred(zeros((4,)).dtype, (4,), lambda: zeros((5,)))
    with pytest.raises(ValueError, match="not as announced"):
        gguf.write_shards(tmp_path / "a.gguf", {}, {"s": zeros((4,)), "t": wrong}, 16)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["split.no", "split.count", "split.tensors.count"])
@pytest.mark.parametrize("value", ["x", [1, 2], np.array([0.5, 1]), 7])
def test_odd_numbers_of_shards(tmp_path, key, value):
    keys: dict[str, gguf.Value] = {"split.no": 0, "split.count": 2, "split.tensors.count": 2}
    for i in range(2):
        path = tmp_path / f"m-0000{i + 1}-of-00002.gguf"
        gguf.write(path, {**keys, "split.no": i, key: value}, {f"t{i}": zeros((2,))})
    with pytest.raises(GgufFormatError, match=r"must be a whole number|expected|tensors in all"):
        gguf.read(path)


def test_tensors_lie_in_order_without_gaps(tmp_path):
    """What ggml's reader demands: each offset is the sum of the padded sizes before it."""
    gguf.write(tmp_path / "x.gguf", METADATA, tensors())
    reader, expected = theirs.GGUFReader(tmp_path / "x.gguf"), 0
    for tensor in reader.tensors:
        assert tensor.data_offset - reader.data_offset == expected
        expected += -(-int(tensor.n_bytes) // reader.alignment) * reader.alignment
    assert (tmp_path / "x.gguf").stat().st_size == reader.data_offset + expected


def test_a_file_larger_than_memory_is_opened_and_read_in_part(tmp_path):
    """The data are a hole of 64 GiB, which no reader could load."""
    rows = 1 << 24
    writer = io.BytesIO()
    small = {"first": Tensor(np.ones((1, 1024), np.float32)), "last": zeros((1,))}
    gguf.write_stream(writer, {}, small)
    head = bytearray(writer.getvalue()[: -4096 - 32])
    at = head.index(b"first") + 5 + 4 + 8
    head[at : at + 8] = struct.pack("<Q", rows)
    at = head.index(b"last") + 4 + 4 + 8 + 4
    head[at : at + 8] = struct.pack("<Q", rows * 4096)
    path = tmp_path / "big.gguf"
    with open(path, "wb") as file:
        file.write(head)
        file.truncate(len(head) + rows * 4096 + 32)
    tensors = gguf.read(path).tensors
    assert tensors["first"].shape == (rows, 1024)
    assert tensors["first"][rows - 1].numpy().sum() == 0
