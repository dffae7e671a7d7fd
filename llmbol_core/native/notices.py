"""Work that takes a while, but only once: told to whoever wants to show it."""

from __future__ import annotations

from collections.abc import Callable

Listener = Callable[[str], None]


def listen(listener: Listener) -> None:
    """Let a function be told of such work when it begins."""
    global _listener
    _listener = listener


def tell(what: str) -> None:
    """Tell that work begins."""
    _listener(what)


def _ignore(what: str) -> None:
    """Tell nobody."""


_listener: Listener = _ignore
