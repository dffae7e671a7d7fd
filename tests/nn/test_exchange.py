"""Weights and models from and to the files of other programs."""

from __future__ import annotations

import json
import pickle
import zipfile

import numpy as np
import pytest

from llmbol_core.errors import DataFormatError, LlmbolError, ModelError, UsageError
from llmbol_core.nn.builder import build_model
from llmbol_core.nn.checkpoint import load, load_for_inference, save
from llmbol_core.nn.exchange import FORMATS, ImportOptions, export_file, import_file
from llmbol_core.nn.pytorch import read_state, write_state
from llmbol_core.nn.safetensors import read_safetensors, write_safetensors

SPEC = """
name: net
input: {shape: [6]}
layers:
  - Linear: {in_features: 6, out_features: 5, name: fc1}
  - BatchNorm1d: {features: 5, name: norm}
  - ReLU
  - Linear: {in_features: 5, out_features: 3, name: fc2}
"""


@pytest.fixture
def folder(tmp_path, rng):
    model = build_model("net", [6]).linear(6, 5).batch_norm(5).relu().linear(5, 3).build()
    model.reset(3)
    for value in model.network.state().values():
        value += rng.uniform(0.1, 0.5, value.shape).astype(np.float32)
    save(model, str(tmp_path / "net.gguf"))
    (tmp_path / "net.yaml").write_text(SPEC)
    return tmp_path


ENDINGS = [".onnx", *(ending for row in FORMATS for ending in row.endings)]


@pytest.mark.parametrize("ending", ENDINGS)
def test_there_and_back(folder, ending, rng):
    source, target = str(folder / "net.gguf"), str(folder / f"out{ending}")
    row = export_file(source, target)
    assert row.difference <= 1e-6
    assert row.parameters == 6 * 5 + 5 + 2 * 5 + 5 * 3 + 3
    into = None if ending == ".onnx" else str(folder / "net.yaml")
    again = str(folder / "again.gguf")
    report = import_file(target, again, ImportOptions(into))
    assert report.row.matched in ("name", "graph")
    x = rng.normal(size=(4, 6)).astype(np.float32)
    expected = load_for_inference(source).run(x)
    np.testing.assert_allclose(load_for_inference(again).run(x), expected, rtol=1e-6, atol=1e-6)


