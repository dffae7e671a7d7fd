"""The instruction table: complete, consistent, and typed throughout."""

from __future__ import annotations

import ast

import pytest

from llmbol_core.errors import UsageError
from llmbol_core.vm.isa import (
    CONVERSIONS,
    MIDDLE_MODES,
    MODES,
    OPCODES,
    OPS,
    TYPES,
    Effect,
    Mode,
    Op,
    describe,
    type_of,
)

SCALARS = [op for op in OPS if op.meaning is not None]
FUNCTIONS = {"quo", "rem", "lsr", "power", *CONVERSIONS}


def test_the_numbers_are_dense_and_the_names_unique() -> None:
    assert [op.number for op in OPS] == list(range(175))
    assert len(OPCODES) == 175


# A few of each part of the numbering, from Inferno's own header.
KNOWN = {
    "nop": 0, "newcp": 21, "consmp": 31, "movw": 45, "addw": 58, "modb": 70, "bltc": 107,
    "indb": 116, "beql": 134, "newcl": 143, "cvtrf": 149, "lsrl": 154, "casel": 159, "divx1": 167,
    "expf": 173, "self": 174,
}  # fmt: skip


@pytest.mark.parametrize(("mnemonic", "number"), KNOWN.items())
def test_numbers_are_those_of_inferno(mnemonic: str, number: int) -> None:
    assert OPCODES[mnemonic] == number


def test_97_instructions_have_a_meaning() -> None:
    assert len(SCALARS) == 97


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.mnemonic)
def test_rows_are_consistent(op: Op) -> None:
    places = [role.place for role in op.operands]
    assert len(set(places)) == len(places)
    assert all(role.type in TYPES and (role.reads or role.writes) for role in op.operands)
    assert all(role.place == "m" for role in op.operands if role.optional)
    assert op.has_label == (op.mnemonic in ("jmp", "call", "spawn") or op.effect is Effect.BRANCH)
    assert op.summary


@pytest.mark.parametrize("op", SCALARS, ids=lambda op: op.mnemonic)
def test_meanings_are_typed(op: Op) -> None:
    assert op.meaning is not None
    assert type_of(op.meaning, op, op.result) == op.result
    for node in ast.walk(op.meaning):
        assert isinstance(
            node,
            ast.Name
            | ast.Constant
            | ast.BinOp
            | ast.UnaryOp
            | ast.Compare
            | ast.BoolOp
            | ast.IfExp
            | ast.Call
            | ast.operator
            | ast.unaryop
            | ast.cmpop
            | ast.boolop
            | ast.expr_context,
        )
        if isinstance(node, ast.Call):
            assert isinstance(node.func, ast.Name)
            assert node.func.id in FUNCTIONS
        if isinstance(node, ast.BinOp) and not isinstance(node.op, ast.LShift | ast.RShift):
            left = type_of(node.left, op, "")
            right = type_of(node.right, op, "")
            assert left == right or "" in (left, right)
        if isinstance(node, ast.Compare):
            types = {type_of(x, op, "") for x in (node.left, *node.comparators)} - {"", "?"}
            assert len(types) <= 1


def test_every_addressing_byte_means_one_thing() -> None:
    assert [row.mode for row in MODES] == list(Mode)
    assert sorted(MIDDLE_MODES) == [0, 1, 2, 3]


def test_describe() -> None:
    (row,) = describe("addw")
    assert (row.number, row.operands, row.summary) == (58, "mW? sW -> dW", "d = m + s")
    assert len(describe()) == 175
    with pytest.raises(UsageError, match="did you mean 'addw'"):
        describe("addww")
