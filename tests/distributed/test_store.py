from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from llmbol_core.distributed.store import CHUNK, FileStore, hash_file
from llmbol_core.errors import ClusterError, FileError

DATA = bytes(range(256)) * 5000
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def store(tmp_path):
    return FileStore(tmp_path)


def pieces(data: bytes) -> list[tuple[int, bytes]]:
    return [(i, data[i : i + CHUNK]) for i in range(0, len(data), CHUNK)]


def test_a_file_sent_in_pieces_is_there_when_it_is_complete(store, tmp_path):
    assert len(DATA) > CHUNK
    for offset, piece in pieces(DATA):
        assert not store.has(SHA)
        store.append(SHA, "me", offset, piece, last=offset + len(piece) == len(DATA))
    assert store.has(SHA)
    assert hash_file(store.path(SHA)) == (SHA, len(DATA))
    assert b"".join(store.read(SHA, offset) for offset, _ in pieces(DATA)) == DATA
    assert [path.name for path in tmp_path.iterdir()] == [SHA]


def test_two_senders_do_not_disturb_each_other(store):
    for offset, piece in pieces(DATA):
        store.append(SHA, "one", offset, piece, last=offset > 0)
        store.append(SHA, "two", offset, piece, last=offset > 0)
    assert store.path(SHA).read_bytes() == DATA


def test_what_is_not_what_it_claims_is_refused(store, tmp_path):
    with pytest.raises(ClusterError, match="arrived damaged"):
        store.append(SHA, "me", 0, b"something else", last=True)
    with pytest.raises(ClusterError, match="arrived damaged"):
        store.add(SHA, iter([b"something else"]))
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_fetched_once(store):
    calls = []

    def read(offset):
        calls.append(offset)
        return DATA[offset : offset + CHUNK]

    for _ in range(2):
        assert store.fetch(SHA, read).read_bytes() == DATA
    assert calls == [0, CHUNK, len(DATA)]


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "A" * 64, SHA + "0"])
def test_only_hashes_are_names(store, name):
    with pytest.raises(ClusterError, match="no SHA-256"):
        store.path(name)
    with pytest.raises(ClusterError, match="known here"):
        store.read("0" * 64, 0)


@pytest.mark.parametrize(
    ("make", "what"),
    [(os.mkfifo, "not a regular file"), (os.mkdir, "is a directory"), (len, "no such file")],
)
def test_only_what_has_an_end_is_read(tmp_path, make, what):
    make(str(tmp_path / "x"))
    with pytest.raises(FileError, match=what):
        hash_file(tmp_path / "x")
    with pytest.raises(FileError, match="/dev/zero: not a regular file"):
        hash_file(Path("/dev/zero"))


def test_what_nobody_needs_is_removed_once_it_is_old(store):
    other = hashlib.sha256(b"other").hexdigest()
    store.add(SHA, iter([DATA]))
    store.add(other, iter([b"other"]))
    soon = store.path(SHA).stat().st_mtime + 1
    assert store.prune({SHA}, soon - 3600) == (0, 0)
    assert store.prune({SHA}, soon) == (1, 5)
    assert (store.has(SHA), store.has(other)) == (True, False)
