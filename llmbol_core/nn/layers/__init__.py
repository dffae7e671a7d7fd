"""All layers but the containers: importing this package fills the registry, ``Module.table``."""

from __future__ import annotations

from llmbol_core.nn.layers import (
    activation,
    attention,
    convolution,
    dropout,
    embedding,
    graph,
    linear,
    normalization,
    pooling,
    recurrent,
    reduction,
    shape,
)

__all__ = [
    "activation",
    "attention",
    "convolution",
    "dropout",
    "embedding",
    "graph",
    "linear",
    "normalization",
    "pooling",
    "recurrent",
    "reduction",
    "shape",
]
