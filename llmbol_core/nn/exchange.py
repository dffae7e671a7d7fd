"""Models in the files of other programs: ONNX, safetensors, PyTorch's state files, GGUF, NumPy.

An ONNX file is a whole model. The others hold weights, which go into the model of a spec. Each file
that is written is read again and compared with the model.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.errors import ModelError, UsageError, nearest
from llmbol_core.ml import gguf
from llmbol_core.ml.quantization import dequantize
from llmbol_core.native.files import atomic_write, check_target
from llmbol_core.nn.checkpoint import expanded as expanded_model
from llmbol_core.nn.checkpoint import freeze, load_for_inference, open_model, save
from llmbol_core.nn.container import is_container
from llmbol_core.nn.data import read_arrays
from llmbol_core.nn.matching import match_tensors
from llmbol_core.nn.model import Model

if TYPE_CHECKING:
    from llmbol_core.nn.onnx.agreement import Agreement

Array = NDArray[Any]


def _read_safetensors(path: str) -> dict[str, Array]:
    from llmbol_core.nn.safetensors import read_safetensors

    return read_safetensors(path)


def _read_pytorch(path: str) -> dict[str, Array]:
    from llmbol_core.nn.pytorch import read_state

    return read_state(path)


def _read_gguf(path: str) -> dict[str, Array]:
    return {name: dequantize(tensor) for name, tensor in gguf.read(path).tensors.items()}


def _write_safetensors(path: str, state: dict[str, Array]) -> None:
    from llmbol_core.nn.safetensors import write_safetensors

    write_safetensors(path, state)


def _write_pytorch(path: str, state: dict[str, Array]) -> None:
    from llmbol_core.nn.pytorch import write_state

    write_state(path, state)


def _write_npz(path: str, state: dict[str, Array]) -> None:
    with atomic_write(path) as file:
        np.savez(file, allow_pickle=False, **state)


@dataclass(frozen=True)
class Format:
    """A kind of file that holds weights by name."""

    name: str
    endings: tuple[str, ...]
    read: Callable[[str], dict[str, Array]]
    write: Callable[[str, dict[str, Array]], None] | None
    is_ordered: bool
    """Whether the tensors are in the order of the model's."""


# fmt: off
FORMATS: tuple[Format, ...] = (
    Format("safetensors",   (".safetensors",),        _read_safetensors, _write_safetensors, False),
    Format("PyTorch state", (".pt", ".pth", ".bin"),  _read_pytorch,     _write_pytorch,     True),
    Format("NumPy",         (".npz",),                read_arrays,       _write_npz,         True),
    Format("GGUF",          (".gguf",),               _read_gguf,        None,               True),
)
# fmt: on


def _format_of(path: str) -> Format | None:
    """Return the format that the ending of a name means; None means ONNX."""
    ending = os.path.splitext(path)[1].lower()
    for row in FORMATS:
        if ending in row.endings:
            return row
    if ending == ".onnx":
        return None
    known = [".onnx", *(e for row in FORMATS for e in row.endings)]
    hint = nearest(ending, known) or f": expected one of {', '.join(known)}"
    raise UsageError(f"{path}: the ending {ending!r} names no format{hint}")


# ---- import ----


@dataclass(frozen=True)
class ImportRow:
    """The result of an import."""

    model: str
    format: str
    layers: int
    parameters: int
    input: list[int]
    output: list[int]
    matched: str
    """How tensors were found: by ``name``, ``order``, ``shape``; ``graph`` for a whole model."""
    difference: float | None
    """The greatest one to the file on random samples, as a share of the greatest value."""
    checked: str | None
    """The program that ran the file for that."""


@dataclass(frozen=True)
class ImportReport:
    """An import: its row, and remarks."""

    row: ImportRow
    notes: list[str]


@dataclass(frozen=True)
class ImportOptions:
    """How a file is imported."""

    into: str | None = None
    """The spec or checkpoint whose model the weights belong to."""
    name: str | None = None
    result: str | None = None
    """The output of an ONNX file that the model is to give; the first by default."""
    sizes: tuple[str, ...] = ()
    """Lengths of axes that an ONNX file leaves open, such as ``sequence=128``."""
    renames: tuple[str, ...] = ()


def import_file(source: str, target: str, options: ImportOptions = ImportOptions()) -> ImportReport:
    """Make a checkpoint of a file of another program."""
    row = _format_of(source)
    check_target(target, source, *([options.into] if options.into else []))
    if row is None:
        return _import_onnx(source, target, options)
    into = options.into
    if into is None and row.name == "GGUF" and is_container(source):
        into = source
    if into is None:
        why = f"{row.name} files hold weights alone: say with --into SPEC which model they are for"
        raise UsageError(f"{source}: {why}")
    if options.result or options.sizes:
        raise UsageError(f"{source}: --result and --size are for ONNX files")
    model = open_model(into)
    tensors = row.read(source)
    state, how = match_tensors(model, tensors, source, options.renames, row.is_ordered)
    model.network.load_state(state)
    model.name = options.name or model.name
    save(model.evaluate(), target)
    notes = [f"tensors were matched by {how}, not by name"] if how != "name" else []
    return ImportReport(_row(model, row.name, how, None), notes)


