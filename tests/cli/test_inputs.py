"""Every command that reads a file reads standard input for ``-``, with the same result."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbol_cli import dis, nn
from llmbol_core import deploy
from llmbol_core.deploy.security import create_keys
from llmbol_core.nn import checkpoint
from llmbol_core.nn.builder import build_model

SPECS = Path(__file__).parents[2] / "specs"
MAIN = {"dis": dis.main, "nn": nn.main}

# fmt: off
READS = [
    # what it reads     the command
    ("hello.s",         "dis asm {} -o out"),
    ("hello.dis",       "dis disasm {}"),
    ("hello.dis",       "dis verify {}"),
    ("key.pub",         "dis verify m.dis --key {}"),
    ("hello.dis",       "dis sign {} --key key -o out"),
    ("key",             "dis sign hello.dis --key {} -o out"),
    ("hello.dis",       "dis run {}"),
    ("m.dis",           "dis run {} x.npy"),
    ("x.npy",           "dis run m.dis {}"),
    ("hello.dis",       "dis compile {}"),
    ("hello.dis",       "dis trace -o out {}"),
    ("hello.dis",       "dis profile --stdout out {}"),
    ("hello.dis",       "dis stat {}"),
    ("m.dis",           "dis dump {}"),
    ("hello.dis",       "dis deps {}"),
    ("digits-mlp.yaml", "nn check {}"),
    ("digits-mlp.yaml", "nn build {} -o out"),
    ("digits-mlp.yaml", "nn summary {}"),
    ("m.gguf",          "nn summary {}"),
    ("m.dis",           "nn summary {}"),
    ("digits-mlp.yaml", "nn train {} --epochs 1 -o out"),
    ("d.gguf",          "nn train {} --epochs 1 -o out"),
    ("data/digits.npz", "nn train digits-mlp.yaml --epochs 1 --data {} -o out"),
    ("d.gguf",          "nn eval {}"),
    ("data/digits.npz", "nn eval d.gguf --data {}"),
    ("m.gguf",          "nn quantize {} -t q8_0 -o out"),
    ("m.gguf",          "nn dequantize {} -o out"),
    ("m.gguf",          "nn inspect {}"),
    ("m.gguf",          "nn compare {} m.gguf --input x.npy"),
    ("m.gguf",          "nn compare m.gguf {} --input x.npy"),
    ("x.npy",           "nn compare m.gguf m.gguf --input {}"),
    ("m.gguf",          "nn infer {} x.npy"),
    ("x.npy",           "nn infer m.gguf {}"),
    ("labels",          "nn infer m.gguf x.npy --top-k 1 --labels {}"),
    ("m.gguf",          "nn compile {} --listing"),
    ("m.gguf",          "nn compile {} -o out"),
    ("m.dis",           "nn extract {} -o out"),
    ("m.gguf",          "nn export {} -o out.npz"),
]
# fmt: on


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Return a folder with one file of each kind."""
    folder = tmp_path_factory.mktemp("inputs") / "folder"
    shutil.copytree(SPECS, folder)
    checkpoint.save(build_model("m", [2]).linear(2, 32).relu().build(), str(folder / "m.gguf"))
    deploy.compile(str(folder / "m.gguf"), str(folder / "m.dis"))
    (folder / "labels").write_text("label\n" * 32)
    np.save(folder / "x.npy", np.ones((3, 2), np.float32))
    create_keys(str(folder / "key"))
    shutil.copy(folder / "programs/hello.s", folder)
    return folder


@pytest.fixture
def run(originals, monkeypatch, capfdbinary):
    """Return a function that runs a command in the folder and gives all that came of it."""
    monkeypatch.chdir(originals)

    def run(command: str, stdin: bytes = b"") -> Any:
        words = command.split()
        monkeypatch.setattr("sys.argv", words)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            MAIN[words[0]]()
        made = {path.name: path.read_bytes() for path in originals.glob("out*")}
        for name in made:
            (originals / name).unlink()
        return ended.value.code, *capfdbinary.readouterr(), made

    for command in (
        "dis asm hello.s -o hello.dis",
        "dis sign m.dis --key key -o m.dis",
        "nn build digits-mlp.yaml -o d.gguf",
    ):
        assert run(command)[0] == 0
    return run


@pytest.mark.parametrize(("name", "command"), READS, ids=[f"{c}-{n}" for n, c in READS])
def test_standard_input_is_as_good_as_a_file(name, command, run, originals):
    status, out, errors, made = run(command.format(name))
    assert (status, errors) == (0, b"")
    status, again, errors, made_again = run(command.format("-"), (originals / name).read_bytes())
    assert (status, errors) == (0, b"")
    assert made_again == made
    if not command.startswith(("nn train", "dis compile")):  # these tell how long it took
        words, words_again = (text.replace(name.encode(), b"-").split() for text in (out, again))
        assert words_again == words


MISTAKES = {
    "nn train -": ("d.gguf", 1, b"standard input cannot be replaced: give --output"),
    "dis sign - --key key": ("hello.dis", 2, b"a file is written, not standard output"),
    "dis debug -": ("hello.dis", 2, b"standard input is for the debugger's commands"),
}


@pytest.mark.parametrize("command", MISTAKES)
def test_where_standard_input_makes_no_sense(command, run, originals):
    name, status, said = MISTAKES[command]
    found, out, errors, made = run(command, (originals / name).read_bytes())
    assert (found, out, made) == (status, b"", {})
    assert said in errors
    assert not (originals / "-").exists()
