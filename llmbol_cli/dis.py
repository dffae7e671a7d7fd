"""The ``dis`` command: programs for the Dis virtual machine."""

from __future__ import annotations

import gc
from typing import Annotated

import typer

from llmbol_cli import dis_tools, render
from llmbol_cli.options import AsJson, Object, file_name, named, output_option, takes
from llmbol_cli.program import (
    RUNS_PROGRAM,
    Program,
    standard_streams,
)
from llmbol_cli.streams import ended_by_closed_pipes

app = render.app("Assemble, inspect, verify and run programs for the Dis virtual machine.")

Source = Annotated[str, typer.Argument(metavar="SRC", help="Assembly or stack code; - is stdin.")]


@app.command()
def asm(
    source: Source,
    output: Annotated[
        str | None, output_option("The .dis file; - is stdout.", "OUT", check=named)
    ] = None,
) -> None:
    """Assemble Dis assembly or stack code; without -o the .dis file goes beside the source.

    Example: dis asm specs/programs/hello.s -o hello.dis
    """
    from llmbol_core.native.files import check_target, read_bytes
    from llmbol_core.vm.module import NAMES
    from llmbol_core.vm.objectfile import write_module
    from llmbol_core.vm.stackcode import object_path, parse_source

    target = output or object_path(source)
    if target != "-":
        check_target(target, source)
    text = read_bytes(source).decode(*NAMES).removeprefix("\ufeff")  # which some editors write
    module = parse_source(text, source, _built_in_signature)
    render.write(write_module(module), target)


@app.command()
def disasm(file: Object) -> None:
    """Print a .dis file as assembly that gives the same file again.

    Example: dis disasm hello.dis
    """
    from llmbol_core.native.files import read_bytes
    from llmbol_core.vm.disassembly import format_assembly
    from llmbol_core.vm.module import NAMES
    from llmbol_core.vm.objectfile import read_module

    text = format_assembly(read_module(read_bytes(file), file))
    render.write_bytes(text.encode(*NAMES))


@app.command()
def verify(
    file: Object,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", help="Check the signature with this key as well.", callback=named
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prove that a .dis file keeps to its types and its memory, or say where it does not.

    Example: dis verify hello.dis
    """
    from llmbol_core.native.files import read_bytes
    from llmbol_core.vm.dependencies import check_payload
    from llmbol_core.vm.objectfile import read_module
    from llmbol_core.vm.verifier import verify_module

    data = read_bytes(file)
    if key:
        from llmbol_core.deploy.security import requirement

        requirement(key)(memoryview(data), file)
    module = read_module(data, file)
    check_payload(module, memoryview(data), file)
    render.show(verify_module(module), as_json)


@app.command()
def keygen(
    key: Annotated[
        str,
        typer.Argument(
            metavar="KEY", help="The private key; KEY.pub is public.", callback=file_name
        ),
    ],
) -> None:
    """Make a pair of Ed25519 keys: one to sign programs with, one to check them.

    Example: dis keygen release.key
    """
    from llmbol_core.deploy.security import create_keys

    render.show(f"{key}, {key}.pub: {create_keys(key)}")


@app.command()
def sign(
    file: Object,
    key: Annotated[str, typer.Option(metavar="KEY", help="The private key.")],
    output: Annotated[str | None, output_option("Where to write, if not FILE.", "OUT")] = None,
    as_json: AsJson = False,
) -> None:
    """Sign a program, code and payload, so that any change can be noticed.

    Example: dis sign hello.dis --key release.key
    """
    from llmbol_core.deploy.security import sign_file

    file_name(output or file)
    render.show(sign_file(file, output or file, key), as_json)


def _engine(name: str) -> str:
    """Refuse a name that no engine has."""
    from llmbol_core.errors import UsageError
    from llmbol_core.vm import engines

    try:
        engines.engine(name)
    except UsageError as error:
        raise typer.BadParameter(str(error)) from error
    return name


@app.command(context_settings=RUNS_PROGRAM)
@takes(Program)
def run(
    program: Program,
    engine: Annotated[
        str, typer.Option(metavar="NAME", help="auto, interpreter or jit.", callback=_engine)
    ] = "auto",
    stats: Annotated[bool, typer.Option(help="Report on stderr what was compiled.")] = False,
) -> None:
    """Run a program; without --root it can read exactly the files named as its arguments.

    Example: dis run hello.dis
    """
    from llmbol_core.vm import engines

    with program.machine(standard_streams(), engines.engine(engine)) as machine:
        outcome = program.run(machine)
        compiled = engines.compiled_by(machine.engine)
    if stats:
        render.note(str(compiled) if compiled else "nothing was compiled")
    if outcome.value is not None:
        render.show(str(outcome.value))
    raise typer.Exit(outcome.status)


@app.command(name="compile")
def compile_(file: Object, as_json: AsJson = False) -> None:
    """Compile a program ahead of time: its machine code is kept for when it runs.

    Example: dis compile hello.dis
    """
    from llmbol_core.native.files import read_bytes
    from llmbol_core.vm.jit.units import compile_module
    from llmbol_core.vm.objectfile import read_object

    content = memoryview(read_bytes(file))
    module, size = read_object(content, file)
    with render.progress("compile") as progress:
        stats = compile_module(module, progress, content[:size])
    render.show(stats, as_json)


@app.command()
def isa(
    mnemonic: Annotated[
        str, typer.Argument(metavar="MNEMONIC", help="Only this instruction.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Print the instruction table: s, m and d are the operands, with their types.

    Example: dis isa addw
    """
    from llmbol_core.vm.isa import describe

    render.show(describe(mnemonic), as_json)


def _built_in_signature(module: str, function: str) -> int:
    from llmbol_core.builtins import signature_of

    return signature_of(module, function)


app.add_typer(dis_tools.app)


_COLLECTOR = (2_000_000, 20, 50)
"""When Python looks for cycles: seldom, as what programs make lies in an arena of their own."""


def main() -> None:
    """Run the command; a program whose reader goes away ends quietly, as programs in a pipe do."""
    gc.set_threshold(*_COLLECTOR)
    with ended_by_closed_pipes():
        render.run(app)
