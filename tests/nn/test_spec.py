"""YAML specs: what they say, and each mistake at its line and column."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbol_core.errors import SpecError, UsageError
from llmbol_core.nn.criterions import CrossEntropy
from llmbol_core.nn.declared import (
    FieldError,
    Fraction,
    NotNegative,
    Positive,
    Seed,
    Size,
    convert,
)
from llmbol_core.nn.optim import Adam
from llmbol_core.nn.spec import format_json_spec, parse_json_spec, parse_spec, read_spec

GOOD = """\
name: 007
input: {shape: [4], scale: 2}
layers:
  - Linear: {in_features: 4, out_features: 3, name: first}
  - ReLU
  - Sequential:
      - Tanh
      - Linear:
          in_features: 3
          out_features: 2
          bias: false
labels: [no, 1e1]
train:
  data: digits.npz
  loss: {CrossEntropy: {label_smoothing: 0.1, weights: [1, 2]}}
  optimizer: {Adam: {lr: 1e-2}}
  epochs: 3
"""


def test_everything_is_read():
    model = parse_spec(GOOD)
    assert model.name == "007"
    assert model.labels == ("no", "1e1")
    assert model.input.scale == 2.0
    assert [type(layer).__name__ for layer in model.layers] == ["Linear", "ReLU", "Sequential"]
    assert model.layers[0].label == "first"
    assert model.output_shape == (2,)
    assert model.train is not None
    assert isinstance(model.train.loss, CrossEntropy)
    assert model.train.loss.weights == (1.0, 2.0)
    assert isinstance(model.train.optimizer, Adam)
    assert model.train.optimizer.lr == 0.01
    assert (model.train.epochs, model.train.batch_size, model.train.split.test) == (3, 32, 0.2)


def test_json_round_trip():
    config = parse_spec(GOOD).config()
    assert parse_json_spec(format_json_spec(config), "x").config() == config


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


MISTAKES = {
    "layer": (changed("- ReLU", "- RelLU"), "5:5: unknown layer 'RelLU' (did you mean 'ReLU'?)"),
    "layer unlike any": (changed("- ReLU", "- Qqqq"), "5:5: unknown layer 'Qqqq': expected one of"),
    "field": (
        changed("in_features: 4", "in_feature: 4"),
        "4:14: Linear has no field 'in_feature' (did you mean 'in_features'?)",
    ),
    "missing": (changed("in_features: 4, ", ""), "4:13: Linear needs 'in_features'"),
    "all missing": (changed("- ReLU", "- Linear"), "5:5: Linear needs 'in_features' and 'out_feat"),
    "type": (
        changed("out_features: 3", "out_features: three"),
        "4:44: out_features: expected an integer, got 'three'",
    ),
    "range": (
        changed("out_features: 3", "out_features: 0"),
        "4:44: out_features: expected an integer of at least 1, got 0",
    ),
    "boolean": (
        changed("bias: false", "bias: no"),
        "11:17: bias: expected true or false, got 'no'",
    ),
    "shapes": (
        changed("in_features: 3", "in_features: 5"),
        "8:9: 2.1.Linear: expected 5 features on the last axis, got shape [3]",
    ),
    "shorthand": (
        changed("scale: 2", "normalise: {mean: [1], std: [2]}"),
        "2:21: input has no field 'normalise' (did you mean 'normalize'?)",
    ),
    "labels": (changed("[no, 1e1]", "[a, b, c]"), "12:9: 3 labels for an output of 2 values"),
    "section": (changed("train:", "trian:"), "13:1: the spec has no field 'trian' (did you mean"),
    "duplicate": (GOOD + "name: again\n", "18:1: duplicate key 'name', first on line 1"),
    "optimizer": (changed("Adam:", "Adm:"), "16:15: unknown optimizer 'Adm' (did you mean 'Adam'"),
    "two layers": (
        changed("- ReLU", "- ReLU:\n    Tanh:"),
        "5:5: expected one layer with its fields inside, got the keys 'ReLU' and 'Tanh'",
    ),
    "no layers": (
        "name: x\ninput: {shape: [1]}\nlayers: []\n",
        "1:1: x: a model needs at least",
    ),
    "nothing": ("", "1:1: an empty spec"),
    "a word": ("hello", "1:1: expected the fields of the spec, got 'hello'"),
    "open": ("name: [", "1:8: expected the node content, but found '<stream end>'"),
    "anchor": ("name: &a x\n", "1:7: anchors and aliases are not supported"),
    "alias": ("name: *a\n", "1:7: anchors and aliases are not supported"),
    "harmless tag": ("name: !!str x\n", "1:7: tags such as 'tag:yaml.org,2002:str' are not"),
    "two documents": (
        GOOD + "---\nname: b\n",
        "18:1: expected a single document in the stream, but found another document",
    ),
    "mapping for a number": (
        changed("in_features: 4", "in_features: {a: 1}"),
        "4:27: in_features: expected an integer of at least 1, got the keys 'a'",
    ),
    "infinite": (changed("lr: 1e-2", "lr: 1e999"), "16:26: lr: expected a finite number, got inf"),
    "two lines": (
        changed("- ReLU", '- ReLU: {name: "a\\nb"}'),
        "5:18: name: expected a text without control characters, got 'a\\nb'",
    ),
    "surrogate": (
        changed("[no, 1e1]", '[a, "\\ud800"]'),
        "12:13: labels: expected a text without control characters, got",
    ),
    "tag": ("name: !!python/name:os.system x\n", "1:7: tags such as"),
    "control character": ("name: x\n\0", "2:1: a character that YAML does not allow"),
    "deep": ("[" * 20_000, "1:1: nested too deeply"),
    "cross-field": (
        changed("Adam: {lr: 1e-2}", "SGD: {nesterov: true}"),
        "16:20: SGD.nesterov: needs momentum and no dampening",
    ),
}


@pytest.mark.parametrize(("text", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_stand_at_their_place(text, said):
    with pytest.raises(SpecError) as caught:
        parse_spec(text, "m.yaml")
    assert str(caught.value).startswith(f"m.yaml:{said}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["1" + "0" * 400, "1e999", "-1e999", "NaN"])
def test_numbers_of_a_checkpoint_are_finite(value):
    spec = f'{{"name": "x", "input": {{"shape": [1], "scale": {value}}}, "layers": ["ReLU"]}}'
    with pytest.raises(SpecError, match="scale: expected a finite number, got"):
        parse_json_spec(spec, "m.gguf")


def test_excerpt_points_at_the_mistake():
    with pytest.raises(SpecError) as caught:
        parse_spec(changed("- ReLU", "- RelLU"))
    assert caught.value.excerpt.splitlines() == ["      - RelLU", "        ^"]


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_bytes(b"name: x\n\xff\xfe")
    with pytest.raises(SpecError, match=r":2:1: not UTF-8"):
        read_spec(str(path))


@settings(max_examples=150)
@given(st.data())
def test_any_damage_is_a_clear_error_or_another_model(data):
    text = list(GOOD)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(text) - 1))
        text[place] = data.draw(st.sampled_from(list("{}[]:,-&*!'\"\n ax01.#|>%@\t")))
    with suppress(SpecError):
        parse_spec("".join(text))


SHORT = """\
variables: {width: 6, rate: 0.1, again: $width}
blocks:
  hidden:
    - Linear: {in_features: $width, out_features: $again}
    - drop
  drop: [{Dropout: {p: $rate}}]
