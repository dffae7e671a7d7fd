"""Every layer of the registry: gradients, shapes, spec entries, documentation, lowering."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from llmbol_cli.nn_train import Family
from llmbol_core.errors import ShapeError, UsageError
from llmbol_core.nn import tables as _tables  # noqa: F401
from llmbol_core.nn.catalog import (
    OTHERS,
    describe_layer,
    describe_member,
    list_layers,
    list_members,
)
from llmbol_core.nn.checkpoint import freeze
from llmbol_core.nn.containers import Container, Parallel, Sequential
from llmbol_core.nn.layers.activation import ReLU, Tanh
from llmbol_core.nn.layers.convolution import Conv1d
from llmbol_core.nn.layers.dropout import Dropout
from llmbol_core.nn.layers.linear import Linear
from llmbol_core.nn.layers.normalization import BatchNorm
from llmbol_core.nn.model import Input, Model
from llmbol_core.nn.module import Module
from llmbol_core.nn.spec import parse_json_spec, parse_spec

STEP = 1e-6


def numeric_gradient(function: Callable[[], float], array: np.ndarray) -> np.ndarray:
    """Return the central difference of a scalar function of an array, changed in place."""
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        old = array[index]
        array[index] = old + STEP
        above = function()
        array[index] = old - STEP
        below = function()
        array[index] = old
        gradient[index] = (above - below) / (2 * STEP)
    return gradient


def fixed_randomness(layer: Module) -> None:
    """Let every forward draw what the first one drew."""
    for module in layer.list_modules():
        module._stream.calls = 7


@pytest.mark.parametrize("cls", Module.table.values(), ids=Module.table)
class TestEveryLayer:
    @pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
    def test_gradients_are_those_of_the_output(self, cls, train):
        layer, shape = cls.example()
        layer.reset(3).double()
        layer.training() if train else layer.evaluate()
        rng = np.random.default_rng(1)
        x = cls.example_batch(rng, 4)
        grad_output = rng.normal(size=(4, *layer.output_shape(shape)))
        buffers = {name: value.copy() for name, value in layer.state().items()}

        def loss() -> float:
            fixed_randomness(layer)
            value = float((layer.forward(x) * grad_output).sum())
            for name, value_now in layer.state().items():
                if "running" in name:
                    value_now[...] = buffers[name]
            return value

        loss()
        layer.zero_grad_parameters()
        grad_input = layer.backward(x, grad_output, 2.0)
        np.testing.assert_allclose(grad_input, numeric_gradient(loss, x), rtol=1e-5, atol=1e-7)
        for weight, grad in zip(*layer.parameters(), strict=True):
            expected = 2 * numeric_gradient(loss, weight)
            np.testing.assert_allclose(grad, expected, rtol=1e-5, atol=1e-7)

    def test_shape_rule_is_the_real_shape(self, cls):
        layer, shape = cls.example()
        output = layer.forward(np.ones((3, *shape), np.float32))
        assert output.shape[1:] == layer.output_shape(shape)
        assert output.dtype == np.float32

    def test_spec_entry_makes_the_same_layer(self, cls):
        layer, shape = cls.example()
        spec = {"name": "one", "input": {"shape": list(shape)}, "layers": [layer.config()]}
        (again,) = parse_spec(json.dumps(spec)).layers
        assert again.config() == layer.config()
        assert again.parameter_count() == layer.parameter_count()
        (from_json,) = parse_json_spec(json.dumps(spec), "x").layers
        assert from_json.config() == layer.config()

    def test_lowered_graph_computes_the_same(self, cls):
        layer, shape = cls.example()
        # Reset after an addition: running means and biases that matter.
        layer.reset(5)
        rng = np.random.default_rng(2)
        for value in layer.state().values():
            value += rng.uniform(0.1, 0.5, value.shape).astype(np.float32)
        model = Model("one", Input(shape), [layer, Tanh()]).evaluate()
        x = cls.example_batch(rng, 5).astype(np.float32)
        got = freeze(model).run(x)
        np.testing.assert_allclose(got, model.forward(x), rtol=2e-6, atol=1e-6)

    def test_same_seed_same_weights(self, cls):
        (one, _), (other, _) = cls.example(), cls.example()
        first, second = one.reset(9).state(), other.reset(9).state()
        for name, value in first.items():
            np.testing.assert_array_equal(value, second[name])

    def test_documentation_and_printed_form(self, cls):
        layer, _ = cls.example()
        entry = describe_layer(cls.__name__)
        assert entry.documentation.split("\n")[0].endswith((".", ":"))
        public = {n: m for n, m in vars(cls).items() if callable(m) and not n.startswith("_")}
        assert all(member.__doc__ for member in public.values())
        assert str(entry).startswith(cls.__name__)
        assert f"nn.{cls.__name__}" in repr(layer)

    def test_shape_rule_and_layer_refuse_the_same(self, cls):
        layer, _ = cls.example()
        x = np.ones((2, 7, 11, 13), np.float32)
        try:
            shape = layer.output_shape(x.shape[1:])
        except ShapeError:
            with pytest.raises(ShapeError):
                layer.forward(x)
        else:
            assert layer.forward(x).shape[1:] == shape


def test_list_of_layers_is_the_registry():
    assert [line.layer for line in list_layers()] == sorted(Module.table)


def test_flat_parameters_are_live_views():
    model = Sequential([Linear(3, 4), ReLU(), Linear(4, 2, bias=False)])
    parameters, gradients = model.get_parameters()
    assert parameters.size == gradients.size == model.parameter_count() == 3 * 4 + 4 + 4 * 2
    parameters[:] = 2
    assert (model.layers[2].params["weight"] == 2).all()
    model.layers[0].grads["bias"] += 1
    assert gradients.sum() == 4
    assert model.get_parameters()[0] is parameters
    assert all(np.shares_memory(w, parameters) for w in model.parameters()[0])


def test_shared_parameters_appear_once():
    first, second = Linear(3, 3), Linear(3, 3)
    second.params["weight"] = first.params["weight"]
    second.grads["weight"] = first.grads["weight"]
    model = Sequential([first, second])
    assert model.get_parameters()[0].size == 9 + 3 + 3
    model.get_parameters()[0][:] = 5
    assert (first.params["weight"] == 5).all()
    assert second.params["weight"] is first.params["weight"]


def test_alike_layers_start_differently_and_clones_do_not():
    one, other = Linear(3, 3), Linear(3, 3)
    assert not np.array_equal(one.params["weight"], other.params["weight"])
    copy = one.clone()
    copy.params["weight"] += 1
    assert not np.array_equal(one.params["weight"], copy.params["weight"])


def test_errors_carry_the_path():
    model = Sequential([Linear(4, 4), Sequential([Conv1d(3, 2, 3, name="conv1")])])
    with pytest.raises(ShapeError) as caught:
        model.output_shape((1, 4))
    assert (
        str(caught.value)
        == "1.0.conv1: expected 3 channels as [channels, length], got shape [1, 4]"
    )
    with pytest.raises(ShapeError) as caught:
        model.forward(np.zeros((2, 1, 4), np.float32))
    assert str(caught.value).startswith("1.0.conv1: expected 3 channels")


@pytest.mark.parametrize(
    ("cls", "arguments", "said"),
    [
        (Linear, (0, 3), "Linear.in_features: expected an integer of at least 1, got 0"),
        (Linear, (3, 3.5), "Linear.out_features: expected an integer, got 3.5"),
        (Linear, (3, 3, "yes"), "Linear.bias: expected true or false, got 'yes'"),
        (Dropout, (1.0,), "Dropout.p: expected a number of at least 0 and below 1, got 1.0"),
        (Sequential, ([3],), "Sequential.layers: expected a list of layers, got 3 in it"),
    ],
)
def test_fields_are_checked(cls, arguments, said):
    with pytest.raises(UsageError) as caught:
        cls(*arguments)
    assert str(caught.value) == said


def test_tree_in_torch7_form():
    model = Sequential([Linear(2, 3), Parallel(1, 1, layers=[Tanh(), Linear(4, 2, bias=False)])])
    assert repr(model) == (
        "nn.Sequential {\n"
        "  [input -> (0) -> (1) -> output]\n"
        "  (0): nn.Linear(2 -> 3)\n"
        "  (1): nn.Parallel(1 -> 1) {\n"
        "    input\n"
        "      |`-> (0): nn.Tanh\n"
        "       `-> (1): nn.Linear(4 -> 2) without bias\n"
        "       ... -> output\n"
        "  }\n"
        "}"
    )


def test_walking_and_editing():
    model = Sequential().add(Linear(2, 2)).add(Sequential([ReLU(), Linear(2, 2)]))
    assert [path for path, _ in model.named_modules()] == ["", "0", "1", "1.0", "1.1"]
    assert len(model.find_modules("Linear")) == len(model.find_modules(Linear)) == 2
    assert model.find_modules(Container)[0] is model
    assert list(model.state_shapes()) == ["0.weight", "0.bias", "1.1.weight", "1.1.bias"]
    model.insert(Tanh(), 0)
    assert isinstance(model.remove(), Sequential)
    assert model.size() == 2
    assert isinstance(model.get(0), Tanh)
    assert not model.evaluate().get(1).train


def test_update_parameters_descends():
    model = Sequential([Linear(3, 2)])
    x, target = np.ones((1, 3), np.float32), np.zeros((1, 2), np.float32)
    before = np.square(model.forward(x)).sum()
    for _ in range(20):
        model.zero_grad_parameters()
        model.backward(x, 2 * (model.forward(x) - target))
        model.update_parameters(0.05)
    assert np.square(model.forward(x)).sum() < 0.1 * before


def test_batch_norm_keeps_running_values_as_pytorch():
    layer = BatchNorm(2)
    x = np.array([[1.0, 10.0], [3.0, 30.0]], np.float32)
    layer.forward(x)
    np.testing.assert_allclose(layer.buffers["running_mean"], [0.2, 2.0], rtol=1e-6)
    np.testing.assert_allclose(layer.buffers["running_var"], [0.9 + 0.2, 0.9 + 20.0], rtol=1e-6)
    single = layer.clone()
    single.forward(x[:1])
    np.testing.assert_array_equal(single.buffers["running_var"], layer.buffers["running_var"])


def test_dropout_keeps_the_mean_and_follows_its_seed():
    layer = Dropout(0.25)
    layer.seed_training(1)
    x = np.ones((1, 100_000), np.float32)
    y = layer.forward(x)
    assert abs(y.mean() - 1) < 0.02
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert not np.array_equal(y, layer.forward(x))
    layer.seed_training(1)
    np.testing.assert_array_equal(y, layer.forward(x))
    assert layer.evaluate().forward(x) is x


def test_start_values_are_within_pytorchs_bounds():
    for layer, bound in ((Linear(100, 400), 0.1), (Conv1d(4, 100, 25), 0.1)):
        for value in layer.reset(0).params.values():
            assert abs(value).max() <= bound
            assert abs(value).max() > 0.95 * bound
        assert abs(layer.params["weight"].mean()) < 0.002


@pytest.mark.parametrize("family", OTHERS)
def test_other_members_are_described(family):
    lines = list_members(family)
    assert [line.name for line in lines] == sorted(OTHERS[family].table)
    for line in lines:
        entry = describe_member(line.name)
        assert line.purpose
        assert str(entry).startswith(f"{line.name} ({family})\n\n{line.purpose}")
        assert [field.field for field in entry.fields] == line.fields.split()


def test_all_families_can_be_listed():
    assert [*Family] == ["layer", *OTHERS]
    with pytest.raises(UsageError, match=r"unknown layer 'Adem' \(did you mean 'Adam'\?\)"):
        describe_member("Adem")
