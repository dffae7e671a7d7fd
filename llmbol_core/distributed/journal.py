"""The journal: gathers what is to be written down and commits it together.

Whoever must not go on before something is on disk waits for it here. Changes that the disk refuses
are kept and tried again; new tasks that it refuses are refused themselves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from llmbol_core.distributed.ledger import Ledger
from llmbol_core.distributed.task import Change, State, TaskRecord
from llmbol_core.errors import LlmbolError

log = logging.getLogger("llmbol.journal")

GROUP_SECONDS = 0.002
"""How long commits are apart at least."""
AGAIN_SECONDS = 0.5
"""When to try again what the disk refused."""


class Journal:
    """Group commit over a ledger; ``on_saved`` hears of changes that are on disk."""

    def __init__(self, ledger: Ledger, on_saved: Callable[[Sequence[Change]], None]) -> None:
        self._ledger, self._on_saved = ledger, on_saved
        self._new: list[tuple[Sequence[TaskRecord], asyncio.Future[None]]] = []
        self._changes: list[Change] = []
        self._wake = asyncio.Event()

    async def add(self, records: Sequence[TaskRecord]) -> None:
        """Return when these new tasks, and all that came before, are on disk."""
        future = asyncio.get_running_loop().create_future()
        self._new.append((records, future))
        self._wake.set()
        await future

    def note(self, change: Change) -> None:
        """Take a change; that a task runs now can wait for company."""
        self._changes.append(change)
        if change.state is not State.RUNNING:
            self._wake.set()

    async def run(self) -> None:
        """Commit whenever there is something to commit, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.flush()
            await asyncio.sleep(GROUP_SECONDS)

    async def flush(self) -> None:
        """Commit what there is."""
        new, self._new = self._new, []
        changes, self._changes = self._changes, []
        records = [record for some, _ in new for record in some]
        try:
            await asyncio.to_thread(self._ledger.commit, records, changes)
        except LlmbolError as error:
            log.error("not written, trying again: %s", error)
            self._changes = changes + self._changes
            asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._wake.set)
            for _, future in new:
                if not future.done():
                    future.set_exception(error)
            return
        for _, future in new:
            if not future.done():
                future.set_result(None)
        self._on_saved(changes)