name: short
input: {shape: [6]}
layers:
  - repeat: {times: 2, layers: [hidden, ReLU]}
  - Residual: [hidden]
"""


def test_short_forms_are_written_out():
    model = parse_spec(SHORT)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == ["Linear", "Dropout", "ReLU", "Linear", "Dropout", "ReLU", "Residual"]
    assert model.layers[0].config() == {"Linear": {"in_features": 6, "out_features": 6}}
    assert model.layers[0] is not model.layers[3]
    (dropout,) = model.layers[6].find_modules("Dropout")
    assert dropout.config() == {"Dropout": {"p": 0.1}}
    assert parse_json_spec(format_json_spec(model.config()), "x").config() == model.config()


def test_what_input_and_output_say():
    text = SHORT.replace("{shape: [6]}", "{shape: [6], normalize: {mean: [0.5], std: [$rate]}}")
    model = parse_spec(text + "labels: [a, b, c, d, e, f]\noutput: {top_k: 2}\n")
    assert model.layers[0].config() == {"Normalize": {"mean": [0.5], "std": [0.1]}}
    assert len(model.layers) == 8
    assert model.output is not None
    assert model.output.top_k == 2
    assert parse_json_spec(format_json_spec(model.config()), "x").config() == model.config()
    with pytest.raises(SpecError, match=r"m.yaml:8:33: Normalize has no field 'men' \(did you"):
        parse_spec(text.replace("mean", "men"), "m.yaml")
    with pytest.raises(SpecError, match=r"std: expected a number above 0, got 0"):
        parse_spec(text.replace("[$rate]", "[1, 0]"), "m.yaml")


def test_words_that_are_none_have_a_near_one():
    metrics = changed("epochs: 3", "metrics: [accuracyy, f1, speed]")
    with pytest.raises(SpecError) as caught:
        parse_spec(metrics, "m.yaml")
    assert "metrics: expected one of accuracy" in str(caught.value)
    assert "got 'accuracyy' (did you mean 'accuracy'?)" in str(caught.value)
    (other,) = caught.value.others
    assert "got 'speed'" in str(other)
    assert other.column > caught.value.column


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[hidden, ReLU]", "[hidden, $wide]", "10:41: unknown variable '$wide' (did you mean"),
        ("width: 6", "width: x", "4:29: in_features: expected an integer, got 'x'"),
        ("times: 2", "times: -2", "10:21: times: expected an integer of at least 0, got -2"),
        ("times: 2, ", "", "10:13: repeat: expected 'times' and 'layers', got the keys"),
        ("drop: [{", "drop: [drop, {", "go on forever"),
        ("times: 2", "times: 1000000", "more than 10000 layers from blocks"),
        ("again: $width", "again: $again", "go on forever"),
        ("variables: {", "variables: 3 #", "1:12: variables: expected names with what"),
        ("  drop: [{Dropout: {p: $rate}}]", "  drop: x", "6:9: the block 'drop': expected a list"),
    ],
)
def test_mistakes_in_short_forms(old, new, said):
    assert old in SHORT
    with pytest.raises(SpecError) as caught:
        parse_spec(SHORT.replace(old, new), "m.yaml")
    assert said in str(caught.value)


def test_several_mistakes_come_together_in_order():
    text = (
        changed("- ReLU", "- RelLU").replace("epochs: 3", "epoch: 3").replace("bias: f", "bia: f")
    )
    with pytest.raises(SpecError) as caught:
        parse_spec(text, "m.yaml")
    found = [caught.value, *caught.value.others]
    assert [error.line for error in found] == [5, 11, 17]
    assert not any(error.others for error in found[1:])


def test_changes_from_outside():
    model = parse_spec(GOOD, settings=("train.epochs=5", "layers.0.Linear.bias=false", "name=n"))
    assert model.train is not None
    assert (model.train.epochs, model.name) == (5, "n")
    assert list(model.layers[0].parameter_shapes()) == ["weight"]
    with pytest.raises(SpecError, match=r"--set train.epochs:1:1: epochs: expected an integer"):
        parse_spec(GOOD, settings=("train.epochs=many",))
    with pytest.raises(UsageError, match="nothing called '9' in a list"):
        parse_spec(GOOD, settings=("layers.9.Linear.bias=false",))


def test_the_end_of_the_layers_is_an_array():
    text = "name: x\ninput: {shape: [2, 3]}\nlayers:\n  - SplitTable: {axis: 1}\n"
    with pytest.raises(SpecError, match=r"4:5: the last layer gives a table, 3 . 3: join it"):
        parse_spec(text)
    text += "  - Linear: {in_features: 3, out_features: 1}\n"
    with pytest.raises(SpecError, match=r"1.Linear: expected an array, got a table of 2"):
        parse_spec(text)


def test_all_unknown_variables_are_told():
    text = (
        "name: m\ninput: {shape: [4]}\nlayers:\n"
        "  - Linear: {in_features: $in, out_features: $width}\n  - Dropout: {p: $p}\n"
    )
    with pytest.raises(SpecError) as caught:
        parse_spec(text)
    told = [str(error).splitlines()[0] for error in (caught.value, *caught.value.others)]
    why = "the spec has no 'variables'"
    assert told == [
        f"<spec>:4:27: unknown variable '$in': {why}",
        f"<spec>:4:46: unknown variable '$width': {why}",
        f"<spec>:5:18: unknown variable '$p': {why}",
    ]


@pytest.mark.parametrize(
    ("hint", "inside", "outside"),
    [
        (Fraction, (0.0, 0.999), (-0.1, 1.0)),
        (Positive, (1e-30, 5.0), (0.0, -1.0)),
        (NotNegative, (0.0, 1e30), (-1e-30,)),
        (Size, (1, 10**9), (0, -1)),
        (Seed, (0, 2**32 - 1), (-1, 2**32)),
    ],
)
def test_bounds_belong_to_a_range_or_do_not(hint, inside, outside):
    assert [convert(hint, value) for value in inside] == list(inside)
    for value in outside:
        with pytest.raises(FieldError, match=f"expected .*, got {value}"):
            convert(hint, value)
