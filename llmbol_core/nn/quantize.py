"""Conversion of the weights of a GGUF file: matrices to a smaller type, or all to float32.

Checkpoints of ours are converted with their spec, any other GGUF file with its metadata as it is.
Some rows of one tensor are made and written at a time, so that a file may be larger than memory.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from llmbol_core.errors import DtypeError, ModelError, UsageError, nearest
from llmbol_core.ml import gguf
from llmbol_core.ml.codecs import DECODABLE
from llmbol_core.ml.dtypes import BF16, F16, F32, StorageType
from llmbol_core.ml.gguf.writer import Progress
from llmbol_core.ml.mapped import release
from llmbol_core.ml.quantization import convert, encodable_type
from llmbol_core.ml.tensor import Shape, Tensor
from llmbol_core.native.files import check_target
from llmbol_core.nn.checkpoint import SPEC_KEY, matrix_shape, metadata, model_of, tensors_of
from llmbol_core.nn.container import read_container
from llmbol_core.nn.layers.embedding import PositionalEmbedding
from llmbol_core.nn.module import join

_PART = 1 << 24
"""How many bytes of a tensor that stays as it is are written at a time."""
_FLOATS = (F32, F16, BF16)

# fmt: off
_FILE_TYPES = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q4_K": 15,
    "Q5_K": 17, "Q6_K": 18, "BF16": 32,
}
# fmt: on
"""llama.cpp's numbers for files whose matrices mostly have a type (``general.file_type``)."""


@dataclass(frozen=True)
class TensorReport:
    """The conversion of one tensor: its root mean square error, or why it was kept."""

    tensor: str
    before: str
    after: str
    bytes_before: int
    bytes_after: int
    rmse: float | None
    kept_because: str


@dataclass(frozen=True)
class QuantizeReport:
    """The conversion of a file: its tensors, and the sums of their bytes."""

    path: str | None
    """None if nothing was written."""
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
    target: str | None,
    dtype: str,
    progress: Progress = lambda done, total, note: None,
    tensor_types: Sequence[str] = (),
    shard_bytes: int | None = None,
) -> QuantizeReport:
    """Write a file whose weight matrices have another storage type; report on each tensor.

    ``tensor_types`` are rules ``pattern=type`` for tensors by name (``embed*=q8_0``); the first
    that fits wins over ``dtype``. In a checkpoint of ours a convolution's weight counts as a matrix
    with one row per output. A tensor whose rows do not divide into blocks or that consists of
    blocks already, every vector, and the vectors of positions, which are only added, stay as they
    are; if there is nothing else, that is an error.
    Without a target nothing is written, but the errors are measured. With ``shard_bytes`` the file
    is split into several whose tensors take no more than that.
    """
    rules = [("*", encodable_type(dtype))]
    rules[:0] = [_rule(text) for text in tensor_types]
    work = _Work(source, target, shard_bytes)
    for (pattern, _), text in zip(rules, tensor_types, strict=False):
        if not any(fnmatchcase(name, pattern) for name in work.tensors):
            hint = nearest(pattern, work.tensors)
            raise UsageError(f"--tensor-type {text}: no tensor has a name like that{hint}")

    def plan(name: str, tensor: Tensor) -> tuple[Shape, StorageType, str]:
        kind = next(kind for pattern, kind in rules if fnmatchcase(name, pattern))
        shape = matrix_shape(tensor.shape) if work.is_ours else tensor.shape
        if reason := work.kept.get(name) or _reason_to_keep(tensor, shape, kind):
            return tensor.shape, tensor.dtype, reason
        return shape, kind, ""

    quantized = [name for name, tensor in work.tensors.items() if tensor.dtype.is_blocked]
    if quantized and all(plan(name, tensor)[2] for name, tensor in work.tensors.items()):
        kind = work.tensors[quantized[0]].dtype.name
        raise ModelError(source, f"{quantized[0]} is {kind} already: start from F32")
    return work.convert(plan, rules[-1][1], progress)


def dequantize_checkpoint(
    source: str,
    target: str,
    progress: Progress = lambda done, total, note: None,
) -> QuantizeReport:
    """Write a file with all weights in float32, in the shapes of the layers; report on each."""
    work = _Work(source, target)

    def plan(name: str, tensor: Tensor) -> tuple[Shape, StorageType, str]:
        if tensor.dtype.name not in DECODABLE:
            raise DtypeError(name, f"the blocks of {tensor.dtype.name} cannot be read")
        if not tensor.dtype.is_blocked and tensor.dtype not in _FLOATS:
            return tensor.shape, tensor.dtype, f"numbers in {tensor.dtype.name}"
        reason = "F32 already" if tensor.dtype is F32 else ""
        return work.shapes.get(name, tensor.shape), F32, reason

    return work.convert(plan, F32, progress)


Plan = Callable[[str, Tensor], tuple[Shape, StorageType, str]]
"""From a tensor's name and itself to its shape and type in the new file, and why it is kept."""


