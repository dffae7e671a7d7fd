"""Python's own parser, for one thread at a time.

It counts how deep it is for all threads together, and gives up when another one changes that
meanwhile.
"""

from __future__ import annotations

import ast
import threading

_LOCK = threading.Lock()


def parse_module(text: str) -> ast.Module:
    """Return the tree of a module's text."""
    with _LOCK:
        return ast.parse(text)


def parse_expression(text: str) -> ast.Expression:
    """Return the tree of an expression's text."""
    with _LOCK:
        return ast.parse(text, mode="eval")
