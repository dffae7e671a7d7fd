"""What belongs to a process besides its code: names, open files, variables, error string.

A spawned process ``inherit``s its parent's environment: it shares the namespace, the variables and
the group of descriptors until one of the two asks for its own, but its error string is its own. The
machine calls ``close`` when a process ends, so that files close once nobody can reach them.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import BinaryIO, NamedTuple

from llmbol_core.vm.errortext import shortened
from llmbol_core.vm.files.devices import DEVICES, Console, open_device, permission
from llmbol_core.vm.files.hosttree import clean
from llmbol_core.vm.files.madetree import MadeFile
from llmbol_core.vm.files.namespace import Namespace
from llmbol_core.vm.files.openfile import (
    EBADFD,
    ENOTEXIST,
    OREAD,
    OWRITE,
    FileFault,
    OpenFile,
    Stream,
)

MOST_DESCRIPTORS = 4000
_MORE_ROOM = 20
_VARIABLE = 200
"""Bytes charged for a variable besides its name and value."""
KNOWN = 64
"""How many of the first descriptors native code knows the files of."""
_IN_ROOT = frozenset({"chan", "dev", "env", "fd", "n", "net", "nvfs", "prog", "root"})
"""Directories that Inferno's own root device provides."""


class Streams(NamedTuple):
    """The host's standard streams, as binary files; None reads as empty and discards output."""

    stdin: BinaryIO | None = None
    stdout: BinaryIO | None = None
    stderr: BinaryIO | None = None

    def report(self, text: str) -> None:
        """Write a line to standard error, after what has been printed so far."""
        if self.stdout is not None:
            self.stdout.flush()
        if self.stderr is not None:
            self.stderr.write(f"{text}\n".encode("utf-8", "replace"))
            self.stderr.flush()


class Descriptors:
    """A group of descriptors, small numbers for open files, shared by its processes."""

    def __init__(self, files: Iterable[OpenFile] = ()) -> None:
        self._files: dict[int, OpenFile] = {}
        self._room = _MORE_ROOM
        """How many numbers fit before the table grows, as Inferno's does."""
        self.users = 1
        self._known = array("q", bytes(8 * KNOWN))
        self.known = self._known.buffer_info()[0]
        """Address of a table of ``OpenFile.known`` for the first descriptors, for native code."""
        for file in files:
            self.add(file)

    def __getitem__(self, number: int) -> OpenFile:
        """Return the file open under a number. Raises FileFault."""
        try:
            return self._files[number]
        except KeyError:
            raise FileFault(EBADFD) from None

    def add(self, file: OpenFile, number: int = -1) -> int:
        """Open a file under a number, the first free one unless given. Raises FileFault."""
        if number == -1:
            number = next(n for n in range(len(self._files) + 1) if n not in self._files)
        if not 0 <= number < min(self._room + _MORE_ROOM, MOST_DESCRIPTORS):
            raise FileFault(EBADFD)
        if number >= self._room:
            self._room += _MORE_ROOM
        file.users += 1
        self.close(number)
        self._files[number] = file
        if number < KNOWN:
            self._known[number] = file.known
        return number

    def close(self, number: int) -> None:
        """Free a number, and close its file if no other stands for it; nothing if it is free."""
        file = self._files.pop(number, None)
        if file is not None:
            if number < KNOWN:
                self._known[number] = 0
            file.users -= 1
            if not file.users:
                file.close()

    def fork(self, numbers: Iterable[int] | None = None) -> Descriptors:
        """Return a new group with the same files, or only those under the given numbers."""
        other = Descriptors()
        other._room = self._room
        for number in list(self._files) if numbers is None else numbers:
            if number in self._files:
                other.add(self._files[number], number)
        return other

    @property
    def numbers(self) -> list[int]:
        """The numbers in use, in ascending order."""
        return sorted(self._files)

    def release(self) -> None:
        """Note that one user fewer shares the group; the last one closes everything."""
        self.users -= 1
        if not self.users:
            for number in list(self._files):
                self.close(number)


