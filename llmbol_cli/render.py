"""The only place that prints: results to standard output, everything else to standard error.

A command hands its result, a dataclass or a list of them, to ``show``; people get an aligned table
or ``key  value`` lines, machines get JSON whose keys are the field names of the dataclass. ``run``
is the one boundary where an ``LlmbolError`` becomes a line on standard error and exit code 1.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TextIO

import typer
from typer.core import TyperGroup, TyperOption
from typer.main import get_command_name, get_group
from typer.models import CommandInfo, TyperInfo

from llmbol_cli.streams import open_streams, to_stdout
from llmbol_core import __version__
from llmbol_core.errors import LlmbolError, SourceError, SpecError, visible
from llmbol_core.native.notices import listen

_STYLES = {"up": "green", "hung": "red", "starting": "yellow", "cordoned": "yellow"}

Progress = Callable[[int, int, str], None]
"""What long work reports to: steps done, steps in all, a short note."""


class _Group(TyperGroup):
    """A command group that tells its version, whole sentences of help, and what was interrupted."""

    def invoke(self, context: Any) -> Any:
        try:
            return super().invoke(context)
        except KeyboardInterrupt as interruption:
            if context.parent is None:
                for line in getattr(interruption, "__notes__", ()):
                    note(line)
            raise

    def make_context(self, *words: Any, **more: Any) -> Any:
        with to_stdout():  # where help is printed
            return super().make_context(*words, **more)

    def get_command(self, context: Any, name: str) -> Any:
        command: Any = super().get_command(context, name)
        if command is not None and not isinstance(command, _Group):
            command.make_context = to_stdout()(command.make_context)
        return command

    def get_params(self, context: Any) -> list[Any]:
        params = super().get_params(context)
        return params if context.parent else [_version_option(), *params]

    def format_commands(self, context: Any, formatter: Any) -> None:
        rows = [(n, c.get_short_help_str(sys.maxsize)) for n, c in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@functools.cache
def _version_option() -> TyperOption:
    """Return the option ``--version``, which ends the command."""

    def tell(context: Any, parameter: Any, value: bool) -> None:
        if value:
            show(f"llmbol {__version__}")
            context.exit()

    words = "Show the version and exit."
    return TyperOption(
        param_decls=["--version"], type=bool, is_flag=True, is_eager=True,
        expose_value=False, callback=tell, help=words,
    )  # fmt: skip


def app(purpose: str) -> typer.Typer:
    """Return an empty command group with this project's manners: plain help, no completion."""
    return typer.Typer(
        cls=_Group,
        help=purpose,
        rich_markup_mode=None,
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )


