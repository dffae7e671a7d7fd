"""Large inputs in pieces: a file is cut between samples, and each piece is a task of its own.

Where the cuts are depends on the file alone, so that submitting it again under the same id
submits the same tasks.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from glob import glob
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from llmbol_core.distributed.arrays import npy_head
from llmbol_core.distributed.excerpt import Excerpt
from llmbol_core.distributed.parcels import Attachment
from llmbol_core.distributed.store import open_regular
from llmbol_core.distributed.task import Task, check_id
from llmbol_core.errors import FileError, UsageError
from llmbol_core.nn.data import NPY_MAGIC, map_npy, npy_header, samples_at_a_time

if TYPE_CHECKING:
    from llmbol_core.distributed.client import Client, Result
    from llmbol_core.nn.module import Array

Progress = Callable[[int, int, str], None]

LARGE = 1 << 20
"""Files of up to this many bytes are not cut."""
PIECE, LAST, SMALLEST = 32 << 20, 4 << 20, 1 << 18
"""Bytes of a piece: at most, of the last ones of a large file, and at least."""
SHARE, LAST_SHARE = 6, 32
"""A piece is this part of what is left, or that of the whole file: small ones in the end have all
nodes end together, and a file that is not large has enough pieces for some."""
MACS = 1 << 38
"""Multiplications with additions that a piece takes at most, about: some seconds."""
TEXT = 8
"""Text takes this many times longer to read, so its pieces are that much smaller."""
TEXT_STEP = 1024
"""The lines of a piece are a multiple of this: so many samples are computed at a time."""
LONGEST_LINE = 16 << 20
AHEAD = 3
"""How many pieces for each node are submitted in advance."""
PACKERS = 2
"""How many pieces are prepared at the same time."""
RELEASE_AFTER = 8
"""After how many pieces their inputs are released."""
MOST_TASKS = 100_000


@dataclass(frozen=True, slots=True)
class Pieces:
    """The pieces of a file, and about how many there are."""

    attachments: Iterator[Attachment]
    count: int


def pieces_of(path: Path, sample: tuple[int, ...], macs: int = 0) -> Pieces | None:
    """Return a file of samples of this shape in pieces; None if it is small or cannot be cut.

    Each sample takes so many multiplications with additions.
    """
    most = MACS // max(macs, 1)
    with open_regular(path) as file:
        try:
            start, size = file.read(1 << 14), file.seek(0, io.SEEK_END)
        except OSError as error:
            raise FileError.of(error, path) from error
    if size <= LARGE:
        return None
    if start.startswith(NPY_MAGIC):
        array = map_npy(str(path))
        if array is None or array.shape[1:] != sample or not len(array):
            return None
        pieces = _array_pieces(array, npy_header(start, str(path))[-1], path, most)
        return Pieces(pieces, max(len(array) // most, sum(1 for _ in _sizes(array.nbytes))))
    head = start.partition(b"\n")[0]
    if b"\0" in start or b'"' in head or b"\n" not in start or start[:2] == b"PK":
        return None
    return Pieces(_text_pieces(path, size, most), sum(1 for _ in _sizes(size * TEXT)))


def _size(left: int, total: int) -> int:
    """Return how many bytes the next piece of a file should have."""
    least = min(LAST, max(SMALLEST, total // LAST_SHARE))
    return max(least, min(PIECE, left // SHARE))


def _sizes(total: int) -> Iterator[int]:
    """Yield the sizes of the pieces of a file, in order."""
    left = total
    while left > 0:
        yield (size := _size(left, total))
        left -= size


def _array_pieces(array: Array, start: int, path: Path, most: int) -> Iterator[Attachment]:
    """Yield rows of an array, some in each piece, as ``.npy`` bytes of the same element type.

    They begin at a byte of the file. Their numbers are multiples of how many are computed at a
    time: no bit depends on the cuts.
    """
    row = max(1, array.dtype.itemsize * math.prod(array.shape[1:]))
    step, first = samples_at_a_time(row), 0
    while first < len(array):
        size = _size(row * (len(array) - first), row * len(array))
        last = min(len(array), first + max(step, min(size // row, most) // step * step))
        head = npy_head(array, last - first)
        if array.flags.c_contiguous:
            where = os.path.abspath(path)
            content: Excerpt | bytes = Excerpt(where, start + first * row, start + last * row, head)
        else:
            content = b"".join((head, np.ascontiguousarray(array[first:last]).data.cast("B")))
        yield Attachment("input", f"{path.name} from sample {first}", content)
        first = last


def _text_pieces(path: Path, size: int, most: int) -> Iterator[Attachment]:
    """Yield lines of a table, the names of its columns on top of each piece."""
    where = os.path.abspath(path)
    with open(path, "rb") as file:
        first = _line(file, path)
        head = b"" if _is_numbers(first) else first
        file.seek(len(head))
        start, number, sizes = len(head), 1 + bool(head), _sizes(size * TEXT)
        while count := _skip_lines(file, path, next(sizes, SMALLEST) // TEXT, most):
            stop = file.tell()
            content = Excerpt(where, start, stop, head)
            yield Attachment("input", f"{path.name} from line {number}", content)
            start, number = stop, number + count


def _skip_lines(file: BinaryIO, path: Path, size: int, most: int) -> int:
    """Skip lines that make a piece of about a given size; return how many."""
    read = count = 0
    while ((read < size and count < most) or count % TEXT_STEP) and (line := _line(file, path)):
        read, count = read + len(line), count + 1
    return count


def _line(file: BinaryIO, path: Path) -> bytes:
    line = file.readline(LONGEST_LINE)
    if len(line) == LONGEST_LINE:
        raise UsageError(f"{path}: a line of more than {LONGEST_LINE} bytes is no row of numbers")
    return line


def _is_numbers(line: bytes) -> bool:
    """Return whether a row holds nothing but numbers."""
    try:
        for word in next(csv.reader([line.decode("utf-8-sig")]), []):
            float(word)
    except ValueError:
        return False
    return True


def member(group: str, number: int) -> str:
    """Return the id of a task of a group; tasks are counted from 1."""
    return check_id(f"{group}.{number}")


def inference_tasks(whole: Task, pieces: Pieces) -> Iterator[Task]:
    """Yield a task for each piece of the input of a task."""
    for number, piece in enumerate(pieces.attachments, 1):
        yield replace(
            whole, id=member(whole.id, number), group=whole.id,
            payload={**whole.payload, "input": piece},
        )  # fmt: skip


def stream(
    client: Client,
    tasks: Iterator[Task],
    count: int,
    progress: Progress = lambda done, total, note: None,
) -> Iterator[Result]:
    """Submit tasks a few at a time and yield their results in the same order.

    The input of a task is released on the cluster as soon as its result is here, so neither this
    program nor the cluster ever has more than some pieces of the input.
    """
    room = AHEAD * max(1, len(client.status().nodes)) + 1

    def send(packed: Future[Task]) -> str:
        return client.submit_packed([packed.result()])[0]

    ahead: deque[Future[str]] = deque()
    done: list[str] = []
    packers = ThreadPoolExecutor(PACKERS, "llmbol-pack")
    # One by one: a group's tasks are known in the order in which they came.
    sender = ThreadPoolExecutor(1, "llmbol-send")
    try:
        while True:
            for task in islice(tasks, room - len(ahead)):
                ahead.append(sender.submit(send, packers.submit(client.pack, task, lend=True)))
            if not ahead:
                break
            id = ahead.popleft().result()
            yield client.ended(id)
            done.append(id)
            progress(len(done), max(count, len(done)), "pieces")
            if len(done) % RELEASE_AFTER == 0:
                client.release(done[-RELEASE_AFTER:])
        client.release(done[len(done) // RELEASE_AFTER * RELEASE_AFTER :])
    finally:
        for threads in (sender, packers):
            threads.shutdown(cancel_futures=True)


def matching(patterns: Sequence[str]) -> list[Path]:
    """Return the files that match patterns such as ``data/*.csv``, in order; ``**`` goes deeper.

    Raises UsageError for a pattern that none matches.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        names = [pattern] if Path(pattern).is_file() else sorted(glob(pattern, recursive=True))
        files = [Path(name) for name in names if Path(name).is_file()]
        if not files:
            raise UsageError(f"no file matches {pattern!r}")
        found |= dict.fromkeys(files)
    if len(found) > MOST_TASKS:
        raise UsageError(f"{len(found)} files match: expected at most {MOST_TASKS}")
    return list(found)


def map_tasks(whole: Task, paths: Sequence[Path]) -> list[Task]:
    """Return a task for each of some files, each an input of the same program."""
    return [
        replace(
            whole, id=member(whole.id, number), group=whole.id,
            payload={**whole.payload, "inputs": [str(path)]},
        )
        for number, path in enumerate(paths, 1)
    ]  # fmt: skip


class ArrayWriter:
    """Writes parts of one array to a ``.npy`` file, whose length is known only at the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._rows = file, 0
        self._like: Array | None = None

    def write(self, part: Array) -> None:
        """Append the rows of a part; raises UsageError if they do not fit those before."""
        if self._like is None:
            self._like = part[:0]
            self._write_header()
        elif (part.shape[1:], part.dtype) != (self._like.shape[1:], self._like.dtype):
            raise UsageError(f"parts of shapes {self._like.shape[1:]} and {part.shape[1:]}")
        self._rows += len(part)
        self._file.write(np.ascontiguousarray(part).data)

    def close(self) -> None:
        """Write the header now that everything is known."""
        self._file.seek(0)
        self._write_header()

    def _write_header(self) -> None:
        """Write the header: NumPy leaves room in it for any number of rows."""
        like = np.zeros((0, 0), np.float32) if self._like is None else self._like
        self._file.write(npy_head(like, self._rows))
