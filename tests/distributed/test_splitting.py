from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbol_core.distributed import excerpt as excerpts
from llmbol_core.distributed.excerpt import Excerpt
from llmbol_core.distributed.splitting import (
    LARGE,
    PIECE,
    ArrayWriter,
    inference_tasks,
    map_tasks,
    matching,
    pieces_of,
)
from llmbol_core.distributed.store import CHUNK
from llmbol_core.distributed.task import Task
from llmbol_core.errors import ClusterError, FileError, UsageError
from llmbol_core.nn.data import parse_npy, read_arrays, read_samples, samples_at_a_time


def contents(path: Path, sample: tuple[int, ...]) -> list[bytes]:
    """Return the bytes of the pieces of a file."""
    pieces = pieces_of(path, sample)
    assert pieces is not None
    found = []
    for piece in pieces.attachments:
        if isinstance(piece.content, Excerpt):
            found.append(b"".join(piece.content.pieces()))
            assert piece.content.sha256() == hashlib.sha256(found[-1]).hexdigest()
            assert piece.content.size == len(found[-1])
        else:
            assert isinstance(piece.content, bytes)
            found.append(piece.content)
    assert abs(len(found) - pieces.count) <= 1 + pieces.count // 4
    return found


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["u1", "<f4", ">f8"])
def test_rows_of_an_array_stay_in_order_and_as_they_are(tmp_path, dtype, order):
    array = np.arange(3_000_000).reshape(-1, 4, 5).astype(dtype, order=order)
    np.save(tmp_path / "x.npy", array)
    parts = [parse_npy(data, "part") for data in contents(tmp_path / "x.npy", (4, 5))]
    assert len(parts) > 1
    assert all(part.dtype == array.dtype for part in parts)
    assert np.array_equal(np.concatenate(parts), array)
    # So that the same samples are computed together as without cuts.
    step = samples_at_a_time(array[0].nbytes)
    assert all(len(part) % step == 0 for part in parts[:-1])
    assert all(part.nbytes <= PIECE for part in parts)
    # All nodes have something to do, and end together.
    assert max(map(len, parts)) <= len(array) / 4
    assert len(parts[-1]) <= len(array) / 10


@pytest.mark.parametrize("header", [True, False])
def test_rows_of_a_table_keep_the_names_of_their_columns(tmp_path, header):
    rows = np.arange(240_000).reshape(-1, 3)
    names = "a,b,c" if header else ""
    np.savetxt(tmp_path / "x.csv", rows, "%d", ",", header=names, comments="")
    if not header:
        text = (tmp_path / "x.csv").read_bytes().lstrip(b"\n")
        (tmp_path / "x.csv").write_bytes(text)
    tables = [read_arrays("part", data) for data in contents(tmp_path / "x.csv", (3,))]
    assert len(tables) > 1
    parts = [read_samples(table, "x", "y", (3,), "part") for table in tables]
    assert np.array_equal(np.concatenate(parts), rows)
    lines = 1 + header + np.cumsum([0, *map(len, parts[:-1])])
    pieces = pieces_of(tmp_path / "x.csv", (3,))
    assert pieces is not None
    assert [p.name for p in pieces.attachments] == [f"x.csv from line {n}" for n in lines]


def test_pieces_of_what_takes_long_are_small(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((100_000, 4), np.float32))
    np.savetxt(tmp_path / "x.csv", np.zeros((600_000, 1)), "%d")
    for name, rows, sample in (("x.npy", 100_000, (4,)), ("x.csv", 600_000, (1,))):
        pieces = pieces_of(tmp_path / name, sample, 1 << 27)
        assert pieces is not None
        counts = [p.content.stop - p.content.start for p in pieces.attachments]  # type: ignore[union-attr]
        assert sum(counts) == (rows * 16 if name == "x.npy" else rows * 2)
        assert max(counts) == 2048 * (16 if name == "x.npy" else 2)


def test_what_is_small_or_no_batch_of_samples_is_not_cut(tmp_path):
    np.save(tmp_path / "small.npy", np.zeros((10, 4)))
    np.save(tmp_path / "one.npy", np.zeros((300, 1000)))
    np.savez(tmp_path / "x.npz", x=np.zeros((300, 1000)))
    (tmp_path / "odd.csv").write_bytes(b'"a\nb",c\n' + b"1,2\n" * LARGE)
    for name, sample in (
        ("small.npy", (4,)), ("one.npy", (300, 1000)), ("x.npz", (1000,)), ("odd.csv", (2,)),
    ):  # fmt: skip
        assert pieces_of(tmp_path / name, sample) is None
    with pytest.raises(FileError, match="no such file"):
        pieces_of(tmp_path / "none", (4,))
    (tmp_path / "line").write_bytes(b"1\n" + b"1" * (17 << 20))
    with pytest.raises(UsageError, match="is no row of numbers"):
        contents(tmp_path / "line", (1,))


