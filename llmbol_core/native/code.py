"""Machine code that is made once: kept on disk by its origin, loaded without a compiler."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from llmbol_core.native.cache import ObjectCache, key_of
from llmbol_core.native.image import load_object
from llmbol_core.native.library import Library, kept


def library(what: str, text: str, names: Iterable[str]) -> Library:
    """Return functions of a module in LLVM's assembly language; ``what`` names their purpose."""

    def compiled() -> bytes:
        from llmbol_core.native.llvm import compile_text

        return compile_text(text)

    return made((what, text), names, compiled)


def made(parts: tuple[str, ...], names: Iterable[str], make: Callable[[], bytes]) -> Library:
    """Return functions of an object file that depends on these parts alone; they stay."""
    key, cache = key_of(*parts), ObjectCache()
    data = cache.get(key)
    if data is None:
        data = make()
        cache.put(key, data)
    return kept(load_object(data, names))
