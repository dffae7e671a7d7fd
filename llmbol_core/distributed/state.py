"""The state directory: a cluster's keys, ledger, files and logs, and the lock of who runs it.

::

    cluster.json   who runs here and where to reach the broker; gone when nobody does
    config.json    the nodes that should be up, and the policy
    lock           held by the guardian as long as it lives; the system releases it
    tls/           certificates and keys      ledger.sqlite   what was submitted
    files/         what tasks use, by hash    results/        results too large for the ledger
    logs/          one file per process       scratch/        working space of the nodes

Everything in it is for its owner only.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmbol_core.errors import ClusterError, FileError, NoCluster
from llmbol_core.native.files import atomic_write, user_folder

_PR_SET_PDEATHSIG = 1
_PARENT = "LLMBOL_PARENT"
_LOCK_ATTEMPTS, _LOCK_PAUSE = 5, 0.02


@dataclass(frozen=True, slots=True)
class Identity:
    """A process; its start time tells it from later ones with the same number."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Identity:
        """Return the identity of a running process; its start time is 0 where none is known."""
        return cls(pid, _start_time(pid))

    def is_alive(self) -> bool:
        """Return whether this very process is still running."""
        try:
            os.kill(self.pid, 0)
        except OSError:
            return False
        return _start_time(self.pid) == self.started and not _is_zombie(self.pid)

    def kill(self, signum: int) -> None:
        """Send a signal to this very process, if it is still running."""
        if self.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signum)


@dataclass(frozen=True, slots=True)
class Running:
    """What the state file says about a running cluster."""

    address: str
    """Where the broker answers, host:port."""
    guardian: Identity
    broker: Identity
    nodes: tuple[Identity, ...]
    version: str

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Running:
        """Return what ``asdict`` and JSON made of it."""
        return cls(
            str(fields["address"]),
            Identity(**fields["guardian"]),
            Identity(**fields["broker"]),
            tuple(Identity(**node) for node in fields["nodes"]),
            str(fields["version"]),
        )


