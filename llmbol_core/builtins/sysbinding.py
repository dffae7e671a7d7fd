"""What all of $Sys shares: its types, its descriptors, how it reports failure.

A Limbo ``ref FD`` is a record with the descriptor's number in it; calls look at that number only,
in the caller's group of descriptors. The records that $Sys makes close their descriptor when the
last reference to them dies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llmbol_core.builtins.binding import Binding, Implementation, Pending
from llmbol_core.vm import given
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.environment import Descriptors, Environment
from llmbol_core.vm.files.openfile import WORD, Dir, FileFault, OpenFile
from llmbol_core.vm.host import Exchange, HostCall, Sleep, Turn, Until
from llmbol_core.vm.module import TypeDescriptor
from llmbol_core.vm.objects import Heap

_NATIVE = (
    "aprint", "byte2char", "char2byte", "fprint", "millisec", "pctl", "pread", "print", "pwrite",
    "read", "seek", "sleep", "sprint", "tokenize", "utfbytes", "write",
)  # fmt: skip

binding = Binding(
    "Sys",
    """
    Qid: adt {
        path: big;
        vers, qtype: int;
    };
    Dir: adt {
        name, uid, gid, muid: string;
        qid: Qid;
        mode, atime, mtime: int;
        length: big;
        dtype, dev: int;
    };
    FD: adt {
        fd: int;
    };
    Connection: adt {
        dfd, cfd: ref FD;
        dir: string;
    };
    Rread: type chan of (array of byte, string);
    Rwrite: type chan of (int, string);
    FileIO: adt {
        read: chan of (int, int, int, Rread);
        write: chan of (int, array of byte, int, Rwrite);
    };
    """,
    native=_NATIVE,
)

NO_DESCRIPTOR = -1
_WAITING = (Pending, Exchange, Until, Sleep)
_FD = TypeDescriptor(-1, 4)


@dataclass
class HeldDescriptor:
    """A descriptor that is closed when nobody holds it any more."""

    group: Descriptors
    number: int

    def close(self) -> None:
        """Close the descriptor and let its group go."""
        self.group.close(self.number)
        self.group.release()


def _number(heap: Heap, ref: int) -> int:
    return NO_DESCRIPTOR if ref == NIL else given.number(heap, ref)


def new_descriptor(heap: Heap, held: HeldDescriptor | None) -> int:
    """Return a new ``ref FD``, or nil for None."""
    if held is None:
        return NIL
    try:
        ref = heap.new_handle(held, 0, _FD)
    except BaseException:
        held.close()
        raise
    heap.set_word(ref, held.number)
    return ref


binding.reference("FD", _number, new_descriptor)


def environment(call: HostCall) -> Environment:
    """Return the environment of the process that calls."""
    return call.process.environment


def hold(call: HostCall, file: OpenFile) -> HeldDescriptor:
    """Give an open file a number in the caller's group, to be held by a ``ref FD``."""
    group = environment(call).descriptors
    held = HeldDescriptor(group, group.add(file))
    group.users += 1
    return held


def declare(
    declaration: str, failure: Any, turns: bool = False
) -> Callable[[Implementation], Implementation]:
    """Bind a function of $Sys; when it raises FileFault it returns ``failure``.

    The fault's text becomes the error string of the process. Inferno lets other processes run while
    one works on files: with ``turns`` those that are ready run before the caller goes on.
    """

    def bind(implementation: Implementation) -> Implementation:
        def guarded(call: HostCall, *arguments: Any) -> Any:
            def fail(fault: FileFault) -> Any:
                environment(call).error = str(fault)
                return failure

            try:
                result = _guard(implementation(call, *arguments), fail)
            except FileFault as fault:
                result = fail(fault)
            if turns and call.machine.scheduler.has_ready and not isinstance(result, _WAITING):
                return Turn(result)
            return result

        binding.function(declaration)(guarded)
        return implementation

    return bind


def carried(run: Callable[[], Any]) -> Callable[[], Any]:
    """Return a function that returns a fault instead of raising it, for another thread."""

    def carry() -> Any:
        try:
            return run()
        except FileFault as fault:
            return fault

    return carry


def _guard(result: Any, fail: Callable[[FileFault], Any]) -> Any:
    """Return a result for which a fault that happens during the wait counts as failure."""

    def then(*found: Any) -> Any:
        if found and isinstance(found[0], FileFault):
            return fail(found[0])
        try:
            return _guard(result.then(*found), fail)
        except FileFault as fault:
            return fail(fault)

    if isinstance(result, Pending):
        return Pending(carried(result.run), then)
    return result._replace(then=then) if isinstance(result, Exchange | Until) else result


def dir_fields(entry: Dir) -> tuple[Any, ...]:
    """Return an entry as the fields of Limbo's Dir."""
    qid = (entry.qid_path, entry.qid_version, entry.qid_type)
    times = (entry.mode, entry.atime, entry.mtime, entry.length)
    names = (entry.name, entry.uid, entry.gid, entry.muid)
    return (*names, qid, *times, entry.device_type, entry.device)


def dir_entry(fields: tuple[Any, ...]) -> Dir:
    """Return the entry that the fields of Limbo's Dir describe; its numbers are unsigned."""
    name, uid, gid, muid, qid, mode, atime, mtime, length, dtype, dev = fields
    path, version, kind = qid
    names, times = (name, uid, gid, muid), (mode & WORD, atime & WORD, mtime & WORD)
    return Dir(*names, path, version, kind, *times, length, dtype, dev)
