"""Path names as programs use them, resolved to places in the tree that they see."""

from __future__ import annotations

import errno
import re
import stat as modes
from collections.abc import Iterator
from contextlib import contextmanager

from llmbol_core.vm.errortext import about_file
from llmbol_core.vm.files.hosttree import Path, Tree, check_characters, clean
from llmbol_core.vm.files.madetree import MadeTree
from llmbol_core.vm.files.openfile import ENOATTACH, ENOTDIR, ENOTEXIST, FileFault

DEVICE = "#"
"""What the name of a device begins with."""
_PRIVATE_DEVICES = frozenset("|esDa")
_GONE = "does not exist"
_MOUNTED = {"dev", "env", "fd", "net", "prog"}
_STANDARD = {"appl", "chan", "dev", "dis", "env", "lib", "module", "n", "net", "prog", "usr"}
_STEP = re.compile(r"[^/]/+(?=\.\.?(?:/|$)|$)")
"""Where a name requires a directory: before ``..``, ``.`` or a trailing slash."""


class Names:
    """What names mean: a tree, seen from somewhere, with what is bound and made up in it."""

    def __init__(self, tree: Tree, has_root: bool) -> None:
        self._tree, self.has_root = tree, has_root
        self.directory: Path = ()
        self.is_without_devices = False
        """Whether no name may begin with a device that other programs can see too."""
        self._base: Path = ()
        """The place in the tree of this namespace's root."""
        self._mounts: dict[Path, list[Path]] = {}
        self._made: dict[Path, MadeTree] = {}

    def _place(self, name: str) -> Path:
        """Return the path that a name stands for; one of a device does not depend on the place."""
        check_characters(name)
        if not name:
            raise FileFault("empty file name")
        place = clean(name, () if name.startswith(DEVICE) else self.directory)
        if place[:1] and place[0].startswith(DEVICE):
            if self.is_without_devices and place[0][1:2] not in _PRIVATE_DEVICES:
                raise FileFault(ENOATTACH)
            if place[:1] not in self._made:
                raise FileFault("unknown device in # filename")
        if self.has_root and _STEP.search(name):
            self._check_steps(name)
        return place

    def _check_steps(self, name: str) -> None:
        """Refuse a name that passes through something that is no directory."""
        start = () if name.startswith(DEVICE) else self.directory
        for step in _STEP.finditer(name):
            before = name[: step.start() + 1]
            with self._faults(before):
                if not self._is_directory(clean(before, start)):
                    raise FileFault(about_file(before, ENOTDIR))

    def _is_directory(self, place: Path) -> bool:
        """Say whether this is a directory; raises the host's OSError for nothing."""
        if made := self._answered(place):
            return made[0].is_directory(made[1])
        return modes.S_ISDIR(self._tree.status(self._shown(place)[0]).st_mode)

    def _answered(self, place: Path) -> tuple[MadeTree, Path] | None:
        """Return the served tree that a path leads into, and the path inside it."""
        for end in range(len(place), 0, -1):
            if place[:end] in self._made:
                return self._made[place[:end]], place[end:]
        return None

    def _is_there(self, place: Path) -> bool:
        try:
            self._is_directory(place)
        except OSError:
            return False
        return True

    def _walk(self, place: Path) -> Path:
        """Return where in the tree a name leads, before what is bound to it."""
        real = self._base
        for name in place:
            union = [(*at, name) for at in self._mounts.get(real, [real])]
            real = next((at for at in union[:-1] if self._exists(at)), union[-1])
        return real

    def _shown(self, place: Path) -> list[Path]:
        """Return what a name shows: one place, or the directories of a union in order."""
        real = self._walk(place)
        return self._mounts.get(real, [real])

    def _existing(self, name: str) -> Path:
        """Return where a name leads, before what is bound to it; it must exist."""
        place = self._place(name)
        with self._faults(name):
            self._is_directory(place)
        return self._walk(place)

    def _exists(self, real: Path) -> bool:
        try:
            self._tree.status(real)
        except OSError:
            return False
        return True

    @contextmanager
    def _faults(self, name: str) -> Iterator[None]:
        """Turn what the host says into Inferno's words, naming the element that is missing."""
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
                raise FileFault.of(error) from error
            raise FileFault(about_file(*self._missing(name))) from error

    def _missing(self, name: str) -> tuple[str, str]:
        """Return a name, cut after its first missing element, and the complaint about it.

        Inferno walks from one mounted directory to the next, and has other words for a failure of
        the first step. A tree may lack directories that Inferno has: a name there is kept whole.
        """
        at = () if name.startswith(("/", DEVICE)) else self.directory
        is_first = True
        for element in re.finditer(r"[^/]+", name):
            if element[0] in (".", ".."):
                at, is_first = clean(element[0], at), element[0] == ".." or is_first
                continue
            at = (*at, element[0])
            if not self._is_there(at[:1]) and at[0] in _STANDARD and name.startswith("/"):
                return name, ENOTEXIST if at[0] in _MOUNTED else _GONE
            if not self._is_there(at):
                return name[: element.end()], ENOTEXIST if is_first else _GONE
            if not self._is_directory(at):
                return name[: element.end()], ENOTDIR
            is_mounted = at[0] in _MOUNTED and len(at) == 1
            is_first = is_mounted or at in self._made or self._walk(at) in self._mounts
        return name, ENOTEXIST
