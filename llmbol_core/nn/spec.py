"""YAML specs: read into a model, with every mistake at its line and column.

The text becomes nodes that remember their place; the sections and layers themselves say which
fields they take (``declared.py``). Plain words are read as YAML 1.2 has them, so ``1e-3`` is a
number and ``no`` a word; anchors and tags are refused. JSON text is read by the same code, without
YAML: a checkpoint carries its spec so.

    layers:
      - Linear: {in_features: 64, out_features: 10}
      - ReLU
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from llmbol_core.errors import LlmbolError, ShapeError, SpecError, UsageError, nearest
from llmbol_core.native.files import read_bytes
from llmbol_core.nn import tables as _tables  # noqa: F401 -- fills the registry
from llmbol_core.nn.declared import (
    Declared,
    FieldError,
    Section,
    convert,
    describe,
    field_types,
    member_type,
    required_fields,
)
from llmbol_core.nn.expansion import expand
from llmbol_core.nn.model import Model
from llmbol_core.nn.module import is_table
from llmbol_core.nn.nodes import Node, listed, together
from llmbol_core.nn.nodes import shown as shown_node
from llmbol_core.nn.summary import shown

D = TypeVar("D", bound=Declared)
T = TypeVar("T")

_NUMBER = re.compile(r"[-+]?(\d[\d_]*)(\.\d*)?([eE][-+]?\d+)?|[-+]?\.\d+([eE][-+]?\d+)?")
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}


def read_spec(path: str, settings: Sequence[str] = ()) -> Model:
    """Read the model that a YAML file describes, with changes such as ``train.epochs=10``."""
    data = read_bytes(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SpecError(path, line, 1, "not UTF-8 text: is this a YAML spec?") from error
    return parse_spec(text, path, settings)


def parse_spec(text: str, path: str = "<spec>", settings: Sequence[str] = ()) -> Model:
    """Return the model that YAML text describes; its parameters are made on first use."""
    repeated: list[SpecError] = []
    root = _compose(text, path, repeated)
    try:
        model = _read_model(expand(_changed(root, settings)), path)
    except SpecError as error:
        raise together([*repeated, error]) from error
    if repeated:
        raise together(repeated)
    return model


def changed_model(model: Model, settings: Sequence[str], path: str) -> Model:
    """Return the model whose spec is this one's with changes such as ``train.epochs=10``."""
    root = _node_of_plain(json.loads(format_json_spec(model.config())), path)
    changed = _read_model(_changed(root, settings), path)
    changed.path = model.path
    return changed


def _changed(root: Node, settings: Sequence[str]) -> Node:
    """Return the spec with other values at dotted paths; list members count from 0."""
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise UsageError(f"--set {setting}: expected KEY=VALUE, such as train.epochs=10")
        value = _compose(text, f"--set {path}") if text.strip() else Node(None, "", setting, 1, 1)
        root = _replaced(root, path.split("."), value, setting)
    return root


def _replaced(node: Node, keys: list[str], value: Node, setting: str) -> Node:
    """Return a node in which what lies at the end of the keys is another value."""
    if not keys:
        return value
    key, rest = keys[0], keys[1:]
    if isinstance(node.value, list) and key.isdecimal() and int(key) < len(node.value):
        members = list(node.value)
        members[int(key)] = _replaced(members[int(key)], rest, value, setting)
        return dataclasses.replace(node, value=members)
    if node.value is None or isinstance(node.value, dict):
        pairs = dict(node.value or {})
        fresh = Node(None, key, value.path, 1, 1)
        place, old = pairs.get(key, (fresh, fresh))
        pairs[key] = (place, _replaced(dataclasses.replace(old), rest, value, setting))
        return dataclasses.replace(node, value=pairs)
    raise UsageError(f"--set {setting}: there is nothing called {key!r} in {shown_node(node)}")


def parse_json_spec(text: str, path: str) -> Model:
    """Return the model that a checkpoint's JSON describes; all complaints are at line 1."""
    try:
        plain = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpecError(path, 1, 1, f"its spec is no JSON: {error}") from error
    return _read_model(_node_of_plain(plain, path), path)


def format_json_spec(config: dict[str, Any]) -> str:
    """Return a model's ``config()`` as the JSON that ``parse_json_spec`` reads."""
    return json.dumps(config, ensure_ascii=False)


def _read_model(root: Node, path: str) -> Model:
    """Read the sections; hold the layers' shapes against each other, each at its place."""
    fields = read_fields(root, Model, "the spec")
    shape = fields["input"].shape
    entries = root.value["layers"][1].value
    for index, (layer, entry) in enumerate(zip(fields["layers"], entries, strict=True)):
        try:
            shape = layer.checked_shape(shape)
        except ShapeError as error:
            raise _inside(entry, error.operation).error(f"{index}.{error}") from error
    if is_table(shape):
        why = f"the last layer gives a table, {shown(shape)}: join it"
        raise entries[-1].error(why)
    if fields.get("labels") and len(fields["labels"]) != math.prod(shape):
        why = f"{len(fields['labels'])} labels for an output of {math.prod(shape)} values"
        raise root.value["labels"][1].error(why)
    model = _made(root, Model, fields)
    model.path = path
    return model


