"""The exceptions that the machine itself raises in a program: Inferno's own texts.

A program catches them by these texts, so they are part of the instruction set's definition.
"""

from __future__ import annotations

NIL_DEREFERENCE = "dereference of nil"
BOUNDS = "array bounds error"
NEGATIVE_SIZE = "negative array size"
NOT_LOADED = "module not loaded"
TYPE_CHECK = "type check"
ILLEGAL = "illegal dis instruction"
ALT_BOTH_WAYS = "alt send/recv on same chan"
SPAWN_BUILTIN = "spawn a builtin module"
HEAP_FULL = "out of memory: heap"
MAIN_FULL = "out of memory: main"
CHANNEL_HANGUP = "channel hangup"
ALT_HANGUP = "alt channel hungup"
PIPE_CLOSED = "write on closed pipe"
OBSOLETE = "obsolete dis"
INVALID_MFRAME = "invalid mframe"
