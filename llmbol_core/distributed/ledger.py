"""The ledger: what was submitted and what became of it, on disk before anybody is told.

One SQLite database in write-ahead mode with full synchronization. A task's end is written once:
whatever is reported later about a task that has ended changes nothing.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbol_core.distributed.results import INLINE, Results
from llmbol_core.distributed.task import TERMINAL, Change, State, Task, TaskRecord
from llmbol_core.errors import ClusterError, FileError

# A result that is NULL is in a file.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS task(
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, task TEXT NOT NULL,
    state TEXT NOT NULL, attempts INTEGER NOT NULL, interruptions INTEGER NOT NULL, node TEXT,
    submitted REAL NOT NULL, started REAL, finished REAL, not_before REAL,
    error TEXT, data BLOB);
CREATE INDEX IF NOT EXISTS task_state ON task(state, seq);
CREATE TABLE IF NOT EXISTS member(seq INTEGER PRIMARY KEY, team TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS member_team ON member(team, seq);
"""
_NO_ROOM = {os.strerror(number).lower() for number in (errno.ENOSPC, errno.EDQUOT)}
_ENDED = "('" + "','".join(sorted(TERMINAL)) + "')"
_INSERT = """
INSERT INTO task(seq, id, task, state, attempts, interruptions, submitted, data)
VALUES(?, ?, ?, ?, 0, 0, ?, x'')"""
_UPDATE = f"""
UPDATE task SET state = ?, attempts = ?, interruptions = ?, node = coalesce(?, node), started = ?,
finished = ?, not_before = ?, error = ?, data = ? WHERE id = ? AND state NOT IN {_ENDED}"""
_COLUMNS = """id, json_extract(task, '$.type'), state, json_extract(task, '$.priority'), attempts,
interruptions, node, submitted, started, finished, error"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One task as the ledger knows it; times are in seconds since 1970."""

    id: str
    type: str
    state: str
    priority: int
    attempts: int
    """Attempts that failed."""
    interruptions: int
    """Attempts that went away with their node or broker."""
    node: str | None
    submitted: float
    started: float | None
    finished: float | None
    error: str | None

    def to_json(self) -> dict[str, Any]:
        """Return it in a form for JSON; ``asdict`` would copy everything, which takes long."""
        return {name: getattr(self, name) for name in self.__slots__}


