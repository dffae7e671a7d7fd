"""Symbol files: one that the Limbo compiler wrote for a program kept here, and small ones."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbol_core.errors import FormatError, UsageError
from llmbol_core.vm.codemap import CodeMap
from llmbol_core.vm.layout import INT, STRING, Adt, Reference, Tuple
from llmbol_core.vm.objectfile import read_module
from llmbol_core.vm.symbols import read_symbols, resolved
from tests.vm.objects import DATA_DIRECTORY

PICKS = (DATA_DIRECTORY / "picks.sbl").read_bytes()
MODULE = read_module((DATA_DIRECTORY / "picks.dis").read_bytes())

SMALL = b"""limbo .sbl 2.1
Small
2
small.b
small.m
3
7.1,4 0
6,9 1
1:3.0,8.2 1
2
aPoint 0:3.0,5.1 8
2
0:x:4.1,2 i
4:next:2,3 LR@0

t8.2
0:t0:1,2 @0

4:t1:2,3 s
2
0:init
1
32:n:9.1,2 i
1
36:p:10.1,2 R@0

n2:Point.move
0
0
@0
1
0:all:2.0,1 A@1

"""


def test_small_file():
    symbols = read_symbols(SMALL)
    assert symbols.module == "Small"
    assert [str(source) for source in symbols.sources] == ["small.b:7", "small.b:7", "small.m:3"]
    assert [source.column for source in symbols.sources] == [1, 6, 0]
    assert symbols.statements == (0, 1, 1)
    init, move = symbols.functions
    assert (init.pc, str(init.type)) == (0, "fn(n: int)")
    assert init.variables["n"].type is INT
    assert (move.pc, move.name, str(move.result)) == (2, "Point.move", "Point")


def test_types_may_refer_to_themselves():
    symbols = read_symbols(SMALL)
    point = symbols.functions[0].locals[0].type
    assert isinstance(point, Reference)
    adt = resolved(point.element)
    assert isinstance(adt, Adt)
    assert [str(field.type) for field in adt.fields] == ["int", "list of ref Point"]
    inner = adt.fields[1].type
    assert isinstance(inner, Reference)
    assert isinstance(inner.element, Reference)
    assert resolved(inner.element.element) is adt
    everything = symbols.variables["all"].type
    assert isinstance(everything, Reference)
    pair = resolved(everything.element)
    assert isinstance(pair, Tuple)
    assert pair.fields[1].type is STRING


def test_lines_begin_where_their_code_does():
    symbols = read_symbols(SMALL)
    assert symbols.pcs_of_line(7) == [0]
    assert symbols.pcs_of_line(3, "small.m") == [2]
    assert symbols.pcs_of_line(3) == []


def test_compiler_and_module_agree():
    symbols = read_symbols(PICKS)
    assert len(symbols.sources) == len(MODULE.instructions)
    names = {function.name: function for function in symbols.functions}
    assert str(names["eval"].type) == "fn(e: ref Expr, env: list of (string, real)): real"
    code = CodeMap(MODULE, symbols)
    for export in MODULE.exports:
        assert code.function(export.pc).name == export.name
    result = names["simp"].result
    assert isinstance(result, Reference)
    expr = resolved(result.element)
    assert isinstance(expr, Adt)
    assert list(expr.picks) == ["Num", "Var", "Bin", "Neg", "Abs"]
    assert expr.picks["Neg"].own == expr.picks["Abs"].own
    assert [(f.name, f.offset) for f in expr.picks["Bin"].fields] == [
        ("pos", 4), ("op", 8), ("l", 12), ("r", 16),
    ]  # fmt: skip


def test_without_symbols_functions_begin_where_they_are_called():
    known = {function.pc for function in CodeMap(MODULE, read_symbols(PICKS)).functions}
    code = CodeMap(MODULE)
    assert {function.pc for function in code.functions} == known
    assert code.function(300).name == "init"
    assert code.function(27).name == "@26"
    assert (code.find("@26").pc, code.find("@26").end) == (26, 69)
    with pytest.raises(UsageError, match=r"Picks has no function 'inti' \(did you mean 'init'\?\)"):
        code.find("inti")


def test_older_modules_have_no_members():
    old = b"limbo .sbl 2.0\nOld\n1\no.b\n0\n0\n0\n1\n0:sys:1.0,1 mSys\n2.0,3 \n"
    assert str(read_symbols(old).globals[0].type) == "Sys"
    new = old.replace(b"2.0\nOld", b"2.1\nOld").replace(b"2.0,3 \n", b"2.0,3 0\n\n")
    assert str(read_symbols(new).globals[0].type) == "Sys"
    with pytest.raises(FormatError):
        read_symbols(old.replace(b"2.0\nOld", b"2.1\nOld"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"limbo .sbl 2.1", b"limbo .sbl 1.1", "at byte 0: .*'limbo .sbl 1.1', not with"),
        (b"7.1,4 0", b"5:7.1,4 0", "file 5 of 2"),
        (b"6,9 1\n", b"6,9 x\n", "expected a number, found 'x"),
        (b"LR@0", b"LR@9", "type 9 of 2"),
        (b"n:9.1,2 i", b"n:9.1,2 z", "no type begins with 'z'"),
        (b"\n3\n7.1", b"\n3333\n7.1", "3333 instructions in"),
        (b"t8.2\n0:t0:1,2 @0\n\n4:t1:2,3 s\n", b"A@1\n", "types that never end"),
        (b"1\n0:all:2.0,1 A@1\n\n", b"1\n0:all:2.0,1 ", "it ends before a type"),
    ],
)
def test_damage_is_told_by_its_place(old, new, message):
    assert SMALL.count(old) == 1
    with pytest.raises(FormatError, match=message):
        read_symbols(SMALL.replace(old, new), "small.sbl")


@given(st.data())
def test_no_bytes_give_anything_but_a_format_error(data):
    text = bytearray(data.draw(st.sampled_from([SMALL, PICKS[-3000:], PICKS])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    with suppress(FormatError):
        read_symbols(bytes(text))
