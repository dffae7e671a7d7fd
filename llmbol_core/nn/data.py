"""Data for training and inference: arrays from files, and the held-out split.

Nothing is ever unpickled, and no size that a file claims is trusted before it is compared with the
bytes that are there.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from llmbol_core.errors import DataFormatError, ShapeError, UsageError, nearest
from llmbol_core.native.files import map_file, read_bytes
from llmbol_core.nn.parquet import MAGIC as PARQUET_MAGIC
from llmbol_core.nn.parquet import read_parquet
from llmbol_core.nn.table import Table

Array = npt.NDArray[Any]

NPY_MAGIC = b"\x93NUMPY"
ZIP_MAGIC = b"PK\x03\x04"
UNKNOWN = "expected a .npy, .npz, .csv, .json or .parquet file"
"""What is said of bytes that no format begins with."""
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
_MARKED = 4096
_PART = 1 << 22
"""How many bytes of input are worked on at a time."""
_MOST_SAMPLES = 1024
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


def read_arrays(
    path: str, data: bytes | None = None, most: int = _LARGEST_ENTRY
) -> dict[str, Array]:
    """Return the arrays of a file by name; a ``.npy`` has one, called ``""``.

    A ``.csv`` gives one array per column, named by its first line if that has words for numbers,
    and otherwise by its position: ``"0"``, ``"1"``. JSON is nested lists of numbers, an object with
    some of them by name, or a list of objects with a number for each column; the members of a list
    may stand on lines of their own. Parquet gives an array per column. Give the data if they are
    not in a file; the format is told by their first bytes. Packed arrays that would take more than
    ``most`` bytes are a MemoryError.
    """
    data = read_bytes(path) if data is None else data
    if data.startswith(NPY_MAGIC):
        return {"": parse_npy(data, path)}
    if data.startswith(ZIP_MAGIC):
        return _parse_npz(data, path, most)
    if data.startswith(PARQUET_MAGIC):
        return read_parquet(data, path, most)
    if b"\0" in data[:4096] or os.path.splitext(path)[1] in (".npy", ".npz", ".parquet"):
        raise DataFormatError(path, 0, UNKNOWN)
    if is_json(data):
        return _parse_json(data, path)
    return _parse_csv(data, path)


def map_npy(path: str) -> Array | None:
    """Return the array of a ``.npy`` file, mapped and not read; None for a file of other kind."""
    data = map_file(path)
    return parse_npy(data, path) if data[: len(NPY_MAGIC)] == NPY_MAGIC else None


def parse_npy(data: bytes | memoryview, path: str) -> Array:
    """Return the array that ``.npy`` bytes hold; a view of them."""
    dtype, shape, order, start = npy_header(bytes(data[: 12 + _LONGEST_HEADER]), path)
    count = math.prod(shape)
    if (missing := start + count * dtype.itemsize - len(data)) > 0:
        why = f"cut short: {missing} bytes of an array of shape {list(shape)} are missing"
        raise DataFormatError(path, len(data), why)
    values = np.frombuffer(data, dtype, count, start) if count else np.empty(0, dtype)
    try:
        return values.reshape(shape, order=order)
    except ValueError as error:
        raise DataFormatError(path, 8, f"no array has the shape {list(shape)}") from error


def npy_header(data: bytes, path: str) -> tuple[np.dtype[Any], tuple[int, ...], _Order, int]:
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


def _parse_npz(data: bytes, path: str, most: int) -> dict[str, Array]:
    """Return the arrays of a zip archive of ``.npy`` files."""
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist():
                if entry.compress_type not in _COMPRESSIONS or entry.file_size > _LARGEST_ENTRY:
                    why = f"{entry.filename!r} is packed in a way that no .npz uses"
                    raise DataFormatError(path, entry.header_offset, why)
                most -= entry.file_size
                if most < 0:
                    raise MemoryError
                name = entry.filename.removesuffix(".npy")
                arrays[name] = parse_npy(archive.read(entry), f"{path}:{name}")
    except _ZIP_ERRORS as error:
        raise DataFormatError(path, 0, f"damaged archive: {_first_line(error)}") from error
    if not arrays:
        raise DataFormatError(path, 0, "an archive without arrays")
    return arrays


def _parse_csv(data: bytes, path: str) -> dict[str, Array]:
    """Return the columns of a table; whole-numbered ones become int64, those of words texts."""
    table = Table([data], path)
    rows = np.array(list(table.rows()))
    if not rows.size:
        raise DataFormatError(path, len(data), "no rows of numbers")
    columns = {name: _whole(column) for name, column in zip(table.names, rows.T, strict=True)}
    for number, words in table.words.items():
        columns[table.names[number]] = np.array(list(words))[columns[table.names[number]]]
    return columns


def is_json(data: bytes) -> bool:
    """Tell whether bytes begin as JSON that holds samples does."""
    return data[:_MARKED].removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"[", b"{")


def _parse_json(data: bytes, path: str) -> dict[str, Array]:
    """Return the arrays of a JSON text by name, a list's by the name ``""``."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataFormatError(path, error.start, "not UTF-8 text") from error
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        # Lines of JSON: the first one ends where more begins.
        ends = error.msg == "Extra data" and "\n" in text[: error.pos]
        offset = len(error.doc[: error.pos].encode())
        if not ends:
            raise DataFormatError(path, offset, f"not JSON: {error.msg.lower()}") from error
        found = list(_json_lines(text, path))
    except (RecursionError, ValueError) as error:
        raise DataFormatError(path, 0, "JSON with too deep lists or too long numbers") from error
    return json_arrays(found, path)


