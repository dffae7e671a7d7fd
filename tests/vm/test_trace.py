"""Tracing: what is recorded of each instruction."""

from __future__ import annotations

import io

import pytest

from llmbol_core.vm.trace import Tracer, TraceRecord
from tests.vm.objects import DATA_DIRECTORY
from tests.vm.observed import PICKS, watched
from tests.vm.programs import assemble

CODE = """
    movw $6,56(fp)
    addw $1,56(fp)
    mulw 56(fp),$7,60(fp)
    movp 0(mp),32(fp)
    lea 56(fp),64(fp)
    newa $3,$3,36(fp)
    movw 60(fp),0(16(fp))
    ret
"""


def trace(program, **options):
    records: list[TraceRecord] = []
    tracer = Tracer(records.append, **options)
    with watched(tracer) as vm:
        vm.load_module("test", program)
        value = vm.execute("test", "main")
    return records, value, tracer


def test_values_are_read_before_and_written_after():
    records, value, _ = trace(assemble(CODE, 'string @mp+0,"a\\n"'))
    assert value == 49
    assert [record.pc for record in records] == list(range(8))
    assert {record.function for record in records} == {"main"}
    shown = [(record.instruction, record.read, record.written) for record in records]
    assert shown[:4] == [
        ("movw $6,56(fp)", {}, {"d": "6"}),
        ("addw $1,56(fp)", {"m": "6"}, {"d": "7"}),
        ("mulw 56(fp),$7,60(fp)", {"s": "7"}, {"d": "49"}),
        ("movp 0(mp),32(fp)", {"s": r'"a\n"'}, {"d": r'"a\n"'}),
    ]
    assert shown[4][2] == {}
    assert shown[5][2] == {"d": "array[3] {...}"}
    assert " ".join(str(records[1]).split()) == "1 Test.main 1 addw $1,56(fp) m=6 -> d=7"


def test_an_exception_is_recorded_with_the_instruction_that_raised_it():
    code = "movw $0,56(fp)\ndivw 56(fp),$1,60(fp)\nret\nmovw $5,0(16(fp))\nret"
    more = 'exceptions 1\nexception 0,3,32,-1,1,0\nexctab "zero*",3\nexctab *,-1'
    records, value, _ = trace(assemble(code, more))
    assert value == 5
    assert [record.pc for record in records] == [0, 1, 3, 4]
    assert records[1].raised == "zero divide"
    assert records[1].written == {}
    assert str(records[1]).endswith('s=0 raises "zero divide"')


def test_limit_ends_the_log_and_not_the_program():
    records, value, _ = trace(assemble(CODE), limit=2)
    assert (len(records), value) == (2, 49)


@pytest.mark.parametrize("name", ["eval", "Picks.eval"])
def test_only_one_function(name):
    records: list[TraceRecord] = []
    with watched(Tracer(records.append, name)) as vm:
        assert vm.run(str(PICKS), host=True).status == 0
    assert {record.function for record in records} == {"eval"}
    assert len(records) == 224


def test_a_function_that_never_ran_is_named():
    _, _, tracer = trace(assemble(CODE), function="mian")
    assert str(tracer.missed) == "no instruction of a function 'mian' ran (did you mean 'main'?)"
    assert trace(assemble(CODE), function="main")[2].missed is None


@pytest.mark.parametrize("path", sorted(DATA_DIRECTORY.glob("*.dis")), ids=lambda p: p.stem)
def test_a_traced_program_does_the_same(path):
    from llmbol_core.vm.observation import Observer

    results = []
    for observer in (Tracer(lambda record: None), Observer()):
        observer.is_watching = isinstance(observer, Tracer)
        out = io.BytesIO()
        with watched(observer, out) as vm:
            outcome = vm.run(str(path), host=True)
            results.append((out.getvalue(), outcome, vm.get_stats().instructions))
    assert results[0] == results[1]
