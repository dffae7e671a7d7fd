"""What every command that runs a program shares: its arguments and options, declared once."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from llmbol_cli.options import limit_of_time, named, of_size, size

if TYPE_CHECKING:
    from llmbol_core.errors import LlmbolError
    from llmbol_core.vm.environment import Streams
    from llmbol_core.vm.files.namespace import Namespace
    from llmbol_core.vm.limits import Outcome
    from llmbol_core.vm.machine import InfernoVM

RUNS_PROGRAM = {"allow_interspersed_args": False}
"""Context settings of such a command: what follows the file belongs to the program."""


@dataclass(frozen=True)
class Program:
    """A program, what it may reach and how much it may use."""

    file: Annotated[str, typer.Argument(metavar="FILE", help="A .dis file; - is stdin.")]
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ARGS", help="Passed to the program.")
    ] = None
    root: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="The program's file tree; FILE is a path in it.", callback=named
        ),
    ] = None
    path: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR", help="Look for modules here too: in the tree, or else on the host."
        ),
    ] = None
    write: Annotated[bool, typer.Option(help="Let the program change its tree.")] = False
    max_memory: Annotated[
        str, typer.Option(metavar="SIZE", help="Memory it may use.", callback=of_size)
    ] = "64M"
    max_instructions: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Instructions it may run.")
    ] = None
    max_threads: Annotated[int, typer.Option(metavar="N", min=1, help="Processes it may have.")] = (
        10_000
    )
    timeout: Annotated[
        float | None,
        typer.Option(metavar="S", help="Seconds it may take.", callback=limit_of_time),
    ] = None
    require_signature: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Run only what was signed with this key.", callback=named),
    ] = None
    verify: Annotated[
        bool, typer.Option(help="Refuse programs and modules that cannot be verified.")
    ] = True

    def machine(self, streams: Streams, engine: Callable[..., Any] | None = None) -> InfernoVM:
        """Return a machine to run it on, with the reference engine unless another one is given."""
        from llmbol_core.builtins import HOST_MODULES
        from llmbol_core.vm.files.namespace import Namespace
        from llmbol_core.vm.interpreter import Interpreter
        from llmbol_core.vm.limits import Limits
        from llmbol_core.vm.machine import InfernoVM

        tree = Namespace(self.root, self.write) if self.root else self._granted()
        memory = size(self.max_memory)
        limits = Limits(memory, self.max_threads, self.max_instructions, self.timeout)
        machine = InfernoVM(
            HOST_MODULES, tree, limits, streams, self.verify, engine=engine or Interpreter
        )
        machine.loader.search = tuple(self.path or ())
        if self.require_signature:
            from llmbol_core.deploy.security import requirement

            machine.loader.check = requirement(self.require_signature)
        return machine

    def _granted(self) -> Namespace:
        """Return the files named as arguments, and the modules in the directories of the path."""
        from llmbol_core.errors import FileError
        from llmbol_core.vm.files.namespace import Namespace

        modules: list[str] = []
        for directory in self.path or ():
            try:
                names = sorted(os.listdir(directory))
            except OSError as error:
                raise FileError.of(error, directory) from error
            modules += [f"{directory}/{name}" for name in names if name.endswith(".dis")]
        return Namespace(granted=[*(self.arguments or []), *modules])

    @property
    def files(self) -> list[str]:
        """The program, and what may be files among its arguments, where they are on the host."""
        inside = os.path.join(self.root, self.file.lstrip("/")) if self.root else self.file
        return [inside, *(self.arguments or [])]

    def run(self, machine: InfernoVM, output: str = "standard output") -> Outcome:
        """Run it. Raises FileError if output was lost, though the program may not have cared."""
        outcome = machine.run(self.file, self.arguments or [], host=not self.root)
        names = (output, "standard error")
        for file, name in zip(machine.environment.standard[1:], names, strict=True):
            failure = getattr(file, "failure", None)
            # A reader that has gone away wanted no more.
            if failure is not None and failure.errno != errno.EPIPE:
                from llmbol_core.errors import FileError

                raise FileError.of(failure, name)
        return outcome

    def attempt(
        self, machine: InfernoVM, output: str = "standard output"
    ) -> tuple[int, LlmbolError | None]:
        """Run it and return its status, and what stopped it before it ended, if anything did."""
        from llmbol_core.errors import Deadlock, LimitError

        try:
            return self.run(machine, output).status, None
        except (LimitError, Deadlock) as error:
            return 1, error

    def read(self, path: str) -> bytes | None:
        """Return a file where the program's own files are, or None if it cannot be read."""
        from llmbol_core.errors import FileError
        from llmbol_core.native.files import read_bytes

        try:
            return (tree_reader(self.root) if self.root else read_bytes)(path)
        except FileError:
            return None


def standard_streams(stdin: BinaryIO | None = None, stdout: BinaryIO | None = None) -> Streams:
    """Return the streams of a program: this process's own, unless others are given."""
    from llmbol_core.vm.environment import Streams

    streams = (stdin or sys.stdin.buffer, stdout or sys.stdout.buffer, sys.stderr.buffer)
    return Streams(*streams)


def tree_reader(root: str) -> Callable[[str], bytes]:
    """Return what reads files by their path in a tree, or raises FileError."""
    from llmbol_core.errors import FileError
    from llmbol_core.vm.errortext import uncapitalized
    from llmbol_core.vm.files.namespace import Namespace
    from llmbol_core.vm.files.openfile import OREAD, FileFault

    tree = Namespace(root)

    def read(path: str) -> bytes:
        try:
            file = tree.open(path, OREAD)
        except FileFault as error:
            raise FileError(path, uncapitalized(str(error))) from error
        try:
            return bytes(file.contents())
        finally:
            file.close()

    return read


@contextmanager
def open_output(path: str, *sources: str) -> Iterator[io.TextIOWrapper]:
    """Yield a text file to write, none of those that are read.

    It is kept also if the block is ended by what ends programs: an exception, a limit, a key.
    """
    from llmbol_core.errors import Deadlock, LimitError, Trap
    from llmbol_core.native.files import atomic_write, check_target

    check_target(path, *sources)
    failure: BaseException | None = None
    with atomic_write(path) as file:
        text = io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="\n")
        try:
            yield text
        except (Trap, LimitError, Deadlock, KeyboardInterrupt) as error:
            failure = error
        text.flush()
        text.detach()
    if failure is not None:
        raise failure
