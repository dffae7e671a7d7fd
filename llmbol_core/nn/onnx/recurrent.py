"""Importers of recurrent networks: LSTM, GRU and RNN, whose sequences have the steps first.

Without initial states and with the usual functions they become one operation for each direction.
What that cannot say is written out step by step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmbol_core.nn.onnx.importers import Outcome, row
from llmbol_core.nn.onnx.node import Node
from llmbol_core.nn.onnx.operands import Array, Constant, Operand, Traced, Unsupported
from llmbol_core.nn.onnx.tracing import Tracer

_ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
"""Where PyTorch's gates stand in ONNX: of i, f, g, o in i, o, f, c; of r, z, n in z, r, h."""
_FUNCTIONS = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}
_MOST_STEPS = 512
"""How long a sequence that is written out may be."""


@dataclass(frozen=True)
class _Direction:
    """One direction: matrices and biases in PyTorch's order of gates, and the initial states."""

    reverse: bool
    weights: tuple[Constant, Constant, Constant, Constant]
    hidden: Operand | None
    cell: Operand | None


@row("LSTM", "GRU", "RNN", since=7)
def recurrent(tracer: Tracer, node: Node) -> Outcome:
    """Emit each direction; return all states [T, D, N, H] and the last ones [D, N, H]."""
    kind = node.operator
    functions = _check(node, kind)
    x = node.traced(0)
    first = bool(node.attr("layout", 0))
    x = x if first else tracer.permute(x, (1, 0, 2))
    _check_lengths(node, x.shape[1])
    directions = _directions(tracer, node, kind, first)
    needs_cell = kind == "LSTM" and len(node.outputs) > 2 and node.outputs[2] != ""
    is_plain = functions is not None and not needs_cell
    is_plain &= all(d.hidden is None and d.cell is None for d in directions)
    is_plain &= kind != "GRU" or bool(node.attr("linear_before_reset", 0))
    sides: list[tuple[Traced, Traced | None]] = []
    for direction in directions:
        if is_plain and functions:
            op = f"rnn_{functions[0]}" if kind == "RNN" else kind.lower()
            weights = direction.weights
            sides.append((tracer.op(op, x, *weights, reverse=direction.reverse), None))
        else:
            sides.append(_written_out(tracer, node, kind, x, direction))
    return _results(tracer, sides, directions, first)


