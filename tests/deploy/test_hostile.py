"""Files and programs that mean harm: each ends within its limits, with one line that says why."""

import random
import struct
import time

import numpy as np
import pytest

from llmbol_core import deploy
from llmbol_core.builtins import signature_of
from llmbol_core.errors import LimitError, LlmbolError
from llmbol_core.nn.builder import build_model
from llmbol_core.vm.assembly import parse_assembly
from llmbol_core.vm.objectfile import write_module
from llmbol_core.vm.payload import ALIGNMENT, MAGIC, TRAILER_SIZE

HEAD = """
init:
	load	sysname(mp),$0,sys(mp)
	load	mlname(mp),$1,ml(mp)
	newa	$1,$Real,32(fp)
	indf	32(fp),36(fp),$0
	movf	one(mp),0(36(fp))
	consw	$1,40(fp)
	consw	$1,40(fp)
	mframe	ml(mp),$Ml.tensor,44(fp)
	movp	32(fp),32(44(fp))
	movp	40(fp),36(44(fp))
	lea	t(mp),16(44(fp))
	mcall	44(fp),$Ml.tensor,ml(mp)
	movp	nil(mp),40(fp)
"""
TAIL = """
	ret
	entry	init,Init
	desc	Data,64,(0,4,8,12,16,20,24,28,32,36,40,44,56)
	desc	Init,64,(32,40,48)
	desc	Child,40,(32)
	desc	Print1,40,(32,36)
	desc	Real,8,()
	var	@mp,64
nil = 0
sys = 4
ml = 8
t = 12
u = 16
sysname = 20
	string	@mp+sysname,"$Sys"
mlname = 24
	string	@mp+mlname,"$Ml"
text = 28
	string	@mp+text,"TEXT"
format = 32
	string	@mp+format,"%s: %r\\n"
net = 36
	string	@mp+net,"/net/cs"
command = 40
	string	@mp+command,"/cmd/clone"
shell = 44
	string	@mp+shell,"/dis/sh.dis"
keys = 56
	string	@mp+keys,"$Keyring2"
one = 48
	real	@mp+one,1
	module	Hostile
	link	Init,init,0x4244b354,"init"
	imports	"$Sys","open","dial","fprint","fildes","print","create"
	imports	"$Ml","tensor","concat","repeat","pad","matmul","payload","slice","samples"
"""


def doubled(axis):
    return f"""
	mframe	ml(mp),$Ml.concat,44(fp)
	movp	t(mp),32(44(fp))
	movp	t(mp),36(44(fp))
	movw	${axis},40(44(fp))
	lea	t(mp),16(44(fp))
	mcall	44(fp),$Ml.concat,ml(mp)
"""


def told(name):
    """Return code that prints a name and the error, or ends if 48(fp) is not nil."""
    return f"""
	bnew	48(fp),nil(mp),granted
	frame	$Print1,44(fp)
	movp	format(mp),32(44(fp))
	movp	{name}(mp),36(44(fp))
	lea	52(fp),16(44(fp))
	mcall	44(fp),$Sys.print,sys(mp)
"""


GRANTED = """
	ret
granted:
	raise	text(mp)
"""
REPEATED = """
	mframe	ml(mp),$Ml.repeat,44(fp)
	movp	t(mp),32(44(fp))
	movw	$0,36(44(fp))
	movw	$500000000,40(44(fp))
	lea	t(mp),16(44(fp))
	mcall	44(fp),$Ml.repeat,ml(mp)
"""
PADDED = """
	mframe	ml(mp),$Ml.pad,44(fp)
	movp	t(mp),32(44(fp))
	movw	$0,36(44(fp))
	movw	$500000000,40(44(fp))
	movw	$500000000,44(44(fp))
	lea	t(mp),16(44(fp))
	mcall	44(fp),$Ml.pad,ml(mp)
"""
KEPT = """
again:
	mframe	ml(mp),$Ml.concat,44(fp)
	movp	t(mp),32(44(fp))
	movp	t(mp),36(44(fp))
	movw	$0,40(44(fp))
	lea	u(mp),16(44(fp))
	mcall	44(fp),$Ml.concat,ml(mp)
	consp	u(mp),48(fp)
	jmp	again
"""


