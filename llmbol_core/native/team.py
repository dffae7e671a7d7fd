"""A team of threads that runs lists of operations in machine code.

    operation   four words: function, its arguments, how many items, how many of them at a time
    function    void f(i64 *arguments, i64 begin, i64 end, i64 thread)

The thread that asks for a list works on it as well. An operation's chunks are claimed one by one,
and it is over when all of them are done, so that the next one sees all that it wrote: this is a
barrier that waits only for threads which have claimed something. Helpers spin for a while when
there is nothing to do and then sleep. Results do not depend on who computed what, as long as the
items of an operation are independent of each other.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import threading
from enum import IntEnum
from typing import Any

from llmbol_core.native.code import library
from llmbol_core.native.library import kept
from llmbol_core.native.threads import thread_count


class _Word(IntEnum):
    """Words of a team's state, 8 bytes each; those that several threads write have own lines."""

    TICKET = 0
    """Number of the operation in the upper 32 bits, next chunk in the lower ones: all ones while
    the next four words are being written."""
    DONE = 16
    """Chunks of the operation that are done."""
    FUNCTION = 32
    ARGUMENTS = 33
    ITEMS = 34
    CHUNK = 35
    CHUNKS = 36
    BUSY = 48
    """1 while a thread has the team."""
    SLEEPERS = 64
    HELPERS = 80
    NEXT_THREAD = 81
    LOCK = 82
    UNLOCK = 83
    WAIT = 84
    WAKE = 85
    YIELD = 86
    MUTEX = 96
    CONDITION = 112
    SIZE = 128


_SPINS = 20_000
"""How often a helper looks for work before it sleeps: some hundred microseconds."""
_PATIENCE = 1_000
"""How often a thread looks for the end of others' chunks before it yields the processor."""

_PAUSES = {
    "x86_64": "llvm.x86.sse2.pause()",
    "AMD64": "llvm.x86.sse2.pause()",
    "aarch64": "llvm.aarch64.hint(i32 1)",
    "arm64": "llvm.aarch64.hint(i32 1)",
}