def run(group: typer.Typer) -> NoReturn:
    """Run a command group: exit 0, 1 after an error that the user can mend, 2 after misuse."""
    open_streams()
    if sys.stderr.isatty():
        listen(_show_notice)
    try:
        _call(group)
    except LlmbolError as error:
        fail(error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        fail(LlmbolError(f"{where}{(error.strerror or str(error)).lower()}"))
    except MemoryError:
        fail(LlmbolError("out of memory"))
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def _call(group: typer.Typer) -> None:
    """Call a command group, and see that what it printed is written when it ends."""
    try:
        get_group(called(group, sys.argv[1:]))()
    except SystemExit:
        with to_stdout():
            sys.stdout.flush()
        raise


def called(group: typer.Typer, words: Sequence[str]) -> typer.Typer:
    """Return a command group without the commands that these words do not ask for.

    Making commands of all functions takes longer than many a command runs.
    """
    found = _registered(group, words[0] if words else "")
    if found is None:
        return group
    only = copy.copy(group)
    only.registered_commands = [found] if isinstance(found, CommandInfo) else []
    only.registered_groups = [found] if isinstance(found, TyperInfo) else []
    return only


def _registered(group: typer.Typer, name: str) -> CommandInfo | TyperInfo | None:
    """Return the command or group of commands of this name, None if there is none."""
    for command in group.registered_commands:
        if name == (command.name or get_command_name(getattr(command.callback, "__name__", ""))):
            return command
    for part in group.registered_groups:
        if name == part.name:
            return part
        if part.typer_instance is not None and not isinstance(part.name, str):
            inner = _registered(part.typer_instance, name)
            if inner is not None:
                return inner
    return None


_LONGEST = 2000
"""Characters of an error that are printed: a file may have a word of any length."""


def fail(error: LlmbolError) -> NoReturn:
    """Say what was wrong, with the place in the source where a terminal can show it, and exit 1."""
    with suppress(OSError):
        sys.stdout.flush()
    for mistake in (error, *(error.others if isinstance(error, SpecError) else ())):
        text = visible(str(mistake))
        text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
        print(f"error: {text}", file=sys.stderr)
        is_shown = isinstance(mistake, SpecError) or sys.stderr.isatty()
        if isinstance(mistake, SourceError) and mistake.excerpt and is_shown:
            print(mistake.excerpt, file=sys.stderr)
    sys.exit(1)


def show(result: Any, as_json: bool = False) -> None:
    """Print a result: text as it is, dataclasses as a table or lines, anything as JSON."""
    if as_json:
        text = _json(_plain(result))
    elif isinstance(result, str):
        text = result.removesuffix("\n")
    elif dataclasses.is_dataclass(result):
        text = _lines(_plain(result))
    elif isinstance(result, Sequence) and all(dataclasses.is_dataclass(r) for r in result):
        text = _table([_plain(row) for row in result])
    else:
        raise TypeError(f"no way to show a {type(result).__name__}")
    if text:
        with to_stdout():
            print(text)


@contextmanager
def interruptible() -> Iterator[None]:
    """Take an interruption for the wish to end: it is how commands that go on for ever do."""
    with to_stdout():
        sys.stdout.flush()
    with suppress(KeyboardInterrupt):
        yield


def watch(make: Callable[[], Any], as_json: bool = False, seconds: float = 1.0) -> None:
    """Show a result again and again until interrupted: in place on a terminal, else below."""
    with interruptible():
        if as_json or not _is_screen(sys.stdout):
            while True:
                show(make(), as_json)
                with to_stdout():
                    print(flush=True)
                time.sleep(seconds)
        from rich.live import Live

        with Live(_panel(_plain(make())), screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(seconds)
                live.update(_panel(_plain(make())), refresh=True)


def _is_screen(stream: TextIO) -> bool:
    """Return whether what was written to a stream can be overwritten."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _panel(fields: dict[str, Any]) -> Any:
    """Return a result for a terminal: its figures in a row, its lists of rows as tables."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    words = {name: value for name, value in fields.items() if not isinstance(value, list)}
    figures = Text("   ").join(
        Text.assemble((f"{name} ", "dim"), (_cell(value), "bold")) for name, value in words.items()
    )
    tables = []
    for rows in filter(_is_rows, fields.values()):
        table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
        for name, value in rows[0].items():
            table.add_column(name, justify="right" if isinstance(value, int | float) else "left")
        for row in rows:
            table.add_row(
                *(Text(_cell(value), _STYLES.get(str(value), "")) for value in row.values())
            )
        tables.append(table)
    return Group(figures, Text(""), *tables)


def note(text: str) -> None:
    """Tell the user something that is not the result, on standard error."""
    print(text, file=sys.stderr)


def log(line: object, file: TextIO) -> None:
    """Write a line of a log, control characters as escapes."""
    print(visible(str(line)), file=file)


def ask(prompt: str) -> str | None:
    """Return a line that the user types, or the next of standard input; None at its end."""
    sys.stdout.flush()
    if sys.stdin.isatty():
        import readline  # noqa: F401 -- lets input() edit lines

        try:
            return input(prompt)
        except EOFError:
            print()
            return None
    line = sys.stdin.readline()
    return line.removesuffix("\n") if line else None


def write_bytes(data: bytes) -> None:
    """Write a binary result to standard output."""
    with to_stdout():
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def write(data: bytes, path: str) -> None:
    """Write a binary result to a file, or to standard output for ``-``."""
    from llmbol_core.native.files import atomic_write

    if path == "-":
        write_bytes(data)
        return
    with atomic_write(path) as file:
        file.write(data)


def _show_notice(what: str) -> None:
    """Say on standard error what takes a while; once is enough."""
    print(f"{what} ...", file=sys.stderr, flush=True)
    listen(lambda more: None)


@contextmanager
def progress(what: str) -> Iterator[Progress]:
    """Show a progress bar on standard error while the block runs, if that is a terminal."""
    if not _is_screen(sys.stderr):
        yield lambda done, total, text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn(what), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    note_column = TextColumn("{task.fields[note]}")
    with Bar(*columns, note_column, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None, note="")
        yield lambda done, total, text: bar.update(task, completed=done, total=total, note=text)


def _plain(value: Any) -> Any:
    """Turn dataclasses, tuples and arrays' scalars into what JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return value.item() if hasattr(value, "item") else str(value)


def _json(value: Any) -> str:
    """Return JSON, which knows no NaN and no infinity: null stands for them, as in JavaScript."""
    is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    try:
        return json.dumps(value, indent=2, ensure_ascii=not is_unicode, allow_nan=False)
    except ValueError:
        return _json(_finite(value))


def _finite(value: Any) -> Any:
    """Replace numbers that are not finite by None."""
    if isinstance(value, dict):
        return {key: _finite(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_finite(member) for member in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return " ".join(_cell(v) for v in value) or "-"
    if isinstance(value, dict):
        return " ".join(f"{k}={_cell(v)}" for k, v in value.items())
    return visible(str(value))


def _lines(fields: dict[str, Any]) -> str:
    """Return a line for each field; those that are lists of rows follow as tables."""
    tables = [_table(rows) for rows in fields.values() if _is_rows(rows)]
    fields = {name: value for name, value in fields.items() if not _is_rows(value)}
    width = max(map(len, fields))
    lines = "\n".join(f"{name:{width}}  {_cell(value)}" for name, value in fields.items())
    return "\n\n".join([lines, *tables])


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and value != [] and all(isinstance(row, dict) for row in value)


def _table(rows: list[dict[str, Any]]) -> str:
    """Align columns: numbers to the right, words to the left."""
    if not rows:
        return ""
    names = list(rows[0])
    cells = [[_cell(row[name]) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]
    right = [all(isinstance(row[name], int | float) for row in rows) for name in names]

    def line(words: list[str]) -> str:
        parts = [
            word.rjust(width) if to_right else word.ljust(width)
            for word, width, to_right in zip(words, widths, right, strict=True)
        ]
        return "  ".join(parts).rstrip()

    return "\n".join([line(names), *(line(words) for words in cells)])
