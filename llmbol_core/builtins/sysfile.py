"""The functions of $Sys for files and their tree.

Reads and writes that may have to wait for the host, such as for someone who types, are done in
another thread while other processes run; those that wait for another process, such as at a pipe,
are done when it is ready. Those of several steps are generators.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import partial, wraps
from typing import Any, cast

from llmbol_core.builtins.binding import Implementation, Pending
from llmbol_core.builtins.served import ServedFile, Server
from llmbol_core.builtins.sysbinding import (
    HeldDescriptor,
    carried,
    declare,
    dir_entry,
    dir_fields,
    environment,
    hold,
    new_descriptor,
)
from llmbol_core.vm.files.openfile import EHUNGUP, FileFault, OpenFile
from llmbol_core.vm.files.pipes import PipeEnd
from llmbol_core.vm.given import references
from llmbol_core.vm.handles import charge
from llmbol_core.vm.host import Exchange, HostCall, Until

Buffer = memoryview
Transfer = int | Pending | Until | Exchange
"""A number of bytes, or what to wait for until there is one."""
Transfers = Generator[Transfer, int, int]
"""Transfers one after the other: each is yielded, and its number comes back."""
_EVERYWHERE = {"#s", "#c", "#U", "#/"}
_MOST_AT_ONCE = 1 << 20
"""Most bytes that ``stream`` copies at once, however many it is asked to."""


turning = partial(declare, turns=True)


def _file(call: HostCall, number: int) -> OpenFile:
    return environment(call).descriptors[number]


def _named(call: HostCall, number: int) -> str:
    return _file(call, number).path


def by_name(function: Implementation) -> Implementation:
    """Make a function that takes a name first leave the same error string as Inferno's."""

    @wraps(function)
    def named(call: HostCall, name: str, *others: Any) -> Any:
        result = function(call, name, *others)
        environment(call).looked_up(name)
        return result

    return cast("Implementation", named)


# Opening and closing


@turning("open: fn(s: string, mode: int): ref FD", failure=None)
@by_name
def open_(call: HostCall, name: str, mode: int) -> HeldDescriptor:
    """Open a file."""
    return hold(call, environment(call).namespace.open(name, mode))


@turning("create: fn(s: string, mode, perm: int): ref FD", failure=None)
@by_name
def create(call: HostCall, name: str, mode: int, permission: int) -> HeldDescriptor:
    """Create a file or directory, or truncate a file."""
    return hold(call, environment(call).namespace.create(name, mode, permission))


@turning("fildes: fn(fd: int): ref FD", failure=None)
def fildes(call: HostCall, number: int) -> HeldDescriptor:
    """Return another descriptor for the file that a number stands for."""
    return hold(call, _file(call, number))


@turning("dup: fn(old, new: int): int", failure=-1)
def dup(call: HostCall, old: int, new: int) -> int:
    """Make another number, the first free one for -1, stand for the same file."""
    return environment(call).descriptors.add(_file(call, old), new)


@turning("pipe: fn(fds: array of ref FD): int", failure=-1)
def pipe(call: HostCall, array: int) -> int:
    """Put both ends of a new pipe into an array."""
    places = references(call.heap, array)
    if len(places) < 2:
        return -1
    for place, end in zip(places, PipeEnd.pair(partial(charge, call.heap)), strict=False):
        call.heap.give(place, new_descriptor(call.heap, hold(call, end)))
    return 0


# Reading and writing


@turning("read: fn(fd: ref FD, buf: array of byte, n: int): int", failure=-1)
def read(call: HostCall, number: int, buffer: Buffer | None, count: int) -> Transfer:
    """Read at most so many bytes; 0 at the end of the file."""
    if buffer is None or count < 0:
        return 0
    return _read(call, _file(call, number), buffer[:count], None)


@turning("pread: fn(fd: ref FD, buf: array of byte, n: int, off: big): int", failure=-1)
def pread(call: HostCall, number: int, buffer: Buffer | None, count: int, offset: int) -> Transfer:
    """Read at an offset."""
    if buffer is None or count < 0:
        return 0
    return _read(call, _file(call, number), buffer[:count], offset)


