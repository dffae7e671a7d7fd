"""The names that a program sees: the tree that it was granted, as it has arranged it for itself.

With a root, the program's ``/`` is that directory of the host, read-only unless ``writable``.
Without one, the ``granted`` files can be opened for reading under the names given, and nothing else
exists. ``hosttree`` explains why no name leads out.

Inside its tree a program may put directories in the place of others (``bind``), several in a row
if it likes, and serve files of its own (``serve``). Processes of one group share a Namespace; a
fork of it changes independently.
"""

from __future__ import annotations

import errno
import os
import re
import stat as modes
from collections.abc import Callable, Iterable

from llmbol_core.vm.errortext import about_file
from llmbol_core.vm.files.hosttree import (
    GrantedFiles,
    HostTree,
    Path,
    Tree,
    change,
    change_open,
    check_characters,
    check_permission,
    clean,
    describe,
    text_of,
)
from llmbol_core.vm.files.madetree import MadeFile, MadeTree, Server
from llmbol_core.vm.files.names import DEVICE, Names
from llmbol_core.vm.files.openfile import (
    DMDIR,
    EBADARG,
    EEXIST,
    ENOTDIR,
    EPERM,
    OEXCL,
    ORCLOSE,
    ORDWR,
    OREAD,
    OTRUNC,
    OWRITE,
    WORD,
    Dir,
    Directory,
    FileFault,
    HostFile,
    OpenFile,
    access_of,
)

MREPL, MBEFORE, MAFTER, MCREATE = 0, 1, 2, 4
_LAST = re.compile(r"(?:/+\.?)+$")
"""What stands behind a name to say that it is a directory's."""
_HOST_ACCESS = {OREAD: os.O_RDONLY, OWRITE: os.O_WRONLY, ORDWR: os.O_RDWR}


