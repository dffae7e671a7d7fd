"""$Sys, the system calls of a Dis program: printing, text, time, the process. Files: ``sysfile``.

Where Inferno would use the network or another file server, the call fails and the error string
says so: no network is granted to a program, which finds nothing of it in its tree.
"""

from __future__ import annotations

import time
from typing import Any

from llmbol_core.builtins import sysfile
from llmbol_core.builtins.format import format_text
from llmbol_core.builtins.sysbinding import binding, declare, environment
from llmbol_core.builtins.varargs import VarArguments
from llmbol_core.errors import Trap
from llmbol_core.vm import traps
from llmbol_core.vm.conversion import LAST_RUNE, rune_to_char
from llmbol_core.vm.files.openfile import ORDWR, FileFault
from llmbol_core.vm.host import STARTED, HostCall, Sleep

__all__ = ["binding"]

NEWFD, FORKFD, NEWNS, FORKNS, NEWPGRP, NODEVS, NEWENV, FORKENV = (1 << n for n in range(8))
STANDARD_OUTPUT = 1
_PIECE = 1 << 13
"""Characters between two looks at whether the program's time is up."""
_RUNE_ERROR = 0xFFFD
_NO_NETWORK = "network access is not granted"

# Printing


def _formatted(call: HostCall, template: str, arguments: VarArguments) -> str:
    return format_text(template, arguments, environment(call).error, call.heap.limit)


