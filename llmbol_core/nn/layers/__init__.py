"""All layers but the containers: importing this package fills the registry, ``Module.table``."""

from __future__ import annotations

from llmbol_core.nn.layers import activation, convolution, dropout, linear, normalization, shape

__all__ = [
    "activation",
    "convolution",
    "dropout",
    "linear",
    "normalization",
    "shape",
]
