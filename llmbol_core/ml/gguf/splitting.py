"""Writing a model as several files, as llama.cpp splits them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from llmbol_core.errors import UsageError
from llmbol_core.ml.gguf.format import Value
from llmbol_core.ml.gguf.shards import SPLIT_TYPES
from llmbol_core.ml.gguf.writer import Deferred, Progress, write, write_stream
from llmbol_core.ml.tensor import Tensor
from llmbol_core.native.files import atomic_write, check_target

_MOST = 65_535
"""How many shards there can be: their numbers have 16 bits."""

Tensors = Mapping[str, Tensor | Deferred]


def write_shards(
    path: str | os.PathLike[str],
    metadata: Mapping[str, Value],
    tensors: Tensors,
    limit: int,
    types: Mapping[str, str] | None = None,
    progress: Progress = lambda done, total, note: None,
    sources: Sequence[str] = (),
) -> list[str]:
    """Write a model in files whose tensors take at most ``limit`` bytes; return their paths.

    A tensor that is larger has a file of its own. ``name.gguf`` becomes
    ``name-00001-of-0000N.gguf`` and so on, unless one file is enough. All of them appear when all
    are complete, the first one last. None of them may be one of ``sources``.
    """
    groups = _groups(tensors, limit)
    if len(groups) == 1:
        write(path, metadata, tensors, types, progress)
        return [os.fspath(path)]
    stem = os.fspath(path).removesuffix(".gguf")
    paths = [f"{stem}-{n:05}-of-{len(groups):05}.gguf" for n in range(1, len(groups) + 1)]
    for name in paths:
        check_target(name, *sources)
    done, total = 0, sum(tensor.nbytes for tensor in tensors.values())
    with ExitStack() as stack:
        files = [stack.enter_context(atomic_write(name)) for name in paths]
        for number, (file, group) in enumerate(zip(files, groups, strict=True)):
            keys = _metadata(metadata, number, len(groups), len(tensors))

            def step(here: int, _: int, note: str, before: int = done) -> None:
                progress(before + here, total, note)

            write_stream(file, keys, group, {**(types or {}), **SPLIT_TYPES}, step)
            done += sum(tensor.nbytes for tensor in group.values())
    return paths


def _groups(tensors: Tensors, limit: int) -> list[dict[str, Tensor | Deferred]]:
    """Return the tensors of each shard, in order."""
    if limit < 1:
        raise UsageError(f"shards hold at least one byte, not {limit}")
    groups: list[dict[str, Tensor | Deferred]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if groups[-1] and size + tensor.nbytes > limit:
            groups.append({})
            size = 0
        groups[-1][name] = tensor
        size += tensor.nbytes
    if len(groups) > _MOST:
        raise UsageError(f"{len(groups)} shards are too many: {_MOST} at most")
    return groups


def _metadata(
    metadata: Mapping[str, Value], number: int, count: int, tensors: int
) -> dict[str, Value]:
    """Return the keys of one shard: all of the model's stand in the first one."""
    kept = {k: v for k, v in metadata.items() if number == 0 or k == "general.alignment"}
    return kept | dict(zip(SPLIT_TYPES, (number, count, tensors), strict=True))
