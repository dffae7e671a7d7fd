"""The table of importers: what turns a node into steps, by operator and opset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmbol_core.errors import nearest
from llmbol_core.nn.onnx.operands import Operand, Unavailable, Unsupported
from llmbol_core.nn.onnx.tracing import Tracer

Outcome = Operand | Unavailable | tuple[Operand | Unavailable, ...]
Importer = Callable[[Tracer, Any], Outcome]

IMPORTERS: dict[tuple[str, int], Importer] = {}
"""What turns a node into steps, by operator and the opset since which it means this."""


def row(*operators: str, since: int = 13) -> Callable[[Importer], Importer]:
    """Make a function the importer of some operators."""

    def register(function: Importer) -> Importer:
        for operator in operators:
            IMPORTERS[operator, since] = function
        return function

    return register


def importer(operator: str, opset: int) -> Importer:
    """Return the importer of an operator as an opset has it, or raise ``Unsupported``."""
    rows = [since for name, since in IMPORTERS if name == operator]
    fitting = [since for since in rows if since <= opset]
    if fitting:
        return IMPORTERS[operator, max(fitting)]
    if rows:
        raise Unsupported(f"it exists since opset {min(rows)}, the file says {opset}")
    names = {name for name, _ in IMPORTERS}
    near = f" (near it: {_ALIKE[operator]})" if operator in _ALIKE else nearest(operator, names)
    raise Unsupported(f"the operator is not supported{near}")


_ALIKE = {
    "Loop": "an export with fixed sizes",
    "Scan": "an export with fixed sizes",
    "If": "an export of the model in evaluation mode",
    "NonZero": "Where",
    "ScatterND": "Where",
    "ScatterElements": "Where",
    "NonMaxSuppression": "an export without post-processing",
    "QLinearConv": "QuantizeLinear and DequantizeLinear around Conv",
    "QLinearMatMul": "QuantizeLinear and DequantizeLinear around MatMul",
    "DynamicQuantizeLinear": "QuantizeLinear, or a float model and 'nn quantize'",
    "MatMulInteger": "MatMul, or a float model and 'nn quantize'",
    "ConvInteger": "Conv, or a float model and 'nn quantize'",
    "LRN": "BatchNormalization",
    "MatMulNBits": "MatMul, or a float model and 'nn quantize'",
}
"""For operators without a row: what does the same, where the names do not tell."""