def _json_lines(text: str, path: str) -> Iterator[Any]:
    """Yield the value of each line."""
    offset = 0
    for line in text.splitlines(keepends=True):
        if line.strip():
            yield json_line(line, path, offset)
        offset += len(line.encode())


def json_line(line: str | bytes, path: str, offset: int) -> Any:
    """Return the value of a line, which begins at a byte."""
    try:
        return json.loads(line)
    except UnicodeDecodeError as error:
        raise DataFormatError(path, offset + error.start, "not UTF-8 text") from error
    except json.JSONDecodeError as error:
        at = offset + len(error.doc[: error.pos].encode())
        raise DataFormatError(path, at, f"not JSON: {error.msg.lower()}") from error
    except (RecursionError, ValueError) as error:
        why = "JSON with too deep lists or too long numbers"
        raise DataFormatError(path, offset, why) from error


def json_arrays(found: Any, path: str) -> dict[str, Array]:
    """Return the arrays of a JSON value by name; a list of objects has a row in each."""
    if isinstance(found, list) and found and all(isinstance(row, dict) for row in found):
        if any(row.keys() != found[0].keys() for row in found):
            raise DataFormatError(path, 0, "objects that have not the same names")
        found = {name: [row[name] for row in found] for name in found[0]}
    arrays = found if isinstance(found, dict) else {"": found}
    if not arrays:
        raise DataFormatError(path, 0, "an object without arrays")
    return {name: _numbers(value, name, path) for name, value in arrays.items()}


def _numbers(value: Any, name: str, path: str) -> Array:
    """Return nested lists as an array."""
    try:
        array = np.asarray(value)
    except (OverflowError, ValueError):
        array = np.empty(0, object)
    is_column = array.dtype.kind == "U" and array.ndim == 1 and name
    if array.dtype.kind not in "biuf" and not is_column:
        what = f"{name!r}: " * bool(name)
        raise DataFormatError(path, 0, f"{what}expected numbers in lists of equal lengths")
    return array


def _whole(column: Array) -> Array:
    """Return a column as int64 if that loses nothing."""
    is_whole = np.isfinite(column).all() and (column == np.rint(column)).all()
    return column.astype(np.int64) if is_whole and abs(column).max() < 2**53 else column


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def pick(arrays: dict[str, Array], name: str, path: str, field: str = "") -> Array:
    """Return the array of a name; the only one of a file may have any."""
    one = len(arrays) == 1
    return next(iter(arrays.values())) if one else pick_named(arrays, name, path, field)


def pick_named(arrays: dict[str, Array], name: str, path: str, field: str = "") -> Array:
    """Return the array that has this name, which a field of a spec may give, or say which are."""
    if name in arrays:
        return arrays[name]
    if "" in arrays:
        raise UsageError(f"{path}: its only array has no name, so it cannot be {name!r}")
    known = nearest(name, arrays) or f": it has {', '.join(arrays)}"
    given = f", which {field} names" if field else ""
    raise UsageError(f"{path}: no array {name!r}{given}{known}")


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
    for name, column in arrays.items():
        if name != targets and column.dtype.kind == "U":
            why = f"the column {name!r} holds words, such as {str(column[0])!r}: expected numbers"
            raise UsageError(f"{path}: {why}")
    if len(columns) != math.prod(shape):
        why = f"{len(columns)} columns for a sample, the model takes {math.prod(shape)} values"
        raise UsageError(f"{path}: {why}")
    return np.stack(columns, axis=1).reshape(-1, *shape)


def conform(x: Any, shape: tuple[int, ...], where: str) -> Array:
    """Return numbers as a float32 batch ``[N, *shape]``; one sample becomes a batch of one."""
    array = np.asarray(x)
    check_form(array.dtype, array.shape, shape, where)
    batch = array[None] if array.shape == shape else array
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(batch, dtype=np.float32)


def check_form(
    dtype: np.dtype[Any], found: tuple[int, ...], shape: tuple[int, ...], where: str
) -> None:
    """Raise ShapeError unless an array is one sample of this shape or a batch of them."""
    if dtype.kind not in "biuf":
        raise ShapeError(where, f"expected numbers, got {dtype}")
    if found != shape and (found[1:] != shape or not found):
        wanted = ", ".join(map(str, shape))
        why = f"expected input of shape [{wanted}] or [N, {wanted}], got {list(found)}"
        raise ShapeError(where, why)


def scaled(x: Array, factor: float) -> Array:
    """Return float32 inputs times a factor."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return x if factor == 1.0 else x * np.float32(factor)


def samples_at_a_time(size: int) -> int:
    """Return how many samples of so many bytes each make a part of a long run."""
    return max(1, min(_MOST_SAMPLES, _PART // max(size, 1)))
