"""Machine code from LLVM's intermediate language: compile its text, load the object by LLVM.

Text comes in, an object file's bytes come out; those can be kept (``cache.py``) and loaded by any
process on the same kind of processor. ``image.py`` loads them without LLVM where it can.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import llvmlite.binding as llvm

from llmbol_core.errors import UsageError
from llmbol_core.native.cpu import Processor
from llmbol_core.native.library import Library, function
from llmbol_core.native.processor import host_processor

__all__ = ["Library", "compile_text", "function", "load_object"]

_FEW_PASSES = ("always_inliner", "sroa")
_SHORT_PASSES = (*_FEW_PASSES, "simplify_cfg", "instruction_combine")
_numbers = itertools.count()


def compile_text(
    text: str,
    level: int = 2,
    processor: Processor | None = None,
    unrolls: bool = True,
    after: Callable[[str], str] | None = None,
) -> bytes:
    """Return the object file for a module in LLVM's assembly language.

    Level 2 is LLVM's O2; level 1 runs a few passes only, for code that is not worth more; level 0
    is compiled ten times as fast as level 1 and takes at most half as long again to run if it
    branches much; level 3 is level 2 for code whose vectors are written out. ``unrolls`` tells
    whether loops may be unrolled, which pays for few but those that become vector code anyway.
    ``processor`` is the one to compile for if not for this one. ``after`` is a pass of the caller's
    own, from text to text, that runs after those of levels 2 and 3. Raises UsageError with LLVM's
    words for text that is not well-formed.
    """
    machine = _target_machine(min(level, 2), processor or host_processor())
    module = _parsed(text)
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.slp_vectorization = level < 3
    options.loop_unrolling = unrolls and level < 3
    builder = llvm.create_pass_builder(machine, options)
    if level > 1:
        passes = builder.getModulePassManager()
    else:
        passes = llvm.create_new_module_pass_manager()
        for name in _SHORT_PASSES if level else _FEW_PASSES:
            getattr(passes, f"add_{name}_pass")()
    passes.run(module, builder)
    if after is not None and level > 1:
        before = str(module)
        changed = after(before)
        module = module if changed == before else _parsed(changed)
    data: bytes = machine.emit_object(module)
    return data


def _parsed(text: str) -> Any:
    try:
        module = llvm.parse_assembly(text)
        module.verify()
    except RuntimeError as error:
        raise UsageError(f"LLVM refuses the code: {error}") from error
    return module


def load_object(data: bytes, names: Iterable[str]) -> Library:
    """Load an object file and find functions in it by name."""
    builder = llvm.JITLibraryBuilder().add_object_img(data)
    wanted = list(names)
    for name in wanted:
        builder.export_symbol(name)
    resources = builder.link(_linker(), f"llmbol{next(_numbers)}")
    return Library(resources, {name: resources[name] for name in wanted})


@functools.cache
def _target_machine(level: int, processor: Processor) -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    # Calls inside of an object are short where the loaders know how to make them far outside.
    is_known = processor.triple.startswith("x86_64") and "linux" in processor.triple
    return llvm.Target.from_triple(processor.triple).create_target_machine(
        cpu=processor.name,
        features=processor.features,
        opt=level,
        jit=True,
        reloc="pic" if is_known else "default",
        codemodel="small" if is_known else "jitdefault",
    )


@functools.cache
def _linker() -> Any:
    return llvm.create_lljit_compiler(_target_machine(2, host_processor()))
