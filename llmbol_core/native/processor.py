"""The processor that code is compiled for here: asked of the compiler once on a machine."""

from __future__ import annotations

import functools

from llmbol_core.native.cache import ObjectCache, key_of
from llmbol_core.native.cpu import Processor, detected


@functools.cache
def host_processor() -> Processor:
    """Return this machine's processor. Raises ImportError if there is no compiler."""
    key, cache = key_of("processor"), ObjectCache()
    data = cache.get(key)
    if data is None:
        data = "\n".join(detected()).encode()
        cache.put(key, data)
    return Processor(*data.decode().split("\n"))
