"""Verifying modules once: of large ones it is kept on disk that they are proven.

What is kept is a file in the cache of machine code, private like that, whose key is made from the
object's bytes and from the text of this package. It says nothing but that those bytes passed.
"""

from __future__ import annotations

import hashlib
import os

from llmbol_core.vm.module import Module

_WORTH_KEEPING = 250
"""Instructions from which on a proof takes longer than finding it."""
_PROVEN = b"proven"


def prove(module: Module, content: memoryview | None) -> None:
    """Verify a module whose object file is these bytes, if known; raises VerifyError."""
    if content is None or len(module.instructions) < _WORTH_KEEPING:
        _verify(module)
        return
    from llmbol_core.native.cache import ObjectCache, key_of
    from llmbol_core.native.identity import text_of

    text = text_of(os.path.dirname(__file__))
    key, cache = key_of(_PROVEN.decode(), text, hashlib.sha256(content).hexdigest()), ObjectCache()
    if cache.get(key) != _PROVEN:
        _verify(module)
        cache.put(key, _PROVEN)


def _verify(module: Module) -> None:
    from llmbol_core.vm.verifier import verify_module

    verify_module(module)
