"""``dis run``: what it prints, how it exits, what it lets a program see."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from llmbol_cli.dis import app
from llmbol_core.builtins import signature_of
from llmbol_core.errors import LinkError
from llmbol_core.vm.assembly import parse_assembly
from llmbol_core.vm.objectfile import write_module
from llmbol_core.vm.stackcode import parse_source

PROGRAM = """
    load 0(mp),$0,4(mp)
{code}
    ret
    desc $0,64,(0,4,8,12)
    desc $1,64,(32,36,40,44)
    desc $2,40,(32,36)
    desc $3,48,(32,36)
    var @mp,64
    string @mp+0,"$Sys"
    string @mp+8,"{text}"
    module Program
    link 1,0,"fn(c: string, argv: list of string)","init"
    imports "$Sys","open","print"
    {more}
"""
PRINT = """
    frame $2,48(fp)
    movp 8(mp),32(48(fp))
    lea 52(fp),16(48(fp))
    mcall 48(fp),$Sys.print,4(mp)
"""
ARGUMENT = """
again: tail 36(fp),36(fp)
    beqw 36(fp),$-1,done
    headp 36(fp),40(fp)
    frame $3,48(fp)
    movp 8(mp),32(48(fp))
    movp 40(fp),36(48(fp))
    lea 52(fp),16(48(fp))
    mcall 48(fp),$Sys.print,4(mp)
    jmp again
done:
"""
OPEN = (
    """
    tail 36(fp),36(fp)
    headp 36(fp),40(fp)
    mframe 4(mp),$Sys.open,48(fp)
    movp 40(fp),32(48(fp))
    movw $0,36(48(fp))
    lea 44(fp),16(48(fp))
    mcall 48(fp),$Sys.open,4(mp)
    beqw 44(fp),$-1,done
