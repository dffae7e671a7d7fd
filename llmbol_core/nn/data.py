"""Data for training and inference: arrays from .npy, .npz and .csv files, and the held-out split.

Nothing is ever unpickled, and no size that a file claims is trusted before it is compared with the
bytes that are there.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
import reprlib
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from llmbol_core.errors import DataFormatError, UsageError, nearest
from llmbol_core.native.files import map_file, read_bytes

Array = npt.NDArray[Any]

_NPY_MAGIC = b"\x93NUMPY"
_ZIP_MAGIC = b"PK\x03\x04"
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_LARGEST_ENTRY = 1 << 36
# What the zipfile module lets through when an archive is damaged.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)
_LONGEST_HEADER = 10_000
_NPY_FIELDS = (
    re.compile(r"""['"]descr['"]\s*:\s*['"]([^'"]*)['"]"""),
    re.compile(r"""['"]fortran_order['"]\s*:\s*(True|False)"""),
    re.compile(r"""['"]shape['"]\s*:\s*\(([\d\s,]{0,400})\)"""),
)
_NUMBER_CODE = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248])")
_Order = Literal["C", "F"]


@dataclass(frozen=True)
class Dataset:
    """Samples for training and held-out samples, each with its targets."""

    train_inputs: Array
    train_targets: Array
    test_inputs: Array
    test_targets: Array
    validation_inputs: Array | None = None
    validation_targets: Array | None = None

    @property
    def watched(self) -> tuple[Array, Array]:
        """The samples that training is watched by, with targets: validation's, or else held out."""
        if self.validation_inputs is None or self.validation_targets is None:
            return self.test_inputs, self.test_targets
        return self.validation_inputs, self.validation_targets


def read_arrays(path: str, data: bytes | None = None) -> dict[str, Array]:
    """Return the arrays of a file by name; a ``.npy`` has one, called ``""``.

    A ``.csv`` gives one array per column, named by its first line if a word of that is no number,
    and otherwise by its position: ``"0"``, ``"1"``. Give the data if they are not in a file; the
    format is told by their first bytes.
    """
    data = read_bytes(path) if data is None else data
    if data.startswith(_NPY_MAGIC):
        return {"": parse_npy(data, path)}
    if data.startswith(_ZIP_MAGIC):
        return _parse_npz(data, path)
    if b"\0" in data[:4096] or os.path.splitext(path)[1] in (".npy", ".npz"):
        raise DataFormatError(path, 0, "expected a .npy, .npz or .csv file")
    return _parse_csv(data, path)


def map_npy(path: str) -> Array | None:
    """Return the array of a ``.npy`` file, mapped and not read; None for a file of other kind."""
    data = map_file(path)
    return parse_npy(data, path) if data[: len(_NPY_MAGIC)] == _NPY_MAGIC else None


def parse_npy(data: bytes | memoryview, path: str) -> Array:
    """Return the array that ``.npy`` bytes hold; a view of them."""
    dtype, shape, order, start = _npy_header(bytes(data[: 12 + _LONGEST_HEADER]), path)
    count = math.prod(shape)
    if (missing := start + count * dtype.itemsize - len(data)) > 0:
        why = f"cut short: {missing} bytes of an array of shape {list(shape)} are missing"
        raise DataFormatError(path, len(data), why)
    values = np.frombuffer(data, dtype, count, start) if count else np.empty(0, dtype)
    try:
        return values.reshape(shape, order=order)
    except ValueError as error:
        raise DataFormatError(path, 8, f"no array has the shape {list(shape)}") from error


