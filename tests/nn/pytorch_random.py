"""What PyTorch draws for a seed: initial values of layers and orders of samples, bit for bit.

PyTorch's generator on a CPU is the Mersenne Twister of ``numpy.random.MT19937`` as it was seeded
once; a uniform number is made of 24 bits, an order by Fisher and Yates' exchanges from the front.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.nn.layers.attention import TransformerEncoderLayer
from llmbol_core.nn.layers.convolution import Conv1d, Conv2d
from llmbol_core.nn.layers.linear import Linear
from llmbol_core.nn.layers.recurrent import LSTM
from llmbol_core.nn.module import Module
from llmbol_core.nn.randomness import ORDER_LANE, Stream

Array = NDArray[Any]


class PyTorchRandom(Stream):
    """A generator after ``manual_seed``, in the place of the stream that orders samples."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, ORDER_LANE)
        self._words = np.random.MT19937()
        self._words._legacy_seeding(seed)

    def fill(self, out: Array, bound: float) -> None:
        """Fill an array as ``uniform_(-bound, bound)`` does."""
        unit = (self._words.random_raw(out.size) & 0xFFFFFF).astype(np.float64) * 2.0**-24
        out[...] = (unit * (bound + bound) - bound).reshape(out.shape)

    def permutation(self, count: int) -> Array:
        """Return ``randperm(count)``."""
        order = np.arange(count)
        steps = self._words.random_raw(count - 1) % np.arange(count, 1, -1, dtype=np.uint64)
        for at, step in enumerate(steps.tolist()):
            order[at], order[at + step] = order[at + step], order[at]
        return order

    def start(self, network: Module) -> None:
        """Give layers the values that PyTorch's would start with, made in the same order."""
        for module in network.list_modules():
            w = module.params
            if isinstance(module, Linear | Conv1d | Conv2d):
                self._affine(w["weight"], w["bias"])
            elif isinstance(module, LSTM):
                for value in w.values():
                    self.fill(value, 1 / math.sqrt(module.hidden_size))
            elif isinstance(module, TransformerEncoderLayer):
                self._encoder(w)

    def _affine(self, weight: Array, bias: Array) -> None:
        """Fill weight and bias as ``kaiming_uniform_`` and ``uniform_`` do."""
        fan_in = weight[0].size
        self.fill(weight, math.sqrt(3.0) * (math.sqrt(2.0 / 6) / math.sqrt(fan_in)))
        self.fill(bias, 1 / math.sqrt(fan_in))

    def _encoder(self, w: dict[str, Array]) -> None:
        """Fill an encoder layer; the last bias of its attention is drawn, then set to zero."""
        attention = "self_attn."
        self._affine(w[f"{attention}out_proj.weight"], w[f"{attention}out_proj.bias"])
        w[f"{attention}out_proj.bias"][...] = 0
        outs, ins = w[f"{attention}in_proj_weight"].shape
        self.fill(w[f"{attention}in_proj_weight"], math.sqrt(3.0) * math.sqrt(2 / (ins + outs)))
        for name in ("linear1", "linear2"):
            self._affine(w[f"{name}.weight"], w[f"{name}.bias"])
