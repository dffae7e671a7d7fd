"""Processes, stacks and output in native code: what Python sees of them, and what it need not."""

from __future__ import annotations

import io

import pytest

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.errors import Deadlock, LimitError, Trap
from llmbol_core.vm import checks, strings
from llmbol_core.vm.environment import Streams
from llmbol_core.vm.interpreter import Interpreter
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.process import Stack
from tests.vm.conftest import ENGINES
from tests.vm.programs import assemble

HELLO = 'string @mp+20,"$Sys"\nldts @ldt,1\nword @ldt+0,1\next @ldt+4,"{kind}","{name}"\n'


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, code_cache):
    monkeypatch.setenv("LLMBOL_CACHE", code_cache)


class Seen:
    """What Python has had to do for a machine."""

    def __init__(self, monkeypatch):
        self.started = self.ended = 0
        new, end = InfernoVM.new_process, InfernoVM.end

        def new_process(vm, parent, handle, frame):
            self.started += 1
            return new(vm, parent, handle, frame)

        def end_process(vm, process, error=None):
            self.ended += 1
            end(vm, process, error)

        monkeypatch.setattr(InfernoVM, "new_process", new_process)
        monkeypatch.setattr(InfernoVM, "end", end_process)


def run(code, engine="native", limits=None, more="", streams=None, **options):
    module = assemble(code, more, **options)
    limits = limits or Limits(1 << 22)
    with InfernoVM(HOST_MODULES, limits=limits, streams=streams, engine=ENGINES[engine]) as vm:
        vm.load_module("test", module)
        value = vm.execute("test", "main")
        stats = vm.get_stats()
    vm.heap.collect()
    assert vm.heap.objects == 0
    return value, stats


REPLIES = """
    newcw 0(mp)
    movw $0,72(fp)
next: frame $6,64(fp)
    movw 72(fp),32(64(fp))
    spawn 64(fp),reply
    recv 0(mp),76(fp)
    addw 76(fp),80(fp)
    addw $1,72(fp)
    bltw 72(fp),$1000,next
    movw 80(fp),0(16(fp))
    ret
reply: send 32(fp),0(mp)
    {end}
"""


@pytest.mark.parametrize("end", ["ret", "frame $6,36(fp)\ncall 36(fp),out\nret\nout: exit"])
@pytest.mark.parametrize("engine", ENGINES)
def test_processes_start_and_end(engine, end, monkeypatch):
    seen = Seen(monkeypatch)
    value, stats = run(REPLIES.format(end=end), engine)
    assert value == sum(range(1000))
    assert stats.processes_started == 1001
    if engine != "reference":
        assert seen.started < 200
        assert seen.ended < 200


CROWD = """
    newcw 0(mp)
    movw $0,72(fp)
next: frame $6,64(fp)
    spawn 64(fp),wait
    addw $1,72(fp)
    bltw 72(fp),$3000,next
    {then}
    movw 72(fp),0(16(fp))
    ret
wait: recv 0(mp),32(fp)
    ret
"""
GO = "movw $0,76(fp)\ngo: send $1,0(mp)\naddw $1,76(fp)\nbltw 76(fp),$3000,go"


@pytest.mark.parametrize("engine", ENGINES)
def test_many_processes_live_at_once(engine):
    limits = Limits(64 << 20, threads=3001)
    assert run(CROWD.format(then=GO), engine, limits)[0] == 3000
    with pytest.raises(LimitError, match="process limit: the program has 3000 of them"):
        run(CROWD.format(then=GO), engine, Limits(64 << 20, threads=3000))


@pytest.mark.parametrize("engine", ENGINES)
def test_who_waits_is_told_of_in_order(engine):
    with pytest.raises(Deadlock) as caught:
        run(CROWD.format(then="newcw 4(mp)\nrecv 4(mp),84(fp)"), engine, Limits(64 << 20))
    assert [f"process {n} in Test" in str(caught.value) for n in (1, 2, 8, 9)] == [1, 1, 1, 0]


