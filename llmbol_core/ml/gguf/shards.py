"""Models in several files, name-00001-of-0000N.gguf, as llama.cpp splits them, read as one.

The first shard has the metadata; each has its number, from 0, in ``split.no``, the number of shards
in ``split.count`` and that of all tensors in ``split.tensors.count``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from llmbol_core.errors import GgufFormatError
from llmbol_core.ml.gguf.format import GgufFile
from llmbol_core.ml.tensor import Tensor

_NAME = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
SPLIT_TYPES = {"split.no": "uint16", "split.count": "uint16", "split.tensors.count": "int32"}
"""The keys that tell of shards, with the types that llama.cpp wants."""


def is_shard(file: GgufFile) -> bool:
    """Tell whether a file is one of several, by its metadata."""
    return _number(file, "split.count", 0) not in (0, 1)


def _number(file: GgufFile, key: str, default: int) -> int:
    """Return a whole number of the metadata."""
    value = file.metadata.get(key, default)
    if not isinstance(value, int):
        raise GgufFormatError(file.path, 0, f"{key} must be a whole number, not {value!r}")
    return value


def shard_paths(path: str) -> list[str]:
    """Return the paths of all shards of a model, given one of them; none for another name.

    >>> shard_paths("big-00002-of-00002.gguf")
    ['big-00001-of-00002.gguf', 'big-00002-of-00002.gguf']
    """
    match = _NAME.search(path)
    if match is None:
        return []
    stem, count = path[: match.start()], int(match[2])
    return [f"{stem}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]


def join(file: GgufFile, read: Callable[[str], GgufFile]) -> GgufFile:
    """Return a shard and all others of its model as one file, whose path is the first one's."""
    count = _number(file, "split.count", 0)
    paths = shard_paths(file.path)
    if len(paths) != count:
        name = os.path.basename(file.path)
        why = f"one of {count} shards cannot be called {name!r}: expected NAME-00001-of-0000N.gguf"
        raise GgufFormatError(file.path, 0, why)
    tensors: dict[str, Tensor] = {}
    extent = 0
    first = None
    for number, path in enumerate(paths):
        shard = file if path == file.path else read(path)
        found = _number(shard, "split.no", -1), _number(shard, "split.count", 0)
        if found != (number, count):
            wanted = f"expected shard {number + 1} of {count}"
            why = f"{wanted}, found {found[0] + 1} of {found[1]}"
            raise GgufFormatError(path, 0, why)
        if twice := tensors.keys() & shard.tensors.keys():
            raise GgufFormatError(path, 0, f"the tensor {min(twice)!r} is in another shard too")
        tensors.update(shard.tensors)
        extent += shard.extent
        first = first or shard
    assert first is not None
    return _joined(first, tensors, extent)


def _joined(first: GgufFile, tensors: dict[str, Tensor], extent: int) -> GgufFile:
    """Return the first shard with all tensors and without the keys that tell of shards."""
    wanted = _number(first, "split.tensors.count", len(tensors))
    if wanted != len(tensors):
        raise GgufFormatError(first.path, 0, f"{len(tensors)} tensors in all shards, not {wanted}")
    kept = [key for key in first.metadata if key not in SPLIT_TYPES]
    return GgufFile(
        first.path,
        first.version,
        first.alignment,
        {key: first.metadata[key] for key in kept},
        {key: first.types[key] for key in kept},
        tensors,
        extent,
    )
