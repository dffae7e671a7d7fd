"""The digests of $Keyring and $Crypt: md4, md5, the sha family, and authentication codes.

A digest is taken in pieces: each call adds bytes to a state, a new one if it is given nil, and
returns it; a call with an array for the digest stores it there. Ciphers and numbers are in
``security.py``. What else these modules have, keys and certificates, is not here: a program that
uses it does not link.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any, Protocol

from llmbol_core.builtins.binding import Binding
from llmbol_core.builtins.md4 import MD4
from llmbol_core.errors import Trap
from llmbol_core.vm import traps
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.host import HostCall
from llmbol_core.vm.module import TypeDescriptor

binding = Binding(
    "Keyring",
    """
    DigestState: adt {
        x: int;
        copy: fn(d: self ref DigestState): ref DigestState;
    };
    AESstate: adt {
        x: int;
    };
    DESstate: adt {
        x: int;
    };
    IDEAstate: adt {
        x: int;
    };
    RC4state: adt {
        x: int;
    };
    BFstate: adt {
        x: int;
    };
    IPint: adt {
        x: int;
    };
    """,
)

INVALID_ARGUMENT = "invalid argument"
BAD_KEY = "bad encryption key"
BAD_DIGEST = "bad digest value"
_WRONG_STATE = f"{traps.TYPE_CHECK}: DigestState"
_STATE = TypeDescriptor(-1, 4)
_LONGEST_KEY = 64
_PIECE = 1 << 14
"""Bytes that are hashed between two checks whether time is up."""
_CHARGE = 256
"""Bytes that a state counts for against the memory limit."""


class _Hash(Protocol):
    """What hashlib and hmac have in common."""

    @property
    def name(self) -> str:
        """Which digest it is."""

    def update(self, data: memoryview, /) -> None:
        """Add bytes."""

    def digest(self) -> bytes:
        """Return the digest so far."""

    def copy(self) -> Any:
        """Return an independent copy of the state."""


def _take(call: HostCall, state: int, fresh: _Hash, given: tuple[Any, int, Any]) -> int:
    """Add bytes to a state, store the digest if there is a place for it, return the state."""
    data, count, target = given
    if data is None and count:
        raise Trap(INVALID_ARGUMENT)
    size = len(fresh.digest())
    if target is not None and len(target) < size:
        raise Trap(BAD_DIGEST)
    known = fresh if state == NIL else _known(call, state, fresh.name)
    if data is not None:
        window = data[: max(0, count)]
        for at in range(0, len(window), _PIECE):
            known.update(window[at : at + _PIECE])
            call.pause()
    if target is not None:
        target[:size] = known.digest()
    if state == NIL:
        return call.heap.new_handle(known, _CHARGE, _STATE)
    return call.heap.retain(state)


def _known(call: HostCall, state: int, name: str | None = None) -> _Hash:
    found: _Hash | None = call.heap.handle(state)
    if not hasattr(found, "digest") or found is None or name not in (None, found.name):
        raise Trap(_WRONG_STATE)
    return found


def _digest(name: str) -> Callable[..., int]:
    def digest(call: HostCall, data: Any, count: int, target: Any, state: int) -> int:
        fresh: _Hash = MD4() if name == "md4" else hashlib.new(name, usedforsecurity=False)
        return _take(call, state, fresh, (data, count, target))

    return digest


def _code(name: str) -> Callable[..., int]:
    def code(call: HostCall, data: Any, count: int, *rest: Any) -> int:
        key, target, state = rest
        if key is None or len(key) > _LONGEST_KEY:
            raise Trap(BAD_KEY)
        fresh = hmac.new(bytes(key), digestmod=name)
        return _take(call, state, fresh, (data, count, target))

    return code


_ARGUMENTS = "digest: array of byte, state: ref DigestState): ref DigestState"
for _name in ("md4", "md5", "sha1", "sha224", "sha256", "sha384", "sha512"):
    binding.function(f"{_name}: fn(buf: array of byte, n: int, {_ARGUMENTS}")(_digest(_name))
for _name in ("md5", "sha1"):
    _head = f"hmac_{_name}: fn(data: array of byte, n: int, key: array of byte"
    binding.function(f"{_head}, {_ARGUMENTS}")(_code(_name))


@binding.function("DigestState.copy: fn(d: self ref DigestState): ref DigestState")
def copy(call: HostCall, state: int) -> int:
    """Return an independent copy of a state."""
    if state == NIL:
        return NIL
    return call.heap.new_handle(_known(call, state).copy(), _CHARGE, _STATE)
