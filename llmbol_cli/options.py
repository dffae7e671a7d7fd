"""Options that several commands share, declared once."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import os
import re
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmbol_core.native.threads import MOST_THREADS

if TYPE_CHECKING:
    from llmbol_core.distributed.client import Client

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

Object = Annotated[str, typer.Argument(metavar="FILE", help="A .dis file; - is stdin.")]
ModelOrSpec = Annotated[
    str, typer.Argument(metavar="MODEL", help="A checkpoint, compiled model or spec; - is stdin.")
]
Checkpoint = Annotated[
    str, typer.Argument(metavar="MODEL", help="A checkpoint, or a compiled model; - is stdin.")
]


def named(value: str | None) -> str | None:
    """Refuse an empty name: what a script left empty by mistake must not mean "without it"."""
    if value == "":
        raise typer.BadParameter("expected a name, got an empty text")
    return value


def file_name(value: str | None) -> str | None:
    """Refuse ``-`` as the name of a file to write, which is a slip far more often than meant."""
    if value == "-":
        raise typer.BadParameter("a file is written, not standard output (./- is a file named -)")
    return named(value)


def output_option(
    words: str, metavar: str = "FILE", check: Callable[[str | None], str | None] = file_name
) -> Any:
    """Return the option that names what is written, with its help."""
    return typer.Option("--output", "-o", metavar=metavar, help=words, callback=check)


Output = Annotated[str, output_option("Where to write.")]
OutputIfAny = Annotated[str | None, output_option("Where to write.")]
FileOrStdout = Annotated[str | None, output_option("Where to write; - is stdout.", check=named)]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="FILE",
        help="Data instead of those of the spec; - is stdin.",
        callback=named,
    ),
]


def finite(value: float | None) -> float | None:
    """Refuse what is no number, which no limit stops."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no number of seconds")
    return value


def limit_of_time(value: float | None) -> float | None:
    """Refuse a time that is over before it begins, or never."""
    if value is not None and not value > 0:
        raise typer.BadParameter(f"{value} seconds: expected more than 0")
    return finite(value)


Timeout = Annotated[
    float | None, typer.Option(metavar="S", min=0, help="Seconds to wait.", callback=finite)
]


def _use_threads(count: int | None) -> int | None:
    """Let so many threads compute, in this process and those that it starts."""
    if count is not None:
        os.environ["LLMBOL_THREADS"] = str(count)
    return count


Threads = Annotated[
    int | None,
    typer.Option("--threads", metavar="N", min=1, max=MOST_THREADS, callback=_use_threads,
                 help="How many threads compute."),
]  # fmt: skip
"""Takes effect by itself: commands need not look at it."""
MAX_SEED = 2**32 - 1
Epochs = Annotated[int | None, typer.Option(min=1, help="Passes over the data.")]
Seed = Annotated[
    int | None, typer.Option(min=0, max=MAX_SEED, help="Seed of initial weights and order.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the spec: train.batch_size=16."),
]


@functools.cache
def _fields(kind: type) -> tuple[inspect.Parameter, ...]:
    """Return the fields of a dataclass as parameters."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return tuple(
        inspect.Parameter(
            f.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=inspect.Parameter.empty if f.default is dataclasses.MISSING else f.default,
            annotation=hints[f.name],
        )
        for f in dataclasses.fields(kind)
    )


class _Taking:
    """A command with the fields of a dataclass for parameters, in place of its first one."""

    def __init__(self, kind: type, command: Callable[..., None]) -> None:
        self._kind, self._command = kind, command
        self.__name__, self.__doc__ = command.__name__, command.__doc__

    def __call__(self, **given: Any) -> None:
        """Run the command."""
        values = {p.name: given.pop(p.name) for p in _fields(self._kind)}
        self._command(self._kind(**values), **given)

    @functools.cached_property
    def __signature__(self) -> inspect.Signature:
        _, *own = inspect.signature(self._command, eval_str=True).parameters.values()
        required = inspect.Parameter.empty
        together = [*_fields(self._kind), *own]
        return inspect.Signature(sorted(together, key=lambda p: p.default is not required))

    @functools.cached_property
    def __annotations__(self) -> dict[str, Any]:  # type: ignore[override]
        return {p.name: p.annotation for p in self.__signature__.parameters.values()}


def takes(kind: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the fields of a dataclass for parameters, in place of its first one.

    What these are is looked at when the command is made, which most commands never are.
    """
    return functools.partial(_Taking, kind)


_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def size(text: str) -> int:
    """Return the number of bytes that a size such as ``64M`` means.

    >>> size("64M"), size("512"), size("1.5k")
    (67108864, 512, 1536)
    """
    match = re.fullmatch(r"(\d{1,20}(?:\.\d+)?)\s*([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise typer.BadParameter(
            f"{text!r} is no size: expected a number with K, M or G, such as 64M"
        )
    found = int(float(match[1]) * _UNITS[match[2].upper()])
    if not found:
        raise typer.BadParameter(f"{text!r} is too small: expected at least one byte")
    return found


def of_size(text: str | None) -> str | None:
    """Refuse what means no size."""
    if text is not None:
        size(text)
    return text


def words(text: str) -> list[str]:
    """Return the words of a list such as ``inference,training``.

    >>> words("inference, training")
    ['inference', 'training']
    """
    return [word.strip() for word in text.split(",") if word.strip()]


def connected() -> Client:
    """Return a connection to the cluster of this user."""
    from llmbol_core.distributed.client import Client
    from llmbol_core.distributed.state import StateDirectory

    return Client(StateDirectory.default())


def numbers(text: str, option: str) -> list[int]:
    """Return the whole numbers of a list such as ``1,16,256``, all above 0.

    >>> numbers("1,16", "--batch")
    [1, 16]
    """
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch("0*[1-9][0-9]{0,8}", word) for word in words):
        raise typer.BadParameter(
            f"{option}: expected whole numbers above 0 such as 1,16,256, got {text!r}"
        )
    return [int(word) for word in words]


def duration(text: str) -> float:
    """Return the seconds that a time such as ``7d`` means.

    >>> duration("7d"), duration("1.5h"), duration("30")
    (604800.0, 5400.0, 30.0)
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)\s*([smhd]?)", text.strip())
    if not match:
        raise typer.BadParameter(
            f"{text!r} is no time: expected a number with s, m, h or d, such as 7d"
        )
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def required(value: str | None, option: str) -> str:
    """Return the value of an option that only some forms of a command need."""
    if value is None:
        raise MissingOption(option)
    return value


class MissingOption(typer.BadParameter):
    """An option that this form of a command needs; told as the parser tells it."""

    def format_message(self) -> str:
        """Return the complaint."""
        return f"Missing option {self.message}."
