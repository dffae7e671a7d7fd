r"""Signed programs: an Ed25519 signature over all of a .dis file, where Inferno's format has room.

    SMAGIC  op n                  as in every signed Dis object (``vm/objectfile.py``)
    n bytes  "Ed25519\0"          what kind of signature it is
             32 bytes             the public key
             64 bytes             the signature (RFC 8032)
    ...                           the rest of the object, payload and trailer

The signed message is a context string and the SHA-512 digest of all that follows the signature.
Loaders that know nothing of this skip the signature as they skip any other. Keys are PEM files, as
``openssl genpkey -algorithm ed25519`` makes them, or those of OpenSSH.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from llmbol_core.errors import FileError, SignatureError
from llmbol_core.native.files import atomic_write, check_target, map_file, read_bytes
from llmbol_core.vm import payload
from llmbol_core.vm.magic import SMAGIC, encode_op
from llmbol_core.vm.objectfile import read_object

_CONTEXT = b"llmbol signed Dis object 1\0"
_KIND = b"Ed25519\0"
_KEY, _SIGNATURE = 32, 64
_SIZE = len(_KIND) + _KEY + _SIGNATURE
_HEAD = encode_op(SMAGIC) + encode_op(_SIZE)
_NO_REST = memoryview(b"")


@dataclass(frozen=True)
class Signed:
    """A file with a valid signature: its bytes, and by which key."""

    path: str
    bytes: int
    key: str
    """The fingerprint: the first 128 bits of the public key's SHA-256 digest."""


def create_keys(path: str) -> str:
    """Make a pair of keys, the private one for its owner only, the public one in path.pub.

    Returns the public key's fingerprint.
    """
    private = Ed25519PrivateKey.generate()
    secret = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise FileError(path, "a key is never overwritten: name another file") from None
    except OSError as error:
        raise FileError.of(error, path) from error
    with ExitStack() as undo:
        undo.callback(os.unlink, path)  # half a pair is none
        try:
            with os.fdopen(number, "wb") as file:
                file.write(secret)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise FileError.of(error, path) from error
        with atomic_write(f"{path}.pub") as file:
            file.write(public)
        undo.pop_all()
    return fingerprint(private.public_key())


def sign_file(source: str, output: str, key_path: str) -> Signed:
    """Write a program with a signature, in place of the one that it may have.

    Raises DisFormatError for a file that is no program, SignatureError for a key that cannot sign.
    """
    check_target(output, key_path)
    key, data = _private_key(key_path), map_file(source)
    body, behind = _parts(data, source)
    public = key.public_key()
    head = _HEAD + _KIND + _raw(public)
    room = bytes(_SIGNATURE)
    if isinstance(behind, _Payload):
        first, *rest = payload.attach(head + room + body, behind.data)
        pieces = [memoryview(first)[len(head) + _SIGNATURE :], *rest]
    else:
        pieces = [body, behind]
    signature = key.sign(_message(pieces))
    with atomic_write(output) as file:
        size = sum(file.write(piece) for piece in (head, signature, *pieces))
    return Signed(output, size, fingerprint(public))


def verify_file(path: str, key_path: str) -> Signed:
    """Return who signed a file; SignatureError unless it was that key and nothing has changed."""
    data = map_file(path)
    requirement(key_path)(data, path)
    return Signed(path, len(data), fingerprint(public_key(key_path)))


def requirement(key_path: str) -> Callable[..., None]:
    """Return a check that raises SignatureError for a file that is not signed with a key.

    It takes the bytes before the payload, the file's path, and the rest if there is one.
    """
    key = public_key(key_path)

    def check(data: memoryview, path: str, rest: memoryview = _NO_REST) -> None:
        if bytes(data[: len(_HEAD)]) != _HEAD or data[len(_HEAD) :][: len(_KIND)] != _KIND:
            raise SignatureError(path, "not signed: 'dis sign' does that")
        start = len(_HEAD) + len(_KIND)
        if data[start : start + _KEY] != _raw(key):
            raise SignatureError(path, f"not signed with the key {fingerprint(key)} of {key_path}")
        signature = bytes(data[start + _KEY : start + _KEY + _SIGNATURE])
        try:
            key.verify(signature, _message([data[start + _KEY + _SIGNATURE :], rest]))
        except InvalidSignature:
            raise SignatureError(path, "changed after it was signed") from None

    return check


def fingerprint(key: Ed25519PublicKey) -> str:
    """Return a short name of a key."""
    return hashlib.sha256(_raw(key)).hexdigest()[:32]


class _Payload:
    """The bytes that a file carries after its object."""

    def __init__(self, data: memoryview) -> None:
        self.data = data


def _parts(data: memoryview, path: str) -> tuple[memoryview, _Payload | memoryview]:
    """Return the object without magic number and signature, and all that follows it."""
    module, end = read_object(data, path)
    start = 4
    if module.signature is not None:
        start += len(encode_op(len(module.signature))) + len(module.signature)
    carried = payload.find(data, path)
    return data[start:end], data[end:] if carried is None else _Payload(carried)


def _message(pieces: list[memoryview | bytes] | list[memoryview]) -> bytes:
    digest = hashlib.sha512()
    for piece in pieces:
        digest.update(piece)
    return _CONTEXT + digest.digest()


def _raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def _private_key(path: str) -> Ed25519PrivateKey:
    found = _load(path)
    if not isinstance(found, Ed25519PrivateKey):
        raise SignatureError(path, "a public key cannot sign: name the private one")
    return found


def public_key(path: str) -> Ed25519PublicKey:
    """Return the public key in a file, or that of the private key there."""
    found = _load(path)
    return found.public_key() if isinstance(found, Ed25519PrivateKey) else found


def _load(path: str) -> Ed25519PrivateKey | Ed25519PublicKey:
    """Return the key in a file, PEM or OpenSSH. Raises FileError and SignatureError."""
    data = read_bytes(path)
    for load in (
        lambda: serialization.load_pem_public_key(data),
        lambda: serialization.load_ssh_public_key(data),
        lambda: serialization.load_pem_private_key(data, None),
        lambda: serialization.load_ssh_private_key(data, None),
    ):
        try:
            found = load()
        except (ValueError, UnsupportedAlgorithm):
            continue
        except TypeError:
            raise SignatureError(path, "the key is encrypted: decrypt it first") from None
        if isinstance(found, Ed25519PrivateKey | Ed25519PublicKey):
            return found
        raise SignatureError(path, f"expected an Ed25519 key, got {type(found).__name__}")
    raise SignatureError(path, "no key: expected an Ed25519 key as PEM or OpenSSH writes it")
