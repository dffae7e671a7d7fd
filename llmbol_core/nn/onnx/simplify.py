"""Fewer steps that do the same: what exporters take apart is put together again.

    permute(permute(x))          -> one permute or none       squeeze(unsqueeze(x)) -> x
    x (1 + erf(x / sqrt 2)) / 2  -> gelu(x)                   linear(x) + b -> linear(x, b)
    softmax(q k^T f + m) v       -> attention(q, k, v, m)

Steps and weights that nothing needs go.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from llmbol_core.ml.ops import OPS
from llmbol_core.nn.onnx.operands import Shape
from llmbol_core.nn.onnx.tracing import TracedStep, Tracer

_NEAR = 1e-5
_MOVING = ("permute", "reshape", "squeeze", "unsqueeze", "flatten")
_LONGEST, _MOST_MOVED = 8, 1 << 24


class Simplifier:
    """Rewrites the steps of a tracer in place, for one output."""

    def __init__(self, tracer: Tracer, output: str) -> None:
        self.tracer, self.output = tracer, output
        self.rules: tuple[Callable[[TracedStep], TracedStep | str | None], ...] = (
            self._permuted_back,
            self._moved_back,
            self._biased,
            self._gelu,
            self._attention,
        )

    def run(self) -> str:
        """Apply the rules until none fits; return the name of the output."""
        while self._pass():
            pass
        self._drop_unused()
        return self.output

    def _pass(self) -> bool:
        """Apply rules to every step once; tell whether one did."""
        self._by_output = {step.output: step for step in self.tracer.steps}
        self._uses = Counter(name for step in self.tracer.steps for name in step.inputs)
        self._uses[self.output] += 1
        renamed: dict[str, str] = {}
        steps, changed = [], False
        for step in self.tracer.steps:
            inputs = tuple(renamed.get(name, name) for name in step.inputs)
            step = replace(step, inputs=inputs)
            self._by_output[step.output] = step
            found = next((r for rule in self.rules if (r := rule(step)) is not None), None)
            if isinstance(found, str):
                renamed[step.output] = found
                changed = True
                continue
            if found is not None:
                step, changed = found, True
                self._by_output[step.output] = step
            steps.append(step)
        self.output = renamed.get(self.output, self.output)
        self.tracer.steps = steps
        self._drop_unused()
        return changed

    def _drop_unused(self) -> None:
        needed, kept = {self.output}, []
        for step in reversed(self.tracer.steps):
            if step.output in needed:
                needed.update(step.inputs)
                kept.append(step)
        self.tracer.steps = kept[::-1]
        weights = self.tracer.weights
        self.tracer.weights = {name: w for name, w in weights.items() if name in needed}

    # What rules ask.

    def _made(self, name: str, *ops: str, single: bool = True) -> TracedStep | None:
        """Return the step that makes a value, if it is one of some operations and used once."""
        step = self._by_output.get(name)
        is_it = step is not None and step.op in ops and (not single or self._uses[name] == 1)
        return step if is_it else None

    def _shape(self, name: str) -> Shape:
        weights = self.tracer.weights
        return weights[name].array.shape if name in weights else self.tracer.values[name].shape

    # Rules: from a step to a better one, to the value that it equals, or to nothing.

    def _permuted_back(self, step: TracedStep) -> TracedStep | str | None:
        if step.op != "permute":
            return None
        axes, source = step.attributes["axes"], step.inputs[0]
        if axes == tuple(range(len(axes))):
            return source
        before = self._made(source, "permute", single=False)
        if before is None:
            return None
        joined = tuple(before.attributes["axes"][axis] for axis in axes)
        return replace(step, inputs=before.inputs, attributes={"axes": joined})

    def _moved_back(self, step: TracedStep) -> str | None:
        """Return the value that steps which only move values give back unchanged."""
        shape, chain = self._shape(step.output), [step]
        while chain[-1].op in _MOVING and len(chain) <= _LONGEST:
            source = chain[-1].inputs[0]
            if source in self.tracer.weights:
                return None
            if self._shape(source) == shape and math.prod(shape) < _MOST_MOVED:
                places = np.arange(math.prod(shape)).reshape(shape)
                moved = places
                for link in reversed(chain):
                    moved = OPS[link.op].run(moved, **link.attributes)
                if np.array_equal(moved, places):
                    return source
            if (before := self._by_output.get(source)) is None:
                return None
            chain.append(before)
        return None

    def _biased(self, step: TracedStep) -> TracedStep | None:
        """Give a sum with a trained vector to the ``linear`` before it."""
        if step.op != "add":
            return None
        for product, bias in (step.inputs, step.inputs[::-1]):
            linear = self._made(product, "linear")
            if linear is None or len(linear.inputs) != 2 or bias not in self.tracer.weights:
                continue
            if self._shape(bias) == self._shape(linear.inputs[1])[:1]:
                return TracedStep("linear", (*linear.inputs, bias), {}, step.output)
        return None

    def _gelu(self, step: TracedStep) -> TracedStep | None:
        factor, leaves = self._product(step, 1.0)
        if len(leaves) != 2 or abs(factor - 0.5) > _NEAR:
            return None
        for x, rest in (leaves, leaves[::-1]):
            shifted = self._made(rest, "scale")
            if shifted is None or (self._numbers(shifted)) != (1.0, 1.0):
                continue
            erf = self._made(shifted.inputs[0], "erf")
            inner = self._made(erf.inputs[0], "scale") if erf else None
            if inner and inner.inputs == (x,):
                slope, offset = self._numbers(inner)
                if offset == 0 and abs(slope - math.sqrt(0.5)) < _NEAR:
                    return TracedStep("gelu", (x,), {}, step.output)
        return None

    @staticmethod
    def _numbers(step: TracedStep) -> tuple[float, float]:
        return step.attributes["factor"], step.attributes["offset"]

    def _product(self, step: TracedStep, factor: float) -> tuple[float, list[str]]:
        """Return a product of values as a number and the values."""
        if step.op == "scale" and step.attributes["offset"] == 0:
            factor *= step.attributes["factor"]
        elif step.op != "mul":
            return factor, []
        leaves: list[str] = []
        for name in step.inputs:
            inner = self._made(name, "mul", "scale")
            found: list[str] = []
            if inner is not None and len(leaves) < 3:
                factor, found = self._product(inner, factor)
            leaves += found or [name]
        return factor, leaves

    def _attention(self, step: TracedStep) -> TracedStep | None:
        if step.op != "matmul" or len(self._shape(step.inputs[0])) < 3:
            return None
        softmax = self._made(step.inputs[0], "softmax")
        rank = len(self._shape(step.inputs[0]))
        if softmax is None or softmax.attributes["axis"] not in (-1, rank - 1):
            return None
        scores, mask, factor = softmax.inputs[0], None, 1.0
        if (added := self._made(scores, "add")) is not None:
            scores, mask = self._split_mask(added)
        if (scaled := self._made(scores, "scale")) is not None:
            factor, offset = self._numbers(scaled)
            if offset:
                return None
            scores = scaled.inputs[0]
        product = self._made(scores, "matmul")
        keys = self._made(product.inputs[1], "permute") if product else None
        if product is None or keys is None or factor == 0:
            return None
        swapped = (*range(rank - 2), rank - 1, rank - 2)
        parts = (product.inputs[0], keys.inputs[0], step.inputs[1])
        if keys.attributes["axes"] != swapped or not self._are_alike(*parts):
            return None
        masks = () if mask is None else (mask,)
        attributes = {"scale": factor, "causal": False}
        return TracedStep("attention", (*parts, *masks), attributes, step.output)

    def _split_mask(self, added: TracedStep) -> tuple[str, str | None]:
        """Return the scores and the mask of a sum: the scores come from a product."""
        for scores, mask in (added.inputs, added.inputs[::-1]):
            if self._made(scores, "scale", "matmul") and not self._made(mask, "matmul"):
                return scores, mask
        return added.output, None

    def _are_alike(self, query: str, key: str, value: str) -> bool:
        """Tell whether all have the same heads, so that nothing broadcasts."""
        shapes = [self._shape(name) for name in (query, key, value)]
        return len({shape[:-2] for shape in shapes}) == 1


def used_weights(steps: list[TracedStep], tracer: Tracer) -> list[str]:
    """Return the names of the weights that steps use, in order of use."""
    names = (name for step in steps for name in step.inputs if name in tracer.weights)
    return list(dict.fromkeys(names))
