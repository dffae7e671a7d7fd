"""Objects that one thread at a time may use: another one is refused before it can do harm."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from threading import RLock
from typing import Any, TypeVar

from llmbol_core.errors import UsageError

_Kind = TypeVar("_Kind", bound=type)
_DOOR = "_door"


def by_one_thread(*names: str, **others: str) -> Callable[[_Kind], _Kind]:
    """Have methods of a class raise UsageError while another thread is in one of them.

    ``others`` names methods that call another one then instead.
    """

    def guard(kind: _Kind) -> _Kind:
        for name in (*names, *others):
            setattr(kind, name, _guarded(getattr(kind, name), others.get(name)))
        return kind

    return guard


def _guarded(method: Callable[..., Any], other: str | None) -> Callable[..., Any]:
    @wraps(method)
    def guarded(self: Any, *arguments: Any, **options: Any) -> Any:
        door = self.__dict__.setdefault(_DOOR, RLock())
        if not door.acquire(blocking=False):
            if other is not None:
                return getattr(self, other)(*arguments, **options)
            what = type(self).__name__
            raise UsageError(f"another thread is using this {what}: each needs one of its own")
        try:
            return method(self, *arguments, **options)
        finally:
            door.release()

    return guarded
