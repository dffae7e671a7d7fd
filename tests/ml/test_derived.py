"""Arrays made from weights, shared if those are in a file."""

from __future__ import annotations

import numpy as np
import pytest

from llmbol_core.ml.derived import derived_numbers, in_slabs, is_shared
from llmbol_core.native.files import map_file

SHAPE = (1 << 9, 1 << 9)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMBOL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "shared"


def numbers_of(source):
    return derived_numbers(("test",), [source], SHAPE, lambda: np.broadcast_to(source, SHAPE) + 1)


def test_what_is_made_from_a_file_is_kept_for_other_processes(folder, tmp_path):
    (tmp_path / "row").write_bytes(np.arange(SHAPE[1], dtype=np.float32).tobytes())
    source = np.frombuffer(map_file(tmp_path / "row"), np.float32)
    assert is_shared(source)
    assert is_shared(source[1:].reshape(1, -1))
    made = numbers_of(source)
    assert np.array_equal(made, np.tile(source + 1, (SHAPE[0], 1)))
    assert is_shared(made)
    (path,) = folder.iterdir()
    assert path.read_bytes() == made.tobytes()


def test_what_is_made_from_memory_stays_in_memory(folder):
    made = numbers_of(np.ones(SHAPE[1], np.float32))
    assert np.array_equal(made, np.full(SHAPE, 2, np.float32))
    assert not is_shared(made)
    assert not folder.exists()


@pytest.mark.parametrize(("items", "item"), [(1, 3), (9000, 1000), (5, 3_000_001), (40, 262_144)])
def test_slabs_end_with_large_pages_and_hold_all_items(items, item):
    expected = np.arange(items * item, dtype=np.uint8)
    whole, ends = np.zeros_like(expected), []

    def make(first, room):
        made = expected[first * item :][: len(room)]
        room[:] = made
        assert len(room) % item == 0
        return made

    def write(offset, data):
        whole[offset : offset + len(data)] = data
        ends.append(offset + len(data))

    in_slabs(items, item, make, write)
    assert np.array_equal(whole, expected)
    assert sorted(end % (2 << 20) for end in ends)[:-1] == [0] * (len(ends) - 1)
