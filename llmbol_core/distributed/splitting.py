"""Inputs in pieces: what is large is cut along its samples, and each piece is a task of its own.

Where the cuts are depends on the file alone, so that whoever submits it again under the same id
asks for the same tasks.
"""

from __future__ import annotations

import csv
import io
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from glob import glob
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from llmbol_core.distributed.parcels import Attachment
from llmbol_core.distributed.store import open_regular
from llmbol_core.distributed.task import Task, check_id
from llmbol_core.errors import FileError, UsageError
from llmbol_core.nn.data import samples_at_a_time

if TYPE_CHECKING:
    from llmbol_core.distributed.client import Client, Result
    from llmbol_core.nn.module import Array

Progress = Callable[[int, int, str], None]

LARGE = 1 << 20
"""Files of up to this many bytes are not cut."""
PIECE, SMALLEST, PIECES = 4 << 20, 1 << 18, 16
"""A piece has so many bytes at most and at least; a file that is not too large for it has so many
pieces."""
TEXT_PIECE = 1 << 20
"""Bytes of a piece of text, which takes longer to read."""
TEXT_STEP = 1024
"""The lines of a piece are a multiple of this: so many samples are computed at a time."""
LONGEST_LINE = 16 << 20
AHEAD = 3
"""How many pieces for each node are on their way."""
PACKERS = 2
"""How many pieces are made ready at the same time."""
RELEASE_AFTER = 8
"""After how many pieces their inputs are given up."""
MOST_TASKS = 100_000


@dataclass(frozen=True, slots=True)
class Pieces:
    """The pieces of a file, and how many there are, about."""

    attachments: Iterator[Attachment]
    count: int


def pieces_of(path: Path, sample: tuple[int, ...]) -> Pieces | None:
    """Return a file of samples of this shape in pieces; None if it is small or cannot be cut."""
    from llmbol_core.nn.data import map_npy

    with open_regular(path) as file:
        try:
            start, size = file.read(4096), file.seek(0, io.SEEK_END)
        except OSError as error:
            raise FileError.of(error, path) from error
    if size <= LARGE:
        return None
    if start.startswith(b"\x93NUMPY"):
        array = map_npy(str(path))
        if array is None or array.shape[1:] != sample or not len(array):
            return None
        step = _rows_in_piece(array)
        return Pieces(_array_pieces(array, step, path.name), -(-len(array) // step))
    head = start.partition(b"\n")[0]
    if b"\0" in start or b'"' in head or b"\n" not in start or start[:2] == b"PK":
        return None
    return Pieces(_text_pieces(path), -(-size // TEXT_PIECE))


def _rows_in_piece(array: Array) -> int:
    """Return a multiple of what is computed at a time, so that no bit depends on the cuts."""
    row = max(1, array.dtype.itemsize * math.prod(array.shape[1:]))
    size = min(PIECE, max(SMALLEST, row * len(array) // PIECES))
    step = samples_at_a_time(row)
    return max(step, size // row // step * step)


def _array_pieces(array: Array, step: int, name: str) -> Iterator[Attachment]:
    """Yield rows of an array, so many at a time, as ``.npy`` bytes of the same element type."""
    for start in range(0, len(array), step):
        part = np.ascontiguousarray(array[start : start + step])
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(part))
        content = b"".join((head.getvalue(), part.data.cast("B")))
        yield Attachment("input", f"{name} from sample {start}", content)


def _text_pieces(path: Path) -> Iterator[Attachment]:
    """Yield lines of a table, the names of its columns on top of each piece."""
    with open(path, "rb") as file:
        first = _line(file, path)
        head = b"" if _is_numbers(first) else first
        file.seek(len(head))
        number = 1 + bool(head)
        while lines := list(_some_lines(file, path)):
            yield Attachment("input", f"{path.name} from line {number}", head + b"".join(lines))
            number += len(lines)


def _some_lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    size = count = 0
    while (size < TEXT_PIECE or count % TEXT_STEP) and (line := _line(file, path)):
        size, count = size + len(line), count + 1
        yield line


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

    What a task brought is given up on the cluster as soon as its result is here, so neither this
    program nor the cluster ever has more than some pieces of the input.
    """
    room = AHEAD * max(1, len(client.status().nodes)) + 1
    packing: deque[Future[Task]] = deque()
    ahead: deque[str] = deque()
    done: list[str] = []
    with ThreadPoolExecutor(PACKERS, "llmbol-pack") as packers:
        while True:
            for task in islice(tasks, room - len(packing) - len(ahead)):
                packing.append(packers.submit(client.pack, task))
            ready = [packing.popleft() for _ in list(packing) if packing[0].done()]
            if not ready and not ahead and packing:
                ready = [packing.popleft()]
            if ready:
                ahead += client.submit_packed([future.result() for future in ready])
            if not ahead:
                break
            yield client.ended(ahead[0])
            done.append(ahead.popleft())
            progress(len(done), max(count, len(done)), "pieces")
            if len(done) % RELEASE_AFTER == 0:
                client.release(done[-RELEASE_AFTER:])
    client.release(done[len(done) // RELEASE_AFTER * RELEASE_AFTER :])


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
    """Writes parts of one array to a ``.npy`` file; how long it is turns out in the end."""

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
        like: Any = np.zeros((0, 0), np.float32) if self._like is None else self._like
        words = {"descr": like.dtype.str, "fortran_order": False}
        shape = (self._rows, *like.shape[1:])
        np.lib.format.write_array_header_1_0(self._file, words | {"shape": shape})
