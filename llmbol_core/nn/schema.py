"""The JSON Schema of specs, from the registries of sections, layers, losses and the rest.

Editors that know JSON Schema complete and check specs with it.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from typing import Annotated, Any, Literal

from llmbol_core.nn import tables as _tables  # noqa: F401 -- fills the registry
from llmbol_core.nn.criterions import Criterion
from llmbol_core.nn.declared import (
    Declared,
    Range,
    Section,
    field_types,
    member_type,
    required_fields,
)
from llmbol_core.nn.expansion import NORMALIZE
from llmbol_core.nn.layers.graph import Held, Step
from llmbol_core.nn.layers.normalization import Normalize
from llmbol_core.nn.model import Model
from llmbol_core.nn.module import Module
from llmbol_core.nn.optim import Optimizer
from llmbol_core.nn.schedules import Schedule

Schema = dict[str, Any]

_FAMILIES: tuple[type[Declared], ...] = (Module, Criterion, Optimizer, Schedule, Held, Step)
_PLAIN: dict[Any, Schema] = {
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    str: {"type": ["string", "number", "boolean"]},
}
_VARIABLE: Schema = {"type": "string", "pattern": r"^\$"}


def spec_schema() -> Schema:
    """Return the schema of a whole spec, short forms included."""
    root = _object(Model)
    root["properties"] |= {
        "variables": {"type": "object", "description": "What $NAME stands for."},
        "blocks": {
            "type": "object",
            "description": "Lists of layers by the name that stands for them.",
            "additionalProperties": _list_of(Module),
        },
    }
    root["properties"]["input"]["properties"][NORMALIZE] = _object(Normalize)
    families = {family.family: _family(family) for family in _FAMILIES}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A model spec of llmbol",
        **root,
        "$defs": {**families, "variable": _VARIABLE},
    }


def _object(cls: type[Declared]) -> Schema:
    """Return the schema of the fields of a class."""
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}  # type: ignore[arg-type]  # each is a dataclass
    properties = {}
    for name, hint in field_types(cls).items():
        default = defaults[name]
        shown = {"default": default} if isinstance(default, str | int | float) else {}
        properties[name] = _value(hint) | shown
    required = required_fields(cls)
    return {
        "type": "object",
        "description": (inspect.getdoc(cls) or "").split("\n")[0],
        "properties": properties,
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }


def _family(family: type[Declared]) -> Schema:
    """Return the schema of a member: its name, or its name with fields; or a block, repetition."""
    bare = [name for name, cls in sorted(family.table.items()) if not required_fields(cls)]
    named: Schema = {"enum": bare}
    forms: list[Schema] = [named]
    for name, cls in sorted(family.table.items()):
        fields = _object(cls)
        if any(member_type(hint) for hint in field_types(cls).values()):
            fields = {"anyOf": [fields, _list_of(family)]}
        forms.append(
            {
                "type": "object",
                "properties": {name: fields},
                "required": [name],
                "additionalProperties": False,
            }
        )
    if family is Module:
        named.clear()
        named |= {"type": "string", "anyOf": [{"enum": bare}, {"description": "A block's name."}]}
        forms.append(_repetition())
    return {"anyOf": forms}


def _repetition() -> Schema:
    """Return the schema of ``repeat``."""
    count = {"anyOf": [{"type": "integer", "minimum": 0}, {"$ref": "#/$defs/variable"}]}
    inner = {
        "type": "object",
        "properties": {"times": count, "layers": _list_of(Module)},
        "required": ["times", "layers"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"repeat": inner},
        "required": ["repeat"],
        "additionalProperties": False,
    }


def _list_of(family: type[Declared]) -> Schema:
    return {"type": "array", "items": {"$ref": f"#/$defs/{family.family}"}}


def _value(hint: Any) -> Schema:
    """Return the schema of a field's type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_value(arguments[0]), {"type": "null"}]}
    if origin in (tuple, list):
        family = member_type(hint)
        return _list_of(family) if family else {"type": "array", "items": _value(arguments[0])}
    if isinstance(hint, type) and issubclass(hint, Section):
        return _object(hint)
    if isinstance(hint, type) and issubclass(hint, Declared):
        return {"$ref": f"#/$defs/{hint.family}"}
    return {"anyOf": [_scalar(hint), {"$ref": "#/$defs/variable"}]}


def _scalar(hint: Any) -> Schema:
    """Return the schema of a plain value."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return {"enum": list(arguments)}
    if typing.get_origin(hint) is not Annotated:
        return dict(_PLAIN[hint])
    schema = _scalar(arguments[0])
    if isinstance(arguments[1], Range):
        limits = arguments[1]
        schema["exclusiveMinimum" if limits.without_low else "minimum"] = limits.low
        if limits.high is not None:
            schema["exclusiveMaximum" if limits.without_high else "maximum"] = limits.high
    return schema
