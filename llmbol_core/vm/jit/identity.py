"""A digest of what machine code depends on besides the program: this package's own text.

It is part of the key of code on disk, which is so found without making its text in LLVM's language.
"""

from __future__ import annotations

import os

from llmbol_core.native.identity import text_of

READ = (
    "arena", "channels", "checks", "conversion", "environment", "handlers_channel", "heaptypes",
    "host", "ieee", "isa", "meaning", "module", "objects", "pauses", "process", "remains",
    "shortage", "steps", "traps", "files/openfile", "verification/guards", "verification/origins",
    "verification/tables",
)  # fmt: skip
"""Modules of the virtual machine whose tables and constants machine code contains."""


def digest() -> str:
    """Return the digest of the modules that emit machine code, and of those that they read."""
    others = tuple(os.path.join("..", f"{name}.py") for name in READ)
    return text_of(os.path.dirname(__file__), others)