def test_what_no_runtime_here_can_run_is_read_again(tmp_path, monkeypatch, rng):
    """ONNX's reference evaluator knows no recurrent network with ReLU."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    builder = build_model("net", [4, 3]).rnn(3, 5, nonlinearity="relu", sequence=False)
    save(builder.linear(5, 2).build(), str(tmp_path / "net.gguf"))
    source, target, again = (str(tmp_path / name) for name in ("net.gguf", "o.onnx", "again.gguf"))
    row = export_file(source, target)
    assert row.checked == "llmbol"
    assert row.difference <= 1e-6
    report = import_file(target, again, ImportOptions())
    assert (report.row.difference, report.row.checked) == (None, None)
    (note,) = report.notes
    assert note.endswith("cannot run it: Unknown activation function 'Relu'")
    x = rng.normal(size=(4, 4, 3)).astype(np.float32)
    expected = load_for_inference(source).run(x)
    np.testing.assert_allclose(load_for_inference(again).run(x), expected, rtol=1e-6, atol=1e-6)


def test_rows_of_a_table_are_asked_for_that_it_has(tmp_path):
    """What a model and a file are held to each other with are whole numbers then."""
    save(build_model("net", [3]).embedding(2, 4).build(), str(tmp_path / "net.gguf"))
    row = export_file(str(tmp_path / "net.gguf"), str(tmp_path / "out.onnx"))
    assert "ONNX" in row.checked
    assert row.difference == 0


def state_of(folder) -> dict[str, np.ndarray]:
    return load(str(folder / "net.gguf")).network.state()


def foreign(state, names=("fc1", "norm", "", "fc2"), prefix=""):
    """Return a state with names instead of numbers."""
    renamed = {}
    for key, value in state.items():
        number, _, rest = key.partition(".")
        renamed[f"{prefix}{names[int(number)]}.{rest}"] = value
    return renamed


@pytest.mark.parametrize("prefix", ["", "module.", "model.net."])
def test_names_of_layers_and_shared_prefixes(folder, prefix):
    state = state_of(folder)
    given = foreign(state, prefix=prefix) | {f"{prefix}norm.num_batches_tracked": np.array([3.0])}
    write_safetensors(str(folder / "w.safetensors"), given)
    options = ImportOptions(str(folder / "net.yaml"))
    report = import_file(str(folder / "w.safetensors"), str(folder / "o.gguf"), options)
    assert report.row.matched == "name"
    for name, value in load(str(folder / "o.gguf")).network.state().items():
        np.testing.assert_array_equal(value, state[name])


def test_renames_and_order(folder):
    state = state_of(folder)
    strange = foreign(state, ("a", "b", "", "c"))
    write_state(str(folder / "w.pt"), strange)
    target, spec = str(folder / "o.gguf"), str(folder / "net.yaml")
    report = import_file(str(folder / "w.pt"), target, ImportOptions(spec))
    assert report.row.matched == "order"
    assert report.notes == ["tensors were matched by order, not by name"]
    write_safetensors(str(folder / "w.safetensors"), strange)
    source = str(folder / "w.safetensors")
    with pytest.raises(ModelError, match=r"nothing for 0.weight.*--rename OLD=NEW"):
        import_file(source, target, ImportOptions(spec))
    renames = ("a=fc1", "b=norm", "c=3")
    with pytest.raises(ModelError):
        import_file(source, target, ImportOptions(spec, renames=renames[:2]))
    report = import_file(source, target, ImportOptions(spec, renames=renames))
    assert report.row.matched == "name"


def test_wrong_shapes_are_told(folder):
    state = state_of(folder) | {"3.weight": np.zeros((4, 5), np.float32)}
    write_state(str(folder / "w.pt"), state)
    options = ImportOptions(str(folder / "net.yaml"))
    with pytest.raises(ModelError, match=r"3.weight has shape \[4, 5\], expected \[3, 5\]"):
        import_file(str(folder / "w.pt"), str(folder / "o.gguf"), options)
    assert not (folder / "o.gguf").exists()


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("w.pt", ImportOptions(), "weights alone: say with --into SPEC"),
        ("w.foo", ImportOptions(), "the ending '.foo' names no format"),
        ("w.onx", ImportOptions(), r"the ending '.onx' names no format \(did you mean '.onnx'"),
        ("w.onnx", ImportOptions(into="x.yaml"), "--into and --rename are for weights"),
        ("w.pt", ImportOptions(into="net.yaml", sizes=("a=1",)), "are for ONNX files"),
        ("w.pt", ImportOptions(into="net.yaml", renames=("a",)), "expected OLD=NEW"),
    ],
)
def test_requests_that_make_no_sense(folder, monkeypatch, name, options, said):
    monkeypatch.chdir(folder)
    write_state("w.pt", state_of(folder))
    with pytest.raises(UsageError, match=said):
        import_file(name, "o.gguf", options)


class Harmful:
    def __reduce__(self):
        return (print, ("harm",))


def archive(path, payload: bytes, **parts: bytes) -> str:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", payload)
        for name, data in parts.items():
            file.writestr(f"archive/{name}", data)
    return str(path)


def test_pickles_run_no_code(tmp_path, capsys):
    path = archive(tmp_path / "w.pt", pickle.dumps({"a": Harmful()}))
    with pytest.raises(DataFormatError, match=r"it holds builtins.print: expected tensors only"):
        read_state(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("payload", [b"", b"\x80\x02}.", pickle.dumps([1]), b"\x80\x04junk"])
def test_damaged_state_files(tmp_path, payload):
    with pytest.raises(DataFormatError):
        read_state(archive(tmp_path / "w.pt", payload))


def test_every_cut_and_flip_of_a_state_file_is_refused_or_read(folder, rng):
    write_state(str(folder / "w.pt"), state_of(folder))
    write_safetensors(str(folder / "w.safetensors"), state_of(folder))
    for name, read in (("w.pt", read_state), ("w.safetensors", read_safetensors)):
        data = (folder / name).read_bytes()
        for _ in range(200):
            changed = bytearray(data)
            changed[rng.integers(len(data))] ^= 1 << rng.integers(8)
            (folder / "bad").write_bytes(
                bytes(changed)[: rng.integers(len(data) // 2, len(data) + 1)]
            )
            try:
                read(str(folder / "bad"))
            except LlmbolError:
                continue


def test_same_weights_same_file(folder):
    for write, ending in ((write_state, "pt"), (write_safetensors, "safetensors")):
        write(str(folder / f"a.{ending}"), state_of(folder))
        write(str(folder / f"b.{ending}"), state_of(folder))
        assert (folder / f"a.{ending}").read_bytes() == (folder / f"b.{ending}").read_bytes()


def test_pytorch_reads_and_writes_the_same(folder):
    torch = pytest.importorskip("torch")
    state = state_of(folder)
    write_state(str(folder / "w.pt"), state)
    again = torch.load(folder / "w.pt", weights_only=True)
    assert list(again) == list(state)
    for name, tensor in again.items():
        np.testing.assert_array_equal(tensor.numpy(), state[name])
    strided = {"t": torch.arange(12.0).reshape(3, 4).t(), "h": torch.ones(3).bfloat16()}
    strided |= {"p": torch.nn.Parameter(torch.ones(2)), "s": torch.tensor(4)}
    torch.save({"epoch": 3, "state_dict": strided}, folder / "t.pt")
    read = read_state(str(folder / "t.pt"))
    for name, tensor in strided.items():
        np.testing.assert_array_equal(read[name], tensor.detach().float().numpy())


def test_the_report_is_plain(folder):
    row = export_file(str(folder / "net.gguf"), str(folder / "out.onnx"))
    assert json.loads(json.dumps(vars(row)))["format"] == "ONNX"
