"""What came of tasks: printed, written to a file, or as JSON."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import typer

from llmbol_cli import render
from llmbol_core.errors import FileError, TaskFailed, UsageError

if TYPE_CHECKING:
    from llmbol_core.distributed.client import Result


def check_output(output: str | None, as_json: bool, *sources: str) -> None:
    """Refuse, before anything is submitted, an output that could not be written in the end."""
    from llmbol_core.native.files import check_target

    if output == "-" and as_json:
        raise typer.BadParameter("--json and --output - both write to standard output")
    if output not in (None, "-"):
        check_target(str(output), *sources)


def deliver(result: Any, output: str | None, as_json: bool) -> None:
    """Print or write a result; what a failed task left is shown before the failure."""
    from llmbol_core.distributed.client import describe

    if as_json:
        render.show(describe(result), as_json)
    elif output is None:
        render.write_bytes(result.text)
    result.check()
    if output is not None:
        render.write(result.data, output)


def deliver_run(result: Result, as_json: bool) -> None:
    """Show how a training run went."""
    from llmbol_core.nn.train import RunRow

    row = RunRow(**result.value["run"])
    render.show(row if as_json else [row], as_json)


def deliver_parts(results: Iterable[Result], output: str | None, as_json: bool) -> None:
    """Print or write the results of a group's tasks in order, as they come.

    Outputs of a model become one array; the first piece without a result ends it. Of others those
    that failed are told, and the rest is shown.
    """
    from llmbol_core.distributed.client import describe

    if as_json:
        all_of_them = list(results)
        render.show([describe(result) for result in all_of_them], as_json)
        _check_all(all_of_them)
    elif output is None:
        _check_all(_shown(results))
    else:
        with _target(output) as file:
            _write_parts(results, file)


def targets_in(folder: str, paths: Sequence[Path]) -> list[str]:
    """Return the file for each input in a folder, which is made: its name with ``.out`` behind.

    Raises UsageError or FileError, before anything is submitted, if that cannot be.
    """
    names = [f"{path.name}.out" for path in paths]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"two of the inputs would both be written to {folder}: {twice}")
    try:
        os.makedirs(folder, exist_ok=True)
    except FileExistsError as error:
        raise FileError(folder, "not a directory") from error
    except OSError as error:
        raise FileError.of(error, folder) from error
    targets = [os.path.join(folder, name) for name in names]
    for target in targets:
        check_output(target, False, *map(str, paths))
    return targets


def deliver_files(results: Iterable[Result], targets: Sequence[str], as_json: bool) -> None:
    """Write each result to a file of its own."""
    from llmbol_core.distributed.ahead import some_ahead
    from llmbol_core.distributed.client import describe
    from llmbol_core.native.files import atomic_write

    def write(pair: tuple[str, Result]) -> Result:
        target, result = pair
        with atomic_write(target) as file:
            file.write(result.data)
        return result

    kept = list(some_ahead(write, zip(targets, results, strict=True)))
    if as_json:
        render.show([describe(result) for result in kept], as_json)
    _check_all(kept)


def _shown(results: Iterable[Result]) -> Iterator[Result]:
    for result in results:
        render.write_bytes(result.text)
        yield result


def _check_all(results: Iterable[Result]) -> None:
    """Tell which tasks failed; the first of several outputs of a model that did ends all."""
    failed = []
    for result in results:
        try:
            result.check()
        except TaskFailed as error:
            if result.entry.type == "inference":
                raise
            failed.append(error)
            render.note(f"error: {error}")
    if failed:
        raise typer.Exit(1)


def _write_parts(results: Iterable[Result], file: BinaryIO) -> None:
    from llmbol_core.distributed.splitting import ArrayWriter

    writer = None
    for result in results:
        result.check()
        if result.entry.type == "inference":
            writer = writer or ArrayWriter(file)
            writer.write(result.value)
        else:
            file.write(result.data)
    if writer is not None:
        writer.close()


@contextmanager
def _target(output: str) -> Iterator[BinaryIO]:
    """Open what can be written in any order; standard output gets it in the end."""
    from llmbol_core.native.files import atomic_write

    if output != "-" and (not os.path.exists(output) or os.path.isfile(output)):
        with atomic_write(output) as file:
            yield file
        return
    with tempfile.TemporaryFile() as spool:
        yield spool
        spool.seek(0)
        if output == "-":
            while piece := spool.read(1 << 20):
                render.write_bytes(piece)
            return
        with atomic_write(output) as file:
            shutil.copyfileobj(spool, file)
