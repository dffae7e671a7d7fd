"""Diagrams of models, learning curves, and summaries that go into containers."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import pytest

from llmbol_core.errors import UsageError
from llmbol_core.nn.curves import curve_picture, curve_text, write_curve
from llmbol_core.nn.diagram import draw_model, write_diagram
from llmbol_core.nn.drawing import Words
from llmbol_core.nn.model import Input, Model
from llmbol_core.nn.module import Module
from llmbol_core.nn.spec import parse_spec
from llmbol_core.nn.trainer import Epoch

BRANCHES = """
name: branches
input: {shape: [16]}
layers:
  - Residual: [{Linear: {in_features: 16, out_features: 16, name: "<in>"}}, ReLU]
  - Concat:
      axis: 1
      layers: [{Linear: {in_features: 16, out_features: 8}}, {Sequential: [Tanh, Sigmoid]}]
"""


@pytest.mark.parametrize("cls", Module.table.values(), ids=Module.table)
def test_every_layer_is_drawn(cls):
    layer, shape = cls.example()
    picture = draw_model(Model("one", Input(shape), [layer]))
    words = [shape.text for shape in picture.shapes if isinstance(shape, Words)]
    for path, module in list(layer.named_modules("0")):
        assert any(text.startswith(f"{path} {type(module).__name__}") for text in words)
    ET.fromstring(picture.svg())


def test_a_diagram_is_written(tmp_path):
    model = parse_spec(BRANCHES)
    write_diagram(model, str(tmp_path / "m.svg"))
    root = ET.parse(tmp_path / "m.svg").getroot()
    texts = [element.text for element in root if element.tag.endswith("text")]
    assert "branches: 408 parameters" in texts
    assert "0.0 Linear <in>" in texts
    assert {"input 16", "output 24", "+"} <= set(texts)
    write_diagram(model, str(tmp_path / "m.png"))
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match="pictures are written as"):
        write_diagram(model, str(tmp_path / "m.jpg"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.png", "m.svg"]


@pytest.mark.parametrize("count", [1, 2, 30])
def test_curves(tmp_path, count):
    history = [
        Epoch(i + 1, 0.1, 1 / (i + 1), float("nan") if i == 1 else 2.0, None, {})
        for i in range(count)
    ]
    ET.fromstring(curve_picture(history, "a & b").svg())
    write_curve(history, "a", str(tmp_path / "c.PNG"))
    assert (tmp_path / "c.PNG").read_bytes().startswith(b"\x89PNG")


def test_summaries_go_into_containers():
    model = parse_spec(BRANCHES)
    rows = {row.layer: row for row in model.summary().layers}
    assert list(rows) == [
        *("0 Residual", "0.0 Linear <in>", "0.1 ReLU", "1 Concat", "1.0 Linear"),
        *("1.1 Sequential", "1.1.0 Tanh", "1.1.1 Sigmoid"),
    ]
    assert (rows["1 Concat"].input, rows["1 Concat"].output) == ("16", "24")
    assert rows["1 Concat"].memory == 4 * 24
    assert [row.layer for row in model.summary(1).layers] == ["0 Residual", "1 Concat"]
    assert model.summary(1).parameters == model.summary().parameters == 16 * 17 + 8 * 17


def test_a_curve_reaches_from_the_greatest_loss_to_the_least():
    losses = ((4.0, 3.0), (2.0, math.nan), (1.0, 1.5))
    history = [Epoch(i, 0.1, train, watched, None, {}) for i, (train, watched) in enumerate(losses)]
    lines = curve_text(history, "m").splitlines()
    assert lines[1].rstrip() == "     4 |*"
    assert lines[5].rstrip() == "       |o"
    assert lines[8].rstrip() == "       |" + " " * 29 + "*"
    assert lines[10].rstrip() == "       |" + " " * 59 + "o"
    assert lines[12].rstrip() == "     1 |" + " " * 59 + "*"
    assert lines[14] == " epoch  1" + " " * 58 + "3"
    flat = [Epoch(1, 0.1, 1.0, 1.0, None, {})]
    assert curve_text(flat, "m").splitlines()[7].rstrip() == "       |o"
