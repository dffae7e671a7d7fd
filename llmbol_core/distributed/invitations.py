"""Invitations: how machines and people elsewhere get access, for a while, and lose it again.

An invitation is a file with everything its holder needs: where the broker is, the authority to know
it by, a certificate and its key. A client's certificate is good until the invitation expires. A
node's is good for one thing only: to get a node's certificate until then. Every certificate names
its invitation, so that revoking one ends whatever came of it.

Only those who can write to the state directory can invite.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from llmbol_core.distributed.security import CERTIFICATE_DAYS, Certificates, Role, sign
from llmbol_core.distributed.state import StateDirectory, write_private
from llmbol_core.errors import ClusterError, FileError, UsageError, nearest
from llmbol_core.native.files import read_bytes

FORMAT = "llmbol-invitation"
VERSION = 1
MOST_SECONDS = CERTIFICATE_DAYS * 86400.0
_ADDRESS = re.compile(r"[\w.:-]{1,255}:[0-9]{1,5}", re.ASCII)
INVITED = {"node": Role.INVITED, "client": Role.CLIENT}
"""What one can be invited as, and the role that the invitation's certificate has."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """An invitation as the cluster remembers it; times are in seconds since 1970."""

    id: str
    role: str
    expires: float
    revoked: bool = False

    @property
    def state(self) -> str:
        """Its state: open, expired or revoked."""
        if self.revoked:
            return "revoked"
        return "open" if time.time() < self.expires else "expired"


@dataclass(frozen=True, slots=True)
class InvitationStatus:
    """An invitation, in a line."""

    id: str
    role: str
    state: str
    """open, expired or revoked."""
    seconds_left: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """What an invitation's file holds; certificates and key are PEM texts."""

    id: str
    role: str
    address: str
    """Where the broker answers, host:port."""
    expires: float
    authority: str
    certificate: str
    key: str

    @property
    def cluster(self) -> str:
        """What tells this cluster from others."""
        return hashlib.sha256(self.authority.encode()).hexdigest()[:12]

    def text(self) -> str:
        """Return the content of the file."""
        return json.dumps({"format": FORMAT, "version": VERSION, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def read(cls, path: str) -> Bundle:
        """Return what a file holds; raises UsageError if that is no invitation or out of date."""
        try:
            fields = json.loads(read_bytes(path))
            kind, version = fields.pop("format"), fields.pop("version")
            expires = float(fields.pop("expires"))
            bundle = cls(expires=expires, **{name: str(text) for name, text in fields.items()})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            kind = None
        if kind != FORMAT or bundle.role not in INVITED or not _ADDRESS.fullmatch(bundle.address):
            raise UsageError(f"{path}: no invitation: expected a file that cluster invite wrote")
        if version != VERSION:
            raise UsageError(f"{path}: an invitation of version {version!r}, expected {VERSION}")
        return bundle

    def install(self, certificates: Certificates, role: Role) -> None:
        """Write authority, certificate and key where a role's are looked for."""
        certificates.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, text in (
            (certificates.authority, self.authority),
            (certificates.key(role), self.key),
            (certificates.certificate(role), self.certificate),
        ):
            write_private(path, text.encode())


class Invitations:
    """The invitations of a cluster, in a file of its state directory."""

    def __init__(self, state: StateDirectory) -> None:
        self._state = state
        self._path = state.root / "invitations.json"
        self._seen: tuple[int, int] | None = None
        self._known: dict[str, Invitation] = {}

    def invite(self, role: str, seconds: float, address: str) -> Bundle:
        """Make an invitation to a broker's address that expires after some seconds."""
        if role not in INVITED:
            hint = nearest(role, INVITED) or f": expected one of {', '.join(INVITED)}"
            raise UsageError(f"nobody can be invited as {role!r}{hint}")
        if not 1 <= seconds <= MOST_SECONDS:
            raise UsageError(
                f"an invitation for {seconds:g} s: expected 1 s to {CERTIFICATE_DAYS} d"
            )
        expires = time.time() + seconds
        with self._writing():
            invitation = Invitation(f"{role}-{secrets.token_hex(4)}", role, expires)
            self._known[invitation.id] = invitation
        certificates = Certificates(self._state.tls)
        pem, key = sign(certificates, INVITED[role], invitation.id, seconds)
        authority = certificates.authority.read_text()
        return Bundle(invitation.id, role, address, expires, authority, pem, key)

    def revoke(self, id: str) -> None:
        """Let nobody in any more who has an invitation's certificate."""
        self._load()  # where nobody was invited there may be no folder for a lock
        if id not in self._known:
            raise UsageError(f"no invitation {id[:80]!r} is known{nearest(id, self._known)}")
        with self._writing():
            self._known[id] = replace(self._known[id], revoked=True)

    def all(self) -> list[InvitationStatus]:
        """Return all invitations, the latest last."""
        self._load()
        now = time.time()
        return [
            InvitationStatus(i.id, i.role, i.state, max(0, round(i.expires - now)))
            for i in self._known.values()
        ]

    def refusal(self, id: str | None, role: Role | None) -> str | None:
        """Return why the holder of a certificate is not let in, None if there is no reason.

        The cluster's own certificates name no invitation. A node that came in time may stay.
        """
        if id is None:
            return None
        try:
            self._load()
        except (ClusterError, FileError):
            return "the invitations cannot be read"
        invitation = self._known.get(id)
        if invitation is None:
            return f"the invitation {id} is not known"
        if invitation.revoked:
            return f"the invitation {id} was revoked"
        if role is not Role.NODE and time.time() > invitation.expires:
            return f"the invitation {id} has expired"
        return None

    def enroll(self, id: str) -> dict[str, str]:
        """Return a node's certificate and its key, for the holder of an invitation."""
        pem, key = sign(Certificates(self._state.tls), Role.NODE, id, MOST_SECONDS)
        return {"certificate": pem, "key": key}

    def _load(self) -> None:
        """Read the file if it has changed since the last time."""
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            self._known, self._seen = {}, None
            return
        except OSError as error:
            raise FileError.of(error, self._path) from error
        seen = (status.st_mtime_ns, status.st_ino)
        if seen == self._seen:
            return
        try:
            rows: list[dict[str, Any]] = json.loads(read_bytes(self._path))
            self._known = {row["id"]: Invitation(**row) for row in rows}
        except (ValueError, KeyError, TypeError) as error:
            raise ClusterError(f"{self._path}: no list of invitations: {error}") from error
        self._seen = seen

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Read, let the block change, and write back, under a lock."""
        with locked(self._path.with_suffix(".lock")):
            self._load()
            yield
            rows = [asdict(invitation) for invitation in self._known.values()]
            write_private(self._path, json.dumps(rows, indent=1).encode())


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file against other processes of this machine while the block runs."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FileError.of(error, path) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
