"""What the engine and machine code share: the records of processes, the words of the machine.

A process's record is an array of 64-bit words outside of the arena, which machine code gets as %s;
the words that all processes of a machine share are found by its word ``MACHINE``. Python uses the
same words (``records.py``), so that nothing is copied when control passes from one to the other.
"""

from __future__ import annotations

from enum import IntEnum


class State(IntEnum):
    """Words of a process's record, 8 bytes each."""

    BUDGET = 0
    """Instructions that the process may still run in this slice."""
    PC = 1
    FP = 2
    TOP = 3
    LIMIT = 4
    """Where the piece of the stack ends that frames are made in."""
    BASE = 5
    """Where it begins; a frame there is dropped by the interpreter."""
    MP = 6
    NATIVE_STACK = 7
    """How far the host's stack may grow down."""
    TYPES = 8
    """Table of the heap's numbers for the module's types."""
    FUNCTIONS = 9
    """Table of machine code by the pc of its function; null where there is none."""
    HANDLE = 10
    """The handle of the module whose code runs."""
    CODE = 11
    """The module's instructions as the native interpreter reads them."""
    MACHINE = 12
    """Where the words of the machine are."""
    PID = 13
    FAULT = 14
    """Whether something is to be raised when the process next runs."""
    WAITS = 15
    """What the process waits for: a number of ``Wait``."""
    OFFER = 16
    """The first of what it offers while it waits for channels."""
    NEXT = 17
    """The process behind this one among those that are ready: the address of its record, or 0."""
    PREVIOUS = 18
    IS_READY = 19
    """Whether it is among them."""
    STATUS = 20
    """Why machine code has left the process: a number of ``Status``."""
    FILES = 22
    """Table of what is known of the files under descriptors: see ``OpenFile.known``."""
    WAITING_TYPES = 21
    """Table of types of the module whose waiting frames are written while machine code is left."""

    SHARED = 23
    """Table of the functions that regions share with the native interpreter."""
    ANCESTOR = 24
    """For a process that Python has not seen yet the record of the nearest one that it has, from
    which this one descends; 0 for others."""
    IS_KEPT = 25
    """Whether only Python may end it."""
    NEWER = 26
    """Its neighbours among those that Python has not seen yet: addresses of records, or 0."""
    OLDER = 27
    RAISED = 28
    """The name of the last exception that native code has found a handler for, a string that the
    record owns, or 0: Python has not looked at it yet. Then come its pc and the code it was in."""
    RAISED_PC = 29
    RAISED_CODE = 30
    EXTENT_COUNT = 31
    """How many pieces its stack has."""
    FLOATING = 32
    """How the process computes with reals: see ``ieee.py``."""
    LINKS = 33
    """Where the machine's ``LINKS`` are, or the ``CAREFUL_LINKS``."""
    EXTENTS = 34
    """The first pieces, ``EXTENT_ROWS`` rows of three words: base, limit, previous top."""


EXTENT_ROWS = 16
RECORD_WORDS = State.EXTENTS + 3 * EXTENT_ROWS


