"""What a node keeps between tasks."""

from __future__ import annotations

import pytest

from llmbol_core.distributed.parcels import ModelCache
from llmbol_core.errors import GgufFormatError
from llmbol_core.nn.builder import build_model
from llmbol_core.nn.checkpoint import save


@pytest.fixture
def paths(tmp_path):
    found = [tmp_path / name for name in "abc"]
    for path in found:
        save(build_model("model", [4]).linear(4, 2).build(), path)
    return found


def test_the_models_used_last_are_kept_as_long_as_there_is_room(paths):
    a, b, c = paths
    cache = ModelCache(2 * a.stat().st_size)
    first, second = cache.load(a, "x.gguf"), cache.load(b, "x.gguf")
    assert cache.load(a, "x.gguf") is first
    assert cache.hashes == ("b", "a")
    cache.load(c, "x.gguf")
    assert cache.hashes == ("a", "c")
    assert cache.load(a, "x.gguf") is first
    assert cache.load(b, "x.gguf") is not second


def test_a_model_for_which_there_is_no_room_is_kept_alone(paths):
    cache = ModelCache(1)
    for path in paths:
        assert cache.load(path, "x.gguf") is cache.load(path, "x.gguf")
        assert cache.hashes == (path.name,)


def test_complaints_use_the_name_that_the_owner_gave(tmp_path):
    (tmp_path / "hash").write_bytes(b"no model")
    with pytest.raises(GgufFormatError, match=r"mine\.gguf: at byte 0: not a GGUF file"):
        ModelCache().load(tmp_path / "hash", "mine.gguf")
