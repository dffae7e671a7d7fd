"""THE operation table: each with shape rule, definition, gradient, cost and an example.

``OPS["relu"](x)`` checks everything and runs; ``ops.relu(x)`` is the bare definition on arrays that
are known to fit. Values are float32; where a row says so a weight may be a tensor of blocks.
"""

from __future__ import annotations

from collections.abc import Callable

from llmbol_core.ml.ops import (
    convolution,
    elementwise,
    normalization,
    padding,
    pooling,
    positions,
    products,
    recurrent,
    reductions,
    resampling,
    shapes,
    transposed,
)
from llmbol_core.ml.ops.direct import Direct
from llmbol_core.ml.ops.table import OPS, Array, Attribute, Op

__all__ = ["OPS", "Attribute", "Op"]

_FAMILIES = (
    *(elementwise, products, positions, convolution, transposed, pooling, resampling),
    *(recurrent, normalization, reductions, shapes, padding),
)


def __getattr__(name: str) -> Callable[..., Array]:
    """Return the definition of an operation by its name."""
    if name not in OPS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    run = OPS[name].run
    if isinstance(run, Direct):
        if "function" not in vars(run):  # it is made when it is called
            return run
        run = run.function
    globals()[name] = run  # found at once from now on
    return run


def __dir__() -> list[str]:
    return sorted([*globals(), *OPS])