@pytest.mark.parametrize("engine", ENGINES)
def test_an_exception_in_a_spawned_process_is_reported(engine):
    report = io.BytesIO()
    code = REPLIES.format(end="beqw 32(fp),$900,bad\nret\nbad: movw 0(8(mp)),32(fp)\nret")
    assert run(code, engine, streams=Streams(None, None, report))[0] == sum(range(1000))
    assert report.getvalue().startswith(b'[Test] Broken: "dereference of nil')


DEEP = """
    movw $0,72(fp)
again: frame $8,64(fp)
    movw 72(fp),32(64(fp))
    lea 76(fp),16(64(fp))
    call 64(fp),deep
    addw 76(fp),80(fp)
    addw $1,72(fp)
    bltw 72(fp),$400,again
    movw 80(fp),0(16(fp))
    ret
deep: blew 32(fp),$0,leaf
    frame $8,40(fp)
    subw $1,32(fp),32(40(fp))
    lea 44(fp),16(40(fp))
    call 40(fp),deep
    addw $1,44(fp),0(16(fp))
    ret
leaf: movw $0,0(16(fp))
    ret
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_stacks_grow_and_shrink_by_themselves(engine, monkeypatch):
    grown, begin = [], Stack._begin

    def counted(stack, room):
        grown.append(room)
        begin(stack, room)

    monkeypatch.setattr(Stack, "_begin", counted)
    value, _ = run(DEEP, engine, more="desc $8,512,(36,48)\n")
    assert value == sum(range(400))
    if engine != "reference":
        assert len(grown) < 20


def test_pieces_of_a_stack_beyond_those_that_native_code_knows():
    code = DEEP.replace("$400", "$3000").replace("$1,72(fp)\n", "$1499,72(fp)\n")
    values = [run(code, engine, Limits(64 << 20), "desc $8,16384,(36)\n")[0] for engine in ENGINES]
    assert values == [1499 + 2998] * 3


PRINTING = """
    load 20(mp),$0,40(fp)
    movw $0,72(fp)
next: frame $8,64(fp)
    movp 24(mp),32(64(fp))
    movw 72(fp),36(64(fp))
    lea 76(fp),16(64(fp))
    mcall 64(fp),$0,40(fp)
    addw 76(fp),80(fp)
    addw $1,72(fp)
    bltw 72(fp),$5000,next
    movw 80(fp),0(16(fp))
    ret
"""
PRINT = 'desc $8,40,(32)\nstring @mp+24,"%d\\n"\n' + HELLO.format(
    kind="fn(s: string, *): int", name="print"
)


class Counted(io.BytesIO):
    """A stream that counts how often it is written to, and may fail."""

    writes = 0
    fails = False

    def write(self, data):
        self.writes += 1
        if self.fails:
            raise BrokenPipeError
        return super().write(data)


@pytest.mark.parametrize("engine", ENGINES)
def test_output_is_collected(engine):
    out = Counted()
    value, _ = run(PRINTING, engine, more=PRINT, streams=Streams(None, out, None))
    assert out.getvalue() == "".join(f"{n}\n" for n in range(5000)).encode()
    assert value == len(out.getvalue())
    assert (out.writes < 1000) == (engine != "reference")


@pytest.mark.parametrize("engine", ENGINES)
def test_output_that_fails_is_told_by_a_later_call(engine):
    out = Counted()
    out.fails = True
    value, _ = run(PRINTING, engine, more=PRINT, streams=Streams(None, out, None))
    assert value < 25_000


@pytest.mark.parametrize("engine", ENGINES)
def test_output_comes_before_the_report_of_an_exception(engine):
    out = io.BytesIO()
    code = PRINTING.replace("movw 80(fp),0(16(fp))", "movw 0(8(mp)),84(fp)")
    with pytest.raises(Trap):
        run(code, engine, more=PRINT, streams=Streams(None, out, out))
    assert out.getvalue().splitlines()[4999:] == [b"4999", out.getvalue().splitlines()[-1]]


TEXTS = ["", "plain", "w\xf6rd", "\xff" * 40, "\u1234x", "\ud800", "\U0010ffff", "a\0b", "x" * 5000]
BYTES = [text.encode("utf-8", "surrogatepass") for text in TEXTS]
BYTES += [b"\xff\xfe", b"abc\xe1\x88", b"\xc0\x80x", b"\xf4\x90\x80\x80", bytes(range(256))]


@pytest.mark.parametrize("engine", ENGINES)
def test_text_is_encoded_and_decoded(engine):
    to_bytes = assemble("cvtca 32(fp),0(16(fp))\nret", "desc $8,40,(32)\n",
                        links='link 8,0,"fn(s: string): array of byte","main"')  # fmt: skip
    to_text = assemble("cvtac 32(fp),0(16(fp))\nret", "desc $8,40,(32)\n",
                       links='link 8,0,"fn(b: array of byte): string","main"')  # fmt: skip
    with InfernoVM(engine=ENGINES[engine]) as vm:
        vm.load_module("bytes", to_bytes)
        vm.load_module("text", to_text)
        for text in TEXTS:
            assert vm.execute("bytes", "main", [text]) == strings.encode(text)
        for data in BYTES:
            assert vm.execute("text", "main", [data]) == strings.decode(data)
    vm.heap.collect()
    assert vm.heap.objects == 0


TURNS = """
    load 20(mp),$0,24(mp)
    movw $0,64(fp)
    movw $0,68(fp)
