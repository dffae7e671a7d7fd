"""No command writes over a file that it reads, or leaves one behind that it could not fill."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from llmbol_cli import dis, nn
from llmbol_core.deploy.security import create_keys
from llmbol_core.nn.builder import build_model

SPECS = Path(__file__).parents[2] / "specs"
MAIN = {"dis": dis.main, "nn": nn.main}

# fmt: off
OVERWRITES = {
    # where it writes      the command
    "digits-mlp.yaml":     "nn build digits-mlp.yaml -o {}",
    "./digits-mlp.yaml":   "nn train digits-mlp.yaml -o {}",
    "data/digits.npz":     "nn train digits-mlp.yaml -o {}",
    "other.npz":           "nn train digits-mlp.yaml --data other.npz -o {}",
    "m.gguf":              "nn infer m.gguf x.npy -o {}",
    "x.npy":               "nn infer m.gguf x.npy -o {}",
    "labels":              "nn infer m.gguf x.npy --labels labels -o {}",
    "./m.gguf":            "nn quantize m.gguf -t q8_0 -o {}",
    "../folder/m.gguf":    "nn dequantize m.gguf -o {}",
    "link.gguf":           "nn compile m.gguf -o {}",
    "../folder/link.gguf": "nn compile m.gguf --listing -o {}",
    "m.dis":               "nn extract m.dis -o {}",
    "m.onnx":              "nn import m.onnx -o {}",
    "hello.s":             "dis asm hello.s -o {}",
    "key":                 "dis sign m.dis --key key -o {}",
    "hello.dis":           "dis trace -o {} hello.dis",
    "./hello.dis":         "dis profile --flame {} hello.dis",
    "../folder/hello.dis": "dis profile --stdout {} hello.dis",
    "tree/hello.dis":      "dis trace --root tree -o {} /hello.dis",
    "./x.npy":             "dis trace -o {} m.dis x.npy",
}
# fmt: on


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Return a folder with one file of each kind."""
    from llmbol_core import deploy
    from llmbol_core.nn import checkpoint

    folder = tmp_path_factory.mktemp("outputs") / "folder"
    shutil.copytree(SPECS, folder)
    shutil.copy(folder / "data/digits.npz", folder / "other.npz")
    checkpoint.save(build_model("m", [2]).linear(2, 32).relu().build(), str(folder / "m.gguf"))
    deploy.compile(str(folder / "m.gguf"), str(folder / "m.dis"))
    (folder / "link.gguf").symlink_to("m.gguf")
    (folder / "m.onnx").write_bytes(b"")
    (folder / "labels").write_text("label\n" * 32)
    np.save(folder / "x.npy", np.ones((3, 2), np.float32))
    create_keys(str(folder / "key"))
    shutil.copy(folder / "programs/hello.s", folder)
    (folder / "tree").mkdir()
    return folder


@pytest.fixture
def run(originals, monkeypatch, capsys):
    """Return a function that runs a command in the folder and gives its status and stderr."""
    monkeypatch.chdir(originals)

    def run(command: str) -> tuple[object, str]:
        words = command.split()
        monkeypatch.setattr("sys.argv", words)
        with pytest.raises(SystemExit) as ended:
            MAIN[words[0]]()
        return ended.value.code, capsys.readouterr().err

    for target in ("hello.dis", "tree/hello.dis"):
        assert run(f"dis asm hello.s -o {target}") == (0, "")
    return run


@pytest.mark.parametrize("target", OVERWRITES)
def test_what_is_read_is_not_overwritten(target, run, originals):
    before = {path: path.read_bytes() for path in originals.rglob("*") if path.is_file()}
    words = f"error: {target}: this file is read, so it cannot be written: name another one\n"
    assert run(OVERWRITES[target].format(target)) == (1, words)
    after = {path: path.read_bytes() for path in originals.rglob("*") if path.is_file()}
    assert before == after


@pytest.mark.parametrize("command", ["trace -o out", "profile --stdout out", "profile --flame out"])
def test_a_program_that_does_not_start_leaves_no_file(command, run, originals):
    code, said = run(f"dis {command} hello.s")
    assert (code, "hello.s: at byte 0: bad magic" in said) == (1, True)
    assert not (originals / "out").exists()


@pytest.mark.parametrize("command", ["keygen -", "sign m.dis --key key -o -", "trace -o - m.dis"])
def test_standard_output_is_no_file(command, run, originals):
    code, said = run(f"dis {command}")
    assert (code, "a file is written, not standard output" in said) == (2, True)
    assert not (originals / "-").exists()


def test_a_listing_goes_where_it_is_wanted(run, originals):
    assert run("nn compile m.gguf --listing -o m.s") == (0, "")
    text = (originals / "m.s").read_text()
    assert "$Ml.linear" in text
    assert text.endswith("\n")
    assert run("dis asm m.s -o assembled.dis") == (0, "")