def test_the_same_file_makes_the_same_tasks(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((100_000, 4), np.float32))
    whole = Task("g", "inference", {"model": "m"}, priority=3)

    def tasks() -> list[Any]:
        pieces = pieces_of(tmp_path / "x.npy", (4,))
        assert pieces is not None
        return list(inference_tasks(whole, pieces))

    assert tasks() == tasks()
    assert [task.id for task in tasks()[:2]] == ["g.1", "g.2"]
    assert {(task.group, task.priority) for task in tasks()} == {("g", 3)}


def test_patterns_name_files_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.csv", "a.csv", "sub/c.csv", "[x].csv"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    assert matching(["b.csv", "*.csv"]) == [Path(n) for n in ("b.csv", "[x].csv", "a.csv")]
    assert matching(["**/*.csv"])[-1] == Path("sub/c.csv")
    assert matching(["[x].csv"]) == [Path("[x].csv")]
    for nothing in ("*.npy", "sub", ""):
        with pytest.raises(UsageError, match="no file matches"):
            matching([nothing])
    tasks = map_tasks(Task("m", "run", {"program": "p"}), matching(["*.csv"]))
    assert tasks[1].payload == {"program": "p", "inputs": ["a.csv"]}


@pytest.mark.parametrize("shape", [(0, 3), (5,), (7, 2, 3), (2, 1, 2, 1, 2)])
def test_an_array_written_in_parts_is_the_file_that_numpy_writes(shape):
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    written, expected = io.BytesIO(), io.BytesIO()
    writer = ArrayWriter(written)
    for start in range(0, max(len(array), 1), 2):
        writer.write(array[start : start + 2])
    writer.close()
    np.save(expected, array)
    assert written.getvalue() == expected.getvalue()


def test_an_excerpt_is_read_in_pieces_of_any_place(tmp_path):
    data = os.urandom(2 * CHUNK + 5000)
    (tmp_path / "file").write_bytes(data)
    excerpt = Excerpt(str(tmp_path / "file"), 1000, len(data) - 7, b"head" * 100)
    whole = b"head" * 100 + data[1000:-7]
    assert b"".join(excerpt.pieces()) == whole
    for offset in (0, 1, 399, 400, 401, CHUNK, len(whole) - 1, len(whole), len(whole) + 9):
        assert excerpt.read(offset) == whole[offset : offset + CHUNK]
    assert Excerpt.from_json(excerpt.to_json()) == excerpt
    assert bytes(excerpt.body(excerpt.sha256())) == data[1000:-7]


def test_an_excerpt_of_a_file_that_changed_is_none(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(5000))
    excerpt = Excerpt(str(path), 10, 4000, b"head")
    sha256 = excerpt.sha256()
    for other in (b"\1" * 5000, bytes(3999), b""):
        path.write_bytes(other)
        with pytest.raises(FileError, match="changed since it was submitted"):
            excerpt.body(sha256)
    path.unlink()
    for use in (excerpt.sha256, lambda: excerpt.body(sha256), lambda: excerpt.read(0)):
        with pytest.raises(FileError, match="no such file"):
            use()
    os.mkfifo(path)
    with pytest.raises(FileError, match="not a regular file"):
        excerpt.body(sha256)
    assert not excerpt.is_within_reach()


@pytest.mark.parametrize(
    "fields", [["x", 0, 1, ""], ["/x", 2, 1, ""], ["/x", -1, 1, ""], ["/x\0", 0, 1, ""]]
)
def test_what_names_no_part_of_a_file_is_refused(fields):
    with pytest.raises(ClusterError):
        Excerpt.from_json(fields)


def test_heads_are_not_of_any_size(monkeypatch):
    monkeypatch.setattr(excerpts, "MOST_HEAD", 8)
    assert Excerpt.from_json(["/x", 0, 1, "aGVhZA=="]).head == b"head"
    with pytest.raises(ClusterError, match="no part of a file"):
        Excerpt.from_json(["/x", 0, 1, "aGVhZGVy" + "AAAA"])