class _Work:
    """A file to convert, with the metadata of the new one."""

    def __init__(self, source: str, target: str | None, shard_bytes: int | None = None) -> None:
        if target is not None:
            check_target(target, source)
        self.file, self.target = read_container(source), target
        self._shard_bytes = shard_bytes
        self.is_ours = SPEC_KEY in self.file.metadata
        self.tensors: Mapping[str, Tensor] = self.file.tensors
        self.shapes: Mapping[str, Shape] = {}
        self.kept: dict[str, str] = {}
        """Why some tensors are not quantized."""
        self.metadata: dict[str, gguf.Value] = dict(self.file.metadata)
        if self.is_ours:
            model = model_of(self.file)
            self.tensors = tensors_of(self.file, model)
            self.shapes = model.network.state_shapes()
            self.kept = {
                join(path, "weight"): "added to positions"
                for path, module in model.network.named_modules()
                if isinstance(module, PositionalEmbedding)
            }
            self.metadata = metadata(model, target or source)

    def convert(self, plan: Plan, kind: StorageType, progress: Progress) -> QuantizeReport:
        """Make each tensor as planned and write it, or only measure it if there is no target."""
        reports: list[TensorReport] = []
        deferred = {
            name: _deferred(name, tensor, plan(name, tensor), reports)
            for name, tensor in self.tensors.items()
        }
        if self.target is None:
            for done, (name, tensor) in enumerate(deferred.items()):
                progress(done, len(deferred), name)
                parts = tensor.make()
                deque([parts] if isinstance(parts, Tensor) else parts, 0)
        else:
            if not self.is_ours:
                self.metadata["general.quantization_version"] = 2
                self.metadata["general.file_type"] = _FILE_TYPES.get(kind.name, 0)
            types = {k: v for k, v in self.file.types.items() if k in self.metadata}
            self._write(deferred, types, progress)
        sums = [sum(t.nbytes for t in group.values()) for group in (self.tensors, deferred)]
        return QuantizeReport(self.target, kind.name, sums[0], sums[1], reports)

    def _write(
        self, deferred: Mapping[str, gguf.Deferred], types: Mapping[str, str], progress: Progress
    ) -> None:
        """Write the new file, or files: the first one's path becomes the target."""
        assert self.target is not None
        if self._shard_bytes is None:
            gguf.write(self.target, self.metadata, deferred, types, progress)
            return
        sources = gguf.shard_paths(self.file.path) or [self.file.path]
        self.target = gguf.write_shards(
            self.target, self.metadata, deferred, self._shard_bytes, types, progress, sources
        )[0]


def _deferred(
    name: str, tensor: Tensor, planned: tuple[Shape, StorageType, str], reports: list[TensorReport]
) -> gguf.Deferred:
    """Return a tensor that is converted, and reported on, when its turn comes."""
    shape, kind, reason = planned

    def make() -> Iterator[Tensor]:
        noise = 0.0
        parts = _rows(tensor) if reason else convert(tensor, shape, kind)
        try:
            for part, error in parts:
                if error is not None:
                    noise += part.size * error.root_mean_square**2
                yield part
        except DtypeError as error:
            raise DtypeError(name, str(error)) from error
        row = (name, tensor.dtype.name, kind.name, tensor.nbytes, deferred.nbytes)
        rmse = math.sqrt(noise / max(1, tensor.size))
        reports.append(TensorReport(*row, rmse, reason))

    deferred = gguf.Deferred(kind, shape, make)
    return deferred


def _rows(tensor: Tensor) -> Iterator[tuple[Tensor, None]]:
    """Yield a tensor as it is, in parts that are some megabytes each."""
    data = np.ascontiguousarray(tensor.data).reshape(-1)
    step = max(1, _PART // tensor.dtype.block_bytes)
    for start in range(0, len(data), step):
        yield Tensor(data[start : start + step], tensor.dtype), None
        release(data[start : start + step])


def _rule(text: str) -> tuple[str, StorageType]:
    """Return the pattern and the type of a rule."""
    pattern, separator, kind = text.rpartition("=")
    if not separator or not pattern:
        raise UsageError(f"--tensor-type {text}: expected PATTERN=TYPE, such as embed*=q8_0")
    return pattern, encodable_type(kind)


def _reason_to_keep(tensor: Tensor, shape: Shape, kind: StorageType) -> str:
    """Return why a tensor stays as it is; empty if it is to be quantized."""
    if tensor.dtype.is_blocked:
        return f"{tensor.dtype.name} already"
    if tensor.dtype not in _FLOATS:
        return f"numbers in {tensor.dtype.name}"
    if tensor.ndim < 2:
        return "a vector"
    if shape[-1] % kind.elements:
        return f"a row of {shape[-1]} is no multiple of {kind.elements}"
    return f"{kind.name} already" if tensor.dtype is kind else ""