class Machine(IntEnum):
    """Words that the processes of a machine share."""

    MAPS = 0
    """Table by the heap's numbers: where size, count and offsets of the pointers are in it."""
    MAP_COUNT = 1
    FUEL = 2
    """Bytes that may still be worked on before native code looks at the clock: see pacing.py."""
    LINKS = 3
    """Table by the numbers in module handles: what their links lead to, or null. That is a count,
    tables as in ``TYPES``, ``FUNCTIONS`` and ``CODE``, and ``LINK_WORDS`` for each link: pc or
    ``LinkKind``, type of frame, bytes of the frame on the stack, ``few_pointers`` of the frame, and
    what is at ``LINK_HOSTED``."""
    LINK_COUNT = 4
    CURRENT = 5
    """The record of the process that runs, or 0."""
    LEFT = 6
    """Instructions that all processes together may run before the engine looks after the rest."""
    GIVEN = 7
    """What the process that runs was given of them."""
    FIRST = 8
    """The first of the processes that are ready: the address of its record, or 0."""
    LAST = 9
    OFFERS = 10
    """Where the table of offers is: see ``channels.py``."""
    OFFER_COUNT = 11
    END = 12
    """Where the memory ends that programs may use."""
    EXACT = 13
    """Whether machine code is not to be entered, since it does not count each instruction."""
    RELEASED = 14
    """Objects that Python is to release, linked through their counts."""
    WANTED = 15
    """Bytes of a block for which there was no room in native code's reserve, or 0."""
    HOST_FUNCTION = 16
    """The number of a function that the engine is to call, and where the frame of the call is."""
    HOST_FRAME = 17
    DISCARDED = 18
    """Objects that Python is to discard after a collection, linked as those to be released."""
    TABLE = 19
    STACK = 20
    """Memory that the collector is lent, and how many objects are on its stack."""
    DEPTH = 21
    DYING = 22
    """Objects that are to be freed, linked through their counts."""
    RESERVE = 23
    """Where the reserve begins that native code cuts blocks and chunks from, and where it ends."""
    RESERVE_END = 24
    FREED = 25
    """Huge blocks that Python is to free, linked through their first words."""
    TURN = 26
    """Which of the huge blocks that are kept makes room for the next one."""
    STARTED = 27
    """The nanosecond of the clock that milliseconds count from."""
    SCRATCH = 28
    """Where ``SCRATCH_BYTES`` are that any function may use."""
    TEXT = 29
    """Where text is put together: as many characters of 4 bytes as ``TEXT_ROOM``."""
    TEXT_COUNT = 30
    ARGUMENT = 31
    """Where the next value is that is to be printed, and where the frame is that holds it."""
    ARGUMENT_FRAME = 32
    OUTPUT = 33
    """Where output is that is still to be written, how many bytes, and to which of the streams."""
    OUTPUT_COUNT = 34
    OUTPUT_STREAM = 35
    OUTPUT_FAILED = 36
    """Whether output could not be written once, so that it does not wait any more."""
    RECORDS = 37
    """The first of the records that are free, linked as those of ready processes are."""
    NEWEST = 38
    """The last and the first of the processes that Python has not seen yet."""
    OLDEST = 39
    ENDED = 40
    """The first of the records of processes that Python has not seen ending, linked likewise."""
    PIDS = 41
    """The number of the process that was started last."""
    PROCESSES = 42
    """How many processes there are, and how many there may be."""
    MOST_PROCESSES = 43
    OBSERVED = 44
    """Whether Python must see each process start and end."""
    CLOCK = 45
    """Where the clock's seconds and nanoseconds were stored last."""
    UNTIL = 47
    """The moment at which native code lets others than processes have their turn."""
    DEADLINE = 48
    """The moment at which the program is stopped."""
    SIGNALS = 49
    """The function that tells whether a signal has come that stops the program, or 0."""
    SLICE = 50
    """Instructions that a process may run before the next one's turn, and when that began."""
    SLICE_BEGAN = 51
    OWED = 52
    """How many things native code has done that Python will take note of, one by one."""
    PENDING = 53
    """Objects that are still to be freed as those from ``DYING`` on are."""
    LOOK_AT = 54
    """What is left of them when the clock is looked at before the next process has its turn."""
    IS_TEXT_MADE = 55
    """Whether the text that the running process prints is formatted, for Python to write."""
    TRAPS = 56
    """The table of the names of exceptions that native code raises: see trapping.py."""
    CAREFUL_LINKS = 57
    """As ``LINKS`` and ``LINK_COUNT``, for processes that are careful of how reals are rounded."""
    CAREFUL_LINK_COUNT = 58
    YOUNG = 59
    """Whether blocks grow old while free memory is listed; then the bytes of those that were not
    old."""
    SPARE = 60
    """The first of ``SPARES`` words with huge free blocks, or 0; then come ``BIN_COUNT`` lists."""


SCRATCH_BYTES = 1024
TEXT_ROOM = 1 << 14
OUTPUT_BYTES = 1 << 16
QUANTUM = 1 << 20
"""Fuel between two looks at the clock: as much as a tenth of a millisecond's work takes."""
MORE = 12_000_000
"""Nanoseconds that freeing may take beyond the stretch."""
LEAST_SLICE, MOST_SLICE = 1 << 8, 1 << 15
"""Instructions of a slice, which are fewer where they take long."""
MOST_OWED = 1024
HUGE = 1 << 18
"""From this size on blocks join again when they are free."""
SPARES = 16
BIN_COUNT = 8 * 8
"""Lists of large free blocks: eight for each doubling of the size from 1024 on. A list is for all
sizes from its own up to the next one's; the blocks are linked through their first words."""
BINS = Machine.SPARE + SPARES
MACHINE_WORDS = BINS + BIN_COUNT
"""The number of words."""


class Reason(IntEnum):
    """Why the native interpreter returns to Python, with the process at an instruction."""

    PYTHON = 0
    """This instruction, or what is to be raised before it, is Python's business."""
    DECODE = 1
    """This instruction is not decoded yet."""
    HOT = 2
    """This instruction has run so often that its function is worth compiling."""
    SPENT = 3
    """The instructions that could be run before others than processes have their turn are run."""
    IDLE = 4
    """No process is ready."""
    RETURN = 5
    """Machine code has returned from a function whose frame Python is to leave."""
    HOST = 6
    """A function of the host is to be called."""


