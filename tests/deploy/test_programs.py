"""The programs around models in specs/programs: each does what a user would have it do."""

import dataclasses
import io
import os
import shutil
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pytest

from llmbol_core import deploy
from llmbol_core.builtins import HOST_MODULES, built_in, signature_of
from llmbol_core.deploy.compiler import compile_file
from llmbol_core.nn.checkpoint import load_for_inference, save
from llmbol_core.nn.evaluate import load_data
from llmbol_core.nn.spec import read_spec
from llmbol_core.nn.train import train
from llmbol_core.vm.assembly import parse_assembly
from llmbol_core.vm.environment import Streams
from llmbol_core.vm.files.namespace import Namespace
from llmbol_core.vm.layout import ModuleType
from llmbol_core.vm.limbo import parse_declarations, signature
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.objectfile import read_module, write_module

PROGRAMS = Path("specs/programs")
ROOT = Path(os.environ.get("INFERNO_ROOT", "/nonexistent"))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Return a folder with two trained models, compiled, and the held-out samples as a table."""
    folder = tmp_path_factory.mktemp("digits")
    for number in range(2):
        model = read_spec("specs/digits-mlp.yaml").seeded(number)
        data = load_data(model)
        assert model.train is not None
        model.train.epochs = 4 + 4 * number
        train(model, data)
        save(model, str(folder / f"{number}.gguf"))
        compile_file(str(folder / f"{number}.gguf"), str(folder / f"{number}.dis"))
    rows = data.test_inputs.reshape(-1, 64).astype(int)
    header = ",".join(f"p{i}" for i in range(64)) + ",label"
    lines = [",".join(map(str, (*row, t))) for row, t in zip(rows, data.test_targets, strict=True)]
    (folder / "digits.csv").write_text("\n".join([header, *lines, ""]))
    return folder, rows, data.test_targets


def run(program, arguments, **options):
    done = deploy.run_file(str(program), arguments, granted=arguments, **options)
    return done.status, done.stdout.decode().splitlines(), done.stderr.decode()


def probabilities(path, rows):
    outputs = load_for_inference(str(path)).run(rows.reshape(-1, 8, 8).astype(np.float32))
    powers = np.exp(outputs.astype(np.float64) - outputs.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_classifier_sorts_a_table(digits):
    folder, rows, targets = digits
    arguments = [str(folder / "0.dis"), str(folder / "digits.csv")]
    status, lines, told = run(PROGRAMS / "classify.dis", arguments)
    expected = probabilities(folder / "0.gguf", rows)
    assert status == 0
    assert len(lines) == len(rows) > 256
    labels = np.array([int(line.split(",")[1]) for line in lines])
    np.testing.assert_array_equal(labels, expected.argmax(axis=1))
    shares = [float(line.split(",")[2]) for line in lines]
    np.testing.assert_allclose(shares, expected.max(axis=1), atol=1e-3)
    assert told.splitlines() == [f"{n}: {(labels == n).sum()}" for n in range(10)]
    assert (labels == targets).mean() > 0.85


def test_classifier_says_what_is_wrong(digits, tmp_path):
    folder, _, _ = digits
    model, bad = str(folder / "0.dis"), tmp_path / "bad.csv"
    bad.write_text("1,2,3\n")
    for arguments, why in (
        ([], "usage"),
        ([model, str(tmp_path / "none.csv")], "does not exist"),
        ([str(bad), str(bad)], "bad.csv"),
        ([model, str(bad)], "3 columns for a sample, the model takes 64 values"),
    ):
        status, lines, told = run(PROGRAMS / "classify.dis", arguments)
        assert (status, lines) == (1, [])
        assert why in told
        assert len(told.splitlines()) == 1


def test_two_models_vote(digits):
    folder, rows, _ = digits
    arguments = [str(folder / name) for name in ("0.dis", "1.dis", "digits.csv")]
    status, lines, told = run(PROGRAMS / "ensemble.dis", arguments)
    both = [probabilities(folder / f"{n}.gguf", rows) for n in range(2)]
    mean = (both[0] + both[1]) / 2
    assert status == 0
    words = [line.split("\t") for line in lines]
    assert [int(word[1]) for word in words] == mean.argmax(axis=1).tolist()
    agreed = both[0].argmax(axis=1) == both[1].argmax(axis=1)
    assert [len(word) == 3 for word in words] == agreed.tolist()
    assert told == f"{len(rows)} samples, {agreed.sum()} of one mind\n"


def test_a_voter_that_fails_ends_the_vote(digits):
    folder, _, _ = digits
    arguments = [str(folder / name) for name in ("0.dis", "1.dis", "digits.csv")]
    limits = deploy.Limits(memory=1 << 18)
    status, _, told = run(PROGRAMS / "ensemble.dis", arguments, limits=limits)
    assert status == 1
    assert "out of memory" in told


def test_watcher_tells_noise_from_digits(digits, rng):
    folder, rows, _ = digits
    stream = rows[:80].copy()
    odd = (40, 60)
    for at in odd:
        stream[at] = rng.integers(0, 17, 64) * (np.arange(64) % 3 > 0)
    text = "".join(",".join(map(str, row)) + "\n" for row in stream)
    module = parse_assembly((PROGRAMS / "watch.s").read_text(), "watch.s", signature_of)
    program = folder / "watch.dis"
    program.write_bytes(write_module(module))
    status, lines, told = run(program, [str(folder / "1.dis")], stdin=text.encode())
    assert (status, told) == (0, "")
    assert [line.split("\t")[0] for line in lines] == [str(n) for n in range(80)]
    scores = -np.log(probabilities(folder / "1.gguf", stream).max(axis=1))
    np.testing.assert_allclose([float(line.split("\t")[1]) for line in lines], scores, atol=1e-3)
    found = {n for n, line in enumerate(lines) if line.endswith("anomaly")}
    assert set(np.argsort(-scores)[:2]) & found


def test_watcher_answers_each_row_as_it_comes(digits):
    folder, rows, _ = digits
    program = folder / "watch.dis"
    program.write_bytes(
        write_module(parse_assembly((PROGRAMS / "watch.s").read_text(), "watch.s", signature_of))
    )
    answers = io.BytesIO()

    class Talk(io.RawIOBase):
        """Gives one row at a time, and only when the one before has been answered."""

        given = 0

        def readable(self):
            return True

        def read(self, count=-1):
            assert answers.getvalue().count(b"\n") == self.given
            if self.given == 5:
                return b""
            self.given += 1
            return (",".join(map(str, rows[self.given])) + "\n").encode()

    namespace = Namespace(granted=[str(folder / "1.dis")])
    with InfernoVM(
        HOST_MODULES, namespace, None, Streams(cast(BinaryIO, Talk()), answers, answers)
    ) as machine:
        outcome = machine.run(str(program), [str(folder / "1.dis")], host=True)
    assert outcome.status == 0
    assert answers.getvalue().count(b"\n") == 5


def test_interface_is_that_of_the_module():
    assert (PROGRAMS / "ml.m").read_text() == built_in("$Ml").interface()


def test_programs_link_as_their_interfaces_say():
    """The compiler of Inferno computed these signatures, from ml.m and model.m."""
    text = (PROGRAMS / "ml.m").read_text()
    draw = "Draw: module { Context: adt { x: int; }; };"
    model = (PROGRAMS / "model.m").read_text()
    declared = parse_declarations(draw + text + model)["Model"]
    assert isinstance(declared, ModuleType)
    offered = {name: signature(kind) for name, kind in declared.functions.items()}
    for name in ("classify", "ensemble"):
        module = read_module((PROGRAMS / f"{name}.dis").read_bytes())
        by_mark = {
            mark: row
            for row in module.imports
            for mark in ("take", "forward")
            if mark in {entry.name for entry in row}
        }
        for entry in by_mark["take"]:
            assert signature_of("$Ml", entry.name) == entry.signature
        for entry in by_mark["forward"]:
            assert offered[entry.name] == entry.signature


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "dis").is_dir(), reason="INFERNO_ROOT names no Inferno tree")
@pytest.mark.parametrize("name", ["classify", "ensemble"])
def test_compiled_programs_are_those_of_the_sources(name, tmp_path):
    """Inferno's own compiler, which is a Dis program, makes the same file here."""
    for folder in ("dis", "module"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "tmp").mkdir()
    for path in (*PROGRAMS.glob("*.m"), PROGRAMS / f"{name}.b"):
        shutil.copy(path, tmp_path / "tmp")
    out = io.BytesIO()
    with InfernoVM(
        HOST_MODULES, Namespace(tmp_path, writable=True), None, Streams(None, out, out)
    ) as machine:
        machine.run(
            "/dis/limbo.dis", ["-I/module", "-I/tmp", "-o", "/tmp/made.dis", f"/tmp/{name}.b"]
        )
    assert out.getvalue() == b""
    made = read_module((tmp_path / "tmp/made.dis").read_bytes())
    kept = read_module((PROGRAMS / f"{name}.dis").read_bytes())
    assert dataclasses.replace(made, source_path=kept.source_path) == kept