def _npy_header(data: bytes, path: str) -> tuple[np.dtype[Any], tuple[int, ...], _Order, int]:
    r"""Return element type, shape, order and where the elements start.

    The format (NumPy enhancement proposal 1): ``\x93NUMPY``, two bytes of version, the length of
    the header in 2 bytes (version 1) or 4, the header: a Python dictionary in ASCII.
    """
    width = {b"\1\0": 2, b"\2\0": 4}.get(data[6:8])
    if width is None:
        raise DataFormatError(path, 6, "no reader for this version of .npy")
    start = 8 + width + int.from_bytes(data[8 : 8 + width], "little")
    header = data[8 + width : min(start, _LONGEST_HEADER)].decode("latin-1")
    found = [pattern.search(header) for pattern in _NPY_FIELDS]
    if start > len(data) or not all(found):
        raise DataFormatError(path, 8, "a damaged .npy header")
    code, fortran, sizes = (match[1] for match in found if match)
    if not _NUMBER_CODE.fullmatch(code):
        raise DataFormatError(path, 8, f"expected numbers, got elements of type {code!r}")
    shape = tuple(int(size) for size in sizes.replace(",", " ").split())
    return np.dtype(code), shape, "F" if fortran == "True" else "C", start


def _parse_npz(data: bytes, path: str) -> dict[str, Array]:
    """Return the arrays of a zip archive of ``.npy`` files."""
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist():
                if entry.compress_type not in _COMPRESSIONS or entry.file_size > _LARGEST_ENTRY:
                    why = f"{entry.filename!r} is packed in a way that no .npz uses"
                    raise DataFormatError(path, entry.header_offset, why)
                name = entry.filename.removesuffix(".npy")
                arrays[name] = parse_npy(archive.read(entry), f"{path}:{name}")
    except _ZIP_ERRORS as error:
        raise DataFormatError(path, 0, f"damaged archive: {_first_line(error)}") from error
    if not arrays:
        raise DataFormatError(path, 0, "an archive without arrays")
    return arrays


def _parse_csv(data: bytes, path: str) -> dict[str, Array]:
    """Return the columns of comma-separated numbers; whole-numbered columns become int64."""
    rows = _csv_rows(data, path)
    named = bool(rows) and not all(map(_is_number, rows[0]))
    body = rows[named:]
    if not body:
        raise DataFormatError(path, len(data), "no rows of numbers")
    names = [word.strip() if named else str(i) for i, word in enumerate(rows[0])]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataFormatError(path, 0, f"two columns are called {twice!r}")
    for number, row in enumerate(body, 1 + named):
        if len(row) != len(names):
            why = f"row {number} has {len(row)} values, expected {len(names)}"
            raise DataFormatError(path, _row_offset(data, number), why)
        if wrong := [word for word in row if not _is_number(word)]:
            column, word = row.index(wrong[0]) + 1, reprlib.repr(wrong[0])
            why = f"row {number}, column {column}: {word} is no number"
            raise DataFormatError(path, _row_offset(data, number), why)
    table = np.array([[float(word) for word in row] for row in body])
    return {name: _whole(column) for name, column in zip(names, table.T, strict=True)}


def _csv_rows(data: bytes, path: str) -> list[list[str]]:
    """Return the words of each row that is not empty."""
    try:
        text = data.decode("utf-8-sig")
        return [row for row in csv.reader(io.StringIO(text), strict=True) if row]
    except UnicodeDecodeError as error:
        raise DataFormatError(path, error.start, "not UTF-8 text") from error
    except csv.Error as error:
        raise DataFormatError(path, 0, f"not comma-separated text: {error}") from error


def _whole(column: Array) -> Array:
    """Return a column as int64 if that loses nothing."""
    is_whole = np.isfinite(column).all() and (column == np.rint(column)).all()
    return column.astype(np.int64) if is_whole and abs(column).max() < 2**53 else column


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _row_offset(data: bytes, number: int) -> int:
    """Return where a row that is not empty starts, counted from 1."""
    offset = 0
    for line in data.splitlines(keepends=True):
        number -= bool(line.strip())
        if number == 0:
            break
        offset += len(line)
    return offset


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def pick(arrays: dict[str, Array], name: str, path: str) -> Array:
    """Return the array of a name; the only one of a file may have any."""
    return next(iter(arrays.values())) if len(arrays) == 1 else pick_named(arrays, name, path)


