"""Quantize a checkpoint: weight matrices to a smaller storage type, the rest as it is."""

from __future__ import annotations

from dataclasses import dataclass

from llmbol_core.errors import ModelError
from llmbol_core.ml import gguf
from llmbol_core.ml.dtypes import F32, StorageType
from llmbol_core.ml.gguf.writer import Progress
from llmbol_core.ml.quantization import encodable_type, quantization_error, quantize
from llmbol_core.ml.tensor import Tensor
from llmbol_core.native.files import check_target
from llmbol_core.nn.checkpoint import matrix_shape, metadata, model_of, tensors_of


@dataclass(frozen=True)
class TensorReport:
    """What became of one tensor; the error is a root mean square, the reason why it was kept."""

    tensor: str
    before: str
    after: str
    bytes_before: int
    bytes_after: int
    rmse: float | None
    kept_because: str


@dataclass(frozen=True)
class QuantizeReport:
    """What became of a checkpoint's tensors, and the sums of their bytes."""

    path: str
    type: str
    bytes_before: int
    bytes_after: int
    tensors: list[TensorReport]

    def table(self) -> list[TensorReport]:
        """Return one row per tensor and one for the sums."""
        total = TensorReport("total", "", "", self.bytes_before, self.bytes_after, None, "")
        return [*self.tensors, total]


def quantize_checkpoint(
    source: str,
    target: str,
    dtype: str,
    progress: Progress = lambda done, total, note: None,
) -> QuantizeReport:
    """Write a checkpoint whose weight matrices have another storage type; report on each tensor.

    A convolution's weight counts as a matrix with one row per output. A tensor whose rows do not
    divide into blocks, and every vector, stays F32.
    """
    kind = encodable_type(dtype)
    check_target(target, source)
    file = gguf.read(source)
    model = model_of(file)
    written: dict[str, Tensor] = {}
    reports = []
    tensors = tensors_of(file, model)
    for done, (name, tensor) in enumerate(tensors.items()):
        progress(done, len(tensors), name)
        if tensor.dtype is not F32:
            raise ModelError(source, f"{name} is {tensor.dtype.name} already: start from F32")
        reason = _reason_to_keep(tensor, kind)
        kept = tensor if reason else quantize(tensor.reshape(*matrix_shape(tensor.shape)), kind)
        written[name] = kept
        reports.append(_report(name, tensor, kept, reason))
    progress(len(tensors), len(tensors), "writing")
    gguf.write(target, metadata(model, target), written)
    before, after = (sum(t.nbytes for t in group) for group in (tensors.values(), written.values()))
    return QuantizeReport(target, kind.name, before, after, reports)


def _reason_to_keep(tensor: Tensor, kind: StorageType) -> str:
    """Say why a tensor stays as it is, or return nothing if it is to be quantized."""
    if tensor.ndim < 2:
        return "a vector"
    row = matrix_shape(tensor.shape)[1]
    if row % kind.elements:
        return f"a row of {row} is no multiple of {kind.elements}"
    return ""


def _report(name: str, before: Tensor, after: Tensor, reason: str) -> TensorReport:
    """Measure one tensor."""
    rmse = 0.0
    if not reason:
        rmse = quantization_error(before.reshape(*after.shape), after).root_mean_square
    kinds = before.dtype.name, after.dtype.name
    return TensorReport(name, *kinds, before.nbytes, after.nbytes, rmse, reason)
