"""Neural networks as sandboxed Dis programs: the library under the commands dis, nn and cluster.

The names of ``_HOMES`` are the front page of the library, and so are its packages, and every layer
by its name in lower case, such as ``linear``. Each is imported when it is first used, so that
importing this package costs nothing. A package's docstring lists what is in it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors, which do not run what is below
    from llmbol_core.distributed.async_scheduler import (
        create_async_scheduler as create_async_scheduler,
    )
    from llmbol_core.distributed.node import create_compute_node as create_compute_node
    from llmbol_core.distributed.scheduler import create_scheduler as create_scheduler
    from llmbol_core.distributed.task import create_task as create_task
    from llmbol_core.distributed.vm import create_vm as create_vm
    from llmbol_core.errors import LlmbolError as LlmbolError
    from llmbol_core.ml.api import Quantization as Quantization
    from llmbol_core.ml.api import create_ml_module as create_ml_module
    from llmbol_core.nn.builder import build_model as build_model
    from llmbol_core.vm.stackcode import BytecodeLoader as BytecodeLoader

__version__ = "0.1.0"

# fmt: off
# name                       where it lives
_HOMES = {
    "BytecodeLoader":          "llmbol_core.vm.stackcode",
    "create_vm":               "llmbol_core.distributed.vm",
    "create_ml_module":        "llmbol_core.ml.api",
    "Quantization":            "llmbol_core.ml.api",
    "build_model":             "llmbol_core.nn.builder",
    "create_compute_node":     "llmbol_core.distributed.node",
    "create_scheduler":        "llmbol_core.distributed.scheduler",
    "create_async_scheduler":  "llmbol_core.distributed.async_scheduler",
    "create_task":             "llmbol_core.distributed.task",
    "LlmbolError":             "llmbol_core.errors",
}
# fmt: on

_PACKAGES = ("builtins", "deploy", "distributed", "ml", "native", "nn", "vm")

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Import a front-page name, a part of the library, or a layer factory such as ``linear``."""
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name in _PACKAGES:
        return importlib.import_module(f"llmbol_core.{name}")
    elif name.startswith("_"):
        raise AttributeError(name)
    else:
        value = _layer_factory(name)
    globals()[name] = value
    return value


def _layer_factory(name: str) -> Any:
    """Return the factory of the registered layer with this lower-case name."""
    builder = importlib.import_module("llmbol_core.nn.builder")
    try:
        return getattr(builder, name)
    except AttributeError:
        raise AttributeError(f"module 'llmbol_core' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted([*__all__, *_PACKAGES])