class Namespace(Names):
    """What one group of processes sees of the tree. Every operation may raise FileFault."""

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        writable: bool = False,
        granted: Iterable[str] = (),
    ) -> None:
        """Grant a tree. Raises FileError if the root is no directory."""
        tree: Tree = GrantedFiles(granted) if root is None else HostTree(root)
        super().__init__(tree, root is not None)
        self.writable = writable and self.has_root
        self._creating: set[Path] = set()

    def fork(self) -> Namespace:
        """Return a copy that changes independently."""
        other = self._bare()
        other._base, other.directory, other._made = self._base, self.directory, self._made
        other._mounts = {at: list(shown) for at, shown in self._mounts.items()}
        other._creating = set(self._creating)
        return other

    def from_here(self) -> Namespace:
        """Return one whose root is the current directory, with nothing bound but devices."""
        other = self._bare()
        if self._answered(self.directory):
            raise FileFault(EPERM)
        other._made = {at: tree for at, tree in self._made.items() if at[0].startswith(DEVICE)}
        other._base = self._shown(self.directory)[0]
        return other

    def _bare(self) -> Namespace:
        other = Namespace()
        other._tree, other.has_root, other.writable = self._tree, self.has_root, self.writable
        other.is_without_devices = self.is_without_devices
        return other

    def open(self, name: str, mode: int) -> OpenFile:
        """Open a file."""
        place = self._place(name)
        with self._faults(name):
            if made := self._answered(place):
                return made[0].open(text_of(place), made[1], access_of(mode))
            return self._open(place, self._shown(place), mode)

    def create(self, name: str, mode: int, permission: int) -> OpenFile:
        """Create a file or, with DMDIR, a directory; truncate a file that exists."""
        access = access_of(mode & ~OEXCL)
        plain = _LAST.sub("", name) or name
        if (plain != name or plain in (".", "/")) and not permission & DMDIR:
            raise FileFault(about_file(plain, "create without DMDIR"))
        place = self._place(plain)
        if not place or plain == ".":
            raise FileFault(EEXIST)
        with self._faults(name):
            if made := self._answered(place):
                made[0].check_directory(made[1][:-1])
                if mode & OEXCL and self._is_there(place):
                    raise FileFault(EEXIST)
                return made[0].create(text_of(place), made[1], access, permission)
            self._check_writable(True)
            if self._exists(self._shown(place)[0]):
                if mode & OEXCL:
                    raise FileFault(EEXIST)
                return self._open(place, self._shown(place), mode | OTRUNC)
            real = (*self._directory_for_creating(place[:-1]), place[-1])
            bits = self._make(real, mode, permission)
            entry = Dir("", mode=bits, mtime=WORD, atime=WORD, length=-1)
            if permission & DMDIR:
                change(self._tree, real, entry)
            file = self._open(place, [real], mode & ~(OEXCL | OTRUNC), is_new=True)
            if isinstance(file, HostFile):  # whatever its mode, it is open
                file.change(lambda host: change_open(host, entry))
            return file

    def remove(self, name: str) -> None:
        """Remove a file or an empty directory."""
        place = self._place(name)
        if not place:
            raise FileFault(EPERM)
        with self._faults(name):
            if made := self._answered(place):
                made[0].is_directory(made[1])
                made[0].remove(made[1])
                return
            self._tree.status(real := self._walk(place))
            self._check_writable(True)
            self._tree.remove(real)

    def stat(self, name: str) -> Dir:
        """Describe a file."""
        place = self._place(name)
        with self._faults(name):
            if made := self._answered(place):
                return made[0].stat(text_of(place), made[1])
            return describe(place, self._tree.status(self._shown(place)[0]))

    def wstat(self, name: str, entry: Dir) -> None:
        """Change name, mode, times and length to what an entry says; -1 and "" leave them."""
        place = self._place(name)
        check_characters(entry.name, "/")
        self._check_writable(not self._answered(place))
        with self._faults(name):
            if self._answered(place):
                self.stat(name)
                return  # whoever serves it decides what it is
            real = self._shown(place)[0]
            change(self._tree, real, entry)
            if entry.name and place and entry.name != place[-1]:
                if entry.name in (".", ".."):
                    raise FileFault(EBADARG)
                self._tree.rename(real, entry.name)

    def fwstat(self, file: OpenFile, entry: Dir) -> None:
        """Do what ``wstat`` does to an open file, even if another one has its name by now."""
        if isinstance(file, HostFile) and not entry.name:
            self._check_writable(True)
            file.change(lambda host: change_open(host, entry))
            return
        self.wstat(file.path, entry)
        if entry.name:
            file.path = file.path.rpartition("/")[0] + "/" + entry.name

    def change_directory(self, name: str) -> None:
        """Make a directory the one that relative names begin in."""
        place = self._place(name)
        if not self.stat(name).mode & DMDIR:
            raise FileFault(ENOTDIR)
        self.directory = place

    def bind(self, source: str, target: str, flags: int) -> None:
        """Show the source where the target is: instead of it, before it or after it."""
        order = flags & (MBEFORE | MAFTER)
        if flags < 0 or order == (MBEFORE | MAFTER):
            raise FileFault(EBADARG)
        if made := self._answered(self._place(source)):
            self.stat(target)
            if made[1]:
                raise FileFault(EPERM)
            self._made[self._place(target)] = made[0]
            return
        new, old = self._shown(self._existing(source)), self._existing(target)
        kinds = {modes.S_ISDIR(self._tree.status(path).st_mode) for path in (new[0], old)}
        if len(kinds) > 1 or (order and kinds == {False}):
            raise FileFault("inconsistent mount")
        others = [path for path in self._mounts.get(old, [old]) if path not in new]
        unions = {MREPL: new, MBEFORE: new + others, MAFTER: others + new}
        self._mounts[old] = unions[order]
        if flags & MCREATE:
            self._creating.add(new[0])

    def unbind(self, source: str, target: str) -> None:
        """Undo a bind; an empty source undoes all of them at the target."""
        old = self._existing(target)
        shown = self._mounts.get(old)
        if shown is None:
            raise FileFault("not mounted")
        new = self._shown(self._existing(source))[0] if source else None
        if new is not None and new not in shown:
            raise FileFault("not in union")
        rest = [path for path in shown if new is not None and path != new]
        self._mounts[old] = rest
        if not rest:
            del self._mounts[old]

    def serve(self, directory: str, name: str, server: Server) -> Callable[[], None]:
        """Show a file that the server opens; return what removes it again."""
        place = (*self._place(directory), name)
        if not self.stat(directory).mode & DMDIR:
            raise FileFault("directory not a srv device")
        if place in self._made:
            raise FileFault(EEXIST)

        def withdraw() -> None:
            self._made.pop(place, None)

        self._made[place] = MadeFile(server, withdraw)
        return withdraw

    def provide(self, name: str, tree: Server | MadeTree) -> None:
        """Show a served file or tree under this name, whatever else there may be."""
        self._made[clean(name)] = tree if isinstance(tree, MadeTree) else MadeFile(tree)

    def shown_in(self, place: Path) -> dict[str, MadeTree]:
        """Return the served files that appear in a directory, by name, the newest first."""
        return {
            at[-1]: made
            for at, made in reversed(self._made.items())
            if at[:-1] == place and not at[-1].startswith(DEVICE)
        }

    # Files

    def _check_writable(self, is_write: bool) -> None:
        if is_write and not self.writable:
            raise FileFault(EPERM)

    def _directory_for_creating(self, place: Path) -> Path:
        union = self._shown(place)
        if len(union) == 1:
            return union[0]
        for real in union:
            if real in self._creating:
                return real
        raise FileFault("mounted directory forbids creation")

    def _make(self, real: Path, mode: int, permission: int) -> int:
        """Create a file or directory; return its mode to be, which its directory's bounds."""
        directory = self._tree.status(real[:-1])
        if not modes.S_ISDIR(directory.st_mode):
            raise FileFault(os.strerror(errno.ENOTDIR))  # the host's words, in Inferno too
        check_permission(directory, OWRITE)
        bound = directory.st_mode
        if permission & DMDIR:
            if mode & 3 != OREAD:
                raise FileFault(EPERM)
            self._tree.make_directory(real, 0o700)
            permission &= bound & 0o777
        else:
            os.close(self._tree.open(real, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            permission &= ~0o666 | (bound & 0o666)
        return permission & 0o777

    def _open(self, place: Path, union: list[Path], mode: int, is_new: bool = False) -> OpenFile:
        """Open a file of the tree, or a directory, perhaps a union of several."""
        real, access = union[0], access_of(mode)
        found = self._tree.status(real)
        self._check_writable(access != OREAD or bool(mode & (OTRUNC | ORCLOSE)))
        if not is_new:
            check_permission(found, mode)
        if modes.S_ISDIR(found.st_mode):
            if access != OREAD or mode & OTRUNC:
                raise FileFault(EPERM)
            self._tree.names(real)
            return Directory(
                text_of(place), describe(place, found), lambda: self._list(place, union)
            )
        host = self._tree.open(real, _HOST_ACCESS[access] | (os.O_TRUNC if mode & OTRUNC else 0))
        if not modes.S_ISREG(os.fstat(host).st_mode):
            return self._tree.special(host, text_of(place))
        removes = (lambda: self._tree.remove(real)) if mode & ORCLOSE else (lambda: None)
        return HostFile(text_of(place), access, host, removes)

    def _list(self, place: Path, union: list[Path]) -> list[Dir]:
        """Return the entries of a directory, with the files served there."""
        entries = [made.entry(name) for name, made in self.shown_in(place).items()]
        for directory in union:
            for name in self._names(directory):
                if (*place, name) in self._made:
                    continue
                try:
                    found = self._tree.status((*directory, name))
                except OSError:
                    continue  # gone meanwhile, or a link that leads nowhere
                entries.append(Dir.of(name, found))
        return entries

    def _names(self, directory: Path) -> list[str]:
        try:
            return self._tree.names(directory)
        except OSError:
            return []