def _check(node: Node, kind: str) -> tuple[str, ...] | None:
    """Refuse what nothing can say; return the names of the functions."""
    if node.has(7) and kind == "LSTM":
        raise Unsupported("peephole weights")
    node.needs("input_forget", 0)
    if node.attr("clip") is not None:
        raise Unsupported("clip is given")
    usual = _FUNCTIONS[kind]
    named = [f.lower() for f in node.attr("activations") or ()]
    if kind == "RNN" and set(named) == {"relu"}:
        return ("relu",)
    if named and tuple(named) != usual * (len(named) // len(usual)):
        raise Unsupported(f"activations {named}: expected {list(usual)}")
    return usual


def _check_lengths(node: Node, steps: int) -> None:
    """Refuse sequences of different lengths in one batch."""
    if node.has(4):
        lengths = node.constant(4, "the lengths of the sequences")
        if (np.asarray(lengths) != steps).any():
            raise Unsupported(f"lengths of sequences other than {steps}")


def _directions(tracer: Tracer, node: Node, kind: str, first: bool) -> list[_Direction]:
    way = node.attr("direction", "forward")
    count = 2 if way == "bidirectional" else 1
    input_weights = node.constant(1, "the weights")
    state_weights = node.constant(2, "the weights")
    size = state_weights.shape[-1]
    gates = len(_ORDER[kind])
    biases = np.zeros((count, 2 * gates * size), np.float32)
    if node.has(3):
        biases = node.constant(3, "the biases")
    found = []
    for d in range(count):
        halves = np.split(biases[d], 2)
        parts = (input_weights[d], state_weights[d], *halves)
        weights = tuple(Constant(_reordered(part, kind)) for part in parts)
        suffix = "_reverse" if d else ""
        names = [operand.name for operand in (node[1], node[2]) if isinstance(operand, Constant)]
        names += [node[3].name] * 2 if node.has(3) else ["", ""]
        kinds = ("", "", "_ih", "_hh")
        named = tuple(
            Constant(w.array, f"{n}{k}{suffix}" if n else "")
            for w, n, k in zip(weights, names, kinds, strict=True)
        )
        states = [_initial(tracer, node, i, d, first) for i in (5, 6)]
        found.append(_Direction(way == "reverse" or d == 1, named, *states))  # type: ignore[arg-type]  # there are four
    return found


def _reordered(rows: Array, kind: str) -> Array:
    """Return rows by gate in PyTorch's order."""
    blocks = np.split(rows, len(_ORDER[kind]))
    return np.concatenate([blocks[i] for i in _ORDER[kind]])


def _initial(tracer: Tracer, node: Node, index: int, way: int, first: bool) -> Operand | None:
    """Return the initial state of one direction, [N, H], or None if it is zero."""
    if not node.has(index) or (node.operator != "LSTM" and index == 6):
        return None
    axis = 1 if first else 0
    state = node[index]
    if isinstance(state, Constant):
        kept = tracer.unbatched(state, 1 - axis).array.take(way, axis)
        return Constant(kept) if kept.any() else None
    return tracer.squeeze(tracer.part(state, axis, way, way + 1), axis)


# ---- step by step ----


def _written_out(
    tracer: Tracer, node: Node, kind: str, x: Traced, direction: _Direction
) -> tuple[Traced, Traced | None]:
    """Emit each step; return the states [N, T, H] and the last cell."""
    steps = x.shape[1]
    if steps > _MOST_STEPS:
        raise Unsupported(f"{steps} steps to write out are more than {_MOST_STEPS}")
    w_ih, w_hh, b_ih, b_hh = direction.weights
    size = w_hh.shape[1]
    inputs = tracer.op("linear", x, w_ih, b_ih)
    hidden, cell = direction.hidden, direction.cell
    states: list[Traced] = [x] * steps
    order = range(steps)[::-1] if direction.reverse else range(steps)
    for step in order:
        given = tracer.squeeze(tracer.part(inputs, 1, step, step + 1), 1)
        hidden, cell = _cell(tracer, node, kind, given, (hidden, cell), (w_hh, b_hh, size))
        states[step] = tracer.op("unsqueeze", hidden, axis=1)
    joined = tracer.chain("concat", states, axis=1)
    return joined, cell  # type: ignore[return-value]  # both were emitted


def _cell(
    tracer: Tracer,
    node: Node,
    kind: str,
    given: Traced,
    state: tuple[Operand | None, Operand | None],
    weights: tuple[Constant, Constant, int],
) -> tuple[Traced, Traced | None]:
    """Emit one step of one cell."""
    hidden, cell = state
    w_hh, b_hh, size = weights
    if hidden is None:
        hidden = tracer.op("scale", tracer.part(given, 1, 0, size), factor=0.0)
    elif isinstance(hidden, Constant):
        hidden = tracer.op(
            "add", tracer.op("scale", tracer.part(given, 1, 0, size), factor=0.0), hidden
        )
    if kind == "GRU" and not node.attr("linear_before_reset", 0):
        return _gru_reset_first(tracer, given, hidden, (w_hh, b_hh, size)), None
    recurrent = tracer.op("linear", hidden, w_hh, b_hh)
    if kind == "RNN":
        name = "relu" if "relu" in str(node.attr("activations") or "").lower() else "tanh"
        return tracer.op(name, tracer.op("add", given, recurrent)), None
    if kind == "GRU":
        both = [_gate(tracer, v, i, size) for v in (given, recurrent) for i in range(3)]
        r = tracer.op("sigmoid", tracer.op("add", both[0], both[3]))
        z = tracer.op("sigmoid", tracer.op("add", both[1], both[4]))
        n = tracer.op("tanh", tracer.op("add", both[2], tracer.op("mul", r, both[5])))
        return _mixed(tracer, z, hidden, n), None
    total = tracer.op("add", given, recurrent)
    i, f, o = (tracer.op("sigmoid", _gate(tracer, total, k, size)) for k in (0, 1, 3))
    g = tracer.op("tanh", _gate(tracer, total, 2, size))
    new = tracer.op("mul", i, g)
    cell = new if cell is None else tracer.op("add", tracer.op("mul", f, cell), new)
    return tracer.op("mul", o, tracer.op("tanh", cell)), cell


def _gru_reset_first(
    tracer: Tracer, given: Traced, hidden: Operand, weights: tuple[Constant, Constant, int]
) -> Traced:
    """Emit a step of a GRU that resets the state before it multiplies."""
    w_hh, b_hh, size = weights
    rows = [
        (Constant(w_hh.array[k * size :][:size]), Constant(b_hh.array[k * size :][:size]))
        for k in range(3)
    ]
    r, z = (
        tracer.op(
            "sigmoid",
            tracer.op("add", _gate(tracer, given, k, size), tracer.op("linear", hidden, *rows[k])),
        )
        for k in (0, 1)
    )
    reset = tracer.op("linear", tracer.op("mul", r, hidden), *rows[2])
    n = tracer.op("tanh", tracer.op("add", _gate(tracer, given, 2, size), reset))
    return _mixed(tracer, z, hidden, n)


def _gate(tracer: Tracer, x: Traced, number: int, size: int) -> Traced:
    return tracer.part(x, 1, number * size, (number + 1) * size)


def _mixed(tracer: Tracer, z: Traced, hidden: Operand, n: Traced) -> Traced:
    """Emit z h + (1 - z) n, as n + z (h - n)."""
    return tracer.op("add", n, tracer.op("mul", z, tracer.op("sub", hidden, n)))


def _results(
    tracer: Tracer,
    sides: list[tuple[Traced, Traced | None]],
    directions: list[_Direction],
    first: bool,
) -> Outcome:
    """Return all states, the last ones and the last cells, in ONNX's order of axes."""
    last, cells = [], []
    for (states, cell), direction in zip(sides, directions, strict=True):
        end = 0 if direction.reverse else states.shape[1] - 1
        final = tracer.squeeze(tracer.part(states, 1, end, end + 1), 1)
        last.append(tracer.op("unsqueeze", final, axis=1 if first else 0))
        if cell is not None:
            cells.append(tracer.op("unsqueeze", cell, axis=1 if first else 0))
    both = tracer.chain("concat", [states for states, _ in sides], axis=2)
    assert isinstance(both, Traced)
    count, steps, width = both.shape
    apart = tracer.reshape(both, [count, steps, len(sides), width // len(sides)])
    order = (0, 1, 2, 3) if first else (1, 2, 0, 3)
    results = [tracer.permute(apart, order)]
    results += [tracer.chain("concat", p, axis=1 if first else 0) for p in (last, cells) if p]  # type: ignore[misc]  # what was traced stays so
    return tuple(results)
