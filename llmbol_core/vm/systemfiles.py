"""Files that show a program what the machine keeps for it, and let it change that.

    /env, #e    the variables of the asking process's group, one file each
    /fd, #d     the open files of the asking process by number, and NUMBERctl to describe them

The processes are in /prog: see ``processfiles``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from llmbol_core.vm.environment import Environment, Variables
from llmbol_core.vm.files.devices import Device
from llmbol_core.vm.files.hosttree import Path
from llmbol_core.vm.files.madetree import MadeTree, missing, no_directory
from llmbol_core.vm.files.openfile import (
    EBADUSE,
    EPERM,
    ORDWR,
    OREAD,
    OWRITE,
    Dir,
    FileFault,
    OpenFile,
)

_MOST_IN_VARIABLE = (1 << 14) - 1
_FD_PERMISSIONS = {OREAD: 0o400, OWRITE: 0o200, ORDWR: 0o600}


def text_file(
    text: str, access: int, make: Callable[[], str], permission: int = 0o444, device: str = "p"
) -> OpenFile:
    """Return an open read-only file whose content is made anew for each read."""
    if access != OREAD:
        raise FileFault(EPERM)
    file = Device(text, access, lambda count, at: make().encode()[at : at + count])
    file.permission, file.device = permission, device
    return file


def describe_open_file(number: int, file: OpenFile) -> str:
    """Return a line about an open file: number, mode, device, qid, offset, name."""
    entry, mode = file.stat(), ("r ", "w ", "rw")[file.mode]
    qid = f"({entry.qid_path:016x} {entry.qid_version} {entry.qid_type:02x})"
    device = chr(entry.device_type or ord("M"))
    return f"{number:3} {mode} {device} {0:4} {qid} {0:5} {file.offset:8} {file.path}\n"


class VariableFiles(MadeTree):
    """The environment variables of the asking process's group."""

    device = "e"

    def __init__(self, asking: Callable[[], Environment]) -> None:
        self._asking = asking

    def names(self, path: Path) -> list[str]:
        """List the variables."""
        variables = self._asking().variables
        if not path:
            return list(variables)
        if path[0] not in variables or len(path) > 1:
            raise missing()
        raise no_directory()

    def length(self, path: Path) -> int:
        """Return the length of a value in bytes."""
        return len(self._asking().variables.get(path[0]))

    def open_file(self, text: str, path: Path, access: int) -> OpenFile:
        """Open a variable."""
        return _Variable(text, access, self._asking().variables, path[0])

    def create(self, text: str, path: Path, access: int, permission: int) -> OpenFile:
        """Make a variable, or empty it."""
        if len(path) != 1:
            raise FileFault(EPERM)
        self._asking().variables.set(path[0], b"")
        return self.open_file(text, path, access)

    def remove(self, path: Path) -> None:
        """Forget a variable."""
        if not path:
            raise FileFault(EPERM)
        if path[0] not in self._asking().variables:
            raise missing()
        self._asking().variables.remove(path[0])


class _Variable(OpenFile):
    """One variable, open."""

    def __init__(self, path: str, mode: int, variables: Variables, name: str) -> None:
        super().__init__(path, mode)
        self._variables, self._name = variables, name

    def stat(self) -> Dir:
        """Describe the variable."""
        return replace(super().stat(), length=len(self._variables.get(self._name)))

    def _read(self, count: int, offset: int) -> bytes:
        return self._variables.get(self._name)[offset : offset + count]

    def _write(self, data: bytes, offset: int) -> int:
        if offset + len(data) > _MOST_IN_VARIABLE:
            raise FileFault("read or write too large")
        old = self._variables.get(self._name).ljust(offset, b"\0")
        self._variables.set(self._name, old[:offset] + data + old[offset + len(data) :])
        return len(data)


class DescriptorFiles(MadeTree):
    """The open files of the asking process."""

    device = "d"

    def __init__(self, asking: Callable[[], Environment]) -> None:
        self._asking = asking

    def names(self, path: Path) -> list[str]:
        """List the numbers of open files."""
        numbers = self._asking().descriptors.numbers
        if path:
            self._file(path)
            raise no_directory()
        return [f"{number}{suffix}" for number in numbers for suffix in ("", "ctl")]

    def permission(self, path: Path) -> int:
        """Return the permissions that the file was opened with."""
        number, is_control = self._file(path)
        return 0o400 if is_control else _FD_PERMISSIONS[self._asking().descriptors[number].mode]

    def open_file(self, text: str, path: Path, access: int) -> OpenFile:
        """Return the open file itself, or what describes it."""
        number, is_control = self._file(path)
        descriptors = self._asking().descriptors
        file = descriptors[number]
        if is_control:
            return text_file(text, access, lambda: describe_open_file(number, file), 0o400, "d")
        if file.mode not in (ORDWR, access):
            raise FileFault(EBADUSE)
        return file

    def _file(self, path: Path) -> tuple[int, bool]:
        """Return the number that a name stands for, and whether it is a control file."""
        found = re.fullmatch(r"(0|[1-9]\d{0,5})(ctl)?", "/".join(path))
        if not found or int(found[1]) not in self._asking().descriptors.numbers:
            raise missing()
        return int(found[1]), bool(found[2])