class How(IntEnum):
    """How the native interpreter is entered."""

    AGAIN = 0
    """Let the process have its turn."""
    NEXT = 1
    """Let the next process have it, since this one cannot go on."""
    CALLED = 2
    """Let the process go on after a call of the host."""


class Survey(IntEnum):
    """What native code is asked to do with the whole heap."""

    CYCLES = 0
    """Free what only cycles keep; return how many objects that were."""
    FREE = 1
    """List what is free; return how many rows."""
    DYING = 2
    """Free objects to which nothing refers any more, and what only they keep."""
    FRAMES = 3
    """Release what the frames from ``TABLE`` to ``STACK`` refer to."""
    CALLED_FRAMES = 4
    """The same, and the handles of their callers."""
    HANDLED = 5
    """Find a frame whose code has handlers of exceptions, from the one at ``TABLE`` on up, where
    code of the handle ``STACK`` is at pc ``DEPTH``; these words then tell of it. 0 if none has."""
    PENDING = 7
    """Free what was left for later."""
    FOREIGN = 6
    """Find a frame from the one at ``TABLE`` up to ``STACK`` whose caller is in another module."""


class Wait(IntEnum):
    """What a process waits for."""

    NOTHING = 0
    SEND = 1
    RECEIVE = 2
    ALT = 3
    OTHER = 4
    """What Python knows."""


class Status(IntEnum):
    """What machine code returns."""

    RETURNED = 0
    INTERPRET = 1
    """The interpreter runs the instruction at pc."""
    BUDGET = 2
    RESUME = 3
    """The host's stack is full: enter again."""
    WAIT = 4
    """The process waits for a channel: let others run."""


LEFT = -(1 << 62)
"""What machine code returns if the process has left it, instead of the instructions left."""
LEAST_LEFT = -(1 << 30)
"""Anything below it means that; a function may return with a few less than 0 left."""


SHARED = "@"
"""How the names begin of functions that regions call, among those of handlers."""
BURY = "bury"
OFTEN_CALLED = ("call_hosted", "goes_on", "leaves", "look", "refuels")
"""Functions of the core of the native interpreter that others call, too."""
UPKEEP = (
    BURY, "alternative", "collect", "formatted", "list_free", "read_real", "real_text",
)  # fmt: skip
"""Functions that take long, going through memory or text, and are compiled by themselves."""
VALUE_READ = "value_read"
"""What gives the result of ``read_real``."""


class LinkKind(IntEnum):
    """What stands in place of a pc."""

    OTHER = -1
    """The reference engine calls it."""
    SQUARE_ROOT = -2
    HOST = -1024
    """From here on down: functions that the engine keeps a list of."""


LINK_HEADER, LINK_WORDS = 4, 5
LINK_HOSTED = 4
"""The word of a link with the address of what machine code calls in place of the host, or 0."""
YIELDS = 2
"""What such code returns if it has done all, and other processes are to run."""
FEW_POINTERS = 4
"""As many 16-bit offsets of pointers fit in a word of a link."""

HOST_STACK = 192 << 10
"""Bytes of the host's stack that one entry may use."""

TAGS = {"frame": 3, "data": 5, "header": 7, "count": 9, "i32": 11, "i64": 13, "double": 15,
        "i8": 17, "i16": 19, "float": 21, "table": 23}  # fmt: skip
"""Kinds of memory that do not overlap, by the number of their tags."""


def tag(name: str) -> str:
    """Return what marks an access to a kind of memory; empty for any memory."""
    return f", !tbaa !{TAGS[name]}" if name else ""


def _metadata() -> str:
    lines = ['!0 = !{!"branch_weights", i32 1, i32 2000}', '!1 = !{!"dis"}']
    for name, number in TAGS.items():
        lines.append(f'!{number - 1} = !{{!"{name}", !1}}')
        lines.append(f"!{number} = !{{!{number - 1}, !{number - 1}, i64 0}}")
    return "\n".join(lines) + "\n"


METADATA = _metadata()


def few_pointers(offsets: tuple[int, ...]) -> int:
    """Return the offsets of a frame's pointers in one word, or 0 if they do not fit.

    Where there are fewer the word for the result's address stands, which is nil at first too.
    """
    if len(offsets) > FEW_POINTERS or any(offset > 32767 for offset in offsets):
        return 0
    filled = [*offsets, *[16] * (FEW_POINTERS - len(offsets))]
    return sum(offset << 16 * number for number, offset in enumerate(filled))
