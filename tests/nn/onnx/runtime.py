"""Runs ONNX models by another implementation: ONNX Runtime if it is there, else the reference."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

HAS_RUNTIME = bool(importlib.util.find_spec("onnxruntime"))


def run_onnx(document: Any, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Return the outputs of a document."""
    if HAS_RUNTIME:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(
            document.SerializeToString(), options, ["CPUExecutionProvider"]
        )
        return list(session.run(None, feeds))
    from onnx.reference import ReferenceEvaluator

    with np.errstate(all="ignore"):
        return list(ReferenceEvaluator(document).run(None, feeds))
