"""Files that native code reads and writes, as the functions of the host do."""

from __future__ import annotations

import contextlib
import random
from types import SimpleNamespace
from typing import Any

import pytest

from llmbol_core.vm.environment import Environment
from llmbol_core.vm.files.namespace import Namespace
from llmbol_core.vm.files.openfile import ORDWR, OREAD, OTRUNC, OWRITE
from llmbol_core.vm.heaptypes import BYTE
from llmbol_core.vm.host import HostCall
from llmbol_core.vm.layout import INT, STRING
from llmbol_core.vm.module import TypeDescriptor
from tests.builtins.calling import Borrowed, Caller
from tests.vm.jit.test_host import Declined, NativeCaller

MODES = [OREAD, OWRITE, ORDWR, ORDWR | OTRUNC]
OFFSETS = [0, 1, 5, 70, -1, -40, 1 << 16, (1 << 63) - 1, -(1 << 63)]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, code_cache):
    monkeypatch.setenv("LLMBOL_CACHE", code_cache)


def environment(root):
    root.mkdir()
    (root / "old").write_bytes(bytes(range(100)))
    return Environment.first(Namespace(root, writable=True))


class Files(NativeCaller):
    """Calls that machine code does if it can, and Python if not."""

    def __init__(self, root):
        super().__init__("$Sys")
        self.native.environment = self.process.environment = environment(root)
        self.native.notice()
        self.done = 0

    def run(self, function, base):
        with contextlib.suppress(Declined):
            self.done += bool(function.native)
            return super().run(function, base) if function.native else self._left(function, base)
        self.done -= 1
        return self._left(function, base)

    def _left(self, function, base):
        machine: Any = SimpleNamespace(scheduler=SimpleNamespace(has_ready=False))
        result = function.run(HostCall(machine, self.process, self.heap, base, None))
        self.native.notice()
        return result


def outcome(call, name, number, *values, rest=()):
    """Return what a call returns, what it leaves in its array, and the error string."""
    ref = call.heap.new_record(TypeDescriptor(-1, 4))
    call.heap.set_word(ref, number)
    given = [call.array(BYTE, v) if isinstance(v, bytes) else v for v in values]
    call.process.environment.error = ""
    found = call(name, Borrowed(ref), *given, rest=rest)
    arrays = [call.items(g, "B") for g, v in zip(given, values, strict=True) if g is not v]
    return found, arrays, call.error


def where(call):
    group = call.process.environment.descriptors
    return [group[number].offset for number in group.numbers]


def some_call(chance):
    """Return a call on the file under a descriptor."""
    number = chance.choice([3, 3, 4, 5, 5, 6, 7, 9, -1])
    buffer = chance.randbytes(chance.choice([1, 8, 60, 300]))
    count = chance.choice([0, 1, 8, 50, 300, 1000, -1])
    offset = chance.choice([*OFFSETS, chance.randrange(200)])
    name = chance.choice(["read", "read", "write", "write", "pread", "pwrite", "seek", "fprint"])
    if name == "seek":
        return name, (number, offset, chance.choice([0, 0, 1, 1, 2, 3])), ()
    if name == "fprint":
        rest = [(INT, chance.randrange(1000)), (STRING, "\u1234\xe4b")]
        return name, (number, "%d: %s"), rest
    return name, (number, buffer, count, *([offset] if name[0] == "p" else [])), ()


@pytest.mark.parametrize("seed", range(3))
def test_files_are_read_and_written_alike(tmp_path, seed):
    chance = random.Random(seed)
    reference = Caller("$Sys", environment(tmp_path / "a"))
    native = Files(tmp_path / "b")
    for call in (reference, native):
        group = call.process.environment.descriptors
        for name, mode in [("old", OREAD), ("old", ORDWR), ("new", ORDWR), ("log", OWRITE)]:
            names = call.process.environment.namespace
            made = names.open("old", mode) if name == "old" else names.create(name, mode, 0o644)
            group.add(made)
        group.add(call.process.environment.namespace.open("/dev/null", ORDWR))
    for _ in range(600):
        name, values, rest = some_call(chance)
        found = [outcome(call, name, *values, rest=rest) for call in (reference, native)]
        assert found[0] == found[1], (name, values)
        places = [where(call) for call in (reference, native)]
        assert places[0] == places[1], (name, values)
    for name in ("old", "new", "log"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert native.done > 200