@pytest.fixture
def run(tmp_path):
    """Return a function that runs assembly as a program, with a payload if one is given."""

    def run(code, *arguments, text="TEXT", payload=None, granted=(), stdin=b"", **limits):
        whole = HEAD + code + TAIL.replace("TEXT", text)
        module = parse_assembly(whole, "hostile.s", signature_of)
        path = tmp_path / "hostile.dis"
        path.write_bytes(write_module(module))
        within = deploy.Limits(**{"memory": 1 << 20, "threads": 100, **limits})
        done = deploy.run_file(str(path), arguments, granted, within, stdin)
        return done.status, done.stdout.decode(), done.stderr.decode()

    return run


@pytest.mark.parametrize(
    "code",
    [
        "grow:" + doubled(0) + "	jmp	grow\n",
        REPEATED,
        PADDED,
        KEPT,
        "make:\n	newa	$1000,$Real,48(fp)\n	consp	48(fp),40(fp)\n	jmp	make\n",
    ],
    ids=["concat", "repeat", "pad", "many", "arrays"],
)
def test_more_memory_than_granted(run, code):
    status, out, err = run(code)
    assert (status, out) == (1, "")
    where = "$Ml" if "$Ml" in code else "Hostile"
    assert err == f'[{where}] Broken: "out of memory: heap"\n'


def test_endless_loop_ends_at_the_limits(run):
    with pytest.raises(LimitError, match="instruction"):
        run("here:\n	jmp	here\n", instructions=100_000)
    with pytest.raises(LimitError, match="time"):
        run("here:\n	jmp	here\n", seconds=0.3)


def test_endless_recursion_ends(run):
    status, _, err = run("deeper:\n	frame	$Init,44(fp)\n	call	44(fp),deeper\n")
    assert status == 1
    assert "out of memory" in err


def test_ten_thousand_processes(run):
    code = "more:\n	frame	$Child,44(fp)\n	spawn	44(fp),child\n	jmp	more\n"
    with pytest.raises(LimitError, match="process"):
        run(
            f"{code}child:\n	newcw	32(fp)\n	recv	32(fp),36(fp)\n	ret\n",
            threads=10_000,
            memory=64 << 20,
        )


def test_a_long_call_ends_in_time(run):
    """The time limit holds inside of a call, and while many processes want long calls."""
    grown = "".join(doubled(n % 2) for n in range(20))  # 1024 by 1024
    product = """
	mframe	ml(mp),$Ml.matmul,44(fp)
	movp	t(mp),32(44(fp))
	movp	t(mp),36(44(fp))
	lea	48(fp),16(44(fp))
	mcall	44(fp),$Ml.matmul,ml(mp)
"""
    code = grown + "lengthy:\n" + product + "	jmp	lengthy\n"
    started = time.process_time()
    with pytest.raises(LimitError, match="time"):
        run(code, memory=64 << 20, seconds=0.5)
    assert time.process_time() - started < 30


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "/dev/null", "#s/x", "../../etc/passwd", "/prog/1/ctl"]
)
def test_files_that_were_not_granted(run, name):
    code = """
	mframe	sys(mp),$Sys.open,44(fp)
	movp	text(mp),32(44(fp))
	movw	$0,36(44(fp))
	lea	48(fp),16(44(fp))
	mcall	44(fp),$Sys.open,sys(mp)
"""
    status, out, err = run(f"{code}{told('text')}{GRANTED}", text=name)
    assert (status, err) == (0, "")
    assert out.startswith(f"{name}: ")
    assert "does not exist" in out or "unknown device" in out


