"""Short forms of specs, written out before the spec is read: variables, blocks, repetition.

    variables: {width: 128}
    blocks:
      hidden:
        - Linear: {in_features: $width, out_features: $width}
        - ReLU
    layers:
      - Linear: {in_features: 64, out_features: $width}
      - repeat: {times: 3, layers: [hidden]}
      - hidden

A word ``$name`` stands for a variable's value, a member of a list of layers that is a block's name
for the block's layers, and ``repeat`` for its layers so many times. What the input is normalized
by becomes a layer ``Normalize`` in front. Checkpoints hold the long form.
"""

from __future__ import annotations

from typing import Any

from llmbol_core.errors import SpecError, nearest
from llmbol_core.nn.nodes import Node, listed, shown, together

NORMALIZE = "normalize"
"""The field of the input that stands for a layer."""
_MOST = 10_000
"""How many members all repetitions may give."""
_DEEPEST = 32


def expand(root: Node) -> Node:
    """Return a spec without variables, blocks and repetitions; complaints stand at their place."""
    if not isinstance(root.value, dict):
        return root
    variables, blocks = _named(root, "variables", dict), _named(root, "blocks", list)
    rest = {key: pair for key, pair in root.value.items() if key not in ("variables", "blocks")}
    writer = _Writer(variables, blocks)
    written = writer.written(_with(root, rest), 0)
    if writer.unknown:
        raise together(writer.unknown)
    return _normalized(written)


def _normalized(root: Node) -> Node:
    """Return a spec whose first layer is what ``normalize`` in its input says."""
    _, given = root.value.get("input", (root, root))
    _, layers = root.value.get("layers", (root, root))
    is_there = isinstance(given.value, dict) and NORMALIZE in given.value
    if not is_there or not isinstance(layers.value, list):
        return root
    place, fields = given.value[NORMALIZE]
    key = Node("Normalize", "Normalize", place.path, place.line, place.column, place.lines)
    layer = _with(place, {"Normalize": (key, fields)})
    rest = {key: pair for key, pair in given.value.items() if key != NORMALIZE}
    pairs = dict(root.value)
    pairs["input"] = (pairs["input"][0], _with(given, rest))
    pairs["layers"] = (pairs["layers"][0], _with(layers, [layer, *layers.value]))
    return _with(root, pairs)


def _named(root: Node, section: str, kind: type) -> dict[str, Node]:
    """Return the nodes of a section by name; those of ``blocks`` are lists."""
    if section not in root.value:
        return {}
    node = root.value[section][1]
    if not isinstance(node.value, dict):
        raise node.error(f"{section}: expected names with what they stand for, got {shown(node)}")
    named = {name: value for name, (_, value) in node.value.items()}
    for name, value in named.items():
        if kind is list and not isinstance(value.value, list):
            raise value.error(f"the block {name!r}: expected a list of layers, got {shown(value)}")
    return named


def _with(node: Node, value: Any) -> Node:
    """Return a node with another value."""
    return Node(value, None, node.path, node.line, node.column, node.lines)


class _Writer:
    """Writes nodes out; counts what repetitions give."""

    def __init__(self, variables: dict[str, Node], blocks: dict[str, Node]) -> None:
        self.variables, self.blocks = variables, blocks
        self.count = 0
        self.unknown: list[SpecError] = []
        """Complaints about variables that there are not."""

    def written(self, node: Node, depth: int) -> Node:
        """Return a node in the long form."""
        if depth > _DEEPEST:
            raise node.error("blocks and variables that stand for each other go on forever")
        if isinstance(node.value, dict):
            pairs = {k: (key, self.written(v, depth)) for k, (key, v) in node.value.items()}
            return _with(node, pairs)
        if isinstance(node.value, list):
            return _with(node, [m for member in node.value for m in self.members(member, depth)])
        if isinstance(node.value, str) and node.value.startswith("$"):
            return self.variable(node, depth)
        return node

    def variable(self, node: Node, depth: int) -> Node:
        """Return what a variable stands for, at the place where it is used."""
        name = node.value[1:]
        if name not in self.variables:
            known = nearest(name, self.variables)
            if not known:
                known = f": expected {listed(self.variables)}" if self.variables else ""
                known = known or ": the spec has no 'variables'"
            self.unknown.append(node.error(f"unknown variable {node.value!r}{known}"))
            return node
        return self.written(self.variables[name].at(node), depth + 1)

    def members(self, node: Node, depth: int) -> list[Node]:
        """Return what a member of a list stands for: itself, a block's layers, or repetitions."""
        if isinstance(node.value, str) and node.value in self.blocks:
            found = self.written(self.blocks[node.value], depth + 1).value
        elif isinstance(node.value, dict) and list(node.value) == ["repeat"]:
            times, layers = self.repetition(node.value["repeat"][1], depth)
            found = layers * min(times, _MOST + 1)
        else:
            return [self.written(node, depth)]
        self.count += len(found)
        if self.count > _MOST:
            raise node.error(f"more than {_MOST} layers from blocks and repetitions")
        return list(found)

    def repetition(self, node: Node, depth: int) -> tuple[int, list[Node]]:
        """Return how often which layers are repeated."""
        if not isinstance(node.value, dict) or set(node.value) != {"times", "layers"}:
            raise node.error(f"repeat: expected 'times' and 'layers', got {shown(node)}")
        times = self.written(node.value["times"][1], depth)
        layers = self.written(node.value["layers"][1], depth + 1)
        if type(times.value) is not int or times.value < 0:
            raise times.error(f"times: expected an integer of at least 0, got {shown(times)}")
        if not isinstance(layers.value, list):
            raise layers.error(f"layers: expected a list of layers, got {shown(layers)}")
        return times.value, layers.value
