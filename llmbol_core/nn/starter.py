"""The spec that ``nn init`` writes: a small network with every section and a word on each."""

from __future__ import annotations

import json
import os
import re

from llmbol_core.errors import FileError, SpecError, UsageError
from llmbol_core.native.files import atomic_write
from llmbol_core.nn.spec import parse_spec

_TEXT = """\
# {name}: what a model is made of. 'nn check' holds this file against itself and its data,
# 'nn train' trains it; 'nn layers' lists the layers, 'nn layers Linear' explains one.
name: {name}

input:
  shape: [64]              # of one sample, such as [3, 32, 32] for images
  scale: 1.0               # a factor for all values, such as 0.00392 for bytes
  # normalize: {{mean: [0.5], std: [0.25]}}    # one for all values, or one for each channel

variables:                 # $width below stands for the number
  width: 128

blocks:                    # a block's name stands for its layers
  hidden:
    - Linear: {{in_features: $width, out_features: $width}}
    - ReLU
    - Dropout: {{p: 0.2}}

layers:
  - Linear: {{in_features: 64, out_features: $width}}
  - ReLU
  - repeat: {{times: 2, layers: [hidden]}}
  - Linear: {{in_features: $width, out_features: 10}}

# labels: [zero, one, two, three, four, five, six, seven, eight, nine]
# output: {{top_k: 3}}     # 'nn infer' shows the labels of the 3 highest values

train:
  data: {data}   # .npy, .npz or .csv, relative to this file
  inputs: inputs           # the array, or for a table all columns but the targets
  targets: targets         # class numbers from 0, or values for losses such as MSE
  split: {{test: 0.2, validation: 0.1, seed: 0}}
  loss: CrossEntropy
  optimizer: {{Adam: {{lr: 1e-3}}}}
  schedule: {{WarmUp: {{epochs: 2, then: Cosine}}}}
  early_stopping: {{patience: 5}}
  clip_norm: 1.0
  epochs: 30
  batch_size: 64
  seed: 0
"""


def write_starter(name: str, path: str | None = None) -> str:
    """Write a commented spec for a model of this name; return the path.

    Without a path the name may be that of the file, with its folder and ending. A file that exists
    is left alone.
    """
    target = path
    if target is None:
        folder, file_name = os.path.split(name)
        name = re.sub(r"\.ya?ml$", "", file_name)
        target = os.path.join(folder, file_name if file_name != name else f"{name}.yaml")
    if not name:
        raise UsageError("a model needs a name, such as my-model")
    text = _TEXT.format(name=_written(name), data=_written(f"{name}.npz"))
    try:
        parse_spec(text, target)
    except SpecError as error:
        why = error.why.removeprefix("name: ")
        raise UsageError(f"{name!r} is no name for a model: {why}") from error
    if os.path.exists(target):
        raise FileError(target, "exists already")
    with atomic_write(target) as file:
        file.write(text.encode())
    return target


def _written(text: str) -> str:
    """Return a text as YAML has it: in quotes if there is anything that could mean something."""
    is_plain = re.fullmatch(r"\w[\w ./+-]*", text)
    return text if is_plain else json.dumps(text, ensure_ascii=False)
