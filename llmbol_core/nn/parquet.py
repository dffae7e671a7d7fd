"""Parquet files: columns of numbers or words, or of lists of numbers that are all of one shape.

pyarrow reads them; it is asked for only here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.errors import DataFormatError, UsageError

Array = NDArray[Any]

MAGIC = b"PAR1"


def read_parquet(data: bytes, path: str, most: int) -> dict[str, Array]:
    """Return the columns of a Parquet file by name: a number or a fixed shape for each row.

    Columns that take more than ``most`` bytes unpacked are a MemoryError. Raises DataFormatError
    for a damaged file, empty values and lists of different lengths; UsageError if pyarrow
    is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        why = "Parquet files need pyarrow: pip install 'llmbol[parquet]'"
        raise UsageError(f"{path}: {why}") from error
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        groups = range(file.metadata.num_row_groups)
        if sum(file.metadata.row_group(i).total_byte_size for i in groups) > most:
            raise MemoryError
        table = file.read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataFormatError(path, 0, f"a damaged Parquet file: {_first(error)}") from error
    if not table.num_columns or not table.num_rows:
        raise DataFormatError(path, 0, "no rows of numbers")
    return {name: _column(table.column(name), name, path) for name in table.column_names}


def _first(error: Exception) -> str:
    return (str(error).splitlines() or ["unreadable"])[0][:120]


def _column(column: Any, name: str, path: str) -> Array:
    """Return a column as an array with one entry for each row."""
    import pyarrow as pa

    values, lengths = column.combine_chunks(), []
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks)
    kinds = pa.types
    if kinds.is_dictionary(values.type):
        values = values.dictionary_decode()
    if kinds.is_decimal(values.type):
        values = values.cast(pa.float64())
    while kinds.is_list(values.type) or kinds.is_large_list(values.type):
        _refuse_empty(values, name, path)
        sizes = np.unique(values.value_lengths().to_numpy(zero_copy_only=False))
        if len(sizes) != 1:
            raise DataFormatError(path, 0, f"the column {name!r} has lists of different lengths")
        lengths.append(int(sizes[0]))
        values = values.flatten()
    while kinds.is_fixed_size_list(values.type):
        _refuse_empty(values, name, path)
        lengths.append(values.type.list_size)
        values = values.flatten()
    kind = values.type
    if not lengths and (kinds.is_string(kind) or kinds.is_large_string(kind)):
        _refuse_empty(values, name, path)
        return np.array(values.to_pylist())
    if not (kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_boolean(kind)):
        raise DataFormatError(path, 0, f"the column {name!r} has {kind} values, expected numbers")
    _refuse_empty(values, name, path)
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(-1, *lengths)


def _refuse_empty(values: Any, name: str, path: str) -> None:
    if values.null_count:
        raise DataFormatError(path, 0, f"the column {name!r} has {values.null_count} empty values")