@dataclass(frozen=True, slots=True)
class StateDirectory:
    """Paths in a state directory."""

    root: Path

    @classmethod
    def default(cls) -> StateDirectory:
        """Return ``$LLMBOL_STATE``, or ``llmbol`` in the user's XDG state directory.

        Raises ClusterError for a user without a home.
        """
        chosen = os.environ.get("LLMBOL_STATE") or user_folder("XDG_STATE_HOME", ".local/state")
        if chosen is None:
            raise ClusterError("no home directory to keep the cluster in: set LLMBOL_STATE")
        return cls(Path(chosen).absolute())

    @property
    def config(self) -> Path:
        """The nodes that should be up, and the policy."""
        return self.root / "config.json"

    @property
    def tls(self) -> Path:
        """Certificates and keys."""
        return self.root / "tls"

    @property
    def files(self) -> Path:
        """What tasks use, by content hash."""
        return self.root / "files"

    @property
    def ledger(self) -> Path:
        """The database of tasks."""
        return self.root / "ledger.sqlite"

    @property
    def results(self) -> Path:
        """Results too large for the ledger."""
        return self.root / "results"

    @property
    def scratch(self) -> Path:
        """Working space of the nodes."""
        return self.root / "scratch"

    def log(self, name: str) -> Path:
        """Return the log file of a process."""
        return self.root / "logs" / f"{name}.log"

    def prepare(self) -> None:
        """Make the directories, for the owner only, and check that nobody else can look in."""
        try:
            for path in (self.root, self.files, self.results, self.scratch, self.root / "logs"):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self.root.stat()
        except FileExistsError as error:
            raise FileError(str(path), "not a directory") from error
        except OSError as error:
            raise FileError.of(error, self.root) from error
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise ClusterError(
                f"{self.root}: holds the cluster's keys but is open to other users; "
                "make it yours with mode 0700 or set LLMBOL_STATE to another directory"
            )

    def open_log(self, name: str) -> int:
        """Return a descriptor that appends to a log file."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        return os.open(self.log(name), flags, 0o600)

    def log_size(self, name: str) -> int:
        """Return how many bytes a log file has."""
        try:
            return self.log(name).stat().st_size
        except OSError:
            return 0

    def log_tail(self, name: str, start: int = 0) -> str:
        """Return the last non-empty line of a log file, looking only from a byte of it on."""
        try:
            lines = self.log(name).read_bytes()[start:].decode(errors="replace").split("\n")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def write(self, running: Running) -> None:
        """Publish where the cluster can be reached."""
        write_private(self.root / "cluster.json", json.dumps(asdict(running), indent=1).encode())

    def read(self) -> Running | None:
        """Return what was published; None if nothing was, or it cannot be read."""
        try:
            return Running.from_json(json.loads((self.root / "cluster.json").read_bytes()))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def running(self) -> Running:
        """Return where the cluster can be reached; raises NoCluster if none runs here."""
        running = self.read()
        if running is None or not self.is_held():
            raise NoCluster(f"no cluster runs in {self.root}; start one with: cluster start")
        return running

    def is_here(self) -> bool:
        """Return whether the cluster runs on this machine for this user, and sees our files.

        The directory alone does not tell: other machines may share it, and a service may have a
        /tmp of its own.
        """
        running = self.read()
        if running is None or not running.guardian.is_alive():
            return False
        here, there = Path("/proc/self"), Path(f"/proc/{running.guardian.pid}")
        try:
            ours = self.root.stat().st_uid == os.geteuid()
            same = os.readlink(here / "ns/mnt") == os.readlink(there / "ns/mnt")
            return ours and same and os.path.samefile(here / "root", there / "root")
        except OSError:
            return False

    def write_remote(self, data: bytes) -> None:
        """Note that the cluster of this directory runs on another machine."""
        write_private(self.root / "remote.json", data)

    def forget_remote(self) -> None:
        """Undo ``write_remote``."""
        (self.root / "remote.json").unlink(missing_ok=True)

    def remote(self) -> str | None:
        """Return the address of the cluster on another machine, if this directory is for one."""
        try:
            return str(json.loads((self.root / "remote.json").read_bytes())["address"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def address(self) -> str:
        """Return where the broker answers; raises NoCluster if there is none."""
        return self.remote() or self.running().address

    def forget(self) -> None:
        """Undo ``write``."""
        with suppress(FileNotFoundError):
            (self.root / "cluster.json").unlink()

    def hold(self) -> int:
        """Take the lock and return its descriptor: it is held while any process has that open.

        Raises ClusterError if another cluster has it.
        """
        try:
            descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise FileError.of(error, self.root / "lock") from error
        for _ in range(_LOCK_ATTEMPTS):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError:
                # A process that only checks whether it is held also has it for a moment.
                time.sleep(_LOCK_PAUSE)
        os.close(descriptor)
        raise ClusterError(
            f"a cluster already runs in {self.root}; look at it with: cluster status"
        )

    def is_held(self) -> bool:
        """Return whether a guardian holds the lock."""
        try:
            descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def clean_up(self) -> None:
        """Remove what a crashed cluster left: its state file and any process still alive."""
        stale = self.read()
        if stale is not None:
            for process in (stale.broker, *stale.nodes):
                process.kill(signal.SIGKILL)
        self.forget()


def write_private(path: Path | str, data: bytes) -> None:
    """Write a file that nobody else may read."""
    if not os.path.exists(path):
        # What replaces a file keeps its mode.
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise FileError.of(error, path) from error
    with atomic_write(path) as file:
        file.write(data)


def as_parent() -> dict[str, str]:
    """Return environment variables for a child that is to die with this process."""
    return {_PARENT: str(os.getpid())}


def bound_to_parent() -> Callable[[], None]:
    """Return what a child runs before its program so that it dies when we do (Linux).

    A child that is stopped before its program could arrange for that itself would outlive us.
    """
    parent, libc = os.getpid(), ctypes.CDLL(None, use_errno=True)

    def bind() -> None:
        if sys.platform == "linux":
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return bind


def die_with_parent() -> None:
    """Make the system kill this process when its parent dies, in whatever way (Linux).

    The environment names the parent, which may be dead before this is called.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.environ.get(_PARENT) != str(os.getppid()):
        os.kill(os.getpid(), signal.SIGKILL)


def _stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the command's name; empty where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _start_time(pid: int) -> int:
    """Return when a process started, in clock ticks since boot."""
    fields = _stat_fields(pid)
    return int(fields[19]) if fields else 0


def _is_zombie(pid: int) -> bool:
    return _stat_fields(pid)[:1] in (["Z"], ["X"])