@turning("readn: fn(fd: ref FD, buf: array of byte, n: int): int", failure=-1)
def readn(call: HostCall, number: int, buffer: Buffer | None, count: int) -> Transfer:
    """Read until there are so many bytes or the file ends."""
    if buffer is None or count < 0:
        return 0
    file, window = _file(call, number), buffer[:count]

    return drive(_filling(call, file, window))


def _filling(call: HostCall, file: OpenFile, window: Buffer) -> Transfers:
    """Read until a window is full or the file ends; a fault after the first bytes also ends it."""
    done = 0
    while done < len(window):
        try:
            got = yield _read(call, file, window[done:], None)
        except FileFault:
            if not done:
                raise
            break
        if not got:
            break
        done += got
    return done


def _read(call: HostCall, file: OpenFile, window: Buffer, offset: int | None) -> Transfer:
    if isinstance(file, ServedFile):
        return file.ask_to_read(call.heap, window, offset)
    count = len(window)

    def then(data: bytes) -> int:
        window[: len(data)] = data
        return len(data)

    if file.is_ready() or not count:
        return then(file.read(count, offset))
    if file.waits_for_processes:
        return Until(file.is_ready, lambda: then(file.read(count, offset)))
    return Pending(lambda: file.read(count, offset), then)


def drive(steps: Transfers, given: Transfer | FileFault | None = None) -> Transfer:
    """Do the transfers that a generator yields, one after the other; return its result."""
    try:
        while given is None or isinstance(given, int | FileFault):
            if isinstance(given, FileFault):
                given = steps.throw(given)
            else:
                given = next(steps) if given is None else steps.send(given)
    except StopIteration as end:
        return int(end.value)
    wish = given

    def then(*found: Any) -> Transfer:
        if found and isinstance(found[0], FileFault):
            return drive(steps, found[0])
        try:
            after = wish.then(*found)
        except FileFault as fault:
            after = fault
        return drive(steps, after)

    if isinstance(wish, Pending):
        return Pending(carried(wish.run), then)
    return wish._replace(then=then)


@turning("write: fn(fd: ref FD, buf: array of byte, n: int): int", failure=-1)
def write(call: HostCall, number: int, buffer: Buffer | None, count: int) -> Transfer:
    """Write so many bytes."""
    if buffer is None or count < 0:
        return 0
    return write_bytes(call, _file(call, number), bytes(buffer[:count]))


@turning("pwrite: fn(fd: ref FD, buf: array of byte, n: int, off: big): int", failure=-1)
def pwrite(call: HostCall, number: int, buffer: Buffer | None, count: int, offset: int) -> Transfer:
    """Write at an offset."""
    if buffer is None or count < 0:
        return 0
    return write_bytes(call, _file(call, number), bytes(buffer[:count]), offset)


def write_bytes(call: HostCall, file: OpenFile, data: bytes, offset: int | None = None) -> Transfer:
    """Write, waiting if the file cannot take more at the moment."""
    if isinstance(file, ServedFile):
        return file.ask_to_write(call.heap, data, offset)
    if file.can_write():
        return file.write(data, offset)
    if file.waits_for_processes:
        return Until(file.can_write, lambda: file.write(data, offset))
    return Pending(lambda: file.write(data, offset), int)


@turning("seek: fn(fd: ref FD, off: big, start: int): big", failure=-1)
def seek(call: HostCall, number: int, offset: int, start: int) -> int:
    """Move to an offset from the start, from here or from the end."""
    return _file(call, number).seek(offset, start)


@turning("stream: fn(src, dst: ref FD, bufsiz: int): int", failure=0)
def stream(call: HostCall, source: int, target: int, size: int) -> Transfer:
    """Copy one file to another until the source ends; return the number of bytes."""
    taken, given = _file(call, source), _file(call, target)
    window = memoryview(bytearray(max(0, min(size, _MOST_AT_ONCE))))

    def steps() -> Transfers:
        total = 0
        try:
            while got := (yield from _filling(call, taken, window)):
                if (yield write_bytes(call, given, bytes(window[:got]))) != got:
                    raise FileFault(EHUNGUP)
                total += got
                yield Until(lambda: True, lambda: 0)  # others run, and limits hold
        except FileFault as fault:
            environment(call).error = str(fault)
        return total

    return drive(steps())


