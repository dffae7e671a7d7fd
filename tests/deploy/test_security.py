"""Signatures: over every byte of a program and of what it carries, by the key that is asked for."""

import errno
import os
import subprocess
import sys

import pytest

from llmbol_core import deploy
from llmbol_core.deploy.security import create_keys, requirement, sign_file, verify_file
from llmbol_core.errors import FileError, LlmbolError, SignatureError
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.objectfile import read_module, write_module
from llmbol_core.vm.payload import ALIGNMENT, attach, find
from llmbol_core.vm.stackcode import BytecodeLoader

PROGRAM = write_module(BytecodeLoader.create_module([0x01, 0x05, 0xFF]))


@pytest.fixture
def key(tmp_path):
    create_keys(str(tmp_path / "key"))
    return str(tmp_path / "key")


@pytest.fixture(params=[b"", b"weights" * 100], ids=["plain", "payload"])
def program(tmp_path, request):
    path = tmp_path / "five.dis"
    path.write_bytes(b"".join(attach(PROGRAM, request.param)) if request.param else PROGRAM)
    return path


def test_signed_program_runs_as_before(program, key, tmp_path):
    signed = str(tmp_path / "signed.dis")
    made = sign_file(str(program), signed, key)
    assert verify_file(signed, f"{key}.pub").key == made.key
    assert deploy.run_file(signed).stdout == deploy.run_file(str(program)).stdout == b"5\n"


def test_payload_keeps_its_place_and_its_bytes(program, key, tmp_path):
    signed = tmp_path / "signed.dis"
    sign_file(str(program), str(signed), key)
    data, before = memoryview(signed.read_bytes()), memoryview(program.read_bytes())
    assert find(data, "signed") == find(before, "program")
    module = read_module(data)
    assert module.signature is not None
    assert module.instructions == read_module(before).instructions
    if find(before, "program") is not None:
        assert bytes(data[ALIGNMENT : ALIGNMENT + 7]) == b"weights"


def test_any_changed_byte_is_refused(program, key, tmp_path):
    signed = tmp_path / "signed.dis"
    sign_file(str(program), str(signed), key)
    data = signed.read_bytes()
    check = requirement(f"{key}.pub")
    check(memoryview(data), "whole")
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        with pytest.raises(SignatureError):
            check(memoryview(changed), "changed")


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"\0", lambda d: d[:50]])
def test_more_or_less_bytes_are_refused(program, key, change):
    sign_file(str(program), str(program), key)
    program.write_bytes(change(program.read_bytes()))
    with pytest.raises(LlmbolError):
        verify_file(str(program), key)


def test_another_key_and_no_signature_are_refused(program, key, tmp_path):
    with pytest.raises(SignatureError, match="not signed"):
        verify_file(str(program), key)
    sign_file(str(program), str(program), key)
    create_keys(str(tmp_path / "other"))
    with pytest.raises(SignatureError, match="not signed with the key"):
        verify_file(str(program), str(tmp_path / "other.pub"))


def test_signing_again_replaces_the_signature(program, key, tmp_path):
    create_keys(str(tmp_path / "other"))
    sign_file(str(program), str(program), str(tmp_path / "other"))
    size = program.stat().st_size
    sign_file(str(program), str(program), key)
    assert program.stat().st_size == size
    verify_file(str(program), key)


def test_same_file_and_key_give_the_same_bytes(program, key, tmp_path):
    for name in ("a", "b"):
        sign_file(str(program), str(tmp_path / name), key)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_machine_loads_only_what_passes(program, key):
    with InfernoVM() as machine:
        machine.loader.check = requirement(key)
        with pytest.raises(SignatureError):
            machine.load_module("m", str(program))
        sign_file(str(program), str(program), key)
        machine.load_module("m", str(program))
        assert machine.execute("m", "main") == 5


def test_what_is_checked_is_what_runs(program, key):
    """Others may write to a file while it is read."""
    sign_file(str(program), str(program), key)
    checked = requirement(key)

    def check(data, path, rest):
        checked(data, path, rest)
        program.write_bytes(bytes(program.stat().st_size))

    with InfernoVM() as machine:
        machine.loader.check = check
        machine.load_module("m", str(program))
        assert machine.execute("m", "main") == 5


def test_keys_are_private_and_never_overwritten(key):
    assert subprocess.run(["stat", "-c", "%a", key], capture_output=True).stdout == b"600\n"
    with pytest.raises(FileError, match="never overwritten"):
        create_keys(key)


@pytest.mark.parametrize("left", [0, 1], ids=["private", "public"])
def test_a_full_disk_leaves_no_half_of_a_pair(tmp_path, monkeypatch, left):
    room = iter([True] * left)
    real = os.fsync

    def fsync(number):
        if not next(room, False):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(FileError, match=r"new(\.pub)?: no space left on device"):
        create_keys(str(tmp_path / "new"))
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_key_is_refused(program, key, tmp_path):
    (tmp_path / "rsa").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    for path in (str(tmp_path / "rsa"), str(program)):
        with pytest.raises(SignatureError, match="no key"):
            verify_file(str(program), path)
    with pytest.raises(SignatureError, match="cannot sign"):
        sign_file(str(program), str(program), f"{key}.pub")


def test_openssh_keys_serve_as_well(program, key, tmp_path):
    # What the ssh tools write is made here by the library that reads it.
    code = (
        "import sys; from cryptography.hazmat.primitives import serialization as s\n"
        "k = s.load_pem_private_key(open(sys.argv[1], 'rb').read(), None)\n"
        "open(sys.argv[2], 'wb').write(k.public_key().public_bytes("
        "s.Encoding.OpenSSH, s.PublicFormat.OpenSSH))"
    )
    other = str(tmp_path / "id_ed25519.pub")
    subprocess.run([sys.executable, "-c", code, key, other], check=True)
    sign_file(str(program), str(program), key)
    verify_file(str(program), other)