class Variables:
    """The environment variables of a group of processes.

    ``charge`` is told by how many bytes they grow or shrink; it raises Trap if that is too many.
    """

    def __init__(self, charge: Callable[[int], None] = lambda size: None) -> None:
        self._charge, self._values = charge, dict[str, bytes]()
        self._size = 0

    def __del__(self) -> None:
        self._charge(-self._size)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def get(self, name: str) -> bytes:
        """Return a value, empty if there is none."""
        return self._values.get(name, b"")

    def set(self, name: str, value: bytes) -> None:
        """Give a variable a value."""
        more = len(value) - len(self.get(name))
        more += 0 if name in self else len(name) + _VARIABLE
        self._charge(more)
        self._size += more
        self._values[name] = value

    def remove(self, name: str) -> None:
        """Forget a variable."""
        less = len(self._values.pop(name)) + len(name) + _VARIABLE
        self._charge(-less)
        self._size -= less

    def fork(self, is_empty: bool) -> Variables:
        """Return a new group that starts with a copy of these, or empty."""
        group = Variables(self._charge)
        for name in () if is_empty else self:
            group.set(name, self.get(name))
        return group


class Environment:
    """The names, descriptors, variables and error string of one process."""

    def __init__(
        self, namespace: Namespace, descriptors: Descriptors, variables: Variables
    ) -> None:
        self.namespace, self.descriptors = namespace, descriptors
        self._error = ENOTEXIST
        self.variables = variables
        """The environment variables, shared by a group of processes."""
        self.on_end: Callable[[str], None] | None = None
        """Told of the end of this process and of those that it spawns."""
        self._on_end_of_parent: Callable[[str], None] | None = None
        self.standard: Sequence[OpenFile] = ()
        """The standard files, if this is the first process's."""

    @classmethod
    def first(
        cls, namespace: Namespace | None = None, streams: Streams | None = None
    ) -> Environment:
        """Return the environment of a machine's first process."""
        found = streams or Streams()
        files = [
            _stream("/dev/cons", OREAD, found.stdin),
            _stream("/dev/cons", OWRITE, found.stdout),
            _stream("/dev/cons", OWRITE, found.stderr),
        ]
        names = namespace or Namespace()
        if names.has_root:
            console = partial(Console, streams=(files[0], files[1]))
            names.provide("/dev/cons", MadeFile(console, device="c", permission=0o666))
            for name in DEVICES:
                made = MadeFile(open_device, device="c", permission=permission(name))
                names.provide(f"/dev/{name}", made)
        for number in (1, 2):
            if isinstance(files[number], Stream):
                files[number].known = number
        environment = cls(names, Descriptors(files), Variables())
        environment.standard = files
        return environment

    @property
    def error(self) -> str:
        """The error string, shortened to Inferno's limit."""
        return self._error

    @error.setter
    def error(self, text: str) -> None:
        self._error = shortened(text)

    def looked_up(self, name: str) -> None:
        """Note that a name was found.

        Inferno looks for what is below its root among its devices first, and the complaint that it
        is not there remains the error string even if the name is found afterwards.
        """
        here = self.namespace.directory
        is_from_root = name.startswith(("/", "..")) or (not here and not name.startswith("#"))
        place = clean(name, here)
        if is_from_root and place and not (len(place) == 1 and place[0] in _IN_ROOT):
            self.error = ENOTEXIST

    def inherit(self) -> Environment:
        """Return the environment of a process that this one's process spawns."""
        self.descriptors.users += 1
        child = Environment(self.namespace, self.descriptors, self.variables)
        child.error = self.error
        child._on_end_of_parent = self.on_end
        return child

    def replace_descriptors(self, descriptors: Descriptors) -> None:
        """Give the process a group of its own."""
        old, self.descriptors = self.descriptors, descriptors
        old.release()

    def close(self, message: str = "") -> None:
        """Let go of everything once the process has ended; tell those who wait for that."""
        for tell in (self.on_end, self._on_end_of_parent):
            if tell is not None:
                tell(message)
        self.descriptors.release()


def _stream(path: str, mode: int, host: BinaryIO | None) -> OpenFile:
    return open_device("/dev/null", mode) if host is None else Stream(path, mode, host)
