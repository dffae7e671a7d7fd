"""What is kept on disk of programs, damaged or replaced: refused, and made again without a word."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.native.cache import ObjectCache
from llmbol_core.vm import proven, verifier
from llmbol_core.vm.engines import compiled_by, engine
from llmbol_core.vm.jit.startup import STARTUP, WORTH_COMPILING
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.module import Module
from llmbol_core.vm.objectwriter import write_module
from llmbol_core.vm.verification.proofs import Proof
from tests.vm.programs import assemble

LONG = "".join(f" addw $1,{64 + 4 * (n % 4)}(fp)\n" for n in range(proven._WORTH_KEEPING))
LOOP = f" movw $0,96(fp)\n again: {LONG} addw $1,96(fp)\n bltw 96(fp),$50,again\n"
PROGRAM = f"{LOOP} addw 64(fp),68(fp),0(16(fp))\n ret"
RESULT = 50 * 20
EMPTY = " movw $0,64(fp)\n movw $0,68(fp)\n movw $0,72(fp)\n movw $0,76(fp)\n"


def flipped(place: Callable[[int], int]) -> Callable[[Path, Path], object]:
    """Return what changes a bit of the byte at a place, which depends on the size."""

    def damage(file: Path, other: Path) -> None:
        content = bytearray(file.read_bytes())
        content[place(len(content))] ^= 4
        file.write_bytes(content)

    return damage


def cut(size: Callable[[int], int]) -> Callable[[Path, Path], object]:
    """Return what leaves the first bytes of a file."""
    return lambda file, other: os.truncate(file, size(file.stat().st_size))


def linked(file: Path, other: Path) -> None:
    """Put a link to a good file in the place of one."""
    file.rename(file.with_suffix(".moved"))
    file.symlink_to(file.with_suffix(".moved"))


def removed(file: Path) -> Path:
    """Remove a file, and return its path."""
    file.unlink()
    return file


DAMAGES: dict[str, Callable[[Path, Path], object]] = {
    "a bit of its beginning": flipped(lambda size: 0),
    "a bit of its hash": flipped(lambda size: 20),
    "its first bit": flipped(lambda size: 40),
    "a bit in the middle": flipped(lambda size: 40 + (size - 40) // 2),
    "its last bit": flipped(lambda size: size - 1),
    "nothing is left": cut(lambda size: 0),
    "half of its hash is left": cut(lambda size: 24),
    "its hash is left": cut(lambda size: 40),
    "half is left": cut(lambda size: size // 2),
    "all but a byte is left": cut(lambda size: size - 1),
    "there is more behind": lambda file, other: file.write_bytes(file.read_bytes() + b"\0"),
    "it is another program's": lambda file, other: file.write_bytes(other.read_bytes()),
    "it is a link to a good one": linked,
    "it is a link to nowhere": lambda file, other: removed(file).symlink_to("nowhere"),
    "it is a link to itself": lambda file, other: removed(file).symlink_to(file),
    "it is a pipe": lambda file, other: os.mkfifo(removed(file), 0o600),
    "others can write it": lambda file, other: file.chmod(0o666),
}


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code_cache: str) -> Path:
    monkeypatch.setenv("LLMBOL_CACHE", code_cache)
    STARTUP.get(WORTH_COMPILING, None)
    monkeypatch.setenv("LLMBOL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def run(start: str = EMPTY) -> tuple[int, int]:
    """Run the program; return its result and how many units came from the cache."""
    content = write_module(assemble(start + PROGRAM))
    with InfernoVM(HOST_MODULES, engine=engine("jit")) as machine:
        machine.load_module("test", content)
        value = machine.execute("test", "main")
        stats = compiled_by(machine.engine)
    assert stats is not None
    return value, stats.cached


def proofs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list of the modules that are verified from now on."""
    seen, prove = list[str](), verifier.prove_module

    def noted(module: Module) -> Proof:
        seen.append(module.name)
        return prove(module)

    monkeypatch.setattr(verifier, "prove_module", noted)
    return seen


@pytest.mark.parametrize("what", DAMAGES)
def test_damaged_files_are_made_again(
    folder: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(EMPTY + " movw $0,96(fp)\n") == (RESULT, 0)
    others = sorted(folder.iterdir(), key=lambda file: file.stat().st_size)
    assert run() == (RESULT, 0)
    files = sorted({*folder.iterdir()} - {*others}, key=lambda file: file.stat().st_size)
    assert len(files) == len(others) == 3
    verified = proofs(monkeypatch)
    assert run() == (RESULT, 1)
    assert not verified
    for file, other in zip(files, others, strict=True):
        DAMAGES[what](file, other)
    assert run() == (RESULT, 0)
    assert len(verified) == 1
    assert run() == (RESULT, 1)
    assert len(verified) == 1


@pytest.mark.parametrize("what", ["others can write it", "another owner", "a file"])
def test_a_folder_that_others_could_have_written_is_left_alone(
    folder: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run() == (RESULT, 0)
    if what == "others can write it":
        folder.chmod(0o777)
    elif what == "another owner":
        monkeypatch.setattr(os, "getuid", lambda: 12345)
    else:
        shutil.rmtree(folder)
        folder.write_text("")
    before = folder.is_dir() and {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    verified = proofs(monkeypatch)
    for times in (1, 2):
        assert run() == (RESULT, 0)
        assert len(verified) == times
    after = folder.is_dir() and {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert after == before


def test_no_bit_of_a_file_can_change_and_no_byte_be_missing(folder: Path) -> None:
    cache = ObjectCache(str(folder))
    cache.put("a", bytes(range(30)))
    file = Path(cache._path("a"))
    content = file.read_bytes()
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        file.write_bytes(changed)
        assert cache.get("a") is None
    for size in range(len(content)):
        file.write_bytes(content[:size])
        assert cache.get("a") is None
    file.write_bytes(content)
    assert cache.get("a") == bytes(range(30))


AT_ONCE = """
from tests.vm.jit.test_damage import run
print(run())
"""


@pytest.mark.slow
def test_programs_that_fill_an_empty_folder_at_once_do_not_disturb_each_other(folder: Path) -> None:
    assert not folder.exists()
    command = [sys.executable, "-c", AT_ONCE]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in started:
        said = process.communicate()
        assert said in ((f"({RESULT}, {kept})\n", "") for kept in (0, 1))
    assert all(ObjectCache().get(file.stem) is not None for file in folder.iterdir())
    assert run() == (RESULT, 1)
