"""Layers with self-attention as stages of training in machine code.

Values of all samples are kept for the way back; gradients inside are there for one part at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.kernels import attention_training as attention
from llmbol_core.ml.kernels import elementwise, encoder_training, gradients, layouts, training
from llmbol_core.native.team import team
from llmbol_core.nn.flows import Flow, room
from llmbol_core.nn.layers.attention import Attention, MultiHeadAttention, TransformerEncoderLayer
from llmbol_core.nn.layers.dropout import draw_kept
from llmbol_core.nn.parted_stages import PartedStage
from llmbol_core.nn.stages import (
    NO_LIMIT,
    NOTHING,
    Stage,
    lanes,
    limit_gradient,
    padded,
)

Array = NDArray[Any]

ROWS = 512
"""Rows of sequences of one part, about: enough for packing weights to be worth it."""


class AttentionStage(PartedStage):
    """Self-attention with its two projections."""

    prefix = ""
    rate = 0.0
    causal = False

    def __init__(self, layer: Attention, parts: Sequence[tuple[Flow, Flow]]) -> None:
        self.layer, self.features = layer, layer.features
        self.steps = parts[0][0].shape[0]
        self.samples = sum(source.grid.rows for source, _ in parts) // self.steps
        self.most = max(source.grid.rows for source, _ in parts)
        self.needs = parts[0][0].gradient is not None
        self.row = self.rows = 0
        self.number = 0
        self._values: dict[str, Array] = {}
        self._passing: dict[str, Array] = {}
        self._biases: dict[str, Array] = {}
        self._panels: dict[str, Array] = {}
        self.masks: list[tuple[tuple[int, ...], float, Array]] = []
        if isinstance(layer, MultiHeadAttention):
            self.causal = layer.causal
        super().__init__(parts)
        self._prepare()

    def begin(self) -> None:
        """Draw the masks in the order in which the layer meets them."""
        for shape, rate, mask in self.masks:
            drawn = draw_kept(self.layer._stream, shape, rate, np.float32)
            mask[...] = drawn.reshape(-1)

    def _prepare(self) -> None:
        """Have biases laid out for products, and weights packed, before the first part."""
        stage, params = self.before, self.layer.params
        for name, bias in self._biases.items():
            stage.add(stage.forward, layouts.copy, 1, params[name], bias, params[name].size)
        for name, panels in self._panels.items():
            depth, columns = params[name].shape
            given = (params[name], columns, 1, depth, columns, panels)
            stage.add_panels(stage.forward, gradients.pack, columns, *given)

    def cover(self, stage: Stage, source: Flow, result: Flow, number: int) -> None:
        """Append both ways of a part."""
        self.number, self.rows = number, source.grid.rows
        self.forward_part(stage, source.value, result.value)
        assert result.gradient is not None
        self.backward_part(stage, source.value, source.gradient, result.gradient)
        if source.limited and self.needs:
            limit_gradient(stage, source)
        self.row += self.rows

    def forward_part(self, stage: Stage, x: Array, y: Array) -> None:
        """Append the way forward."""
        self.attended(stage, x, y)

    def backward_part(self, stage: Stage, x: Array, dx: Array | None, d: Array) -> None:
        """Append the way back."""
        self.attended_back(stage, x, d)
        if dx is not None:
            g = self.passing("qkv", 3 * self.features)
            self.product(stage, stage.backward, g, f"{self.prefix}in_proj_weight", dx)

    # ---- what there is room for ----

    def value(self, name: str, width: int) -> Array:
        """Return the part's rows of a value that is kept."""
        if name not in self._values:
            self._values[name] = room(self.samples * self.steps * width)
        return self._values[name][self.row * width :]

    def passing(self, name: str, width: int) -> Array:
        """Return room for a gradient of one part."""
        if name not in self._passing:
            self._passing[name] = room(self.most * width)
        return self._passing[name]

    def mask(self, number: int, shape: tuple[int, ...], rate: float) -> Array:
        """Return the part's share of the mask with a number."""
        size = math.prod(shape)
        if number == len(self.masks):
            self.masks.append(((self.samples, *shape), rate, room(self.samples * size)))
        return self.masks[number][2][self.row // self.steps * size :]

    # ---- linear maps ----

    def linear(self, stage: Stage, x: Array, name: str, y: Array, low: float = NO_LIMIT) -> None:
        """Append y = x W^T + b."""
        weight = self.layer.params[name]
        columns, depth = weight.shape
        scratch, share = stage.scratch_for(depth)
        bias = self._biases.setdefault(name.replace("weight", "bias"), padded(columns))
        stage.add_panels(
            stage.forward, gradients.ROWS_PRODUCT[False], columns,
            x, 0, 0, depth, 0, weight, 1, depth, y, 0, 0, columns, bias,
            1, 1, self.rows, 1, depth, columns, low, NOTHING, scratch, share,
        )  # fmt: skip

    def weights_back(self, stage: Stage, g: Array, name: str, x: Array) -> None:
        """Append the gradients of weight and bias."""
        grads = self.layer.grads
        columns, depth = grads[name].shape
        stage.add_outer(
            stage.backward, (g, 0, 0, columns), (x, 0, 0, depth, 0), (grads[name], depth),
            (1, 1, self.rows), (1, depth, columns), grads[name.replace("weight", "bias")],
            continued=self.number > 0,
        )  # fmt: skip

    def product(
        self, stage: Stage, where: list[Any], g: Array, name: str, to: Array,
        shown: Array | None = None,
    ) -> None:  # fmt: skip
        """Append g W, 0 where ``shown`` is not above 0."""
        weight = self.layer.params[name]
        depth, columns = weight.shape
        scratch, share = stage.scratch_for(depth)
        stage.add_panels(
            where, gradients.ROWS_PRODUCT[shown is not None], columns,
            g, 0, 0, depth, 0, weight, columns, 1, to, 0, 0, columns, padded(columns),
            1, 1, self.rows, 1, depth, columns, NO_LIMIT, NOTHING if shown is None else shown,
            scratch, share,
        )  # fmt: skip

    def product_added(self, stage: Stage, g: Array, name: str, to: Array) -> None:
        """Append the addition of g W."""
        depth, columns = self.layer.params[name].shape
        size = -(-columns // (2 * lanes())) * 2 * lanes() * depth
        panels = self._panels.setdefault(name, room(size))
        stage.add_panels(
            stage.backward, gradients.rows_product_added, columns,
            g, 0, 0, depth, 0, panels, 0, 0, to, 0, 0, columns, panels,
            1, 1, self.rows, 1, depth, columns, NO_LIMIT, NOTHING, panels, 0,
        )  # fmt: skip

    # ---- attention ----

    def _heads(self) -> tuple[int, tuple[Any, ...]]:
        """Return how many heads there are, and what both kernels want to know."""
        layer = self.layer
        width = self.features // layer.heads
        share = attention.room_for(lanes(), self.steps, width)
        scratch = self._passing.setdefault("scratch", room(share * team().threads))
        drops, scale = int(self.rate > 0), 1 / math.sqrt(width)
        sizes = (scratch, share, layer.heads, self.steps, width, drops, scale)
        return self.rows // self.steps * layer.heads, sizes

    def _kept(self) -> tuple[Array, Array, Array]:
        """Return projections, weights and the weights' mask."""
        heads = self.layer.heads
        square = (heads, self.steps, self.steps)
        mask = self.mask(0, square, self.rate) if self.rate else NOTHING
        return self.value("qkv", 3 * self.features), self.value("kept", heads * self.steps), mask

    def attended(self, stage: Stage, x: Array, y: Array) -> None:
        """Append attention and its projections."""
        qkv, kept, mask = self._kept()
        mixed = self.value("mixed", self.features)
        self.linear(stage, x, f"{self.prefix}in_proj_weight", qkv)
        items, sizes = self._heads()
        given = (qkv, kept, mask, mixed, *sizes, int(self.causal))
        stage.add(stage.forward, attention.attend, items, *given)
        self.linear(stage, mixed, f"{self.prefix}out_proj.weight", y)

    def attended_back(self, stage: Stage, x: Array, d: Array) -> None:
        """Append the way back to the gradient of the projections, and of all weights."""
        qkv, kept, mask = self._kept()
        mixed, g = self.value("mixed", self.features), self.passing("qkv", 3 * self.features)
        along = self.passing("mixed", self.features)
        self.weights_back(stage, d, f"{self.prefix}out_proj.weight", mixed)
        self.product(stage, stage.backward, d, f"{self.prefix}out_proj.weight", along)
        items, sizes = self._heads()
        stage.add(stage.backward, attention.attend_gradient, items, qkv, kept, mask, along, g,
                  *sizes)  # fmt: skip
        self.weights_back(stage, g, f"{self.prefix}in_proj_weight", x)


class EncoderStage(AttentionStage):
    """A layer of an encoder: attention and a feed-forward network, residual paths and norms."""

    prefix = "self_attn."
    layer: TransformerEncoderLayer

    def __init__(self, layer: TransformerEncoderLayer, parts: Sequence[tuple[Flow, Flow]]) -> None:
        self.rate = layer.dropout
        super().__init__(layer, parts)

    def forward_part(self, stage: Stage, x: Array, y: Array) -> None:
        """Append both blocks."""
        first, size = self.layer.norm_first, self.features
        inner, middle = self.value("inner", size), self.value("middle", size)
        around = self.value("around", size)
        if first:
            self._norm(stage, x, 1, inner)
            self.attended(stage, inner, around)
            self._joined(stage, x, around, 1, middle)
            self._norm(stage, middle, 2, self.value("fed", size))
            self._fed(stage, self.value("fed", size), around)
            self._joined(stage, middle, around, 3, y)
        else:
            self.attended(stage, x, around)
            self._joined(stage, x, around, 1, inner)
            self._norm(stage, inner, 1, middle)
            self._fed(stage, middle, around)
            self._joined(stage, middle, around, 3, inner)
            self._norm(stage, inner, 2, y)

    def backward_part(self, stage: Stage, x: Array, dx: Array | None, d: Array) -> None:
        """Append the way back through both blocks."""
        size = self.features
        along, middle = self.passing("along", size), self.value("middle", size)
        if dx is None:
            dx = self.passing("x", size)
        if self.layer.norm_first:
            given = self._dropped(stage, d, 3)
            g = self._fed_back(stage, given, self.value("fed", size))
            self.product(stage, stage.backward, g, "linear1.weight", along)
            between = self.passing("between", size)
            self._norm_back(stage, along, 2, between, d)
            self.attended_back(stage, self.value("inner", size), self._dropped(stage, between, 1))
            g = self.passing("qkv", 3 * size)
            self.product(stage, stage.backward, g, f"{self.prefix}in_proj_weight", along)
            self._norm_back(stage, along, 1, dx, between)
            return
        self._norm_back(stage, d, 2, along)
        g = self._fed_back(stage, self._dropped(stage, along, 3), middle)
        self.product_added(stage, g, "linear1.weight", along)
        self._norm_back(stage, along, 1, dx)
        self.attended_back(stage, x, self._dropped(stage, dx, 1))
        if self.needs:
            g = self.passing("qkv", 3 * size)
            self.product_added(stage, g, f"{self.prefix}in_proj_weight", dx)

    # ---- pieces of both ----

    def _multiply(self, stage: Stage, where: list[Any], x: Array, by: Array, to: Array,
                  width: int) -> None:  # fmt: skip
        """Append the product with a mask."""
        stage.add(where, training.masked, self.rows, x, by, to, width, width, width, width, 0)

    def _drawn(self, number: int, width: int) -> Array:
        """Return the part's share of a mask of values."""
        return self.mask(number, (self.steps, width), self.rate)

    def _joined(self, stage: Stage, x: Array, inner: Array, number: int, to: Array) -> None:
        """Append x plus what passed through a block and dropout."""
        size = self.features
        if self.rate:
            self._multiply(stage, stage.forward, inner, self._drawn(number, size), inner, size)
        add = elementwise.PAIR_KERNELS["add"]
        stage.add(stage.forward, add, self.rows, x, inner, to, size)

    def _dropped(self, stage: Stage, d: Array, number: int) -> Array:
        """Append the gradient before dropout."""
        if not self.rate:
            return d
        size, to = self.features, self.passing("dropped", self.features)
        self._multiply(stage, stage.backward, d, self._drawn(number, size), to, size)
        return to

    def _norm(self, stage: Stage, x: Array, number: int, y: Array) -> None:
        """Append a layer norm."""
        size, params = self.features, self.layer.params
        weights = (params[f"norm{number}.weight"], params[f"norm{number}.bias"])
        kept = (self.value(f"normal{number}", size), self.value(f"rate{number}", 1))
        given = (x, y, *kept, *weights, size, self.layer.eps)
        stage.add(stage.forward, encoder_training.layer_norm, self.rows, *given)

    def _norm_back(
        self, stage: Stage, d: Array, number: int, to: Array, base: Array | None = None
    ) -> None:
        """Append the gradients of a layer norm, a base added to that of its input."""
        size, grads = self.features, self.layer.grads
        normal, rate = self.value(f"normal{number}", size), self.value(f"rate{number}", 1)
        name, added = f"norm{number}", base is not None
        sums = (grads[f"{name}.weight"], grads[f"{name}.bias"])
        stage.backward.append(
            encoder_training.norm_weights_gradient.operation(
                -(-size // lanes()), d, normal, *sums, self.rows, size, int(self.number > 0),
                chunk=1,
            )
        )  # fmt: skip
        weight = self.layer.params[f"{name}.weight"]
        given = (d, normal, rate, weight, d if base is None else base, to, size, int(added))
        stage.add(stage.backward, encoder_training.layer_norm_gradient, self.rows, *given)

    def _fed(self, stage: Stage, x: Array, y: Array) -> None:
        """Append the feed-forward network."""
        wide, is_relu = self.layer.feedforward, self.layer.activation == "relu"
        bent = self.value("bent", wide)
        if is_relu:
            self.linear(stage, x, "linear1.weight", bent, low=0.0)
        else:
            plain = self.value("plain", wide)
            self.linear(stage, x, "linear1.weight", plain)
            gelu = elementwise.UNARY_KERNELS["gelu"]
            stage.add(stage.forward, gelu, self.rows, plain, bent, wide, 0.0, 0.0)
        if self.rate:
            self._multiply(stage, stage.forward, bent, self._drawn(2, wide), bent, wide)
        self.linear(stage, bent, "linear2.weight", y)

    def _fed_back(self, stage: Stage, d: Array, x: Array) -> Array:
        """Append the way back to the gradient before the activation, which is returned."""
        wide, is_relu = self.layer.feedforward, self.layer.activation == "relu"
        bent, g = self.value("bent", wide), self.passing("wide", wide)
        self.weights_back(stage, d, "linear2.weight", bent)
        shown = bent if is_relu else None
        self.product(stage, stage.backward, d, "linear2.weight", g, shown)
        if self.rate:
            self._multiply(stage, stage.backward, g, self._drawn(2, wide), g, wide)
        if not is_relu:
            gelu, plain = encoder_training.gelu_gradient, self.value("plain", wide)
            stage.add(stage.backward, gelu, self.rows, plain, g, g, wide)
        self.weights_back(stage, g, "linear1.weight", x)
        return g
