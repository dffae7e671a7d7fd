"""Models to ONNX documents, with all rows of the table."""

from __future__ import annotations

from llmbol_core.nn.checkpoint import InferenceModel
from llmbol_core.nn.onnx import product_exporters as _rows  # noqa: F401 -- fills the table
from llmbol_core.nn.onnx.document import Document
from llmbol_core.nn.onnx.writer import Writer


def export_model(model: InferenceModel) -> Document:
    """Return a model as an ONNX document for batches of any size; its weights are float32."""
    return Writer(model.model.lower(), model.weights).write(model)