"""
    + PRINT
    + "done:"
)


def program(directory, code, text="", more=""):
    source = PROGRAM.format(code=code, text=text, more=more).replace("jmp 1", "jmp again")
    source = source.replace(
        "    tail 36(fp),36(fp)\n    beqw", "again: tail 36(fp),36(fp)\n    beqw"
    )
    module = parse_assembly(source, "program.s", signature_of)
    # The signature of init in the Limbo interface, whose first argument is no string.
    data = write_module(module).replace(
        module.exports[0].signature.to_bytes(4, "big"), 0x4244B354.to_bytes(4, "big")
    )
    path = directory / "program.dis"
    path.write_bytes(data)
    return str(path)


def invoke(*arguments):
    return CliRunner().invoke(app, ["run", *map(str, arguments)])


def test_hello(tmp_path):
    result = invoke(program(tmp_path, PRINT, "hello\\n"))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "hello\n", "")


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_lost_output_is_no_success(tmp_path, engine):
    path = program(tmp_path, PRINT, "hello\\n")
    command = [sys.executable, "-c", "from llmbol_cli.dis import main; main()", "run"]
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [*command, "--engine", engine, path],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    why = "error: standard output: no space left on device\n"
    assert (ended.returncode, ended.stderr) == (1, why)


def test_options_behind_the_file_belong_to_the_program(tmp_path):
    result = invoke(program(tmp_path, ARGUMENT, "<%s>\\n"), "--help", "-x", "a b")
    assert (result.exit_code, result.stdout) == (0, "<--help>\n<-x>\n<a b>\n")


def test_only_files_named_as_arguments_can_be_read(tmp_path):
    path = program(tmp_path, OPEN, "opened\\n")
    given = tmp_path / "given.txt"
    given.write_text("x")
    assert invoke(path, given).stdout == "opened\n"
    assert invoke(path, tmp_path / "none.txt").stdout == ""
    assert invoke("--root", tmp_path, "/program.dis", "/given.txt").stdout == "opened\n"
    assert invoke("--root", tmp_path, "/program.dis", given).stdout == ""


def test_uncaught_exceptions(tmp_path):
    result = invoke(program(tmp_path, "raise 8(mp)", "went wrong"))
    assert (result.exit_code, result.stderr) == (1, '[Program] Broken: "went wrong"\n')
    result = invoke(program(tmp_path, "raise 8(mp)", "fail:quietly"))
    assert (result.exit_code, result.stderr, result.stdout) == (1, "", "")


@pytest.mark.parametrize(("text", "shown"), [("PUSH 5", "5\n"), ("PUSHF 0.5", "0.5\n")])
def test_stack_code_prints_what_it_leaves(tmp_path, text, shown):
    path = tmp_path / "code.dis"
    path.write_bytes(write_module(parse_source(f"{text}\nHALT\n", "code", signature_of)))
    result = invoke(path)
    assert (result.exit_code, result.stdout) == (0, shown)


LOOP = "again2: addw $1,56(fp)\njmp again2"


@pytest.mark.parametrize(
    ("options", "code", "why"),
    [
        (["--max-instructions", 100], LOOP, "instruction limit"),
        (["--timeout", 0.01], LOOP, "time limit"),
        (["--max-memory", "1K"], "", '[Program] Broken: "out of memory: main"'),
        (["--max-memory", "1M"], "newa $1048576,$2,32(fp)", "out of memory: heap"),
        (["--max-threads", 1], "frame $1,48(fp)\nspawn 48(fp),again2\nagain2:", "process limit"),
        ([], "newcw 32(fp)\nrecv 32(fp),56(fp)", "process 1 in Program at pc 2 receives"),
    ],
)
def test_limits(tmp_path, options, code, why):
    result = invoke(*options, program(tmp_path, code))
    assert result.exit_code == 1
    assert why in result.stderr + str(result.exception)


@pytest.mark.parametrize("size", ["", "0", "-1", "nan", "1e9", "M", "9" * 400])
def test_what_is_no_size_is_refused(tmp_path, size):
    result = invoke("--max-memory", size, program(tmp_path, ""))
    assert result.exit_code == 2
    assert "Invalid value for '--max-memory'" in result.stderr


MISUSES = [
    ("--max-threads", "0"), ("--max-instructions", "-1"), ("--timeout", "-1"), ("--timeout", "nan"),
    ("--engine", "foo"),
]  # fmt: skip


@pytest.mark.parametrize(("option", "value"), MISUSES)
def test_values_that_options_cannot_have_are_misuse(tmp_path, option, value):
    result = invoke(option, value, program(tmp_path, ""))
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.stderr


@pytest.mark.parametrize("data", [b"", b"nothing", b"\xc0\x0c\x80\x30\x40"])
def test_what_is_no_module_is_refused(tmp_path, data):
    path = tmp_path / "bad.dis"
    path.write_bytes(data)
    result = invoke(path)
    assert result.exit_code == 1
    assert str(path) in str(result.exception)


def test_a_module_without_a_name_is_called_by_its_file(tmp_path):
    path = tmp_path / "nameless.dis"
    path.write_bytes(write_module(parse_assembly("ret", "nameless.s")))
    with pytest.raises(LinkError, match=r"^.*nameless\.dis: no exported function 'init'"):
        raise invoke(path).exception


LIBRARY = """
    ret
    desc $0,8,(0)
    desc $1,40,(32,36)
    var @mp,8
    module Library
    link 1,0,0x4244b354,"init"
    ldts @ldt,0
"""
LOAD = """
    load 8(mp),$1,40(fp)
    beqw 40(fp),$-1,done
    movp 12(mp),8(mp)
"""


@pytest.mark.parametrize("has_root", [False, True])
def test_modules_are_looked_for_on_the_path(tmp_path, has_root):
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "library.dis").write_bytes(write_module(parse_assembly(LIBRARY)))
    more = 'string @mp+12,"found\\n"\nword @ldt+0,1\n'
    more += 'ext @ldt+4,"fn(c: string, argv: list of string)","init"'
    path = program(tmp_path, f"{LOAD}{PRINT}done:", "library.dis", more)
    options = ["--root", tmp_path] if has_root else []
    there, file = ("/modules", "/program.dis") if has_root else (folder, path)
    assert invoke(*options, "--path", there, file).stdout == "found\n"
    assert invoke(*options, file).stdout == ""
    assert invoke("--path", tmp_path / "none", path).exit_code == 1


def test_what_is_not_verified_runs_only_if_asked_to(tmp_path):
    code = "movw $-1,32(fp)\nmovp 32(fp),8(mp)"
    path = program(tmp_path, f"{code}\n{PRINT}", "never")
    refused = invoke(path)
    assert refused.exit_code == 1
    assert "would be written over the pointer" in str(refused.exception)
    assert invoke("--no-verify", path).exit_code == 0