def _import_onnx(source: str, target: str, options: ImportOptions) -> ImportReport:
    from llmbol_core.nn.onnx.agreement import NotRun, compare_with_document
    from llmbol_core.nn.onnx.document import read_document
    from llmbol_core.nn.onnx.reader import import_document

    if options.into or options.renames:
        why = "an ONNX file is a whole model: --into and --rename are for weights"
        raise UsageError(f"{source}: {why}")
    document = read_document(source)
    name = options.name or os.path.splitext(os.path.basename(source))[0]
    found = import_document(document, source, name, options.result, _sizes(options.sizes))
    model = found.model
    notes: list[str] = []
    try:
        agreement = compare_with_document(
            freeze(model), document, found.inputs, found.output, found.batch_axis
        )
    except NotRun as error:
        agreement = None
        notes.append(f"the model was not held against the file: {error}")
    if agreement is not None and not agreement.holds:
        why = f"the model differs from {agreement.runtime} by {agreement.difference:.2g}"
        raise ModelError(source, f"{why} of the greatest value: this is a mistake of the importer")
    save(model, target)
    if found.left_out:
        notes.append(f"left out: {', '.join(found.left_out)} (--result chooses)")
    if len(found.inputs) > 1:
        parts = ", ".join(f"{g.name} {list(g.sizes)}" for g in found.inputs)
        notes.append(f"its inputs are one row, one after the other: {parts}")
    return ImportReport(_row(model, "ONNX", "graph", agreement), notes)


def _sizes(texts: Sequence[str]) -> dict[str, int]:
    """Return lengths by the names of axes."""
    sizes = {}
    for text in texts:
        name, equals, number = text.partition("=")
        if not equals or not number.isascii() or not number.isdigit() or int(number) < 1:
            raise UsageError(f"--size {text}: expected AXIS=LENGTH, such as sequence=128")
        sizes[name] = int(number)
    return sizes


def _row(model: Model, kind: str, how: str, agreement: Agreement | None) -> ImportRow:
    return ImportRow(
        model.name,
        kind,
        len(model.layers),
        model.network.parameter_count(),
        list(model.input.shape),
        list(model.output_shape),
        how,
        agreement.difference if agreement else None,
        agreement.runtime if agreement else None,
    )


# ---- export ----


@dataclass(frozen=True)
class ExportRow:
    """What was written."""

    file: str
    format: str
    tensors: int
    parameters: int
    bytes: int
    difference: float
    """The greatest one between model and file, as a share of the greatest value."""
    checked: str
    """The program that read the file again."""


def export_file(source: str, target: str) -> ExportRow:
    """Write the model or the weights of a checkpoint in the format that the target's ending means.

    Quantized weights are written as float32. The file is held against the model before it appears.
    """
    row = _format_of(target)
    check_target(target, source)
    model = expanded_model(load_for_inference(source))
    state = {name: np.asarray(t.data) for name, t in model.weights.items()}
    if row is None:
        difference, checked = _export_onnx(model, target)
    elif row.write is None:
        model.model.network.load_state(state)
        save(model.model, target)
        difference, checked = _difference(state, row.read(target)), "llmbol"
    else:
        row.write(target, state)
        difference, checked = _difference(state, row.read(target)), "llmbol"
    parameters = model.model.network.parameter_count()
    name = "ONNX" if row is None else row.name
    size = os.path.getsize(target)
    return ExportRow(target, name, len(state), parameters, size, difference, checked)


def _export_onnx(model: Any, target: str) -> tuple[float, str]:
    """Write an ONNX file that has been held against the model."""
    from llmbol_core.nn.onnx.agreement import NotRun, compare_with_document, compare_with_reading
    from llmbol_core.nn.onnx.document import write_document
    from llmbol_core.nn.onnx.export import export_model
    from llmbol_core.nn.onnx.reader import Given

    document = export_model(model)
    given = [Given("input", tuple(model.input_shape), 0, 0, False)]
    try:
        agreement = compare_with_document(model, document, given, "output")
    except NotRun:
        agreement = compare_with_reading(model, document)
    if not agreement.holds:
        why = f"{agreement.runtime} differs from the model by {agreement.difference:.2g}"
        raise ModelError(target, f"{why} of the greatest value: nothing was written")
    write_document(document, target)
    return agreement.difference, agreement.runtime


def _difference(state: dict[str, Array], again: dict[str, Array]) -> float:
    """Return the greatest difference of tensors that were read again."""
    if list(again) != list(state) and set(again) != set(state):
        raise ModelError("export", "the tensors that were read again are not those written")
    pairs = [(value, np.asarray(again[name]).reshape(value.shape)) for name, value in state.items()]
    return max((float(np.abs(a - b).max(initial=0.0)) for a, b in pairs), default=0.0)
