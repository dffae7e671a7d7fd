"""Tensors of a foreign file found for the parameters of a model: by name, else by order or shape.

0.weight <- fc1.weight    a layer with ``name: fc1``, or --rename fc1=0
0.weight <- module.0.weight    a prefix that all names share
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.errors import ModelError, UsageError, nearest
from llmbol_core.nn.checkpoint import matrix_shape
from llmbol_core.nn.model import Model

Array = NDArray[Any]
Shape = tuple[int, ...]

_SHOWN = 8
_COUNTERS = "num_batches_tracked"
"""What PyTorch's batch norms count and nothing needs."""


def match_tensors(
    model: Model,
    tensors: Mapping[str, Array],
    path: str,
    renames: Sequence[str] = (),
    is_ordered: bool = True,
) -> tuple[dict[str, Array], str]:
    """Return a value for each parameter and buffer, and how they were found: by name or order.

    Raises ModelError that says what is missing, what is left over and what has another shape.
    """
    wanted = model.network.state_shapes()
    given = _renamed(tensors, _rules(renames))
    for candidate in _spellings(given):
        found = {
            name: candidate[alias]
            for name, aliases in _aliases(model).items()
            for alias in aliases
            if alias in candidate
        }
        if len(found) == len(wanted):
            return _checked(found, wanted, path), "name"
    pairs = _by_shape(wanted, given, is_ordered)
    if pairs is not None:
        return pairs, "order" if is_ordered else "shape"
    raise ModelError(path, _complaint(wanted, given))


def _rules(renames: Sequence[str]) -> list[tuple[str, str]]:
    """Return pairs of beginnings from texts such as ``fc1=0``."""
    pairs = []
    for text in renames:
        old, equals, new = text.partition("=")
        if not equals or not old:
            raise UsageError(f"--rename {text}: expected OLD=NEW, such as fc1=0")
        pairs.append((old, new))
    return pairs


def _renamed(tensors: Mapping[str, Array], rules: list[tuple[str, str]]) -> dict[str, Array]:
    """Return tensors with other beginnings of names, counters left out."""
    given = {}
    for name, array in tensors.items():
        if name.endswith(_COUNTERS):
            continue
        for old, new in rules:
            if name == old or name.startswith(f"{old}."):
                name = f"{new}{name[len(old) :]}".lstrip(".")
                break
        given[name] = array
    return given


def _spellings(given: dict[str, Array]) -> Iterator[dict[str, Array]]:
    """Yield tensors by their names, then without the beginnings that all of them share."""
    yield given
    while given and all("." in name for name in given):
        heads = {name.split(".", 1)[0] for name in given}
        if len(heads) > 1:
            return
        given = {name.split(".", 1)[1]: array for name, array in given.items()}
        yield given


def _aliases(model: Model) -> dict[str, list[str]]:
    """Return for each tensor its name, and the one with layers' own names for their numbers."""
    paths: dict[str, str] = {"": ""}
    found: dict[str, list[str]] = {}
    for path, module in model.network.named_modules():
        head, _, last = path.rpartition(".")
        outer = paths.get(head, "")
        paths[path] = ".".join(part for part in (outer, module.name or last) if part)
        for name in (*module.parameter_shapes(), *module.initial_buffers()):
            full = f"{path}.{name}" if path else name
            alias = f"{paths[path]}.{name}" if paths[path] else name
            short = f"{module.name}.{name}" if module.name else full
            found[full] = list(dict.fromkeys((full, alias, short)))
    return found


def _checked(found: dict[str, Array], wanted: Mapping[str, Shape], path: str) -> dict[str, Array]:
    ready = {}
    for name, array in found.items():
        if array.shape not in (wanted[name], matrix_shape(wanted[name])):
            why = f"{name} has shape {list(array.shape)}, expected {list(wanted[name])}"
            raise ModelError(path, why)
        ready[name] = np.asarray(array, np.float32).reshape(wanted[name])
    return ready


def _by_shape(
    wanted: Mapping[str, Shape], given: Mapping[str, Array], is_ordered: bool
) -> dict[str, Array] | None:
    """Pair tensors as they stand, if all shapes agree; without an order, by shapes that differ."""
    if len(wanted) != len(given):
        return None
    arrays = list(given.values())
    if not is_ordered:
        by_shape = {array.shape: array for array in arrays}
        if len(by_shape) != len(arrays) or set(by_shape) != set(wanted.values()):
            return None
        arrays = [by_shape[shape] for shape in wanted.values()]
    if [array.shape for array in arrays] != list(wanted.values()):
        return None
    pairs = zip(wanted, arrays, strict=True)
    return {name: np.asarray(array, np.float32) for name, array in pairs}


def _complaint(wanted: Mapping[str, Shape], given: Mapping[str, Array]) -> str:
    """Say which tensors have no counterpart."""
    missing = [name for name in wanted if name not in given]
    extra = [name for name in given if name not in wanted]
    hint = nearest(missing[0], extra) if missing else ""
    parts = [f"the file has nothing for {_listed(missing)}{hint}"] if missing else []
    parts += [f"the model has nothing like {_listed(extra)}"] if extra else []
    return "; ".join([*parts, "give other names with --rename OLD=NEW"])


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
