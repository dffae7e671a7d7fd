"""THE table of rules: how operations become calls of kernels.

A rule takes the emitter and a step. It puts the result of the step, and may take the steps behind
it along, whose results it puts as well. What it does not know is Unsupported, before it has emitted
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
