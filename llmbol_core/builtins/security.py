"""The ciphers of $Keyring and $Crypt: AES, Blowfish, DES, IDEA and RC4.

A key is set up once, with the vector that chaining begins with; each call encrypts or decrypts
bytes where they are. The state keeps the vector, so that a long text can be given in pieces. The
modes are those of Inferno's library, see keyring-crypt(2): AES in CBC mode takes a rest that is no
whole block, which it masks with the encrypted vector; Blowfish takes the words of a block with the
lowest byte first. $Keyring has the numbers of $IPints too.
"""

from __future__ import annotations

import math
import warnings
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llmbol_core.builtins.digest import BAD_KEY, binding
from llmbol_core.builtins.ipints import binding as numbers
from llmbol_core.builtins.ipints import random as random_number
from llmbol_core.errors import Trap
from llmbol_core.vm import traps
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.host import HostCall
from llmbol_core.vm.module import TypeDescriptor

BAD_VECTOR = "bad ivec"
BAD_STATE = f"{traps.TYPE_CHECK}: bad encryption state"
BAD_SIZE = "data not multiple of block size"
_STATE = TypeDescriptor(-1, 4)
_CHARGE = 512
"""Bytes that a state counts for against the memory limit."""
_MOST_SKIPPED = 1 << 20
_PIECE = 1 << 15
"""Bytes, whole blocks of any cipher, between two checks whether time is up."""


@dataclass(frozen=True)
class Algorithm:
    """A block cipher: its block in bytes, how it takes a key, its modes, what it is peculiar in."""

    name: str
    block: int
    keyed: Callable[[bytes], Any]
    modes: tuple[str, ...]
    state: str
    most_vector: float = math.inf
    is_little: bool = False
    """Whether words have their lowest byte first, which other libraries expect to be the last."""


def _aes(key: bytes) -> Any:
    if len(key) not in (16, 24, 32):
        raise Trap(BAD_KEY)
    from cryptography.hazmat.primitives.ciphers.algorithms import AES

    return AES(key)


def _des(key: bytes) -> Any:
    from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES

    # With the same key three times it is DES itself.
    return TripleDES(_first(key, 8) * 3)


def _idea(key: bytes) -> Any:
    from cryptography.hazmat.decrepit.ciphers.algorithms import IDEA

    return IDEA(_first(key, 16))


def _blowfish(key: bytes) -> Any:
    from cryptography.hazmat.decrepit.ciphers.algorithms import Blowfish

    # A key is gone through in a circle, and the library wants no less than four bytes.
    if not key:
        raise Trap(BAD_KEY)
    return Blowfish(key[:56] if len(key) > 3 else key * 4)


def _first(key: bytes, size: int) -> bytes:
    if len(key) < size:
        raise Trap(BAD_KEY)
    return key[:size]


ALGORITHMS = (
    Algorithm("aes", 16, _aes, ("cbc",), "AESstate"),
    Algorithm("des", 8, _des, ("ecb", "cbc"), "DESstate"),
    Algorithm("idea", 8, _idea, ("ecb", "cbc"), "IDEAstate"),
    Algorithm("blowfish", 8, _blowfish, ("cbc",), "BFstate", most_vector=8, is_little=True),
)


class Chain:
    """A key, and the vector that the next block is chained to."""

    def __init__(self, algorithm: Algorithm, key: bytes, vector: bytes | None) -> None:
        """Set up a key. Raises Trap if it or the vector do not fit the algorithm."""
        if vector is not None and not algorithm.block <= len(vector) <= algorithm.most_vector:
            raise Trap(BAD_VECTOR)
        self.algorithm = algorithm
        self.vector = bytes(algorithm.block) if vector is None else vector[: algorithm.block]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._key = algorithm.keyed(key)

    def ecb(self, data: bytes, decrypts: bool) -> bytes:
        """Return data of whole blocks, each by itself."""
        from cryptography.hazmat.primitives.ciphers.modes import ECB

        return self._run(ECB(), data, decrypts)

    def cbc(self, data: bytes, decrypts: bool) -> bytes:
        """Return data chained to what went before."""
        from cryptography.hazmat.primitives.ciphers.modes import CBC

        block = self.algorithm.block
        whole = len(data) // block * block
        vector = _turned(self.vector) if self.algorithm.is_little else self.vector
        done = self._run(CBC(vector), data[:whole], decrypts)
        if whole:
            self.vector = (data[:whole] if decrypts else done)[-block:]
        if rest := data[whole:]:
            self.vector = self.ecb(self.vector, False)
            done += bytes(a ^ b for a, b in zip(rest, self.vector, strict=False))
        return done

    def _run(self, mode: Any, data: bytes, decrypts: bool) -> bytes:
        from cryptography.hazmat.primitives.ciphers import Cipher

        cipher = Cipher(self._key, mode)
        step = cipher.decryptor() if decrypts else cipher.encryptor()
        if self.algorithm.is_little:
            return _turned(step.update(_turned(data)))
        return bytes(step.update(data))


