"""The command ``nn`` from the outside: results, JSON, and one line for each mistake."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from llmbol_cli import nn as command
from llmbol_core.nn.spec import read_spec

SPEC = "specs/digits-mlp.yaml"


@pytest.fixture
def nn(capsys, monkeypatch):
    """Return a function that runs ``nn`` and gives exit code, standard output and error."""

    def run(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "argv", ["nn", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            command.main()
        out, err = capsys.readouterr()
        return SimpleNamespace(code=ended.value.code, out=out, err=err)

    return run


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A trained checkpoint, three images as .npy, and what is wrong in many ways."""
    from llmbol_core.nn.train import train_file

    folder = tmp_path_factory.mktemp("nn")
    train_file(SPEC, str(folder / "digits.gguf"), changes={"epochs": 2})
    np.save(folder / "x.npy", np.load("specs/data/digits.npz")["images"][:3])
    np.save(folder / "wide.npy", np.zeros((3, 7)))
    np.savez(folder / "two.npz", image=np.zeros((2, 8, 8)), other=np.zeros(2))
    model = (folder / "digits.gguf").read_bytes()
    (folder / "cut.gguf").write_bytes(model[: len(model) // 2])
    text = Path(SPEC).read_text().replace("data/digits.npz", "nowhere.npz")
    (folder / "nodata.yaml").write_text(text)
    (folder / "layer.yaml").write_text(text.replace("- ReLU", "- RelLU", 1))
    (folder / "field.yaml").write_text(text.replace("in_features", "in_feature", 1))
    (folder / "several.yaml").write_text(text.replace("- ReLU", "- RelLU"))
    return folder


def test_build_train_eval_infer(nn, tmp_path):
    model = tmp_path / "m.gguf"
    built = nn("build", SPEC, "-o", model, "--seed", 4)
    assert (built.code, built.out) == (0, f"{model}: digits-mlp, 17610 parameters\n")
    before = model.read_bytes()
    run = json.loads(nn("train", model, "--epochs", 2, "--json").out)
    assert run["epochs"] == len(run["history"]) == 2
    assert model.read_bytes() != before
    result = json.loads(nn("eval", model, "--json").out)
    assert result["accuracy"] == run["accuracy"] > 0.7
    assert len(result["classes"]) == 10
    assert re.search(r"^all +360 ", nn("eval", model).out, re.MULTILINE)
    nine = result["classes"][9]
    assert (sum(nine["answers"]), nine["answers"][9]) == (nine["samples"], nine["correct"])
    rows = [line.split() for line in nn("eval", model, "--confusion").out.splitlines()]
    assert rows[0] == list("0123456789")
    assert rows[10] == ["9", *map(str, nine["answers"])]
    assert nn("train", SPEC, "-o", tmp_path / "n.gguf", "--epochs", 1).out.startswith("model ")


def test_infer_forms(nn, files, tmp_path):
    model, x = files / "digits.gguf", files / "x.npy"
    plain = nn("infer", model, x)
    rows = [[np.float32(word) for word in line.split("\t")] for line in plain.out.splitlines()]
    assert np.shape(rows) == (3, 10)
    assert nn("infer", model, "-", stdin=x.read_bytes()).out == plain.out
    np.testing.assert_array_equal(json.loads(nn("infer", model, x, "--json").out), rows)
    assert nn("infer", model, x, "-o", tmp_path / "y.npy").out == ""
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), rows)
    top = json.loads(nn("infer", model, x, "--top-k", 2, "--json").out)
    assert [row["label"] for row in top if row["rank"] == 1] == [
        str(np.argmax(row)) for row in rows
    ]
    assert nn("infer", model, files / "two.npz", "--array", "image").out.count("\n") == 2
    said, spec = tmp_path / "said.gguf", tmp_path / "said.yaml"
    spec.write_text(Path(SPEC).read_text() + "output: {top_k: 2}\n")
    assert nn("build", spec, "-o", said).code == 0
    assert [row["rank"] for row in json.loads(nn("infer", said, x, "--json").out)] == [1, 2] * 3
    assert np.shape(json.loads(nn("infer", said, x, "--top-k", 0, "--json").out)) == (3, 10)


def test_quantize_reports_each_tensor(nn, files, tmp_path):
    target = tmp_path / "q.gguf"
    source = files / "digits.gguf"
    report = json.loads(nn("quantize", source, "-t", "q4_0", "-o", target, "--json").out)
    assert {row["after"] for row in report["tensors"]} == {"Q4_0", "F32"}
    assert nn("infer", target, files / "x.npy").out.count("\n") == 3
    text = nn("quantize", source, "-t", "f16", "-o", target).out
    assert "a vector" in text
    assert text.splitlines()[-1].startswith("total")


