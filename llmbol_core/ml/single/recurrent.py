"""Recurrent layers by themselves: weights are packed at each call."""

from __future__ import annotations

import math
from typing import Any

from llmbol_core.ml.kernels import gates as packing
from llmbol_core.ml.kernels import recurrent
from llmbol_core.ml.kernels.declaration import Kernel
from llmbol_core.ml.kernels.tiles import AHEAD
from llmbol_core.ml.plan.packing import aligned
from llmbol_core.ml.single.draft import Draft, Input, Shapes, Single

_APART = 2
"""The gate of a GRU whose second bias the reset gate acts on."""


def recur(kind: str, shapes: Shapes, attributes: dict[str, Any], lanes: int) -> Single | None:
    """Prepare a layer: project all inputs at once, then go through the steps."""
    x, weight_ih, weight_hh = shapes[:3]
    assert x is not None
    assert weight_ih is not None
    assert weight_hh is not None
    (batch, steps, inside), size = x, weight_hh[1]
    if not math.prod(x) or not size:
        return None
    gates = recurrent.GATES[kind]
    groups = -(-size // lanes)
    width = groups * gates * lanes
    draft = Draft(shapes, batch, 1, lanes)
    w_ih, w_hh = (aligned(width * depth + AHEAD) for depth in (inside, size))
    bias, extra = aligned(width), aligned(groups * lanes)
    for number, (packed, depth) in enumerate(((w_ih, inside), (w_hh, size)), 1):
        draft.pack(packing.pack, groups * gates, Input(number), packed, size, depth, gates)
    first, second = (Input(n) if len(shapes) > n and shapes[n] is not None else 0 for n in (3, 4))
    alone = _APART if kind == "gru" else -1
    draft.pack(packing.add_biases, groups * gates, first, second, bias, extra, size, gates, alone)
    px, out = draft.room(steps * width), draft.room(steps * size)
    states, carry = draft.room(2 * groups * lanes), draft.room(groups * lanes)
    draft.call(
        recurrent.PROJECTS[kind],
        *(draft.inputs[0], w_ih, bias, px, inside, groups),
        items=steps,
        flops=steps * math.prod(weight_ih),
    )
    draft.emitter.lasting(48)
    draft.emitter.reads(4 * math.prod(weight_hh), 1)
    arguments = (px, w_hh, extra, out, states, carry, steps, size, int(attributes["reverse"]))

    def inside_batch(batch: int) -> list[tuple[Kernel, tuple[Any, ...], int]]:
        """Return the steps one by one, whose units the threads share."""
        clear = (recurrent.CLEARS[kind], arguments, batch)
        kernel = recurrent.STEPS[kind]
        return [clear, *((kernel, (*arguments, t, batch), groups) for t in range(steps))]

    flops = steps * math.prod(weight_hh)
    draft.call(recurrent.LAYERS[kind], *arguments, inside=inside_batch, flops=flops)
    draft.kept(w_ih, w_hh, bias, extra)
    return draft.finish(out, (batch, steps, size))
