"""Every error that a user of llmbol can cause.

    LlmbolError                    str() says what was found, where, and what would be right
    ├ SourceError(path, line, column, why)   text inputs; excerpt shows the line with a caret
    │  ├ AssemblyError             Dis assembly or stack code
    │  └ SpecError                 a YAML model spec
    ├ FormatError(path, offset, why)         bytes that are not what they claim to be
    │  ├ DisFormatError            a Dis object file
    │  ├ GgufFormatError           a GGUF file
    │  └ DataFormatError           an input file: .npy, .npz, .csv, JSON
    ├ FileError(path, why)         a file that cannot be read or written
    ├ LinkError(module, why)       a module or one of its imports that is missing or does not fit
    ├ VerifyError(module, pc, why) a program refused before it runs
    ├ SignatureError(path, why)    a file that is not signed by whom it must be, or was changed
    ├ Trap(name, module, pc)       an exception that left a running program; name is Inferno's text
    ├ LimitError(limit, why)       a program stopped because it reached a limit given to it
    ├ Deadlock(why)                a program whose processes all wait for each other
    ├ ShapeError(operation, why)   shapes that do not fit together
    ├ DtypeError(operation, why)   storage types that an operation does not take
    ├ ModelError(path, why)        a model that cannot be built, run or compiled as asked
    ├ UsageError(why)              a request that makes no sense as worded
    └ ClusterError(why)            the cluster, its nodes and tasks
       ├ NoCluster                 no cluster runs here
       └ TaskFailed(task, why)     a task ended without a result

A programming mistake stays ``TypeError``, ``ValueError`` or ``assert``. The commands turn any
``LlmbolError`` into one line on standard error and exit code 1.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


def as_name(name: object) -> str:
    """Return a name. Raises UsageError if it is no text."""
    if not isinstance(name, str):
        raise UsageError(f"a name should be a text, not {name!r}")
    return name


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the known word most like this one, or an empty string.

    >>> nearest("Liner", ["Linear", "ReLU"])
    " (did you mean 'Linear'?)"
    >>> nearest("zzz", ["Linear"])
    ''
    """
    by_lower = {k.lower(): k for k in known}
    match = difflib.get_close_matches(str(word).lower(), by_lower, 1)
    return f" (did you mean {by_lower[match[0]]!r}?)" if match else ""


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Return a text as one line that leaves a terminal alone: control characters as escapes.

    >>> print(visible("\33[1m a line\n"))
    \x1b[1m a line\n
    """
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


class LlmbolError(Exception):
    """Anything that a user can cause and mend."""


_EXCERPT = 100
"""Characters of a line that an excerpt shows at most."""


class SourceError(LlmbolError):
    """A mistake at a place in a text file; line and column count from 1."""

    def __init__(self, path: str, line: int, column: int, why: str, text: str = "") -> None:
        self.path, self.line, self.column, self.why, self.text = path, line, column, why, text
        super().__init__(f"{path}:{line}:{column}: {why}")

    @property
    def excerpt(self) -> str:
        r"""The offending line with a caret under the place, or nothing if the line is unknown.

        Of a long line it shows what is near the place, and no character that moves the caret.

        >>> print(SourceError("a.s", 1, 7, "no such thing", "\tmovw\t$x\33[31m").excerpt)
             movw $x?[31m
                  ^
        """
        start = max(0, min(self.column - 1 - _EXCERPT // 2, len(self.text) - _EXCERPT))
        shown = _CONTROL.sub("?", self.text[start : start + _EXCERPT].replace("\t", " "))
        return f"    {shown}\n    {' ' * (self.column - 1 - start)}^" if shown else ""


class AssemblyError(SourceError):
    """Dis assembly or stack code that means nothing."""


class SpecError(SourceError):
    """A YAML model spec that does not describe a model; ``others`` are further mistakes in it."""

    others: tuple[SpecError, ...] = ()


class FormatError(LlmbolError):
    """Bytes that are not what they claim to be; the offset is in bytes from the start."""

    def __init__(self, path: str, offset: int, why: str) -> None:
        self.path, self.offset, self.why = path, offset, why
        super().__init__(f"{path}: at byte {offset}: {why}")


class DisFormatError(FormatError):
    """Not a Dis object file, or a damaged one."""


class GgufFormatError(FormatError):
    """Not a GGUF file, or a damaged one."""


class DataFormatError(FormatError):
    """An input file that cannot be read as an array."""


class FileError(LlmbolError):
    """A file that cannot be read or written."""

    def __init__(self, path: str, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"{path}: {why}")

    @classmethod
    def of(cls, error: OSError, path: object) -> FileError:
        """Wrap what the operating system said about a path."""
        return cls(str(path) or "''", (error.strerror or str(error)).lower())


class LinkError(LlmbolError):
    """A module, or something it imports, is missing or has another signature."""

    def __init__(self, module: str, why: str) -> None:
        self.module, self.why = module, why
        super().__init__(f"{module}: {why}")


class VerifyError(LlmbolError):
    """A program that was refused before its first instruction; pc is -1 outside of code."""

    def __init__(self, module: str, pc: int, why: str) -> None:
        self.module, self.pc, self.why = module, pc, why
        super().__init__(f"{module}: " + (f"pc {pc}: {why}" if pc >= 0 else why))


class SignatureError(LlmbolError):
    """A file that is not signed with the expected key, or that was changed after it was."""

    def __init__(self, path: str, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"{path}: {why}")


class Trap(LlmbolError):
    """An exception that a Dis program raised and nobody caught; name is Inferno's own text."""

    def __init__(self, name: str, module: str = "", pc: int = -1) -> None:
        self.name, self.module, self.pc = name, module, pc
        super().__init__(f'[{module}] Broken: "{name}"' if module else name)

    def brief(self) -> Trap:
        """Return the exception to keep: with the first 4096 characters of its name."""
        most = 4096
        return self if len(self.name) <= most else Trap(self.name[:most], self.module, self.pc)


class LimitError(LlmbolError):
    """A program was stopped because it reached a limit: memory, processes, instructions, time."""

    def __init__(self, limit: str, why: str) -> None:
        self.limit, self.why = limit, why
        super().__init__(f"{limit} limit: {why}")


class Deadlock(LlmbolError):
    """A program was stopped because each of its processes waits for another one."""


class ShapeError(LlmbolError):
    """Shapes that do not fit an operation or each other."""

    def __init__(self, operation: str, why: str) -> None:
        self.operation, self.why = operation, why
        super().__init__(f"{operation}: {why}")


class DtypeError(LlmbolError):
    """A storage type that an operation does not take."""

    def __init__(self, operation: str, why: str) -> None:
        self.operation, self.why = operation, why
        super().__init__(f"{operation}: {why}")


class ModelError(LlmbolError):
    """A model that cannot be built, run or compiled as asked."""

    def __init__(self, path: str, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"{path}: {why}")


class UsageError(LlmbolError):
    """A request that makes no sense as worded."""


class ClusterError(LlmbolError):
    """Something about the cluster, its nodes or its tasks."""


class NoCluster(ClusterError):
    """No cluster runs here."""


class TaskFailed(ClusterError):
    """A task that ended without a result."""

    def __init__(self, task: str, why: str) -> None:
        self.task, self.why = task, why
        super().__init__(f"task {task}: {why}")
