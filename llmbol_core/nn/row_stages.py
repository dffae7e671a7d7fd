"""The stage of training that goes over rows of numbers: layer norm."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from llmbol_core.ml.kernels import encoder_training
from llmbol_core.nn.flows import Flow, room
from llmbol_core.nn.layers.normalization import LayerNorm
from llmbol_core.nn.stages import Stage, lanes, limit_gradient

Array = NDArray[Any]


class LayerNormStage(Stage):
    """Layer norm of rows."""

    def __init__(self, layer: LayerNorm, source: Flow, result: Flow) -> None:
        super().__init__()
        rows, size = source.grid.rows, source.grid.channels
        weights, grads = layer.params, layer.grads
        normal, rate = room(source.grid.size), room(rows)
        given = (source.value, result.value, normal, rate, weights["weight"], weights["bias"])
        self.add(self.forward, encoder_training.layer_norm, rows, *given, size, layer.eps)
        d = result.gradient
        sums = (grads["weight"], grads["bias"], rows, size, 0)
        items = -(-size // lanes())
        self.backward.append(
            encoder_training.norm_weights_gradient.operation(items, d, normal, *sums, chunk=1)
        )
        if source.gradient is not None:
            back = (d, normal, rate, weights["weight"], d, source.gradient, size, 0)
            self.add(self.backward, encoder_training.layer_norm_gradient, rows, *back)
            if source.limited:
                limit_gradient(self, source)
