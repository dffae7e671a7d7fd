"""Samples that come in a stream, some at a time: a file or a pipe that may be longer than memory.

A ``.npy`` in rows, a table and lines of JSON are read as they are needed; archives, other JSON and
a ``.npy`` in columns are read whole, within the limit for that.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from llmbol_core.errors import DataFormatError, UsageError
from llmbol_core.nn.data import (
    NPY_MAGIC,
    UNKNOWN,
    ZIP_MAGIC,
    check_form,
    conform,
    is_json,
    json_arrays,
    json_line,
    npy_header,
    read_arrays,
    read_samples,
)
from llmbol_core.nn.parquet import MAGIC as PARQUET_MAGIC
from llmbol_core.nn.table import Table

Array = npt.NDArray[Any]
Read = Callable[[int], bytes]
"""Returns at most so many bytes, none at the end."""

_HEAD, _MARKS = 12 + 10_000, 8
"""Bytes that hold the header of a ``.npy``, and that tell formats apart."""
_CHUNK = 1 << 16
_JSON_GROWTH = 12
"""How many times as much room as its text JSON takes while it is read."""


class SampleStream:
    """The samples of a file, in order, each of a shape; as float32 batches.

    Of several arrays the one called ``inputs`` holds the samples, or all columns of a table but
    ``targets``. ``room`` says how many bytes may be taken for what must be read whole.
    """

    def __init__(
        self,
        read: Read,
        path: str,
        inputs: str,
        targets: str,
        shape: tuple[int, ...],
        room: int,
    ) -> None:
        """Read as much as tells the format. Raises DataFormatError, UsageError, MemoryError."""
        self._read, self._path, self.shape = read, path, shape
        # No more than tells the format, so that a line of a table is there when it comes.
        self._head = b""
        while len(self._head) < _MARKS and (piece := read(_HEAD)):
            self._head += piece
        if self._head.startswith(NPY_MAGIC):
            self._head = self._exactly(_HEAD)
        self.count: int | None = None
        """How many samples there are in all, if that is known."""
        self.held_bytes = 0
        """What is held in memory."""
        self.item_bytes = 8
        """Bytes of a number where the samples come from."""
        self.taken = 0
        self._take = self._source(inputs, targets, room)

    def take(self, most: int) -> Array | None:
        """Return the next samples [N, *shape], at most so many; None when all have been taken.

        Raises DataFormatError and ShapeError.
        """
        found = self._take(most)
        if found is None or not len(found):
            return None
        self.taken += len(found)
        return conform(found, self.shape, self._path)

    def _source(self, inputs: str, targets: str, room: int) -> Callable[[int], Array | None]:
        """Return what takes samples from the format that the first bytes tell."""
        head = self._head
        if head.startswith(NPY_MAGIC):
            dtype, shape, order, start = npy_header(head, self._path)
            if order == "C" or len(shape) < 2:
                return self._rows_of_npy(dtype, shape, start)
        elif is_json(head):
            if (take := self._lines_of_json(inputs, targets, room)) is not None:
                return take
        elif not head.startswith((ZIP_MAGIC, PARQUET_MAGIC)):
            if b"\0" in head[:4096]:
                raise DataFormatError(self._path, 0, UNKNOWN)
            return self._rows_of_table(targets)
        return self._whole(inputs, targets, room)

    def _rows_of_npy(
        self, dtype: np.dtype[Any], shape: tuple[int, ...], start: int
    ) -> Callable[[int], Array | None]:
        """Take rows of a ``.npy``, whose elements start there."""
        check_form(dtype, shape, self.shape, self._path)
        count, sample = (1, shape) if shape == self.shape else (shape[0], shape[1:])
        self.count, self.item_bytes = count, dtype.itemsize
        self._head = self._head[start:]
        size = dtype.itemsize * math.prod(sample)

        def take(most: int) -> Array | None:
            wanted = min(most, count - self.taken)
            data = self._exactly(wanted * size)
            if len(data) < wanted * size:
                missing = (count - self.taken) * size - len(data)
                why = f"cut short: {missing} bytes of an array of shape {list(shape)} are missing"
                raise DataFormatError(self._path, start + self.taken * size + len(data), why)
            return np.frombuffer(data, dtype).reshape(wanted, *sample) if wanted else None

        return take

    def _rows_of_table(self, targets: str) -> Callable[[int], Array | None]:
        """Take rows of comma-separated numbers."""
        table = Table(self._pieces(), self._path)
        chosen = [i for i, name in enumerate(table.names) if name != targets]
        if len(chosen) != math.prod(self.shape):
            wanted = math.prod(self.shape)
            why = f"{len(chosen)} columns for a sample, the model takes {wanted} values"
            raise UsageError(f"{self._path}: {why}")
        rows = table.rows()

        def take(most: int) -> Array | None:
            part = list(itertools.islice(rows, most))
            if not part and not self.taken:
                raise DataFormatError(self._path, 0, "no rows of numbers")
            table.refuse_words(chosen)
            return np.array(part)[:, chosen].reshape(-1, *self.shape) if part else None

        return take

    def _lines_of_json(
        self, inputs: str, targets: str, room: int
    ) -> Callable[[int], Array | None] | None:
        """Take lines of JSON, each a sample; None if the first line is none."""
        pieces, left = [self._head], room
        while b"\n" not in pieces[-1] and (piece := self._read(_CHUNK)):
            pieces.append(piece)
            left -= _JSON_GROWTH * len(piece)
            if left < 0:
                raise MemoryError
        self._head = b"".join(pieces)
        try:
            first = json.loads(self._head.partition(b"\n")[0])
        except (ValueError, RecursionError):
            return None
        is_row = isinstance(first, dict) and not any(isinstance(v, list) for v in first.values())
        if not is_row and _form(first) != self.shape:
            return None
        lines = self._lines()

        def take(most: int) -> Array | None:
            part = [json_line(line, self._path, at) for line, at in itertools.islice(lines, most)]
            if not part:
                return None
            return read_samples(
                json_arrays(part, self._path), inputs, targets, self.shape, self._path
            )

        return take

    def _lines(self) -> Iterator[tuple[bytes, int]]:
        """Yield lines that are not empty, and where they begin."""
        text, start = b"", 0
        for piece in itertools.chain(self._pieces(), [b"\n"]):
            text += piece
            *whole, text = text.split(b"\n")
            for line in whole:
                if line.strip():
                    yield line, start
                start += len(line) + 1

    def _whole(self, inputs: str, targets: str, room: int) -> Callable[[int], Array | None]:
        """Read everything and take parts of it."""
        growth = _JSON_GROWTH if is_json(self._head) else 1
        pieces = [self._head]
        while piece := self._read(_CHUNK):
            pieces.append(piece)
            room -= growth * len(piece)
            if room < 0:
                raise MemoryError
        arrays = read_arrays(self._path, b"".join(pieces), max(room, 0))
        found = read_samples(arrays, inputs, targets, self.shape, self._path)
        check_form(found.dtype, found.shape, self.shape, self._path)
        found = found[None] if found.shape == self.shape else found
        self.held_bytes, self.count, self.item_bytes = found.nbytes, len(found), found.itemsize

        def take(most: int) -> Array | None:
            return found[self.taken : self.taken + most]

        return take

    def _exactly(self, size: int) -> bytes:
        """Return so many bytes, fewer only at the end."""
        first, self._head = self._head[:size], self._head[size:]
        pieces, missing = [first], size - len(first)
        while missing and (piece := self._read(min(missing, _CHUNK << 4))):
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def _pieces(self) -> Iterator[bytes]:
        yield self._head
        while piece := self._read(_CHUNK):
            yield piece


def _form(value: Any) -> tuple[int, ...] | None:
    """Return the shape of nested lists, None if they have none."""
    try:
        return tuple(np.shape(value))
    except ValueError:
        return None