def _inside(entry: Node, path: str) -> Node:
    """Return the layer in a layer's node to which a path leads, such as ``1.0.Linear``."""
    for part in path.split("."):
        fields = [node for _, node in entry.value.values()] if type(entry.value) is dict else []
        layers = fields[0].value if fields else None
        if isinstance(layers, dict) and "layers" in layers:
            layers = layers["layers"][1].value
        if not part.isdigit() or not isinstance(layers, list):
            break
        entry = layers[int(part)]
    return entry


# Nodes to declared objects.


def read_section(node: Node, cls: type[D], what: str) -> D:
    """Return an object whose fields a mapping gives; ``what`` names it in complaints."""
    return _made(node, cls, read_fields(node, cls, what))


def _made(node: Node, cls: type[D], fields: dict[str, Any]) -> D:
    """Call the constructor; its complaints are reported at the node."""
    try:
        return cls(**fields)
    except LlmbolError as error:
        raise node.error(str(error)) from error


def read_fields(node: Node, cls: type[Declared], what: str) -> dict[str, Any]:
    """Return the checked values of a mapping's keys as the constructor takes them."""
    if not isinstance(node.value, dict):
        raise node.error(f"expected the fields of {what}, got {shown_node(node)}")
    types = field_types(cls)
    errors: list[SpecError] = []
    for key, (place, _) in node.value.items():
        if key not in types:
            known = nearest(key, [*types, *cls.shorthands]) or f": expected {listed(types)}"
            errors.append(place.error(f"{what} has no field {key!r}{known}"))
    missing = [name for name in required_fields(cls) if name not in node.value]
    if missing and not errors:
        errors.append(node.error(f"{what} needs {listed(missing, 'and')}"))
    fields = {}
    for key, (_, value) in node.value.items():
        if key in types:
            with _collecting(errors):
                fields[key] = read_value(value, types[key], key)
    if errors:
        raise together(errors)
    return fields


@contextmanager
def _collecting(errors: list[SpecError]) -> Iterator[None]:
    """Note a complaint and go on."""
    try:
        yield
    except SpecError as error:
        errors.append(error)


def read_member(node: Node, family: type[D]) -> D:
    """Return a member of a family: ``ReLU``, or ``Linear: {in_features: 3, out_features: 2}``."""
    place, fields = node, Node({}, None, node.path, node.line, node.column, node.lines)
    if isinstance(node.value, dict):
        if len(node.value) != 1:
            why = f"expected one {family.family} with its fields inside, got {shown_node(node)}"
            raise node.error(why)
        ((place, inner),) = node.value.values()
        fields = fields if inner.value is None else inner
    name = place.text
    if not isinstance(name, str) or isinstance(node.value, list):
        raise node.error(f"expected a {family.family}, got {shown_node(node)}")
    try:
        cls = family.lookup(name)
    except FieldError as error:
        raise place.error(str(error)) from error
    if isinstance(fields.value, list):
        fields = _container_fields(fields, cls)
    elif not fields.value:
        fields = dataclasses.replace(fields, line=place.line, column=place.column)
    return read_section(fields, cls, name)


def _container_fields(node: Node, cls: type[Declared]) -> Node:
    """Let a container that needs nothing else be written as the list of its layers."""
    for name, hint in field_types(cls).items():
        if member_type(hint):
            return dataclasses.replace(node, value={name: (node, node)})
    return node


def read_value(node: Node, hint: Any, what: str) -> Any:
    """Return a node's value as a field of this type takes it."""
    options = typing.get_args(hint)
    if type(None) in options:
        return None if node.value is None else read_value(node, options[0], what)
    if family := member_type(hint):
        if not isinstance(node.value, list):
            raise node.error(f"expected {describe(hint)}, got {shown_node(node)}")
        return _read_members(node, family)
    if isinstance(hint, type) and issubclass(hint, Section):
        return read_section(node, hint, what)
    if isinstance(hint, type) and issubclass(hint, Declared):
        return read_member(node, hint)
    if isinstance(node.value, dict):
        raise node.error(f"{what}: expected {describe(hint)}, got {shown_node(node)}")
    if typing.get_origin(hint) is tuple and isinstance(node.value, list):
        return tuple(_each(node.value, lambda member: read_value(member, options[0], what)))
    try:
        return convert(hint, _plain(node, hint))
    except FieldError as error:
        raise node.error(f"{what}: {error}") from error


