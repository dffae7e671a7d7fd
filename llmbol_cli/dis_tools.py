"""The commands of ``dis`` that look into programs: trace, debug, profile, stat, dump, deps."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from functools import partial
from typing import Annotated, BinaryIO, cast

import typer

from llmbol_cli import render
from llmbol_cli.options import AsJson, Object, file_name, named, output_option, takes
from llmbol_cli.program import (
    RUNS_PROGRAM,
    Program,
    open_output,
    standard_streams,
    tree_reader,
)

app = render.app("Look into programs for the Dis virtual machine.")


@app.command(context_settings=RUNS_PROGRAM)
@takes(Program)
def trace(
    program: Program,
    function: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this: NAME or Module.NAME.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Log so many instructions at most.")
    ] = None,
    output: Annotated[str | None, output_option("The log, instead of stderr.", "LOG")] = None,
) -> None:
    """Run a program and log each instruction, with the values that it reads and writes.

    Example: dis trace -o hello.log hello.dis
    """
    from llmbol_core.vm.inspection import Inspector
    from llmbol_core.vm.observation import ObservedInterpreter
    from llmbol_core.vm.trace import Tracer

    with open_output(output, *program.files) if output else nullcontext(sys.stderr) as log:
        tracer = Tracer(lambda record: render.log(record, log), function, limit)
        engine = partial(ObservedInterpreter, observer=tracer)
        with program.machine(standard_streams(), engine) as machine:
            tracer.inspector = Inspector(machine, program.read)
            status, failure = program.attempt(machine)
    for problem in tracer.inspector.problems:
        render.note(problem)
    raise failure or (not status and tracer.missed) or typer.Exit(status)


@app.command(context_settings=RUNS_PROGRAM)
@takes(Program)
def debug(
    program: Program,
    stdin: Annotated[
        str | None,
        typer.Option(
            metavar="INPUT", help="The program's standard input; else it is empty.", callback=named
        ),
    ] = None,
) -> None:
    """Run a program under a debugger, which reads its commands, such as help, from stdin.

    Example: dis debug hello.dis
    """
    from llmbol_cli.debug_console import Console
    from llmbol_core.native.files import read_bytes

    if "-" in (program.file, stdin):
        raise typer.BadParameter("standard input is for the debugger's commands: name a file")
    data = read_bytes(stdin) if stdin else b""
    raise typer.Exit(Console(program, data).run())


@app.command(context_settings=RUNS_PROGRAM)
@takes(Program)
def profile(
    program: Program,
    top: Annotated[
        int, typer.Option(metavar="N", min=0, help="Show so many of the hottest instructions.")
    ] = 20,
    flame: Annotated[
        str | None,
        typer.Option(
            metavar="STACKS", help="Write collapsed stacks, for flame graphs.", callback=file_name
        ),
    ] = None,
    stdout: Annotated[
        str | None,
        typer.Option(
            metavar="OUTPUT", help="The program's output; else it is dropped.", callback=file_name
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a program and count the instructions of each function and on each stack.

    Example: dis profile hello.dis
    """
    from llmbol_core.native.files import check_target
    from llmbol_core.vm.inspection import Inspector
    from llmbol_core.vm.profiler import ProfiledInterpreter, Profiler

    if flame:
        check_target(flame, *program.files)
    profiler = Profiler()
    with open_output(stdout or os.devnull, *program.files) as out:
        engine = partial(ProfiledInterpreter, profiler=profiler)
        with program.machine(
            standard_streams(stdout=cast(BinaryIO, out.buffer)), engine
        ) as machine:
            profiler.inspector = Inspector(machine, program.read)
            status, failure = program.attempt(machine, stdout or os.devnull)
            found = profiler.profile(top)
    if flame:
        with open_output(flame, *program.files) as file:
            file.writelines(f"{line}\n" for line in profiler.collapsed())
    render.show(found, as_json)
    raise failure or typer.Exit(status)


@app.command()
def stat(file: Object, as_json: AsJson = False) -> None:
    """Show the sizes of a .dis file and of its sections.

    Example: dis stat hello.dis
    """
    from llmbol_core.native.files import read_bytes
    from llmbol_core.vm.contents import measure

    render.show(measure(read_bytes(file), file), as_json)


@app.command()
def dump(file: Object, as_json: AsJson = False) -> None:
    """Show all of a .dis file but its code: header, types, data, links, handlers and payload.

    Example: dis dump hello.dis
    """
    from llmbol_core.deploy.contents import list_contents
    from llmbol_core.native.files import read_bytes

    render.show(list_contents(read_bytes(file), file), as_json)


@app.command()
def deps(
    file: Object,
    root: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Look for modules here; FILE is a path in it.", callback=named
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show which modules a program loads and, in a file tree, which modules those load.

    Example: dis deps hello.dis
    """
    from llmbol_core.builtins import HOST_MODULES
    from llmbol_core.native.files import read_bytes
    from llmbol_core.vm.dependencies import dependencies
    from llmbol_core.vm.objectfile import read_module

    read = tree_reader(root) if root else None
    module = read_module(read(file) if read else read_bytes(file), file)
    render.show(dependencies(module, file, HOST_MODULES, read), as_json)
