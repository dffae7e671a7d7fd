"""The public Inferno tree: its object files, and its commands run here.

``INFERNO_ROOT`` names a checkout of github.com/inferno-os/inferno-os; without it everything here is
skipped. What the commands must print is what they print under Inferno (emu-g, 386, -c0).
"""

import dataclasses
import io
import os
import shlex
import shutil
from pathlib import Path

import pytest

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.errors import DisFormatError, VerifyError
from llmbol_core.vm.assembly import parse_assembly
from llmbol_core.vm.disassembly import format_assembly
from llmbol_core.vm.environment import Streams
from llmbol_core.vm.files.namespace import Namespace
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.objectfile import read_module
from llmbol_core.vm.objectwriter import write_module
from llmbol_core.vm.verifier import verify_module

ROOT = Path(os.environ.get("INFERNO_ROOT", "/nonexistent"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "dis").is_dir(), reason="INFERNO_ROOT names no Inferno tree"),
]
FOLDERS = (Path(__file__).parent / "data", Path(__file__).parents[1] / "builtins/data")
CHANGED = {"loads"}
"""Programs whose object files are not as the compiler wrote them."""
SOURCES = [p for folder in FOLDERS for p in sorted(folder.glob("*.b")) if p.stem not in CHANGED]

UNREADABLE = {"dis/sh/mk.dis", "dis/sh/shmk.dis"}
UNLINKABLE = {"dis/wm/mpeg.dis", "dis/wm/qt.dis"}
"""Obsolete: an old form of imports, and none for modules that load others."""


def refusal(call, *arguments):
    """Return what is wrong with a module, or None."""
    try:
        call(*arguments)
    except (DisFormatError, VerifyError) as error:
        return str(error)
    return None


def test_object_files():
    refused = {}
    files = sorted(ROOT.rglob("*.dis"))
    assert len(files) >= 866
    for path in files:
        name, data = str(path.relative_to(ROOT)), path.read_bytes()
        why = refusal(read_module, data, name)
        if why:
            refused[name] = why
            continue
        module = read_module(data, name)
        assert write_module(module) == data, name
        assert write_module(parse_assembly(format_assembly(module), name)) == data, name
        why = refusal(verify_module, module)
        if why:
            refused[name] = why
    assert set(refused) == UNREADABLE | UNLINKABLE, refused
    assert all("obsolete dis" in why for why in refused.values()), refused


# Commands

IN = "pear 3\napple 10\nfig 7\napple 10\napple 10\n\nÜber 1\n"
OTHER = "pear 3\napple 11\nfig 7\napple 10\napple 10\n\nÜber 1\nend\n"
MACROS = "define(`twice', `$1$1')dnl\ntwice(ab) eval(2*3+4) len(hello)\n"
SCRIPT = """\
load std expr string
fn greet { echo hello $* }
greet a b
for i in 1 2 3 { echo ${expr $i $i '*'} }
{echo z; echo a} | sort
x=`{cat /tmp/in | wc -l}
echo $#x $x ${join , a b} ${len word}
if {~ $x 7} {echo seven} {echo other}
or {ftest -f /none} {echo status $status}
echo to file > /tmp/out; cat /tmp/out; cat < /tmp/out
apply {echo item $1} p q
rescue 'fail:*' {echo rescued $exception} {raise fail:x}
{for w in ${split : a:b} {echo $w}} | sed s/^/w/
echo `{echo nested `{echo deep}} end
echo one > /env/v; cat /env/v
"""

PRINTED = """\
hello a b
1
4
9
a
z
1 7 a,b 4
seven
status false
to file
to file
item p
item q
rescued fail:x
a
b
nested deep end
one
"""

