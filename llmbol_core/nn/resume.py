"""Interrupted training on disk: a file beside the future checkpoint, removed when that is written.

llmbol.training   the trainer's plain values and the spec that it follows, as JSON
tensors           model/NAME, optimizer/NAME, best/NAME
"""

from __future__ import annotations

import json
import os
import zlib

import numpy as np

from llmbol_core.errors import FileError, ModelError
from llmbol_core.ml import gguf
from llmbol_core.ml.tensor import Tensor
from llmbol_core.nn.trainer import Snapshot, Trainer

_KEY = "llmbol.training"
_FREE = ("epochs", "data")
"""Fields of the training section that may differ in the run that continues."""
_OTHER = {"spec": "another spec or seed", "data": "other data"}


def resume_path(target: str) -> str:
    """Return the path of the interrupted training for a checkpoint."""
    return f"{target}.resume"


def write_progress(trainer: Trainer, target: str) -> None:
    """Write the state of the training; the file appears complete or not at all."""
    snapshot = trainer.snapshot()
    record = {**_identity(trainer), "values": snapshot.values}
    tensors = {name: Tensor(np.ascontiguousarray(a)) for name, a in snapshot.arrays.items()}
    metadata = {"general.architecture": "llmbol-training", _KEY: json.dumps(record)}
    gguf.write(resume_path(target), metadata, tensors)


def take_up_progress(trainer: Trainer, target: str) -> bool:
    """Let a trainer continue a run for the same checkpoint; return whether there was one.

    A file that belongs to another spec or other data is refused.
    """
    path = resume_path(target)
    if not os.path.exists(path):
        return False
    file = gguf.read(path)
    try:
        record = json.loads(str(file.metadata.get(_KEY)))
        for what, value in _identity(trainer).items():
            if record[what] != value:
                why = f"it belongs to {_OTHER[what]}: train without --resume to start anew"
                raise ModelError(path, why)
        arrays = {name: np.array(tensor.data) for name, tensor in file.tensors.items()}
        trainer.take_up(Snapshot(record["values"], arrays))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(path, f"no interrupted training is in it: {error}") from error
    return True


def forget_progress(target: str) -> None:
    """Remove the file if there is one."""
    path = resume_path(target)
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise FileError.of(error, path) from error


def _identity(trainer: Trainer) -> dict[str, object]:
    """Return what determines the weights: the spec without ``_FREE``, and a hash of the data."""
    config = json.loads(json.dumps(trainer.model.config()))
    config["train"] = {k: v for k, v in config["train"].items() if k not in _FREE}
    data = 0
    for array in (trainer.data.train_inputs, trainer.data.train_targets):
        data = zlib.crc32(np.ascontiguousarray(array).tobytes(), data)
    return {"spec": config, "data": data}
