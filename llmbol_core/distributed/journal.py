"""The journal: gathers what is to be recorded and commits it together.

Whoever must not continue before something is on disk waits for that here. Changes that the disk
refuses are kept and tried again; new tasks that it refuses are refused themselves. Nobody waits
forever for a full disk: after a minute a result that it has no room for is reported as a failure.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from llmbol_core.distributed.ledger import Ledger
from llmbol_core.distributed.task import TERMINAL, Change, State, TaskRecord
from llmbol_core.errors import ClusterError, LlmbolError

log = logging.getLogger("llmbol.journal")

GROUP_SECONDS = 0.002
"""How long commits are apart at least."""
BEGUN_SECONDS = 0.25
"""How long a task may run before that is recorded: most end sooner."""
AGAIN_SECONDS = 0.5
"""When to try again what the disk refused."""
GIVE_UP_SECONDS = 60.0
"""How long the disk may refuse before the ends of tasks are reported without being on it."""


class Journal:
    """Group commit over a ledger; ``on_saved`` hears of changes that are on disk."""

    def __init__(self, ledger: Ledger, on_saved: Callable[[Sequence[Change]], None]) -> None:
        self._ledger, self._on_saved = ledger, on_saved
        self._new: list[tuple[Sequence[TaskRecord], asyncio.Future[None]]] = []
        self._changes: list[Change] = []
        self._begun: dict[str, tuple[Change, float]] = {}
        """What has been running since when, by the event loop's clock."""
        self._look: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._refused_since: float | None = None
        self.unsaved: dict[str, Change] = {}
        """Ends of tasks that were reported but are not on disk."""

    @property
    def refused(self) -> bool:
        """Whether the disk refused the last write."""
        return self._refused_since is not None

    async def add(self, records: Sequence[TaskRecord]) -> None:
        """Wait until these new tasks, and everything before them, are on disk."""
        future = asyncio.get_running_loop().create_future()
        self._new.append((records, future))
        self._wake.set()
        await future

    def note(self, change: Change) -> None:
        """Take a change; the start of a task is only recorded if it does not end soon."""
        if change.state is State.RUNNING:
            self._begun[change.id] = change, asyncio.get_running_loop().time()
            self._look_later()
        else:
            self._begun.pop(change.id, None)
            self._changes.append(change)
            self._wake.set()

    async def run(self) -> None:
        """Commit whenever there is something to commit, forever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.flush()
            await asyncio.sleep(GROUP_SECONDS)

    async def flush(self) -> None:
        """Commit what there is."""
        new, self._new = self._new, []
        self._changes += self._running()
        changes, self._changes = self._changes, []
        records = [record for some, _ in new for record in some]
        try:
            postponed = await asyncio.to_thread(self._ledger.commit, records, changes)
        except LlmbolError as error:
            for _, future in new:
                if not future.done():
                    future.set_exception(error)
            self._keep(changes, error)
            return
        for _, future in new:
            if not future.done():
                future.set_result(None)
        late = {change.id for change in postponed}
        saved = [change for change in changes if change.id not in late or change.data is None]
        for change in saved:
            self.unsaved.pop(change.id, None)
        if postponed:
            self._keep(postponed, ClusterError("no space left for a result"))
        else:
            self._refused_since = None
        self._on_saved(saved)

    def _running(self) -> list[Change]:
        """Take the tasks that have run for long enough to be recorded."""
        loop = asyncio.get_running_loop()
        before = loop.time() - BEGUN_SECONDS
        if self._look is not None and self._look.when() <= loop.time():
            self._look = None
        old = [change for change, since in self._begun.values() if since <= before]
        for change in old:
            del self._begun[change.id]
        self._look_later()
        return old

    def _look_later(self) -> None:
        """Come back when the first of the running tasks has run for long enough."""
        if self._begun and self._look is None:
            since = next(iter(self._begun.values()))[1]
            loop = asyncio.get_running_loop()
            self._look = loop.call_at(since + BEGUN_SECONDS + 0.001, self._wake.set)

    def _keep(self, changes: list[Change], error: LlmbolError) -> None:
        """Keep what the disk refused for another time; give up results that it refuses too long."""
        log.error("not written, trying again: %s", error)
        loop = asyncio.get_running_loop()
        loop.call_later(AGAIN_SECONDS, self._wake.set)
        self._refused_since = self._refused_since or loop.time()
        if loop.time() - self._refused_since >= GIVE_UP_SECONDS:
            changes = [c.lost(str(error)) if c.state in TERMINAL else c for c in changes]
            self.unsaved |= {c.id: c for c in changes if c.state in TERMINAL}
            self._on_saved(changes)
        self._changes = changes + self._changes