def test_summary_and_layers(nn, files):
    summary = json.loads(nn("summary", SPEC, "--json").out)
    assert summary == json.loads(nn("summary", files / "digits.gguf", "--json").out)
    assert (summary["parameters"], summary["macs"]) == (17610, 17216)
    assert nn("summary", SPEC).out.splitlines()[-1].split() == ["total", "17610", "17216", "3368"]
    names = [row["layer"] for row in json.loads(nn("layers", "--json").out)]
    assert {"Linear", "Conv1d", "BatchNorm", "Dropout", "Sequential", "Parallel"} <= set(names)
    about = nn("layers", "Linear").out
    assert "in_features   an integer of at least 1, required" in about
    assert nn("layers", "linear").out == about


MISTAKES = {
    "layer": (["build", "layer.yaml", "-o", "o"], r"layer.yaml:13:5: unknown layer 'RelLU' \(did"),
    "field": (["build", "field.yaml", "-o", "o"], r"field.yaml:11:14: Linear has no field 'in_fe"),
    "no spec": (["build", "none.yaml", "-o", "o"], "none.yaml: no such file or directory"),
    "no folder": (["build", SPEC, "-o", "none/o"], "none/o: no such file or directory"),
    "full disk": (["build", SPEC, "-o", "/dev/full"], "/dev/full: no space left on device"),
    "no data": (["train", "nodata.yaml", "-o", "o"], "nowhere.npz: no such file or directory"),
    "cut model": (["infer", "cut.gguf", "x.npy"], "cut.gguf: at byte .* lack"),
    "no model": (["eval", "x.npy"], "x.npy: at byte 0: not a GGUF file"),
    "shape": (
        ["infer", "digits.gguf", "wide.npy"],
        r"wide.npy: expected input of shape \[8, 8\] or \[N, 8, 8\], got \[3, 7\]",
    ),
    "array by name": (
        ["infer", "digits.gguf", "x.npy", "--array", "z"],
        "x.npy: its only array has no name, so it cannot be 'z'",
    ),
    "own model": (["infer", "digits.gguf", "x.npy", "-o", "digits.gguf"], "this file is read"),
    "no name": (["infer", "digits.gguf", ""], "'': no such file"),
    "type nobody writes": (
        ["quantize", "digits.gguf", "-t", "iq4_xs", "-o", "o"],
        "IQ4_XS: weights",
    ),
    "array": (
        ["infer", "digits.gguf", "two.npz"],
        "two.npz: no array 'images' .did you mean",
    ),
    "targets": (
        ["eval", "digits.gguf", "--data", "two.npz"],
        "two.npz: no array 'labels', which train.targets names: it has ",
    ),
    "no input": (["infer", "digits.gguf", "none.npy"], "none.npy: no such file or directory"),
    "no npy": (
        ["infer", "digits.gguf", "cut.gguf"],
        "cut.gguf: at byte 0: expected a .npy,",
    ),
    "type": (["quantize", "digits.gguf", "-t", "q9", "-o", "o"], "no storage type is named 'q9'"),
    "empty name": (["init", ""], "a model needs a name"),
    "name of two lines": (["init", "a\nb"], r"'a\\nb' is no name for a model: expected a text"),
    "name of bytes": (["init", "\udcff"], r"'\\udcff' is no name for a model: a character that"),
    "layer name": (["layers", "Liner"], r"unknown layer 'Liner' \(did you mean 'Linear'\?\)"),
}


