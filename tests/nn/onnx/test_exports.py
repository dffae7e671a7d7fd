"""Files that PyTorch's two exporters wrote, with the inputs and outputs that PyTorch had.

Models of random weights, made with torch 2.13: ``traced`` by the old exporter, ``exported`` by the
new one, ``fixed`` for a batch of one and here run with two. Names and traces of code were removed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from llmbol_core.errors import DataFormatError, ModelError, UsageError
from llmbol_core.nn.checkpoint import freeze
from llmbol_core.nn.onnx.document import read_document
from llmbol_core.nn.onnx.reader import import_document

FOLDER = Path(__file__).parent / "exports"
LAYERS = {
    "cnn-traced": "Conv2d ReLU MaxPool2d Conv2d LeakyReLU AvgPool2d Flatten Linear",
    "lstm-traced-fixed": "LSTM Select Linear",
    "lstm2bi-exported-fixed": "LSTM LSTM Select Linear",
    "gru-exported-fixed": "GRU GRU Select Linear",
}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.onnx")), ids=lambda path: path.stem)
def test_exported_model(path):
    vectors = np.load(path.with_suffix(".npz"))
    model = import_document(read_document(str(path)), str(path), "one").model
    inputs = [vectors[name] for name in vectors.files if name != "y"]
    flat = [x.reshape(len(x), -1) for x in inputs]
    x = inputs[0] if len(inputs) == 1 else np.concatenate(flat, axis=1)
    got = freeze(model).run(x.astype(np.float32))
    np.testing.assert_allclose(got, vectors["y"], rtol=1e-4, atol=1e-6)
    if path.stem in LAYERS:
        assert " ".join(type(layer).__name__ for layer in model.layers) == LAYERS[path.stem]


def one_layer(**changes):
    """Return a document with one product, its weight an initializer."""
    weight = onnx.numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    info = onnx.helper.make_tensor_value_info
    shape = changes.get("shape", ["N", 4])
    graph = onnx.helper.make_graph(
        [node], "g", [info("x", 1, shape)], [info("y", 1, None)], [weight]
    )
    opset = onnx.helper.make_opsetid("", changes.get("opset", 17))
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)


def test_external_data_are_read_wherever_tensors_are(tmp_path):
    """In a graph, in a node's attribute, and in the graphs that a node has."""
    document = one_layer()
    constant = onnx.helper.make_node("Constant", [], ["c"], value=onnx.TensorProto())
    inner = onnx.helper.make_graph([constant], "inner", [], [], [onnx.TensorProto()])
    branches = {"then_branch": inner, "else_branch": inner}
    document.graph.node.append(onnx.helper.make_node("If", ["x"], ["z"], **branches))
    branch = document.graph.node[1].attribute[0].g
    tensors = [document.graph.initializer[0], branch.initializer[0], branch.node[0].attribute[0].t]
    del document.graph.node[1].attribute[1]
    weights = [np.full((4, 4), number, np.float32) for number in range(3)]
    for number, (tensor, weight) in enumerate(zip(tensors, weights, strict=True)):
        tensor.CopyFrom(onnx.numpy_helper.from_array(weight, f"w{number}"))
        (tmp_path / f"{number}.bin").write_bytes(tensor.raw_data)
        onnx.external_data_helper.set_external_data(tensor, f"{number}.bin")
        tensor.ClearField("raw_data")
    path = tmp_path / "m.onnx"
    path.write_bytes(document.SerializeToString())
    graph = read_document(str(path)).graph
    branch = graph.node[1].attribute[0].g
    found = [graph.initializer[0], branch.initializer[0], branch.node[0].attribute[0].t]
    for tensor, weight in zip(found, weights, strict=True):
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), weight)


@pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname", "missing.bin", ""])
def test_external_data_stay_in_the_folder(tmp_path, location):
    document = one_layer()
    tensor = document.graph.initializer[0]
    (tmp_path / "w.bin").write_bytes(tensor.raw_data)
    (tmp_path / "model").mkdir()
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    path = tmp_path / "model" / "m.onnx"
    path.write_bytes(document.SerializeToString())
    with pytest.raises(ModelError, match="the data of 'w'"):
        read_document(str(path))


def test_external_data_through_a_link_stay_in_the_folder(tmp_path):
    document = one_layer()
    tensor = document.graph.initializer[0]
    (tmp_path / "w.bin").write_bytes(tensor.raw_data)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "link.bin").symlink_to(tmp_path / "w.bin")
    onnx.external_data_helper.set_external_data(tensor, "link.bin")
    tensor.ClearField("raw_data")
    path = tmp_path / "model" / "m.onnx"
    path.write_bytes(document.SerializeToString())
    with pytest.raises(ModelError, match="outside of its folder"):
        read_document(str(path))


@pytest.mark.parametrize("data", [b"", b"name: not\n", b"\x08\x07" + bytes(40)])
def test_no_onnx_file(tmp_path, data):
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(DataFormatError, match="not an ONNX file"):
        read_document(str(path))


@pytest.mark.parametrize("opset", [12, 22])
def test_other_opsets_are_refused(tmp_path, opset):
    path = tmp_path / "m.onnx"
    path.write_bytes(one_layer(opset=opset).SerializeToString())
    with pytest.raises(ModelError, match=f"opset {opset}: expected 13 to 21"):
        read_document(str(path))


def test_axes_that_stay_open_are_asked_for():
    document = one_layer(shape=["N", "length", 4])
    with pytest.raises(UsageError, match="give it with --size length=LENGTH"):
        import_document(document, "m.onnx", "one")
    model = import_document(document, "m.onnx", "one", sizes={"length": 7}).model
    assert model.output_shape == (7, 4)
    with pytest.raises(UsageError, match=r"'lenght' \(did you mean 'length'\?\)"):
        import_document(document, "m.onnx", "one", sizes={"lenght": 7})


def test_outputs_are_chosen_by_name():
    document = one_layer()
    with pytest.raises(UsageError, match=r"no output is called 'z': expected one of y"):
        import_document(document, "m.onnx", "one", "z")


def test_all_complaints_come_at_once():
    document = one_layer()
    make = onnx.helper.make_node
    document.graph.node.extend(
        [
            make("LRN", ["y"], ["a"], name="first", size=3),
            make("Maxpol", ["y"], ["b"], name="second"),
            make("Foo", ["y"], ["c"], name="third", domain="com.example"),
            make("Sum", ["a", "b", "c"], ["z"], name="fourth"),
        ]
    )
    document.graph.output[0].name = "z"
    with pytest.raises(ModelError) as caught:
        import_document(document, "m.onnx", "one")
    assert str(caught.value).split("\n") == [
        "m.onnx: 3 nodes cannot be imported",
        "  node 'first' (LRN): the operator is not supported (near it: BatchNormalization)",
        "  node 'second' (Maxpol): the operator is not supported (did you mean 'MaxPool'?)",
        "  node 'third' (Foo): operators of the domain 'com.example' are not supported",
    ]