# What files are


@turning("stat: fn(s: string): (int, Dir)", failure=(-1,))
@by_name
def stat(call: HostCall, name: str) -> tuple[int, Sequence[Any]]:
    """Describe a file by name."""
    return 0, dir_fields(environment(call).namespace.stat(name))


@turning("fstat: fn(fd: ref FD): (int, Dir)", failure=(-1,))
def fstat(call: HostCall, number: int) -> tuple[int, Sequence[Any]]:
    """Describe an open file."""
    return 0, dir_fields(_file(call, number).stat())


@turning("wstat: fn(s: string, d: Dir): int", failure=-1)
@by_name
def wstat(call: HostCall, name: str, fields: tuple[Any, ...]) -> int:
    """Change what a file's entry says, by name."""
    environment(call).namespace.wstat(name, dir_entry(fields))
    return 0


@turning("fwstat: fn(fd: ref FD, d: Dir): int", failure=-1)
def fwstat(call: HostCall, number: int, fields: tuple[Any, ...]) -> int:
    """Change what the entry of an open file says."""
    environment(call).namespace.fwstat(_file(call, number), dir_entry(fields))
    return 0


@turning("dirread: fn(fd: ref FD): (int, array of Dir)", failure=(-1, None))
def dirread(call: HostCall, number: int) -> tuple[int, Sequence[Any] | None]:
    """Return the next entries of a directory."""
    found = [dir_fields(entry) for entry in _file(call, number).entries()]
    return len(found), found or None


@turning("fd2path: fn(fd: ref FD): string", failure="")
def fd2path(call: HostCall, number: int) -> str:
    """Return the path an open file was opened by."""
    return _named(call, number)


@turning("iounit: fn(fd: ref FD): int", failure=0)
def iounit(call: HostCall, number: int) -> int:
    """Return how much is read or written in one piece; 0 means any amount."""
    _file(call, number)
    return 0


# The tree


@turning("remove: fn(s: string): int", failure=-1)
@by_name
def remove(call: HostCall, name: str) -> int:
    """Remove a file or an empty directory."""
    environment(call).namespace.remove(name)
    return 0


@turning("chdir: fn(path: string): int", failure=-1)
@by_name
def chdir(call: HostCall, path: str) -> int:
    """Change the directory that names begin from, for the whole group."""
    environment(call).namespace.change_directory(path)
    return 0


@turning("bind: fn(s, on: string, flags: int): int", failure=-1)
@by_name
def bind(call: HostCall, source: str, target: str, flags: int) -> int:
    """Show one directory in the place of another, or with it.

    The devices for served files and for /dev are everywhere already.
    """
    if source in _EVERYWHERE:
        environment(call).namespace.stat(target)
        return 1
    environment(call).namespace.bind(source, target, flags)
    return 1


@turning("unmount: fn(s1: string, s2: string): int", failure=-1)
@by_name
def unmount(call: HostCall, source: str, target: str) -> int:
    """Undo a bind."""
    environment(call).namespace.unbind(source, target)
    return 0


@turning(
    "mount: fn(fd: ref FD, afd: ref FD, on: string, flags: int, spec: string): int", failure=-1
)
def mount(call: HostCall, number: int, auth: int, on: str, flags: int, spec: str) -> int:
    """Refuse: there is no client of file servers in this machine."""
    _file(call, number)
    raise FileFault("mount/attach disallowed")


@turning("file2chan: fn(dir, file: string): ref FileIO", failure=None)
def file2chan(call: HostCall, directory: str, name: str) -> int:
    """Make a file that the program itself serves, over the channels of a FileIO."""
    if not name or "/" in name:
        raise FileFault("file name syntax")
    named = len(directory) + len(name)
    server = Server(call.heap, call.machine.engine.channels, named)
    offered = server.offer()
    try:
        server.withdraw = environment(call).namespace.serve(directory, name, server.open)
    except BaseException:
        call.heap.release(offered)
        raise
    return offered
