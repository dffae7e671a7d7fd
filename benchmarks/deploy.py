"""Compiled models: the cost of a call of $Ml, `dis run` beside `nn infer`, a large model's start.

    python -m benchmarks.deploy [calls] [run] [large]

Peers are measured in the same run, in turns; the least of several times counts. Run it on an idle
machine. ``large`` makes a model of 100 MB in a temporary directory.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llmbol_core import deploy
from llmbol_core.builtins import signature_of
from llmbol_core.ml.ops import OPS
from llmbol_core.nn.builder import build_model
from llmbol_core.nn.checkpoint import save
from llmbol_core.nn.quantize import quantize_checkpoint
from llmbol_core.nn.spec import read_spec
from llmbol_core.vm.assembly import parse_assembly

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
CALLS = 50_000

LOOP = """
loop:
	bnew	ml(mp),nil(mp),ready
	load	name(mp),$0,ml(mp)
	newaz	$4,$Real,36(fp)
	consw	$2,40(fp)
	consw	$2,40(fp)
	mframe	ml(mp),$Ml.tensor,44(fp)
	movp	36(fp),32(44(fp))
	movp	40(fp),36(44(fp))
	lea	t(mp),16(44(fp))
	mcall	44(fp),$Ml.tensor,ml(mp)
ready:
	movw	$0,48(fp)
again:
	bgew	48(fp),32(fp),done
	mframe	ml(mp),$Ml.OP,44(fp)
	movp	t(mp),32(44(fp))
SECOND
	lea	52(fp),16(44(fp))
	mcall	44(fp),$Ml.OP,ml(mp)
	addw	$1,48(fp)
	jmp	again
done:
	movw	48(fp),0(16(fp))
	ret
	entry	loop,Loop
	desc	Data,16,(0,4,8,12)
	desc	Loop,56,(36,40,52)
	desc	Real,8,()
	var	@mp,16
nil = 0
ml = 4
t = 8
name = 12
	string	@mp+name,"$Ml"
	module	Loop
	link	Loop,loop,0xe67bf126,"loop"
	imports	"$Ml","tensor","OP"
"""


def least(calls: Sequence[Callable[[], object]], turns: int) -> list[float]:
    """Return the least time of each call, in seconds; they take turns."""
    best = [float("inf")] * len(calls)
    for _ in range(turns):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            call()
            best[i] = min(best[i], time.perf_counter() - start)
    return best


def calls() -> None:
    """Print what a call of an operation costs from a loop in a program, and in Python."""
    print(f"{'operation':12} {'dis us':>8} {'numpy us':>9} {'overhead us':>12}  limit 3")
    x = np.zeros((2, 2), np.float32)
    for name in ("add", "mul", "relu", "exp"):
        row = OPS[name]
        second = "\tmovp\tt(mp),36(44(fp))" if len(row.inputs) > 1 else ""
        text = LOOP.replace("OP", name).replace("SECOND", second)
        module = parse_assembly(text, "loop.s", signature_of)
        given = [x] * len(row.inputs)

        def plain(run: Callable[..., object] = row.definition, given: list[object] = given) -> None:
            for _ in range(CALLS):
                run(*given)

        with deploy.create_vm() as vm, np.errstate(all="ignore"):
            vm.load_module("loop", module)
            vm.execute("loop", "loop", [CALLS])
            times = least([lambda: vm.execute("loop", "loop", [CALLS]), plain], 7)
        dis, numpy = (1e6 * t / CALLS for t in times)
        print(f"{name:12} {dis:8.2f} {numpy:9.2f} {dis - numpy:12.2f}")


def run(turns: int = 7) -> None:
    """Print processor time of whole processes: a compiled model's, and that of `nn infer`."""
    print(f"{'model':22} {'batch':>6} {'dis run s':>10} {'nn infer s':>10} {'ratio':>6}  limit 1.1")
    with tempfile.TemporaryDirectory() as folder:
        for spec in sorted((ROOT / "specs").glob("*.yaml")):
            model = read_spec(str(spec)).seeded()
            names = {end: f"{folder}/{model.name}.{end}" for end in ("gguf", "dis", "npy")}
            save(model, names["gguf"])
            deploy.compile(names["gguf"], names["dis"])
            for batch in (1, 64, 2048):
                np.save(names["npy"], np.ones((batch, *model.input.shape), np.float32))
                commands = (
                    [BIN / "dis", "run", names["dis"], names["npy"]],
                    [BIN / "nn", "infer", names["gguf"], names["npy"]],
                )
                times = [[processor_time(c) for c in commands] for _ in range(turns)]
                dis, nn = (min(column) for column in zip(*times, strict=True))
                print(f"{model.name:22} {batch:6} {dis:10.3f} {nn:10.3f} {dis / nn:6.2f}")


def processor_time(command: Sequence[str | Path]) -> float:
    """Return the processor time of a process, which must succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def large() -> None:
    """Print how long models of 100 MB take to answer, and what four processes share of them."""
    print(f"{'weights':8} {'MB':>4} {'first s':>8} {'later s':>8}  MB of each of four at once")
    with tempfile.TemporaryDirectory() as folder:
        watch, samples = f"{folder}/watch.dis", f"{folder}/x.npy"
        source = ROOT / "specs/programs/watch.s"
        subprocess.run([BIN / "dis", "asm", source, "-o", watch], check=True)
        np.save(samples, np.ones((1, WIDTH), np.float32))
        for kind, layers in (("F32", 2), ("F16", 3), ("Q8_0", 6)):
            program = f"{folder}/large.dis"
            size = _compile_large(folder, kind, layers, program)

            def answer(
                command: Sequence[str | Path] = (BIN / "dis", "run", program, samples),
            ) -> Any:
                return subprocess.run(command, check=True, capture_output=True)

            first, later = least([answer], 1)[0], least([answer], 5)[0]
            shown = ", ".join(shares([BIN / "dis", "run", watch, program]))
            print(f"{kind:8} {size / 1e6:4.0f} {first:8.2f} {later:8.2f}  {shown}  limit 0.8 s")


WIDTH = 4096


def _compile_large(folder: str, kind: str, layers: int, program: str) -> int:
    """Compile a model of so many layers and return how large it is."""
    builder = build_model("large", [WIDTH])
    for _ in range(layers):
        builder = builder.linear(WIDTH, WIDTH).relu()
    plain, stored = f"{folder}/plain.gguf", f"{folder}/stored.gguf"
    save(builder.build(), plain)
    quantize_checkpoint(plain, stored, kind)
    deploy.compile(stored, program)
    return Path(program).stat().st_size


def shares(command: Sequence[str | Path]) -> list[str]:
    """Return the proportional and the resident set of four processes that have answered once."""
    row = (",".join(["1"] * 4096) + "\n").encode()
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe) for _ in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(row)
        process.stdin.flush()
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    found = [sizes(process.pid) for process in processes]
    for process in processes:
        process.communicate()
    return [f"{pss} of {rss}" for pss, rss in found]


def sizes(pid: int) -> tuple[int, int]:
    """Return the proportional and the resident set of a process in megabytes (Linux)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    found = {line.split()[0]: int(line.split()[1]) // 1024 for line in lines[1:]}
    return found["Pss:"], found["Rss:"]


if __name__ == "__main__":
    chosen = sys.argv[1:] or ["calls", "run", "large"]
    for part in chosen:
        {"calls": calls, "run": run, "large": large}[part]()
