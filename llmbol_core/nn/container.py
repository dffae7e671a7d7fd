"""Files that hold a model's tensors: a GGUF file, or a compiled model that carries one."""

from __future__ import annotations

import os

from llmbol_core.errors import ModelError
from llmbol_core.ml import gguf
from llmbol_core.ml.gguf.format import MAGIC
from llmbol_core.native.files import map_file
from llmbol_core.vm import payload
from llmbol_core.vm.magic import MAGICS, is_object


def is_container(path: str) -> bool:
    """Tell a file with tensors from a spec by its first bytes."""
    return map_file(path)[: len(MAGIC)] in (MAGIC, *MAGICS)


def read_container(path: str) -> gguf.GgufFile:
    """Return the tensors and metadata of a file, mapped: nothing is read before it is used.

    Raises ModelError for a program that carries no model, GgufFormatError for a damaged file.
    """
    data = map_file(path)
    if not is_object(data):
        if data[: len(MAGIC)] != MAGIC and os.path.splitext(path)[1] in (".yaml", ".yml"):
            why = "a spec has no weights yet: 'nn build' or 'nn train' makes a checkpoint of it"
            raise ModelError(path, why)
        return gguf.read(path)
    return gguf.read_buffer(carried(data, path), path)


def carried(data: memoryview, path: str) -> memoryview:
    """Return the GGUF file in the bytes of one, or in those of a compiled model."""
    if not is_object(data):
        return data
    found = payload.find(data, path)
    if found is None or found[: len(MAGIC)] != MAGIC:
        raise ModelError(path, "a Dis program that carries no model, or has lost its end")
    return found


def extract(source: str, target: str) -> int:
    """Write the GGUF file that a compiled model carries; return its bytes."""
    from llmbol_core.native.files import atomic_write, check_target

    check_target(target, source)
    data = map_file(source)
    if not is_object(data):
        raise ModelError(source, "no compiled model: expected a .dis file from 'nn compile'")
    found = carried(data, source)
    with atomic_write(target) as file:
        file.write(found)
    return len(found)