@pytest.mark.parametrize(("arguments", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_one_clear_line(nn, files, arguments, said, monkeypatch):
    there = [str(files / a) if a and a != SPEC and (files / a).exists() else a for a in arguments]
    if any(a.startswith("none/") for a in there) or "o" in there:
        there = [str(files / a) if a in ("o", "none/o") else a for a in there]
    result = nn(*there)
    assert result.code == 1
    assert result.out == ""
    assert re.match(f"error: .*{said}", result.err)
    # A mistake in a spec is followed by its line and a caret under it.
    complaint, *excerpt = result.err.splitlines()
    assert len(excerpt) in (0, 2)
    if excerpt:
        column = int(complaint.split(":")[3])
        assert excerpt[1] == " " * (4 + column - 1) + "^"


def test_all_mistakes_of_a_spec_are_shown(nn, files):
    result = nn("check", files / "several.yaml")
    assert result.code == 1
    lines = result.err.splitlines()
    assert len(lines) == 6
    for complaint, line, caret in zip(lines[::3], lines[1::3], lines[2::3], strict=True):
        assert re.match(r"error: .*several.yaml:\d+:5: unknown layer 'RelLU'", complaint)
        assert line.index("RelLU") == caret.index("^")


@pytest.mark.parametrize("name", ["123", "a: b", "[x] {y} #z", 'it\'s "é"', "true"])
def test_start_with_odd_names(nn, tmp_path, name):
    spec = str(tmp_path / "new.yaml")
    assert nn("init", name, "-o", spec).code == 0
    model = read_spec(spec)
    assert model.name == name
    assert Path(model.data_path) == tmp_path / f"{name}.npz"


@pytest.mark.parametrize("name", ["made/new", "made/new.yaml", "made/new.yml"])
def test_start_with_the_name_of_the_file(nn, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "made").mkdir()
    path = name if name.endswith("ml") else f"{name}.yaml"
    assert nn("init", name).out == f"{path}\n"
    model = read_spec(path)
    assert (model.name, model.data_path) == ("new", "made/new.npz")


def test_start_check_change_and_draw(nn, tmp_path, monkeypatch):
    spec = tmp_path / "new.yaml"
    assert nn("init", "new", "-o", spec).out == f"{spec}\n"
    assert "exists already" in nn("init", "new", "-o", spec).err
    assert re.search("no such file .* that .*new.yaml names", nn("check", spec).err)
    checked = json.loads(nn("check", SPEC, "--json").out)
    assert [row["checked"] for row in checked] == ["layers", "data", "loss", "gradients"]
    model, curve = tmp_path / "m.gguf", tmp_path / "c.svg"
    words = ["--set", "train.epochs=3", "--set", "layers.4={Dropout: {p: 0.1}}"]
    run = nn("train", SPEC, "-o", model, *words, "--plot", "--curve", curve, "--json")
    assert len(json.loads(run.out)["history"]) == 3
    assert run.err.startswith("digits-mlp: loss, * train, o watched\n")
    assert curve.read_text().startswith("<svg ")
    assert not list(tmp_path.glob("*.resume"))
    again = nn("train", model, "--set", "train.epochs=1", "--set", "train.batch_size=256")
    assert again.code == 0
    assert "only 'train' can be changed" in nn("train", model, "--set", "name=x").err
    assert nn("train", SPEC, "--set", "train").err == (
        "error: --set train: expected KEY=VALUE, such as train.epochs=10\n"
    )
    assert "nothing called 'x'" in nn("train", SPEC, "--set", "name.x=1").err


def test_schema_knows_every_layer(nn):
    schema = json.loads(nn("schema").out)
    (layers,) = [schema["$defs"]["layer"]["anyOf"]]
    assert any("TransformerEncoderLayer" in form.get("properties", {}) for form in layers)
    assert schema["properties"]["train"]["anyOf"][0]["required"] == ["data"]
    linear = next(f for f in layers if "Linear" in f.get("properties", {}))["properties"]["Linear"]
    assert linear["required"] == ["in_features", "out_features"]
    assert linear["properties"]["in_features"]["anyOf"][0] == {"type": "integer", "minimum": 1}


MISUSE = {
    "seed": (["build", SPEC, "-o", "o", "--seed", "-1"], "-1 is not in the range"),
    "large seed": (["train", SPEC, "--seed", "4294967296"], "4294967296 is not in the range"),
    "stdout": (["build", SPEC, "-o", "-"], "a file is written, not standard output"),
    "no output": (["compile", "x.gguf"], "Missing option '--output' / '-o'."),
}


@pytest.mark.parametrize(("arguments", "said"), MISUSE.values(), ids=MISUSE)
def test_misuse_exits_2(nn, arguments, said):
    result = nn(*arguments)
    assert (result.code, result.out) == (2, "")
    assert said in result.err


def test_no_input_is_overwritten(nn, tmp_path):
    spec = tmp_path / "m.yaml"
    spec.write_text("name: m\ninput: {shape: [2]}\nlayers: [ReLU]\n")
    assert nn("build", spec, "-o", spec).err.endswith(
        "this file is read, so it cannot be written: name another one\n"
    )
    assert spec.read_text().startswith("name: m")


def test_json_has_no_nan(nn, tmp_path):
    spec, model = tmp_path / "m.yaml", tmp_path / "m.gguf"
    spec.write_text("name: m\ninput: {shape: [2]}\nlayers: [ReLU]\n")
    nn("build", spec, "-o", model)
    given = b"nan,inf\n"
    assert nn("infer", model, "-", stdin=given).out == "nan\tinf\n"
    assert json.loads(nn("infer", model, "-", "--json", stdin=given).out) == [[None, None]]
