"""Verifying modules once: the proofs of all but the smallest are kept on disk.

A proof is a file in the cache of machine code, as private as those. Its key is made from the
object's bytes and from the state of the verifier's files; its content says what is to be compared
when the module is linked, and while it runs.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress

from llmbol_core.vm.module import Module
from llmbol_core.vm.verification.proofs import Proof

_WORTH_KEEPING = 40
"""Instructions from which on proving takes longer than reading the proof."""
_PROVEN = "proven"


def prove(module: Module, content: memoryview | None) -> Proof:
    """Verify a module, given the bytes of its object file if there are any; raises VerifyError."""
    if content is None or len(module.instructions) < _WORTH_KEEPING:
        return _proof(module)
    from llmbol_core.native.cache import ObjectCache, key_of
    from llmbol_core.native.identity import state_of

    here = os.path.dirname(__file__)
    states = (state_of(here), state_of(os.path.join(here, "verification")))
    key, cache = key_of(_PROVEN, *states, hashlib.sha256(content).hexdigest()), ObjectCache()
    kept = cache.get(key)
    if kept is not None:
        with suppress(ValueError, TypeError):
            return Proof.from_bytes(bytes(kept))
    proof = _proof(module)
    cache.put(key, proof.to_bytes())
    return proof


def _proof(module: Module) -> Proof:
    from llmbol_core.vm.verifier import prove_module

    return prove_module(module)