def _turned(data: bytes) -> bytes:
    """Return words with their bytes the other way round."""
    words = array("I", data)
    words.byteswap()
    return words.tobytes()


class Stream:
    """RC4: a permutation that gives one byte after the other, and can be run backwards."""

    def __init__(self, seed: bytes) -> None:
        self._box = list(range(256))
        self._x = self._y = 0
        j = 0
        for i in range(256):
            j = (j + self._box[i] + (seed[i % len(seed)] if seed else 0)) % 256
            self._box[i], self._box[j] = self._box[j], self._box[i]

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        box, taken = self._box, bytearray()
        for _ in range(count):
            self._x = (self._x + 1) % 256
            first = box[self._x]
            self._y = (self._y + first) % 256
            second = box[self._y]
            box[self._x], box[self._y] = second, first
            taken.append(box[(first + second) % 256])
        return bytes(taken)

    def back(self, count: int) -> None:
        """Go back by so many bytes."""
        box = self._box
        for _ in range(count):
            box[self._x], box[self._y] = box[self._y], box[self._x]
            self._y = (self._y - box[self._x]) % 256
            self._x = (self._x - 1) % 256


# The functions

binding.include(numbers, "IPint")


@binding.function("IPint.random: fn(minbits, maxbits: int): ref IPint")
def random(call: HostCall, least: int, most: int) -> int:
    """Return a random number of so many bits at most."""
    return random_number(call, most)


def _window(data: Any, count: int) -> Any:
    if not 0 <= count <= len(data):
        raise Trap(traps.BOUNDS)
    return data[:count]


def _state(call: HostCall, ref: int, kind: type, algorithm: object = None) -> Any:
    if ref == NIL:
        raise Trap(traps.NIL_DEREFERENCE)
    found = call.heap.handle(ref)
    if not isinstance(found, kind) or algorithm not in (None, getattr(found, "algorithm", None)):
        raise Trap(BAD_STATE)
    return found


def _setup(algorithm: Algorithm) -> Callable[[HostCall, Any, Any], int]:
    def setup(call: HostCall, key: Any, vector: Any) -> int:
        if key is None:
            raise Trap(BAD_KEY)
        chain = Chain(algorithm, bytes(key), None if vector is None else bytes(vector))
        return call.heap.new_handle(chain, _CHARGE, _STATE)

    return setup


def _mode(algorithm: Algorithm, mode: str) -> Callable[[HostCall, int, Any, int, int], None]:
    takes_rest = algorithm.name == "aes"

    def run(call: HostCall, state: int, data: Any, count: int, direction: int) -> None:
        if data is None:
            return
        window = _window(data, count)
        if count % algorithm.block and not takes_rest:
            raise Trap(BAD_SIZE)
        chain: Chain = _state(call, state, Chain, algorithm)
        for at in range(0, count, _PIECE):
            piece = window[at : at + _PIECE]
            piece[:] = getattr(chain, mode)(bytes(piece), direction != 0)
            call.pause()

    return run


for _algorithm in ALGORITHMS:
    _type = _algorithm.state
    binding.function(f"{_algorithm.name}setup: fn(key, ivec: array of byte): ref {_type}")(
        _setup(_algorithm)
    )
    for _name in _algorithm.modes:
        _head = f"{_algorithm.name}{_name}: fn(state: ref {_type}, buf: array of byte"
        binding.function(f"{_head}, n: int, direction: int)")(_mode(_algorithm, _name))


@binding.function("rc4setup: fn(seed: array of byte): ref RC4state")
def rc4setup(call: HostCall, seed: Any) -> int:
    """Return a new state, or nil for nil."""
    if seed is None:
        return NIL
    return call.heap.new_handle(Stream(bytes(seed)), _CHARGE, _STATE)


@binding.function("rc4: fn(state: ref RC4state, buf: array of byte, n: int)")
def rc4(call: HostCall, state: int, data: Any, count: int) -> None:
    """Encrypt bytes, or decrypt them."""
    if data is None:
        return
    window = _window(data, count)
    stream: Stream = _state(call, state, Stream)
    for at in range(0, count, _PIECE):
        piece = window[at : at + _PIECE]
        mask = stream.take(len(piece))
        piece[:] = bytes(a ^ b for a, b in zip(piece, mask, strict=True))
        call.pause()


@binding.function("rc4skip: fn(state: ref RC4state, n: int)")
def rc4skip(call: HostCall, state: int, count: int) -> None:
    """Pass over some bytes."""
    _in_pieces(call, _state(call, state, Stream).take, count)


@binding.function("rc4back: fn(state: ref RC4state, n: int)")
def rc4back(call: HostCall, state: int, count: int) -> None:
    """Go back by some bytes."""
    _in_pieces(call, _state(call, state, Stream).back, count)


def _in_pieces(call: HostCall, move: Callable[[int], object], count: int) -> None:
    """Move by so many bytes, which must not be too many."""
    if count > _MOST_SKIPPED:
        raise Trap(traps.BOUNDS)
    for at in range(0, count, _PIECE):
        move(min(_PIECE, count - at))
        call.pause()
