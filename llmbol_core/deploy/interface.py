"""What a compiled model offers to other modules, in Limbo's notation."""

from __future__ import annotations

from llmbol_core.vm.layout import Function
from llmbol_core.vm.limbo import parse_declarations

_TYPES = "Tensor: adt { rank: int; size: int; };"


def _function(text: str) -> Function:
    found = parse_declarations(f"{_TYPES} f: {text};")["f"]
    assert isinstance(found, Function)
    return found


FORWARD = _function("fn(x: ref Tensor): ref Tensor")
LABELS = _function("fn(): list of string")
SHAPE = _function("fn(): list of int")
INFO = _function("fn(): string")