def _read_members(node: Node, family: type[D]) -> list[D]:
    """Return the members of a list, or the complaints about all of them."""
    return _each(node.value, lambda member: read_member(member, family))


def _each(nodes: Sequence[Node], read: Callable[[Node], T]) -> list[T]:
    """Return what is read from each node, or the complaints about all of them."""
    errors: list[SpecError] = []
    members = []
    for member in nodes:
        with _collecting(errors):
            members.append(read(member))
    if errors:
        raise together(errors)
    return members


def _plain(node: Node, hint: Any) -> Any:
    """Return the bare value; where a text is wanted, a word as it stands."""
    if isinstance(node.value, list):
        inner = (typing.get_args(hint) or (None,))[0]
        return [_plain(member, inner) for member in node.value]
    bare = typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
    return node.text if bare is str and node.text is not None else node.value


# Text to nodes.


def _compose(text: str, path: str, repeated: list[SpecError] | None = None) -> Node:
    """Return the nodes of YAML text; complaints about keys that come twice go to a list."""
    import yaml

    lines = tuple(text.splitlines())
    loader = yaml.SafeLoader("")
    try:
        loader = yaml.SafeLoader(text)
        loader.yaml_implicit_resolvers = {}
        root = _composer(loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        why = f"{error.context}, {error.problem}" if _goes_on(error) else str(error.problem)
        raise Node(None, None, path, line, column, lines).error(why) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        why = f"a character that YAML does not allow: {error.character!r}"
        raise Node(None, None, path, line, column, lines).error(why) from error
    except RecursionError as error:
        raise SpecError(path, 1, 1, "nested too deeply") from error
    finally:
        loader.dispose()
    if root is None:
        raise SpecError(path, 1, 1, "an empty spec")
    found = [] if repeated is None else repeated
    made = _node_of_yaml(root, path, lines, found)
    if repeated is None and found:
        raise together(found)
    return made


def _goes_on(error: Any) -> bool:
    """Tell whether a complaint of the YAML reader makes no sense without what precedes it."""
    return bool(error.context) and str(error.problem).startswith("but ")


def _composer(loader: Any) -> Any:
    """Return the root node of the only document, refusing anchors and tags."""
    from yaml.composer import ComposerError

    compose_node = loader.compose_node

    def plain_node(parent: Any, index: Any) -> Any:
        event = loader.peek_event()
        tag = getattr(event, "tag", None)
        if event.anchor or tag:
            found = f"tags such as {tag!r}" if tag else "anchors and aliases"
            raise ComposerError(None, None, f"{found} are not supported", event.start_mark)
        return compose_node(parent, index)

    loader.compose_node = plain_node
    return loader.get_single_node()


def _node_of_yaml(root: Any, path: str, lines: tuple[str, ...], repeated: list[SpecError]) -> Node:
    """Turn a YAML node into ours; refuse keys that are no words, note those that come twice."""
    mark = root.start_mark

    def made(value: Any, text: str | None = None) -> Node:
        return Node(value, text, path, mark.line + 1, mark.column + 1, lines)

    if root.id == "scalar":
        is_plain = root.style is None
        return made(_scalar(root.value) if is_plain else root.value, root.value)
    if root.id == "sequence":
        return made([_node_of_yaml(m, path, lines, repeated) for m in root.value])
    pairs: dict[str, tuple[Node, Node]] = {}
    for key_node, value_node in root.value:
        key = _node_of_yaml(key_node, path, lines, repeated)
        if key.text is None:
            raise key.error("expected a word as key")
        if key.text in pairs:
            first = pairs[key.text][0].line
            repeated.append(key.error(f"duplicate key {key.text!r}, first on line {first}"))
            continue
        pairs[key.text] = (key, _node_of_yaml(value_node, path, lines, repeated))
    return made(pairs)


def _scalar(word: str) -> Any:
    """Return what a plain YAML 1.2 word means.

    >>> [_scalar(w) for w in ("1e-3", "64", "no", "true", "~", ".5", "1_000")]
    [0.001, 64, 'no', True, None, 0.5, 1000]
    """
    if word.lower() in _WORDS:
        return _WORDS[word.lower()]
    match = _NUMBER.fullmatch(word)
    if not match:
        return word
    is_integer = match[1] and not match[2] and not match[3] and len(word) < 100
    return int(word) if is_integer else float(word)


def _node_of_plain(value: Any, path: str) -> Node:
    """Wrap what JSON gave; it has no places."""
    if isinstance(value, dict):
        value = {
            str(key): (Node(key, str(key), path, 1, 1), _node_of_plain(member, path))
            for key, member in value.items()
        }
    elif isinstance(value, list):
        value = [_node_of_plain(member, path) for member in value]
    return Node(value, value if isinstance(value, str) else None, path, 1, 1)