class Ledger:
    """Durable records of tasks; any thread may write, and one at a time may read."""

    def __init__(self, path: Path, results: Path) -> None:
        self._path, self.results = path, Results(results)
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA busy_timeout=5000")
            self._db.executescript(_SCHEMA)
            # Readers do not wait for the disk while the writer does.
            self._reads = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise ClusterError(
                f"{path}: the ledger cannot be opened: {error}; "
                "move it away to start with an empty one"
            ) from error
        self._seq = int(self._select("SELECT coalesce(max(seq), 0) FROM task")[0][0])

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._reads.close()
            self._db.close()

    def next_seq(self) -> int:
        """Return the number of the next task, one more than the last."""
        self._seq += 1
        return self._seq

    def commit(self, new: Sequence[TaskRecord], changes: Iterable[Change]) -> list[Change]:
        """Write new tasks and changes in one transaction; on disk when this returns.

        Raises ClusterError, with nothing written, if the disk does not take it. Returns the changes
        with large results for which alone there is no room now; one that cannot be written for
        another reason is a failure of its task.
        """
        inserts = [_row(record) for record in new]
        members = [(r.seq, r.task.group) for r in new if r.task.group is not None]
        updates, postponed = [], []
        for change in changes:
            try:
                updates.append(self._update(change))
            except FileError:
                postponed.append(change)
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany(_INSERT, inserts)
                self._db.executemany("INSERT INTO member VALUES(?, ?)", members)
                self._db.executemany(_UPDATE, updates)
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise ClusterError(f"the ledger cannot be written: {error}") from error
        return postponed

    def recover(self) -> list[TaskRecord]:
        """Return the tasks that have not ended, in order; running ones count as interrupted."""
        self.results.sweep()
        with self._lock, self._readable(), closing(self._db.cursor()) as cursor:
            cursor.execute(
                "UPDATE task SET state = ?, interruptions = interruptions + 1 WHERE state = ?",
                (State.QUEUED, State.RUNNING),
            )
            rows = cursor.execute(
                "SELECT seq, task, submitted, attempts, interruptions, not_before, error"
                " FROM task WHERE state = ? ORDER BY seq",
                (State.QUEUED,),
            ).fetchall()
        with self._readable():
            return [
                TaskRecord(
                    Task.from_json(json.loads(task)), seq, submitted, State.QUEUED, attempts,
                    interruptions, not_before=not_before, error=error,
                )
                for seq, task, submitted, attempts, interruptions, not_before, error in rows
            ]  # fmt: skip

    def prune(self, before: float) -> list[str]:
        """Forget the tasks that ended before a time, results and all; return their ids."""
        condition = f"state IN {_ENDED} AND finished < ?"
        with self._lock, self._readable():
            rows = self._db.execute(
                f"SELECT id, data IS NULL FROM task WHERE {condition}", [before]
            )
            gone = rows.fetchall()
            self._db.execute(f"DELETE FROM task WHERE {condition}", [before])
            self._db.execute("DELETE FROM member WHERE seq NOT IN (SELECT seq FROM task)")
        for id, in_file in gone:
            if in_file:
                self.results.remove(id)
        return [str(id) for id, _ in gone]

    def hashes(self) -> set[str]:
        """Return the content hashes of the files that tasks in the ledger use."""
        with self._lock, self._readable():
            tasks = self._db.execute("SELECT task FROM task").fetchall()
            return {str(file[2]) for (task,) in tasks for file in json.loads(task)["files"]}

    def task(self, id: str) -> Task | None:
        """Return what was submitted under an id."""
        rows = self._select("SELECT task FROM task WHERE id = ?", id)
        return Task.from_json(json.loads(rows[0][0])) if rows else None

    def entry(self, id: str) -> Entry | None:
        """Return the state of a task."""
        return self.find([id]).get(id)

    def find(self, ids: Sequence[str]) -> dict[str, Entry]:
        """Return the state of those tasks that are known, by id."""
        condition = "id IN (SELECT value FROM json_each(?))"
        rows = self._select(f"SELECT {_COLUMNS} FROM task WHERE {condition}", json.dumps(ids))
        return {row[0]: Entry(*row) for row in rows}

    def members(self, group: str) -> list[str]:
        """Return the ids of the tasks of a group, in order."""
        query = "SELECT id FROM member JOIN task USING(seq) WHERE team = ? ORDER BY seq"
        return [str(id) for (id,) in self._select(query, group)]

    def entries(self, limit: int) -> list[Entry]:
        """Return the latest tasks, the last one first."""
        rows = self._select(f"SELECT {_COLUMNS} FROM task ORDER BY seq DESC LIMIT ?", limit)
        return [Entry(*row) for row in rows]

    def counts(self) -> dict[str, int]:
        """Return how many tasks there are in each state."""
        counts = dict(self._select("SELECT state, count(*) FROM task GROUP BY state"))
        return {state.value: int(counts.get(state, 0)) for state in State}

    def data(self, id: str) -> bytes | Path:
        """Return the result of a task that has ended, or the file that holds it."""
        rows = self._select("SELECT data FROM task WHERE id = ?", id)
        if not rows:
            return b""
        return self.results.path(id) if rows[0][0] is None else bytes(rows[0][0])

    def _select(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        with self._readable():
            return self._reads.execute(query, parameters).fetchall()

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Turn whatever is wrong with the database's content into one error."""
        try:
            yield
        except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
            raise ClusterError(
                f"{self._path}: the ledger is damaged: {error}; "
                "move it away to start with an empty one"
            ) from error

    def _update(self, change: Change) -> tuple[Any, ...]:
        """Return the parameters of an update; a large result is on disk before them."""
        content, data = change.data or b"", None
        if isinstance(content, bytes) and len(content) <= INLINE:
            data = content
        else:
            try:
                self.results.put(change.id, content)
            except FileError as error:
                if error.why in _NO_ROOM:
                    raise
                change, data = change.lost(str(error)), b""
        return (
            change.state, change.attempts, change.interruptions, change.node, change.started,
            change.finished, change.not_before, change.error, data, change.id,
        )  # fmt: skip


_encode = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode


def _row(record: TaskRecord) -> tuple[Any, ...]:
    text = _encode(record.task.to_json())
    return record.seq, record.task.id, text, record.state, record.submitted