def encode_utf8(text: str) -> bytes:
    """Return text as UTF-8; what is not a character becomes U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return "".join(rune_to_char(ord(char)) for char in text).encode()


@declare("print: fn(s: string, *): int", failure=-1, turns=True)
def print_(call: HostCall, template: str, arguments: VarArguments) -> sysfile.Transfer:
    """Write formatted text to standard output; return the number of bytes."""
    return fprint(call, STANDARD_OUTPUT, template, arguments)


@declare("fprint: fn(fd: ref FD, s: string, *): int", failure=-1, turns=True)
def fprint(call: HostCall, number: int, template: str, arguments: VarArguments) -> sysfile.Transfer:
    """Write formatted text to a file; return the number of bytes."""
    text = _formatted(call, template, arguments) if call.text is None else call.text
    data = encode_utf8(text)
    return sysfile.write_bytes(call, environment(call).descriptors[number], data)


@declare("sprint: fn(s: string, *): string", failure="")
def sprint(call: HostCall, template: str, arguments: VarArguments) -> str:
    """Return formatted text, up to the first NUL."""
    return _formatted(call, template, arguments).partition("\0")[0]


@declare("aprint: fn(s: string, *): array of byte", failure=None)
def aprint(call: HostCall, template: str, arguments: VarArguments) -> bytes:
    """Return formatted text as UTF-8."""
    return encode_utf8(_formatted(call, template, arguments))


@declare("werrstr: fn(s: string): int", failure=-1)
def werrstr(call: HostCall, text: str) -> int:
    """Set the error string."""
    environment(call).error = text
    return 0


# Text


@declare("tokenize: fn(s, delim: string): (int, list of string)", failure=(0, None))
def tokenize(call: HostCall, text: str, delimiters: str) -> tuple[int, list[str] | None]:
    """Split text at any of some characters; there are no empty tokens."""
    if not delimiters:
        return 0, None
    tokens: list[str] = []
    begun: list[str] = []
    blanks = dict.fromkeys(map(ord, delimiters), delimiters[0])
    for at in range(0, len(text), _PIECE):
        call.pause()
        first, *others = text[at : at + _PIECE].translate(blanks).split(delimiters[0])
        begun.append(first)
        if others:
            tokens += filter(None, ["".join(begun), *others[:-1]])
            begun = [others[-1]]
    tokens += filter(None, ["".join(begun)])
    return len(tokens), tokens or None


@declare("byte2char: fn(buf: array of byte, n: int): (int, int, int)", failure=(0, 0, 0))
def byte2char(call: HostCall, buffer: memoryview | None, at: int) -> tuple[int, int, int]:
    """Decode one character; return it, its bytes, and 1 if it was well-formed UTF-8."""
    rune, width = _decode(_bounded(buffer, at), at)
    return rune, width, int(width > 1 or (width == 1 and rune != _RUNE_ERROR))


@declare("utfbytes: fn(buf: array of byte, n: int): int", failure=0)
def utfbytes(call: HostCall, buffer: memoryview | None, count: int) -> int:
    """Return how many of the first bytes are whole characters."""
    if buffer is None or not 0 <= count <= len(buffer):
        raise Trap(traps.BOUNDS)
    data, at, steps = buffer[:count], 0, 0
    while at < count:
        steps += 1
        if not steps % _PIECE:
            call.pause()
        width = _decode(data, at)[1]
        if not width:
            break
        at += width
    return at


@declare("char2byte: fn(c: int, buf: array of byte, n: int): int", failure=0)
def char2byte(call: HostCall, rune: int, buffer: memoryview | None, at: int) -> int:
    """Encode one character; return its bytes, 0 if they do not fit."""
    # The last character of all is none for Inferno here.
    data = rune_to_char(rune if rune < LAST_RUNE else -1).encode()
    bounded = _bounded(buffer, at)
    if at + len(data) > len(bounded):
        return 0
    bounded[at : at + len(data)] = data
    return len(data)


def _bounded(buffer: memoryview | None, at: int) -> memoryview:
    if buffer is None or not 0 <= at < len(buffer):
        raise Trap(traps.BOUNDS)
    return buffer


def _decode(data: memoryview, at: int) -> tuple[int, int]:
    """Return the character at an offset and its width: 0 if more bytes are needed, 1 if bad."""
    first = data[at]
    if first < 0x80:
        return first, 1
    width = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
    if at + width > len(data):
        return _RUNE_ERROR, 0
    try:
        return ord(bytes(data[at : at + width]).decode()), width
    except (UnicodeDecodeError, TypeError):
        return _RUNE_ERROR, 1


# Time and the process


@declare("millisec: fn(): int", failure=0)
def millisec(call: HostCall) -> int:
    """Return milliseconds since some fixed moment."""
    return (time.monotonic_ns() - STARTED) // 1_000_000


@declare("sleep: fn(period: int): int", failure=0)
def sleep(call: HostCall, period: int) -> Sleep:
    """Wait so many milliseconds; for 0 just let others run."""
    return Sleep(max(0, period) / 1000)


@declare("pctl: fn(flags: int, movefd: list of int): int", failure=-1)
def pctl(call: HostCall, flags: int, numbers: list[int]) -> int:
    """Give the process descriptors, names, variables or a group of its own; return its number."""
    mine, process = environment(call), call.process
    if flags & NEWFD:
        mine.replace_descriptors(mine.descriptors.fork(numbers))
    elif flags & FORKFD:
        copy = mine.descriptors.fork()
        for number in numbers:
            mine.descriptors.close(number)
        mine.replace_descriptors(copy)
    if flags & NEWNS:
        mine.namespace = mine.namespace.from_here()
    elif flags & FORKNS:
        mine.namespace = mine.namespace.fork()
    if flags & NODEVS:
        mine.namespace.is_without_devices = True
    if flags & (NEWENV | FORKENV):
        mine.variables = mine.variables.fork(is_empty=bool(flags & NEWENV))
    if flags & NEWPGRP and process.group != process.pid:
        process.group, process.sharing = process.pid, ""
    return process.pid


# What is not granted


@declare("dial: fn(addr, local: string): (int, Connection)", failure=(-1, (None, None)))
def dial(call: HostCall, address: str, local: str) -> Any:
    """Fail as on a machine without a network: the files for it do not exist."""
    clone = _clone(address)
    raise FileFault(f"{_absence(call, clone)} ({clone})")


@declare("announce: fn(addr: string): (int, Connection)", failure=(-1, (None, None)))
def announce(call: HostCall, address: str) -> Any:
    """Fail as ``dial`` does."""
    raise FileFault(_absence(call, _clone(address)))


@declare("listen: fn(c: Connection): (int, Connection)", failure=(-1, (None, None)))
def listen(call: HostCall, connection: tuple[Any, ...]) -> Any:
    """Fail as ``dial`` does."""
    raise FileFault(_absence(call, f"{connection[2]}/listen"))


def _clone(address: str) -> str:
    """Return the clone file for an address, ``[[netdir/]proto!]host``; see dial(2).

    >>> _clone("tcp!host!80"), _clone("/net.alt/tcp!host!80"), _clone("host")
    ('/net/tcp/clone', '/net.alt/tcp/clone', '/net/net/clone')
    """
    protocol, mark, _ = address.partition("!")
    if not mark:
        protocol = "net"
    return f"{'' if protocol.startswith(('/', '#')) else '/net/'}{protocol}/clone"


def _absence(call: HostCall, name: str) -> str:
    """Return why a network's file cannot be opened; one that exists belongs to no network."""
    try:
        environment(call).namespace.open(name, ORDWR).close()
    except FileFault as fault:
        return str(fault)
    return _NO_NETWORK


@declare("export: fn(c: ref FD, dir: string, flag: int): int", failure=-1)
def export(call: HostCall, number: int, directory: str, flag: int) -> int:
    """Fail: a program's tree is not for others."""
    raise FileFault("export is not granted")


@declare("fauth: fn(fd: ref FD, aname: string): ref FD", failure=None)
def fauth(call: HostCall, number: int, name: str) -> Any:
    """Fail: there is no file server to authenticate to."""
    raise FileFault("no authentication")


@declare("fversion: fn(fd: ref FD, msize: int, version: string): (int, string)", failure=(-1, ""))
def fversion(call: HostCall, number: int, size: int, version: str) -> Any:
    """Fail: there is no file server to agree with."""
    raise FileFault("no file server")
