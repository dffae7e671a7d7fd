"""ONNX files: read with their external data, which must lie in their folder, and written whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import external_data_helper, inliner

from llmbol_core.errors import DataFormatError, ModelError
from llmbol_core.native.files import atomic_write, read_bytes

FIRST_OPSET, LAST_OPSET = 13, 21
"""The versions of the operator set that the tables know."""

Document = onnx.ModelProto


def read_document(path: str) -> Document:
    """Return the model of a file, its functions inlined and its data read.

    Raises DataFormatError if it is no ONNX file, ModelError for an operator set out of reach and
    for external data that lies elsewhere or is damaged.
    """
    try:
        document = onnx.load_model_from_string(read_bytes(path))
    except DecodeError as error:
        raise DataFormatError(path, 0, "not an ONNX file") from error
    if not document.graph.output or not document.opset_import:
        raise DataFormatError(path, 0, "not an ONNX file: no graph with an output in it")
    opset = opset_of(document)
    if not FIRST_OPSET <= opset <= LAST_OPSET:
        why = f"opset {opset}: expected {FIRST_OPSET} to {LAST_OPSET}, export the model anew"
        raise ModelError(path, why)
    folder = os.path.dirname(os.path.abspath(path))
    for tensor in _tensors(document.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _read_external(tensor, folder, path)
    if document.functions:
        document = inliner.inline_local_functions(document)
    return document


def opset_of(document: Document) -> int:
    """Return the version of the default operator set."""
    versions = [o.version for o in document.opset_import if o.domain in ("", "ai.onnx")]
    return int(max(versions, default=0))


def _tensors(graph: Any) -> Iterator[Any]:
    """Yield the tensors of a graph and of the graphs in its nodes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)


def _read_external(tensor: Any, folder: str, path: str) -> None:
    """Read the data of a tensor from a file in the model's own folder."""
    info = {entry.key: entry.value for entry in tensor.external_data}
    location = info.get("location", "")
    target = os.path.realpath(os.path.join(folder, location))
    inside = os.path.commonpath([os.path.realpath(folder), target]) == os.path.realpath(folder)
    if not location or os.path.isabs(location) or not inside:
        why = f"the data of {tensor.name!r} are said to be in {location!r}, outside of its folder"
        raise ModelError(path, why)
    try:
        external_data_helper.load_external_data_for_tensor(tensor, folder)
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        why = f"the data of {tensor.name!r} cannot be read from {location!r}"
        raise ModelError(path, why) from error
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]


def write_document(document: Document, path: str) -> None:
    """Write a model as one file; it appears complete or not at all."""
    try:
        data = document.SerializeToString()
    except ValueError as error:
        raise ModelError(path, "more than 2 GB, which one ONNX file cannot hold") from error
    with atomic_write(path) as file:
        file.write(data)