@pytest.mark.parametrize("name", ["$Keyring2", "$Draw", "#C", "/dis/sh.dis", "$Exec"])
def test_modules_that_were_not_granted(run, name):
    code = """
	load	text(mp),$0,48(fp)
"""
    status, out, err = run(f"{code}{told('text')}{GRANTED}", text=name)
    assert (status, err) == (0, "")
    assert any(words in out for words in ("not built-in", "does not exist", "unknown device"))


def test_errors_are_those_of_inferno(run):
    """Files, the network, host commands and modules that were not granted do not exist."""
    opened = "".join(
        f"""
	mframe	sys(mp),$Sys.open,44(fp)
	movp	{name}(mp),32(44(fp))
	movw	${mode},36(44(fp))
	lea	48(fp),16(44(fp))
	mcall	44(fp),$Sys.open,sys(mp)
{told(name)}"""
        for name, mode in (("text", 0), ("net", 2), ("command", 2))
    )
    loaded = "".join(
        f"	load	{name}(mp),$0,48(fp)\n{told(name)}" for name in ("shell", "keys")
    )
    status, out, err = run(f"{opened}{loaded}{GRANTED}", text="/etc/passwd")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "/etc/passwd: '/etc' file does not exist",
        "/net/cs: '/net/cs' file does not exist",
        "/cmd/clone: '/cmd' file does not exist",
        "/dis/sh.dis: '/dis/sh.dis' does not exist",
        "$Keyring2: module not built-in",
    ]


def test_no_payload_no_weights(run):
    code = """
	mframe	ml(mp),$Ml.payload,44(fp)
	movp	text(mp),32(44(fp))
	lea	48(fp),16(44(fp))
	mcall	44(fp),$Ml.payload,ml(mp)
"""
    status, _, err = run(code)
    assert status == 1
    assert (
        err == '[$Ml] Broken: "ml: payload: the module\'s file carries none, or has lost its end"\n'
    )


# ---- files ----


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile") / "mlp.dis"
    deploy.compile(build_model("mlp", [8]).linear(8, 16).relu().linear(16, 2).build(), str(path))
    return path.read_bytes()


def outcome(data, tmp_path):
    """Return what running a file gives: its output, or the one line that says what is wrong."""
    path = tmp_path / "changed.dis"
    path.write_bytes(data)
    try:
        limits = deploy.Limits(memory=1 << 20, seconds=20.0)
        done = deploy.run_file(str(path), stdin=b"1,2,3,4,5,6,7,8\n", limits=limits)
    except LlmbolError as error:
        return str(error)
    lines = done.stderr.splitlines()
    told = [line for line in lines if not line.startswith(b"link typecheck ")]
    assert len(told) == (done.status != 0)
    return (done.stdout + done.stderr).decode()


def trailer(data, offset, size):
    return data[:-TRAILER_SIZE] + struct.pack("<QQ8s", offset, size, MAGIC)


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        (0, 0),
        (ALIGNMENT, 1 << 63),
        ((1 << 64) - ALIGNMENT, ALIGNMENT),
        (ALIGNMENT + 1, 100),
        (2 * ALIGNMENT, 0),
        ((1 << 64) - 1, (1 << 64) - 1),
    ],
)
def test_trailers_that_lie(model, tmp_path, offset, size):
    assert "does not fit" in outcome(trailer(model, offset, size), tmp_path)


def test_a_payload_that_is_something_else(model, tmp_path):
    start, size = struct.unpack_from("<QQ", model, len(model) - TRAILER_SIZE)
    for payload in (b"", b"GGUF", bytes(100), random.Random(0).randbytes(5000)):
        changed = model[:start] + payload + struct.pack("<QQ8s", start, len(payload), MAGIC)
        text = outcome(changed, tmp_path)
        assert len(text.splitlines()) == 1
        assert "ml: " in text or "GGUF" in text
    without = model[:-TRAILER_SIZE]
    assert "carries none" in outcome(without, tmp_path)
    nested = model + struct.pack("<QQ8s", start, size + TRAILER_SIZE, MAGIC)
    assert outcome(nested, tmp_path)


