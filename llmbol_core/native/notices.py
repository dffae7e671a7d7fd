"""Notices of work that takes a while, but only once, for whoever wants to show them."""

from __future__ import annotations

from collections.abc import Callable

Listener = Callable[[str], None]


def listen(listener: Listener) -> None:
    """Have a function called when such work begins."""
    global _listener
    _listener = listener


def tell(what: str) -> None:
    """Give notice that work begins."""
    _listener(what)


def _ignore(what: str) -> None:
    """Ignore a notice."""


_listener: Listener = _ignore