# fmt: off
COMMANDS = [
    ("wc /tmp/in",              "      7      12      48 /tmp/in\n"),
    ("sort /tmp/in",            "\napple 10\napple 10\napple 10\nfig 7\npear 3\nÜber 1\n"),
    ("grep -n ap /tmp/in",      "2:apple 10\n4:apple 10\n5:apple 10\n"),
    ("sed s/a/A/g /tmp/in",     "peAr 3\nApple 10\nfig 7\nApple 10\nApple 10\n\nÜber 1\n"),
    ("sed -n 2,3p /tmp/in",     "apple 10\nfig 7\n"),
    ("uniq -d /tmp/in",         "apple 10\n"),
    ("md5sum /tmp/in",          "b51c6c0662b50b56595f946477bd5f86\t/tmp/in\n"),
    ("sha1sum /tmp/in",         "4a6172722b629428c7aed701bc0b0f58347b3f9d\t/tmp/in\n"),
    ("sum /tmp/in",             "b7580ce7     49 /tmp/in\n"),
    ("cmp /tmp/in /tmp/other",  "/tmp/in /tmp/other differ: char 15\n"),
    ("diff /tmp/in /tmp/other", "2c2\n< apple 10\n---\n> apple 11\n7a8\n> end\n"),
    ("diff -e /tmp/in /tmp/other", "7a\nend\n.\n2c\napple 11\n.\n"),
    ("xd -c /tmp/script2",      "0000000 a  b  \\n\n0000003\n"),
    ("strings /tmp/binary",     "       3: some text\n"),
    ("calc 2**10",              "1024\n"),
    ("m4 /tmp/macros",          "abab 10 5\n"),
    ("date 86400",              "Fri Jan 02 00:00:00 GMT 1970\n"),
    ("tail -2 /tmp/in",         "\nÜber 1\n"),
    ("sh -c 'tr a-z A-Z < /tmp/in | sort | uniq -d'", "APPLE 10\n"),
    ("sh /tmp/script",          PRINTED),
]
# fmt: on


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Return a copy of what the commands need of the tree, which they may change."""
    copy = tmp_path_factory.mktemp("inferno")
    for name in ("dis", "module", "lib"):
        shutil.copytree(ROOT / name, copy / name)
    (copy / "tmp").mkdir()
    texts = {"in": IN, "other": OTHER, "macros": MACROS, "script": SCRIPT, "script2": "ab\n"}
    for name, text in texts.items():
        (copy / "tmp" / name).write_text(text)
    (copy / "tmp/binary").write_bytes(b"\0\1\2some text\0ab\0")
    return copy


def run(tree, command):
    """Return what a command prints, both ways."""
    name, *arguments = shlex.split(command)
    path = name if name.startswith("/") else f"/dis/{name}.dis"
    out = io.BytesIO()
    space, streams = Namespace(tree, writable=True), Streams(stdout=out, stderr=out)
    with InfernoVM(HOST_MODULES, space, streams=streams) as vm:
        vm.run(path, arguments)
    return out.getvalue().decode()


@pytest.mark.parametrize(("command", "expected"), COMMANDS)
def test_commands(tree, command, expected):
    assert run(tree, command) == expected


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_compiler_compiles_as_outside(tree, source):
    shutil.copy(source, tree / "tmp")
    assert run(tree, f"limbo -I/module -o /tmp/made.dis /tmp/{source.name}") == ""
    made = read_module((tree / "tmp/made.dis").read_bytes())
    native = read_module(source.with_suffix(".dis").read_bytes())
    assert dataclasses.replace(made, source_path=native.source_path) == native


GRAMMAR = r"""
%{
include "sys.m";
	sys: Sys;
include "draw.m";
YYSTYPE: adt { v: int; };
YYLEX: adt {
	lval: YYSTYPE;
	text: string;
	at: int;
	lex: fn(l: self ref YYLEX): int;
	error: fn(l: self ref YYLEX, msg: string);
};
%}
%module Sums { init: fn(ctxt: ref Draw->Context, argv: list of string); }
%left '+' '-'
%left '*' '/'
%token <v> NUM
%type <v> e
%%
top:	e	{ sys->print("%d\n", $1); } ;
e:	NUM
	| e '+' e	{ $$ = $1 + $3; }
	| e '-' e	{ $$ = $1 - $3; }
	| e '*' e	{ $$ = $1 * $3; }
	| '(' e ')'	{ $$ = $2; } ;
%%
YYLEX.error(nil: self ref YYLEX, msg: string) { sys->print("%s\n", msg); }
YYLEX.lex(l: self ref YYLEX): int
{
	if(l.at >= len l.text)
		return -1;
	c := l.text[l.at++];
	if(c < '0' || c > '9')
		return c;
	l.lval.v = c - '0';
	return NUM;
}
init(nil: ref Draw->Context, argv: list of string)
{
	sys = load Sys Sys->PATH;
	l := ref YYLEX(YYSTYPE(0), hd tl argv, 0);
	yyparse(l);
}
"""


def test_a_generated_parser(tree):
    (tree / "tmp/sums.y").write_text(GRAMMAR)
    assert run(tree, "yacc -o /tmp/sums.b /tmp/sums.y") == ""
    assert run(tree, "limbo -I/module -o /tmp/sums.dis /tmp/sums.b") == ""
    assert run(tree, "/tmp/sums.dis 1+2*(3-8)") == "-9\n"


def test_the_assembler(tree):
    """It knows one stack extent only and writes other data items than the compiler does."""
    source = Path(__file__).parent / "data/waits.dis"
    module = dataclasses.replace(read_module(source.read_bytes()), stack_extent=1024)
    (tree / "tmp/waits.s").write_text(format_assembly(module))
    run(tree, "sh -c 'cd /tmp; asm waits.s'")
    made = read_module((tree / "tmp/waits.dis").read_bytes())
    assert (made.instructions, made.types) == (module.instructions, module.types)