_CODE = """declare void @PAUSE_DECLARED

; Claim and compute chunks of operation %number until none is left.
define internal void @share(ptr %team, i64 %number, i64 %thread) {
; PLACES
 %f = load ptr, ptr %at.function
 %a = load ptr, ptr %at.arguments
 %n = load i64, ptr %at.items
 %step = load i64, ptr %at.chunk
 %count = load i64, ptr %at.chunks
 br label %claim
claim:
 %t = load atomic i64, ptr %at.ticket acquire, align 8
 %of = lshr i64 %t, 32
 %c = and i64 %t, 4294967295
 %same = icmp eq i64 %of, %number
 %left = icmp ult i64 %c, %count
 %mine = and i1 %same, %left
 br i1 %mine, label %try, label %end
try:
 %next = add i64 %t, 1
 %pair = cmpxchg ptr %at.ticket, i64 %t, i64 %next acq_rel acquire
 %won = extractvalue { i64, i1 } %pair, 1
 br i1 %won, label %compute, label %claim
compute:
 %begin = mul i64 %c, %step
 %full = add i64 %begin, %step
 %short = icmp ult i64 %n, %full
 %stop = select i1 %short, i64 %n, i64 %full
 call void %f(ptr %a, i64 %begin, i64 %stop, i64 %thread)
 %ignored = atomicrmw add ptr %at.done, i64 1 acq_rel
 br label %claim
end:
 ret void
}

; Run operations in turn.
define void @run(ptr %team, ptr %list, i64 %length) {
; PLACES
 %some = icmp sgt i64 %length, 0
 br i1 %some, label %start, label %end
start:
 %taken = cmpxchg ptr %at.busy, i64 0, i64 1 acquire monotonic
 %free = extractvalue { i64, i1 } %taken, 1
 %threads = load i64, ptr %at.helpers
 %company = icmp sgt i64 %threads, 0
 %shared = and i1 %free, %company
 br label %each
each:
 %i = phi i64 [ 0, %start ], [ %i1, %after ]
 %o = shl i64 %i, 2
 %p0 = getelementptr i64, ptr %list, i64 %o
 %p1 = getelementptr i64, ptr %p0, i64 1
 %p2 = getelementptr i64, ptr %p0, i64 2
 %p3 = getelementptr i64, ptr %p0, i64 3
 %f = load ptr, ptr %p0
 %a = load ptr, ptr %p1
 %n = load i64, ptr %p2
 %step = load i64, ptr %p3
 %several = icmp sgt i64 %n, %step
 %both = and i1 %several, %shared
 br i1 %both, label %publish, label %alone
alone:
 call void %f(ptr %a, i64 0, i64 %n, i64 0)
 br label %after
publish:
 %old = load atomic i64, ptr %at.ticket monotonic, align 8
 %oldnumber = lshr i64 %old, 32
 %plus = add i64 %oldnumber, 1
 %number = and i64 %plus, 4294967295
 %new = shl i64 %number, 32
 %closed = or i64 %new, 4294967295
 store atomic i64 %closed, ptr %at.ticket seq_cst, align 8
 fence seq_cst
 store ptr %f, ptr %at.function
 store ptr %a, ptr %at.arguments
 store i64 %n, ptr %at.items
 store i64 %step, ptr %at.chunk
 %more = add i64 %n, %step
 %most = sub i64 %more, 1
 %count = udiv i64 %most, %step
 store i64 %count, ptr %at.chunks
 store atomic i64 0, ptr %at.done monotonic, align 8
 store atomic i64 %new, ptr %at.ticket seq_cst, align 8
 %asleep = load atomic i64, ptr %at.sleepers seq_cst, align 8
 %quiet = icmp eq i64 %asleep, 0
 br i1 %quiet, label %work, label %rouse
rouse:
 %lockf = load ptr, ptr %at.lock
 %unlockf = load ptr, ptr %at.unlock
 %wakef = load ptr, ptr %at.wake
 %l = call i32 %lockf(ptr %at.mutex)
 %w = call i32 %wakef(ptr %at.condition)
 %u = call i32 %unlockf(ptr %at.mutex)
 br label %work
work:
 call void @share(ptr %team, i64 %number, i64 0)
 br label %check
check:
 %tries = phi i64 [ 0, %work ], [ %tries1, %patient ], [ %tries1, %yielding ]
 %finished = load atomic i64, ptr %at.done acquire, align 8
 %all = icmp eq i64 %finished, %count
 br i1 %all, label %after, label %wait
wait:
 %tries1 = add i64 %tries, 1
 %long = icmp ugt i64 %tries1, PATIENCE
 br i1 %long, label %yielding, label %patient
patient:
 call void @PAUSE
 br label %check
yielding:
 %yieldf = load ptr, ptr %at.yield
 %y = call i32 %yieldf()
 br label %check
after:
 %i1 = add i64 %i, 1
 %again = icmp ult i64 %i1, %length
 br i1 %again, label %each, label %last
last:
 br i1 %free, label %leave, label %end
leave:
 store atomic i64 0, ptr %at.busy release, align 8
 br label %end
end:
 ret void
}

; What a helper does all its life.
define ptr @help(ptr %team) {
; PLACES
 %thread = atomicrmw add ptr %at.next_thread, i64 1 acq_rel
 br label %idle
idle:
 %seen = phi i64 [ 0, %0 ], [ %number, %work ]
 br label %look
look:
 %tries = phi i64 [ 0, %idle ], [ %tries1, %spin ], [ 0, %woken ]
 %t = load atomic i64, ptr %at.ticket acquire, align 8
 %number = lshr i64 %t, 32
 %other = icmp ne i64 %number, %seen
 %chunk = and i64 %t, 4294967295
 %open = icmp ne i64 %chunk, 4294967295
 %changed = and i1 %other, %open
 br i1 %changed, label %work, label %nothing
work:
 call void @share(ptr %team, i64 %number, i64 %thread)
 br label %idle
nothing:
 %tries1 = add i64 %tries, 1
 %tired = icmp ugt i64 %tries1, SPINS
 br i1 %tired, label %sleep, label %spin
spin:
 call void @PAUSE
 br label %look
sleep:
 %lockf = load ptr, ptr %at.lock
 %unlockf = load ptr, ptr %at.unlock
 %waitf = load ptr, ptr %at.wait
 %l = call i32 %lockf(ptr %at.mutex)
 %s = atomicrmw add ptr %at.sleepers, i64 1 seq_cst
 %t2 = load atomic i64, ptr %at.ticket seq_cst, align 8
 %number2 = lshr i64 %t2, 32
 %still = icmp eq i64 %number2, %seen
 br i1 %still, label %doze, label %woken
doze:
 %w = call i32 %waitf(ptr %at.condition, ptr %at.mutex)
 br label %woken
woken:
 %s2 = atomicrmw sub ptr %at.sleepers, i64 1 seq_cst
 %u = call i32 %unlockf(ptr %at.mutex)
 br label %look
}
"""
"""LLVM's assembly language, but for what is in capitals."""


