"""THE table of rules: how operations become calls of kernels.

A rule takes the emitter and a step. It puts the result of the step, and may fuse the steps after
it, whose results it then puts as well. It raises Unsupported for what it cannot do, before it emits
anything.
"""

from __future__ import annotations

from collections.abc import Callable

from llmbol_core.ml.graph import Step
from llmbol_core.ml.plan.emitter import Emitter

Rule = Callable[[Emitter, Step], None]

RULES: dict[str, Rule] = {}
"""By the operation's name."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Make the decorated function the rule of these operations."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register
