"""Modules with several paths: shapes, printing, shared weights."""

from __future__ import annotations

import numpy as np
import pytest

from llmbol_core.errors import ModelError, ShapeError, UsageError
from llmbol_core.nn.checkpoint import freeze
from llmbol_core.nn.containers import Sequential
from llmbol_core.nn.joins import Bilinear, CAddTable, CMulTable, JoinTable, SelectTable, SplitTable
from llmbol_core.nn.layers.dropout import Dropout
from llmbol_core.nn.layers.linear import Linear
from llmbol_core.nn.layers.shape import Identity
from llmbol_core.nn.model import Input, Model
from llmbol_core.nn.module import Module
from llmbol_core.nn.tables import Concat, ConcatTable, MapTable, ParallelTable, Residual


def test_tables_print_as_in_torch7():
    model = Sequential(
        [
            Linear(784, 128),
            ConcatTable(layers=[Identity(), Linear(128, 128, bias=False)]),
            CAddTable(),
            Residual([Linear(128, 128)]),
        ]
    )
    assert repr(model) == (
        "nn.Sequential {\n"
        "  [input -> (0) -> (1) -> (2) -> (3) -> output]\n"
        "  (0): nn.Linear(784 -> 128)\n"
        "  (1): nn.ConcatTable {\n"
        "    input\n"
        "      |`-> (0): nn.Identity\n"
        "       `-> (1): nn.Linear(128 -> 128) without bias\n"
        "       ... -> output\n"
        "  }\n"
        "  (2): nn.CAddTable\n"
        "  (3): nn.Residual {\n"
        "    [input -> (0) -> + input -> output]\n"
        "    (0): nn.Linear(128 -> 128)\n"
        "  }\n"
        "}"
    )


@pytest.mark.parametrize(
    ("layer", "shape", "said"),
    [
        (CAddTable(), ((2,), (3,)), r"CAddTable: expected arrays of one shape, got 2 \+ 3"),
        (CMulTable(), (3,), r"CMulTable: expected a table, got shape \[3\]"),
        (Linear(3, 2), ((3,), (3,)), "Linear: expected an array, got a table of 2"),
        (JoinTable(1), ((2, 3), (2, 4)), "cannot join outputs on axis 1: 2x3 2x4"),
        (SelectTable(2), ((2,), (2,)), "no member 2 in a table of 2"),
        (SplitTable(2), (3,), "expected an axis 2, got shape"),
        (ParallelTable(layers=[Identity()]), ((2,), (2,)), "1 layers for 2 members"),
        (Residual([Linear(3, 2)]), (3,), "the layers turn 3 into 2: it cannot be added"),
        (Residual([Linear(2, 2)]), (3,), "0.Linear: expected 2 features"),
        (Concat(1, layers=[Identity(), SplitTable(1)]), (2, 2), "cannot join outputs on axis 1"),
        (Bilinear(2, 3, 4), ((3,), (2,)), "expected vectors of 2 and 3"),
        (MapTable(), ((3,), (2,)), "no layer inside"),
        (Concat(1), (3,), "Concat: no layer inside"),
    ],
)
def test_shapes_that_do_not_fit(layer, shape, said):
    with pytest.raises(ShapeError, match=said):
        layer.checked_shape(shape)


def test_data_that_do_not_fit():
    with pytest.raises(ShapeError, match="Linear: expected an array, got tuple"):
        Linear(2, 2).forward((np.zeros((1, 2)), np.zeros((1, 2))))
    with pytest.raises(ShapeError, match="CAddTable: expected a table, got ndarray"):
        CAddTable().forward(np.zeros((1, 2)))
    with pytest.raises(UsageError, match="expected one layer, got 2"):
        MapTable(layers=[Identity(), Identity()])
    with pytest.raises(ModelError, match=r"gives a table, 3 . 3: join it"):
        Model("t", Input((2, 3)), [SplitTable(1)])


def test_tables_of_tables_flow():
    inner = ConcatTable(layers=[Identity(), ConcatTable(layers=[Linear(3, 3), Identity()])])
    layers: list[Module] = [
        inner,
        ParallelTable(layers=[Linear(3, 3), Sequential([CMulTable(), Linear(3, 3)])]),
        ConcatTable(layers=[SelectTable(0), CAddTable()]),
        JoinTable(1),
    ]
    model = Model("nested", Input((3,)), layers).reset(1).evaluate()
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    y = model.forward(x)
    assert y.shape == (4, 6)
    np.testing.assert_allclose(freeze(model).run(x), y, rtol=1e-6, atol=1e-6)
    model.network.double()
    direction, step = np.ones((4, 3)), 1e-6
    model.network.forward(x.astype(float))
    along = model.network.backward(x.astype(float), np.ones((4, 6)))
    ends = [model.network.forward(x + sign * step * direction).sum() for sign in (1, -1)]
    assert (along * direction).sum() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6)


def test_map_table_shares_weights_and_draws_anew_for_each_member():
    shared = MapTable(layers=[Sequential([Linear(4, 4), Dropout(0.5)])])
    model = Sequential([SplitTable(1), shared, JoinTable(1)])
    x = np.repeat(np.random.default_rng(0).normal(size=(8, 1, 4)), 2, axis=1).astype(np.float32)
    model.seed_training(3)
    first, second = np.split(model.forward(x), 2, axis=1)
    assert not np.array_equal(first, second)
    model.seed_training(3)
    np.testing.assert_array_equal(np.concatenate([first, second], 1), model.forward(x))
    assert len(model.parameters()[0]) == 2
    flat, gradients = model.get_parameters()
    flat[:] = 0
    assert not model.forward(x).any()
    gradients[:] = 0
    model.evaluate().forward(x)
    model.backward(x, np.ones((8, 8), np.float32))
    np.testing.assert_allclose(model.find_modules("Linear")[0].grads["bias"], 16)
