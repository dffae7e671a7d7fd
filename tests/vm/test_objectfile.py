"""Object files: reading and writing are inverse; of bad ones comes nothing but DisFormatError."""

from __future__ import annotations

import random
import tracemalloc
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbol_core.errors import DisFormatError
from llmbol_core.vm.module import HASLDT, DataKind, Datum, Module
from llmbol_core.vm.objectfile import (
    encode_op,
    read_module,
    read_object,
    write_module,
)
from tests.vm.objects import DATA_DIRECTORY, OP, modules, object_files

SAMPLES = sorted(DATA_DIRECTORY.glob("*.dis"))


@pytest.mark.parametrize("path", object_files(), ids=lambda p: p.stem)
def test_reading_and_writing_give_the_same_bytes(path: Path) -> None:
    data = path.read_bytes()
    try:
        module, extent = read_object(data, str(path))
    except DisFormatError as error:
        assert error.why == "obsolete dis"  # noqa: PT017 -- two of Inferno's own files
        return
    assert extent == len(data)
    assert write_module(module) == data


@given(modules(), st.binary(min_size=1, max_size=40))
def test_writing_and_reading_give_the_same_module(module: Module, payload: bytes) -> None:
    data = write_module(module)
    assert read_module(data) == module
    # Types are known by their numbers.
    assert read_module(write_module(replace(module, types=module.types[::-1]))) == module
    # What follows is no part of the object.
    if module.source_path is not None:
        assert read_object(data + payload) == (module, len(data))


@given(OP)
def test_ops_take_the_shortest_form(value: int) -> None:
    data = encode_op(value)
    assert len(data) == (1 if -64 <= value < 64 else 2 if -8192 <= value < 8192 else 4)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    for prefix in (b"", encode_op(819248), encode_op(923426)):
        with suppress(DisFormatError):
            read_module(prefix + data)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda p: p.stem)
def test_damaged_files_are_refused_or_read(path: Path) -> None:
    chance = random.Random(path.stem)
    data = path.read_bytes()
    for end in range(0, len(data), 7 if len(data) < 2000 else 31):
        with suppress(DisFormatError):
            read_module(data[:end])
    # Long files take long to read; ``fuzz.py`` damages each of them more often.
    for _ in range(min(300, 400_000 // len(data))):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.choice((0, 255, chance.randrange(256)))
        with suppress(DisFormatError):
            module, extent = read_object(bytes(damaged))
            assert read_module(write_module(module)) == module
            assert extent <= len(damaged)


def _file(*parts: bytes | int) -> bytes:
    """Return a file: ops and bytes behind the magic number and the flags."""
    body = b"".join(encode_op(p) if isinstance(p, int) else p for p in parts)
    return encode_op(819248) + encode_op(HASLDT) + body


# Stack extent, instructions, data size, types, exports, entry pc, entry type.
_EMPTY = (0, 0, 0, 0, 0, -1, -1)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "bad magic: not a Dis object file (an empty file)"),
        (b"GGUF", "bad magic: not a Dis object file (47 47 55 46)"),
        (encode_op(819248) + b"\x10", "obsolete dis"),
        (encode_op(923426) + b"\x09", "corrupt signature"),
        (_file(0, 2**28), f"implausible Dis file: {2**28} instructions in 0 bytes"),
        (_file(0, -1, 0), "implausible Dis file: -1 instructions in 1 bytes"),
        (_file(0, 1, 0, 0, 0, -1, -1, b"\xc8\x1b"), "there is no opcode 200"),
        (_file(0, 1, 0, 0, 0, -1, -1, b"\x0d\x1a", 7), "bad branch addr: 7"),
        (_file(0, 0, 8, 1, 0, -1, -1, 0, 4, 0), "bad desc for mp"),
        (_file(0, 0, 0, 1, 0, -1, -1, 5, 4, 0), "heap id range: type 5"),
        (_file(*_EMPTY, b"\x91", 0), "bad data item: there is no kind 9"),
        (_file(*_EMPTY, b"\x71", 0), "pop range"),
        (_file(*_EMPTY, b"\x51", 0, bytes(8)), "bad array type: 0 of 0"),
        (_file(*_EMPTY, b"\x00nameless"), "bad module name"),
        (_file(*_EMPTY, b"\x00M\x00", 0, b"\x07"), "the import section should end with a zero"),
        (_file(*_EMPTY, b"\x00M\x00", 0), "the file ends inside the import section"),
    ],
)
def test_errors_say_what_is_wrong(data: bytes, why: str) -> None:
    with pytest.raises(DisFormatError) as error:
        read_module(data, "bad.dis")
    assert error.value.why.startswith(why)
    assert str(error.value).startswith("bad.dis: at byte ")


def test_great_sizes_take_no_memory() -> None:
    big = 2**29 - 1
    files = [
        _file(0, 0, big, 0, 0, -1, -1),
        _file(*_EMPTY, b"\x10", big, 0),
        _file(*_EMPTY, b"\x30", big, 0),
        _file(0, 0, big, 1, 0, -1, -1, 0, big, 0, b"\x00M\x00", 0, b"\x00"),
    ]
    tracemalloc.start()
    for data in files:
        with suppress(DisFormatError):
            read_module(data)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_file_without_source_path() -> None:
    data = write_module(Module("M", source_path=None))
    assert read_module(data).source_path is None
    assert read_module(data + b"m.b\0").source_path == "m.b"


def test_flags_that_are_missing_are_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="HASLDT"):
        write_module(Module("M", flags=0, imports=((),)))


def test_values_of_data_items() -> None:
    assert Datum(DataKind.DEFL, 0, 1, b"\xff" * 8).values == (-1,)
    assert Datum(DataKind.DEFB, 0, 2, b"\xff\x01").values == (255, 1)
    assert Datum(DataKind.DEFF, 0, 1, b"?\xf0" + bytes(6)).values == (1.0,)