def pick_named(arrays: dict[str, Array], name: str, path: str) -> Array:
    """Return the array that has this name, or say which there are."""
    if name in arrays:
        return arrays[name]
    if "" in arrays:
        raise UsageError(f"{path}: its only array has no name, so it cannot be {name!r}")
    known = nearest(name, arrays) or f": it has {', '.join(arrays)}"
    raise UsageError(f"{path}: no array {name!r}{known}")


def is_table(arrays: dict[str, Array]) -> bool:
    """Tell whether the arrays are the columns of a table, as a ``.csv`` gives them."""
    return "" not in arrays and all(column.ndim == 1 for column in arrays.values())


def stratified_split(targets: Array, test: float, seed: int) -> tuple[Array, Array]:
    """Return the positions of training and held-out samples, each class in proportion.

    The same positions in the same order as scikit-learn's ``train_test_split`` gives them with
    ``stratify`` and ``random_state``: its algorithm, on the same frozen Mersenne Twister stream.
    """
    _, numbers, counts = np.unique(targets, return_inverse=True, return_counts=True)
    held_out = math.ceil(test * len(targets))
    kept = len(targets) - held_out
    if not len(counts) or counts.min() < 2 or min(held_out, kept) < len(counts):
        why = f"{len(targets)} samples of {len(counts)} classes cannot be split in proportion"
        raise UsageError(f"{why}, with {test:g} of them held out")
    random = np.random.RandomState(seed)
    train_counts = _proportional(counts, kept, random)
    test_counts = _proportional(counts - train_counts, held_out, random)
    by_class = np.split(np.argsort(numbers.ravel(), kind="stable"), np.cumsum(counts)[:-1])
    train, held = [], []
    for members, n_train, n_test in zip(by_class, train_counts, test_counts, strict=True):
        shuffled = members[random.permutation(len(members))]
        train.append(shuffled[:n_train])
        held.append(shuffled[n_train : n_train + n_test])
    return random.permutation(np.concatenate(train)), random.permutation(np.concatenate(held))


def random_split(targets: Array, test: float, seed: int) -> tuple[Array, Array]:
    """Return the positions of training and held-out samples, at random."""
    count = len(targets)
    held_out = math.ceil(test * count)
    if not 0 < held_out < count:
        raise UsageError(f"{count} samples cannot be split with {test:g} of them held out")
    order = np.random.RandomState(seed).permutation(count)
    return order[held_out:], order[:held_out]


def _proportional(counts: Array, draws: int, random: np.random.RandomState) -> Array:
    """Share draws among classes by their counts; what rounding leaves goes to the largest rests."""
    exact = counts / counts.sum() * draws
    shares = np.floor(exact)
    rests, left = exact - shares, int(draws - shares.sum())
    for rest in np.unique(rests)[::-1]:
        if left == 0:
            break
        tied = np.flatnonzero(rests == rest)
        chosen = random.choice(tied, size=min(len(tied), left), replace=False)
        shares[chosen] += 1
        left -= len(chosen)
    return np.asarray(shares, dtype=int)


def read_samples(
    arrays: dict[str, Array], inputs: str, targets: str, shape: tuple[int, ...], path: str
) -> Array:
    """Return the samples among a file's arrays: one array, or the rows of a table.

    Every column of a table but the targets' belongs to the sample.
    """
    if not is_table(arrays):
        return pick(arrays, inputs, path)
    columns = [column for name, column in arrays.items() if name != targets]
    if len(columns) != math.prod(shape):
        why = f"{len(columns)} columns for a sample, the model takes {math.prod(shape)} values"
        raise UsageError(f"{path}: {why}")
    return np.stack(columns, axis=1).reshape(-1, *shape)