def _text() -> str:
    """Return the team's code for this machine."""
    pause = _PAUSES.get(platform.machine(), "llvm.donothing()")
    places = "\n".join(
        f" %at.{word.name.lower()} = getelementptr i64, ptr %team, i64 {word.value}"
        for word in _Word
        if word is not _Word.SIZE
    )
    text = _CODE.replace("; PLACES", places).replace("PAUSE_DECLARED", pause.replace(" 1)", ")"))
    text = text.replace("PAUSE", pause).replace("PATIENCE", str(_PATIENCE))
    return text.replace("SPINS", str(_SPINS))


class Team:
    """Threads that work together; the one that calls ``run`` counts as the first.

    In machine code ``run`` is the function at ``entry``, called with the team's address.
    """

    def __init__(self, threads: int) -> None:
        """Start all threads but one; there are no others where the system has no POSIX threads."""
        code = _library().addresses
        # Helpers never end, so what they look at is never given up.
        start = ctypes.addressof(kept((ctypes.c_int64 * (_Word.SIZE + 16))()))
        self.address = start + -start % 128
        self.entry: int = code["run"]
        self._run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(
            self.entry
        )
        self.threads = 1
        if threads > 1 and os.name == "posix":
            self._hire(threads - 1, code["help"])

    def run(self, operations: int, count: int) -> None:
        """Run a list of operations that lies at an address; other Python threads may go on."""
        self._run(self.address, operations, count)

    def _hire(self, helpers: int, function: int) -> None:
        system = ctypes.CDLL(None)
        words = ctypes.cast(self.address, ctypes.POINTER(ctypes.c_int64))
        for word, name in (
            (_Word.LOCK, "pthread_mutex_lock"),
            (_Word.UNLOCK, "pthread_mutex_unlock"),
            (_Word.WAIT, "pthread_cond_wait"),
            (_Word.WAKE, "pthread_cond_broadcast"),
            (_Word.YIELD, "sched_yield"),
        ):
            words[word] = ctypes.cast(getattr(system, name), ctypes.c_void_p).value or 0
        mutex, condition = (self.address + 8 * word for word in (_Word.MUTEX, _Word.CONDITION))
        system.pthread_mutex_init(ctypes.c_void_p(mutex), None)
        system.pthread_cond_init(ctypes.c_void_p(condition), None)
        words[_Word.NEXT_THREAD] = 1
        handle = ctypes.c_void_p()
        for _ in range(helpers):
            arguments = (None, ctypes.c_void_p(function), ctypes.c_void_p(self.address))
            if system.pthread_create(ctypes.byref(handle), *arguments):
                break  # no more threads to be had: those that there are do the work
            system.pthread_detach(handle)
            self.threads += 1
        words[_Word.HELPERS] = self.threads - 1


def team() -> Team:
    """Return this process's team, made on first use, with ``thread_count`` threads."""
    return _team or _make_team()


_team: Team | None = None
_lock = threading.Lock()


def _make_team() -> Team:
    global _team
    with _lock:
        if _team is None:
            _team = Team(thread_count())
        return _team


def _forget_team() -> None:
    global _team, _lock
    _team, _lock = None, threading.Lock()


@functools.cache
def _library() -> Any:
    return library("team", _text(), ["run", "help"])


if hasattr(os, "register_at_fork"):
    # A forked process has none of its parent's threads.
    os.register_at_fork(after_in_child=_forget_team)
