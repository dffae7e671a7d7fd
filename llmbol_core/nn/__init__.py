"""Torch7-style modules, criterions and optimizers; models from YAML specs.

The package is also a function: ``nn()`` returns an empty ``Sequential`` to add layers to, and
``nn.Linear`` or ``nn.linear`` is a layer. Layers are imported when the first one is asked for.

    modules       module (the protocol, THE layer registry), layers, containers, tables, joins
    registries    declared, criterions, metrics, optim, schedules, randomness
    models        model, builder, summary, diagram, drawing, catalog
    specs         spec, nodes, expansion, schema, starter, check
    files         checkpoint, container, inspect, exchange, matching, safetensors, pytorch, onnx
    data          data, table, parquet, streams
    training      train, trainer, resume, curves, sharing, shared_trainer, lockstep
    training in machine code  planner, stepper, stages, parted_stages, row_stages, table_stages,
                  encoder_stage, recurrent_stage, flows, paths
    inference     lowering, infer, evaluate, compare, bench, quantize
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmbol_core.nn.containers import Sequential

    def __getattr__(name: str) -> Any: ...


class _Package(types.ModuleType):
    """This package's own type: a module's ``__call__`` is looked up in its class, not in itself."""

    def __call__(self) -> Sequential:
        """Return an empty row of layers."""
        containers = importlib.import_module("llmbol_core.nn.containers")
        row: Sequential = containers.Sequential()
        return row

    def __getattr__(self, name: str) -> Any:
        """Return a part of the package, or a layer by its name or by that in lower case."""
        if name.startswith("_"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if importlib.util.find_spec(f"{self.__name__}.{name}"):
            return importlib.import_module(f"{self.__name__}.{name}")
        builder = importlib.import_module("llmbol_core.nn.builder")
        layer = builder.Module.table.get(name)
        return builder.layer_class(name) if layer is None else layer


sys.modules[__name__].__class__ = _Package