@pytest.mark.parametrize("seed", range(3))
def test_sizes_in_the_payload_that_lie(model, tmp_path, seed):
    """Counts, lengths and offsets of the GGUF header, each with numbers that make no sense."""
    rng = random.Random(seed)
    start, _ = struct.unpack_from("<QQ", model, len(model) - TRAILER_SIZE)
    for _ in range(25):
        changed = bytearray(model)
        at = start + rng.randrange(4, 1200)
        value = rng.choice([0, 1, 255, 1 << 31, (1 << 63) - 1, (1 << 64) - 1, 1 << 40])
        changed[at : at + 8] = struct.pack("<Q", value)
        text = outcome(bytes(changed), tmp_path)
        assert text
        assert "Traceback" not in text


@pytest.mark.parametrize("seed", range(3))
def test_truncated_and_damaged_files(model, tmp_path, seed):
    rng = random.Random(seed)
    for _ in range(20):
        outcome(model[: rng.randrange(len(model))], tmp_path)
        changed = bytearray(model)
        for _ in range(rng.randrange(1, 4)):
            changed[rng.randrange(1200)] ^= 1 << rng.randrange(8)
        outcome(bytes(changed), tmp_path)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no rows of numbers"),
        (b"1,2,3\n", "3 columns for a sample, the model takes 8"),
        (b"1,2,3,4,5,6,7,8\n1,2,3,4,5,6,7,x\n", "row 2, column 8: 'x' is no number"),
        (b"1,2,3,4,5,6,7,8\n1,2\n", "row 2 has 2 values, expected 8"),
        (b"\xff\xfe,2,3\n", "not UTF-8"),
        (b'[[1,2,3,4,5,6,7,"x"]]', "expected numbers"),
        (b"[[1,2,3", "not JSON"),
        (b"[" * 40_000, "JSON"),
        (b'{"inputs": [[1,2],[3]]}', "lists of equal lengths"),
        (b"[1,2,3]", "expected input of shape [8]"),
        (b"\x93NUMPY\x01\x00", "npy"),
        (b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (9,8), }"
         .ljust(128) , "cut short"),
        (b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (9,7), }"
         .ljust(128) , "got [9, 7]"),
        (b"\x93NUMPY\x01\x00\x76\x00{'descr': '|O', 'fortran_order': False, 'shape': (9,8), }"
         .ljust(128) , "expected numbers"),
        (b"PK\x03\x04" + bytes(40), "archive"),
    ],
)  # fmt: skip
def test_inputs_that_are_wrong(model, tmp_path, data, why):
    path = tmp_path / "m.dis"
    path.write_bytes(model)
    done = deploy.run_file(str(path), stdin=data, limits=deploy.Limits(memory=1 << 24))
    assert done.status == 1
    assert why in done.stderr.decode()
    assert len(done.stderr.splitlines()) == 1


def test_inputs_larger_than_memory(model, tmp_path):
    path = tmp_path / "m.dis"
    path.write_bytes(model)
    limits = deploy.Limits(memory=1 << 18)
    table = b"1,2,3,4,5,6,7,8\n" * 20_000
    done = deploy.run_file(str(path), stdin=table, limits=limits)
    assert (done.status, done.stdout.count(b"\n")) == (0, 20_000)
    array = np.ones((20_000, 8))
    for name, save in (("x.npy", np.save), ("x.npz", np.savez_compressed)):
        file = str(tmp_path / name)
        save(file, array)
        done = deploy.run_file(str(path), [file], [file], limits)
        if name == "x.npy":
            assert (done.status, done.stdout.count(b"\n")) == (0, 20_000)
        else:
            assert b"out of memory" in done.stderr
    endless = b"[" + b"[1,2,3,4,5,6,7,8]," * 40_000
    assert b"out of memory" in deploy.run_file(str(path), stdin=endless, limits=limits).stderr
    line = b"1" * (1 << 25)
    assert deploy.run_file(str(path), stdin=line, limits=limits).status == 1