next:
    movw $0,40(mp)
    frame $6,72(fp)
    spawn 72(fp),work
again:
    addw $1,64(fp)
    mframe 24(mp),$0,76(fp)
    lea 80(fp),16(76(fp))
    movw $7,80(fp)
    movw $0,32(76(fp))
    mcall 76(fp),$0,24(mp)
    addw 80(fp),64(fp)
    beqw 40(mp),$0,again
    addw $1,68(fp)
    bltw 68(fp),$2500,next
    movp 12(mp),24(mp)
    movw 64(fp),0(16(fp))
    ret
work:
    movw $1,40(mp)
    ret
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_no_sleep_lets_others_run(engine, monkeypatch):
    seen = Seen(monkeypatch)
    more = HELLO.format(kind="fn(period: int): int", name="sleep")
    assert run(TURNS, engine, more=more)[0] == 2500
    assert seen.ended <= 2 or engine == "reference"


OF_MANY = """
    newa ${count},$5,36(fp)
fill: indw 36(fp),92(fp),72(fp)
    {made},40(fp)
    movp 40(fp),0(92(fp))
    addw $1,72(fp)
    bltw 72(fp),${count},fill
    movw $0,60(fp)
    movw $1,64(fp)
    movw 36(fp),68(fp)
    lea 80(fp),72(fp)
next: modw ${count},88(fp),100(fp)
    indw 36(fp),92(fp),100(fp)
    send {sent},0(92(fp))
    alt 60(fp),76(fp)
    addw 84(fp),104(fp)
    addw $1,88(fp)
    bltw 88(fp),$1000,next
    movw 104(fp),0(16(fp))
    ret
"""


@pytest.mark.parametrize("count", [3, 300])
def test_python_does_not_look_at_each_array_of_channels(count, monkeypatch):
    looks, look = [], checks.misfit_of_channels

    def counted(*given):
        looks.append(given)
        return look(*given)

    monkeypatch.setattr(checks, "misfit_of_channels", counted)
    code = OF_MANY.format(count=count, made="newcw $1", sent="88(fp)")
    for engine in ENGINES:
        looks.clear()
        assert run(code, engine)[0] == sum(range(1000))
        assert (len(looks) >= 1000) == (engine == "reference")


CONSTANT = """
    newcw $1,40(fp)
    movw $1,60(fp)
    movw $0,64(fp)
    movw 40(fp),68(fp)
next: lea $7,72(fp)
    alt 60(fp),76(fp)
    recv 40(fp),84(fp)
    addw 84(fp),104(fp)
    addw $1,88(fp)
    bltw 88(fp),$1000,next
    movw 104(fp),0(16(fp))
    ret
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_a_constant_is_offered_without_python(engine, monkeypatch):
    stretches, run_on = [], Interpreter.run

    def counted(interpreter, *given):
        stretches.append(given)
        return run_on(interpreter, *given)

    monkeypatch.setattr(Interpreter, "run", counted)
    assert run(CONSTANT, engine)[0] == 7000
    assert len(stretches) < 100
