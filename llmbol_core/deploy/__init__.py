"""A model as one sandboxed .dis file: compile it, sign it, open it, run it within limits.

    deploy.compile(model, "digits.dis")         # or deploy.compile("digits.gguf", "digits.dis")
    with deploy.open("digits.dis") as model:
        outputs = model.run(x)

What is opened is verified first; it reaches nothing but its weights and the arrays it is given.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llmbol_core.deploy.runner import Options, RunResult, create_vm, run_file
from llmbol_core.vm.limits import Limits

if TYPE_CHECKING:
    from llmbol_core.deploy.compiler import Compiled
    from llmbol_core.deploy.model import CompiledModel
    from llmbol_core.nn.model import Model

__all__ = ["Limits", "Options", "RunResult", "compile", "create_vm", "open", "run_file"]


def compile(
    model: Model | str | os.PathLike[str], output: str | os.PathLike[str] | None = None
) -> Compiled | bytes:
    """Compile a model, or the checkpoint at a path, to a ``.dis`` file.

    Without an output the file's bytes are returned. The same weights give the same bytes. Raises
    FileError, GgufFormatError for a damaged checkpoint, and ModelError.
    """
    from llmbol_core.deploy import compiler

    target = None if output is None else os.fspath(output)
    if isinstance(model, str | os.PathLike):
        return compiler.compile_checkpoint(os.fspath(model), target)
    return compiler.compile_model(model, target)


def open(
    file: str | os.PathLike[str] | bytes, limits: Limits | None = None, key: str | None = None
) -> CompiledModel:
    """Return the compiled model in a file, or in a file's bytes, in a machine of its own.

    With a key, the path of a public or private one, the file must be signed with it. Raises
    FileError, DisFormatError, VerifyError, SignatureError, and ModelError for another program.
    """
    from llmbol_core.deploy.model import CompiledModel

    return CompiledModel(file, limits, key)
