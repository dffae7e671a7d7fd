"""What machine code is made from besides the program: this package's own text, as a digest.

Code on disk is found again by it, without making the text in LLVM's language that it came from.
"""

from __future__ import annotations

import functools
import hashlib
import os

_READ = ("arena", "channels", "heaptypes", "isa", "objects", "process")
"""Modules of the virtual machine whose tables and constants machine code contains."""


@functools.cache
def digest() -> str:
    """Return the digest of the modules that emit machine code, and of those that they read."""
    here = os.path.dirname(__file__)
    own = sorted(name for name in os.listdir(here) if name.endswith(".py"))
    found = hashlib.sha256()
    for path in (*own, *(os.path.join("..", f"{name}.py") for name in _READ)):
        with open(os.path.join(here, path), "rb") as file:
            found.update(file.read())
    return found.hexdigest()
