"""The commands of `dis` that concern files: asm, disasm, verify, isa."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llmbol_cli.dis import main
from llmbol_core.vm.assembly import parse_assembly
from llmbol_core.vm.objectfile import read_module
from llmbol_core.vm.objectwriter import write_module
from llmbol_core.vm.payload import attach

SPECS = Path(__file__).parents[2] / "specs" / "programs"


Dis = Callable[..., tuple[object, bytes, str]]


@pytest.fixture
def dis(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Dis:
    """Return a function that runs the command and gives its exit status and what it wrote."""

    def run(*words: str, where: Path, data: bytes = b"") -> tuple[object, bytes, str]:
        monkeypatch.chdir(where)
        monkeypatch.setattr("sys.argv", ["dis", *words])
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        with pytest.raises(SystemExit) as ended:
            main()
        out, errors = capfdbinary.readouterr()
        return ended.value.code, out, errors.decode()

    return run


@pytest.fixture
def hello(dis: Dis, tmp_path: Path) -> Path:
    (tmp_path / "hello.s").write_bytes((SPECS / "hello.s").read_bytes())
    assert dis("asm", "hello.s", where=tmp_path) == (0, b"", "")
    return tmp_path / "hello.dis"


def test_asm_and_disasm_are_inverse(dis: Dis, hello: Path) -> None:
    status, text, _ = dis("disasm", "hello.dis", where=hello.parent)
    assert status == 0
    assert b'ext     @ldt+4,0xac849033,"print"' in text
    assert dis("asm", "-", where=hello.parent, data=text) == (0, hello.read_bytes(), "")
    assert dis("disasm", "-", where=hello.parent, data=hello.read_bytes())[1] == text


@pytest.mark.parametrize("path", sorted(SPECS.glob("*.s*")), ids=lambda p: p.name)
def test_every_example_program_assembles_and_verifies(dis: Dis, path: Path, tmp_path: Path) -> None:
    assert dis("asm", str(path), "-o", "out.dis", where=tmp_path) == (0, b"", "")
    status, text, _ = dis("verify", "out.dis", "--json", where=tmp_path)
    assert status == 0
    found = json.loads(text)
    module = read_module((tmp_path / "out.dis").read_bytes())
    assert found["module"] == module.name
    assert found["instructions"] == found["reached"] == len(module.instructions)


def test_asm_knows_stack_code_by_its_first_mnemonic(dis: Dis, tmp_path: Path) -> None:
    status, data, _ = dis("asm", "-", where=tmp_path, data=b"# five\nPUSH 5\nHALT\n")
    assert status == 0
    assert read_module(data).exports[0].name == "main"


def test_asm_reads_what_editors_write(dis: Dis, tmp_path: Path) -> None:
    plain = dis("asm", "-", where=tmp_path, data=b"PUSH 5\nHALT\n")
    assert dis("asm", "-", where=tmp_path, data=b"\xef\xbb\xbfPUSH 5\r\nHALT\r\n") == plain


def test_isa(dis: Dis, tmp_path: Path) -> None:
    status, text, _ = dis("isa", "addw", where=tmp_path)
    assert status == 0
    assert b"d = m + s" in text
    assert dis("isa", "ADDW", where=tmp_path)[1] == text
    rows = json.loads(dis("isa", "--json", where=tmp_path)[1])
    assert [row["number"] for row in rows] == list(range(175))


@pytest.mark.parametrize(
    ("words", "data", "message"),
    [
        (["isa", "adddw"], b"", "error: unknown mnemonic 'adddw' (did you mean 'addw'?)"),
        (["asm", "-"], b"mvow $1,4(fp)\n", "error: -:1:1: unknown mnemonic 'mvow' (did you mean"),
        (["asm", "-"], b'imports "$Sis","print"\n', "error: -:1:16: $Sis: no such built-in module"),
        (["asm", "-"], b"PUSH 1\n", "error: -:1:1: the code ends without HALT"),
        (["asm", "nowhere.s"], b"", "error: nowhere.s: no such file or directory"),
        (["disasm", "-"], b"\x7fELF", "error: -: at byte 0: bad magic: not a Dis object file"),
        (["verify", "nowhere.dis"], b"", "error: nowhere.dis: no such file or directory"),
    ],
)
def test_errors_are_one_line(
    dis: Dis, words: list[str], data: bytes, message: str, tmp_path: Path
) -> None:
    status, out, errors = dis(*words, where=tmp_path, data=data)
    assert (status, out) == (1, b"")
    assert errors.startswith(message)
    assert errors.count("\n") == 1


def test_asm_says_when_the_disk_is_full(dis: Dis, hello: Path) -> None:
    status, _, errors = dis("asm", "hello.s", "-o", "/dev/full", where=hello.parent)
    assert status == 1
    assert "no space left on device" in errors


MODEL = """
    load 0(mp),$0,32(fp)
    ret
    module Model
    entry 0,1
    desc $0,8,(0)
    desc $1,64,(32)
    var @mp,8
    link 1,0,0x4244b354,"init"
    string @mp+0,"$Ml"
    ldts @ldt,1
    word @ldt+0,1
    ext @ldt+4,0x75c35dcf,"payload"
"""


def test_verify_refuses_a_model_that_has_lost_its_weights(dis: Dis, tmp_path: Path) -> None:
    whole = b"".join(attach(write_module(parse_assembly(MODEL, "model")), bytes(9000)))
    for size, status in ((len(whole), 0), (len(whole) - 1, 1), (5000, 1)):
        (tmp_path / "model.dis").write_bytes(whole[:size])
        found, _, errors = dis("verify", "model.dis", where=tmp_path)
        assert found == status
        assert ("the file carries none or has lost its end" in errors) == bool(status)


def test_verify_says_where_a_program_is_wrong(dis: Dis, tmp_path: Path) -> None:
    source = b'movw $1,32(fp)\nret\nmodule Bad\ndesc $0,0\ndesc $1,40,(32)\nlink 1,0,0,"f"\n'
    assert dis("asm", "-", "-o", "bad.dis", where=tmp_path, data=source)[0] == 0
    status, _, errors = dis("verify", "bad.dis", where=tmp_path)
    assert status == 1
    assert "Bad: pc 0: movw $1,32(fp): a word would be written over the pointer at 32" in errors
