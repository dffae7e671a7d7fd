"""Limbo's notation, held to every function of Inferno's $Sys and $Math and to compiled links."""

import re
from pathlib import Path

import pytest

from llmbol_core.errors import SourceError
from llmbol_core.vm.layout import Adt, Function, ModuleType, frame
from llmbol_core.vm.limbo import parse_declarations, parse_type, signature
from llmbol_core.vm.signature import data_signature, spelling

TYPES = parse_declarations("""
Qid: adt { path: big; vers: int; qtype: int; };
Dir: adt {
    name, uid, gid, muid: string;
    qid: Qid;
    mode, atime, mtime: int;
    length: big;
    dtype, dev: int;
};
FD: adt { fd: int; };
Connection: adt { dfd, cfd: ref FD; dir: string; };
Rread: type chan of (array of byte, string);
Rwrite: type chan of (int, string);
FileIO: adt {
    read: chan of (int, int, int, Rread);
    write: chan of (int, array of byte, int, Rwrite);
};
""")

ROWS = [
    [cell.strip() for cell in line.split("|")]
    for line in (Path(__file__).parent / "data/signatures.txt").read_text().splitlines()[1:]
]


@pytest.mark.parametrize(
    ("name", "word", "size", "pointers", "arguments", "text"), ROWS, ids=lambda v: str(v)[:20]
)
def test_every_function_of_sys_and_math(name, word, size, pointers, arguments, text):
    function = parse_type(text, TYPES)
    assert isinstance(function, Function)
    layout = frame(function)
    places = [f"{a.name}@{a.offset}" for a in layout.arguments if "vargs" not in a.name]
    assert f"{signature(function):08x}" == word
    assert layout.size == int(size)
    assert layout.map == bytes.fromhex(pointers.replace("-", ""))
    assert places == [a for a in arguments.split() if a != "-" and not a.startswith("vargs")]


# fmt: off
RECORDS = [
    ("Qid",        16, "",   [0, 8, 12]),
    ("Dir",        64, "f0", [0, 4, 8, 12, 16, 32, 36, 40, 48, 56, 60]),
    ("FD",          4, "",   [0]),
    ("Connection", 12, "e0", [0, 4, 8]),
    ("FileIO",      8, "c0", [0, 4]),
]
SPELLINGS = [
    ("fn(i: int): int",                                "f(i)i"),
    ("fn(s: string, *): int",                          "f*(s)i"),
    ("fn(fd: ref FD, b: array of byte, n: int): int",  "f(Ra(fd:i),Ab,i)i"),
    ("fn(s, t: string): (int, list of string)",        "f(s,s)t(i,Ls)"),
    ("fn(a, b: (int, int))",                           "f(t(i,i),@1)n"),
    ("fn(x: ref fn(n: int)): chan of big",             "f(Rf(i)n)CB"),
    ("fn(x: fixed(0.5)) raises (Bad, Worse)",          "f(x0.5)(Bad,Worse)n"),
    ("fn() raises Bad",                                "f()(Bad)n"),
]
MISTAKES = [
    ("f: fn(x: strng);",         1, 10, "unknown type 'strng' (did you mean 'string'?)"),
    ("f: fn(x: int;",            1, 13, "expected ',', found ';'"),
    ("a: int;\nb: array int;",   2, 10, "expected 'of', found 'int'"),
    ("A: adt { x: int;",         1, 17, "expected a name, found 'the end'"),
    ("A: adt[T] { x: T; };",     1, 7,  "polymorphic declarations have no notation here"),
    ("A: con f(1",               1, 11, "an expression without an end"),
    ("a: $",                     1, 4,  "no Limbo: '$'"),
    ("a: fixed(x);",             1, 10, "expected the scale as a number"),
]
# fmt: on


@pytest.mark.parametrize(("name", "size", "pointers", "offsets"), RECORDS)
def test_records(name, size, pointers, offsets):
    record = TYPES[name]
    assert isinstance(record, Adt)
    assert record.size == size
    assert record.map == bytes.fromhex(pointers)
    assert [f.offset for f in record.fields] == offsets


@pytest.mark.parametrize(("text", "expected"), SPELLINGS)
def test_spelling(text, expected):
    assert spelling(parse_type(text, TYPES)) == expected


def test_adts_that_refer_to_themselves_and_their_variants():
    kind = parse_declarations("""
        Expr: adt {
            pos: int;
            pick {
            Num => v: real;
            Bin => l, r: cyclic ref Expr;
            Neg or Abs => e: cyclic ref Expr;
            }
            text: fn(e: self ref Expr): string;
        };
    """)["Expr"]
    assert isinstance(kind, Adt)
    assert spelling(kind) == (
        "a(pos:i,Num=>p(v:r)@1,Bin=>p(l:yR@1,r:yR@1)@1,Neg=>p(e:yR@1)@1,Abs=>@4)"
    )
    assert spelling(kind.methods["text"]).startswith("f(SRa(pos:i,")
    num, bin_ = kind.picks["Num"], kind.picks["Bin"]
    assert (num.size, [f.offset for f in num.fields]) == (16, [4, 8])
    assert (bin_.size, [f.offset for f in bin_.fields]) == (16, [4, 8, 12])
    assert kind.picks["Neg"] is kind.picks["Abs"]


def test_names_may_be_used_before_they_are_declared():
    found = parse_declarations("""
        Outer: module {
            PATH: con "/x" + string (1 + 2);   # a comment; with a semicolon
            All: adt { first: Pair; next: cyclic ref All; };
            Pair: adt { a: byte; b: Number; Size: con 3; };
            Number: type big;
            make: fn(): ref All;
            hits, misses: int;
        };
        outer: Outer;
        get: fn(x: Outer->Pair): Outer;
    """)
    module = found["Outer"]
    assert isinstance(module, ModuleType)
    assert list(module.functions) == ["make"]
    assert list(module.data) == ["hits", "misses"]
    assert module.constants == {"PATH": '"/x" + string (1 + 2)'}
    assert module.types["All"].size == 24
    assert spelling(found["get"]).startswith("f(a(a:b,b:B))m{hits:i;misses:i;make:f()R")


def test_signature_of_exported_data():
    kind = parse_type("int")
    assert data_signature({"hits": kind}) == 0x663A1EF3
    assert data_signature({"b": kind, "a": kind}) == data_signature({"a": kind, "b": kind})


@pytest.mark.parametrize(("text", "line", "column", "why"), MISTAKES)
def test_mistakes_have_a_place(text, line, column, why):
    with pytest.raises(SourceError) as caught:
        parse_declarations(text)
    assert (caught.value.line, caught.value.column, caught.value.why) == (line, column, why)


VECTORS = Path(__file__).parents[3] / "shared/vectors/limbo"


@pytest.mark.skipif(not VECTORS.is_dir(), reason="no compiled programs here")
@pytest.mark.parametrize("folder", ["mm_chain", "mm_plugin", "mm_stack", "mm_state"])
def test_exports_of_compiled_modules(folder):
    for header in (VECTORS / folder).glob("*.m"):
        module = next(iter(parse_declarations(header.read_text(), str(header)).values()))
        assert isinstance(module, ModuleType)
        listings = [p.read_text() for p in (VECTORS / folder).glob("*.s")]
        exports = {
            name: int(word, 16)
            for text in listings
            if re.search(rf"^\s*module\s+{module.name}$", text, re.MULTILINE)
            for word, name in re.findall(r'link\s+-?\d+,-?\d+,0x(\w+),"([^"]+)"', text)
        }
        for name, word in exports.items():
            known = module.functions
            if name == ".mp":
                assert data_signature(module.data) == word
            elif name in known:
                assert signature(known[name]) == word
