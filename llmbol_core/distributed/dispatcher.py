"""The dispatcher: the queue, the nodes and who works on what, without I/O, clock or chance.

Its methods are told what happened and when, and return what is to be done: ``Launch`` tasks on a
node, ``Replace`` a node's process, ``Save`` the state of a task. The broker carries that out.

A node's process runs one task at a time; to end a task early its process is ended. Whatever
else the node had goes back to the queue.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator

from llmbol_core.distributed.actions import Action, Launch, NodeRecord, Replace, Save
from llmbol_core.distributed.node import ComputeNode
from llmbol_core.distributed.strategies import DEFAULT, Candidate, Need, choose
from llmbol_core.distributed.task import (
    TERMINAL,
    Content,
    Event,
    Outcome,
    State,
    TaskRecord,
    Verdict,
    backoff,
)

PREFETCH_BELOW = 0.5
"""Tasks shorter than this, in seconds, wait at the node, so that it is never idle between two."""
BATCH_BELOW = 0.02
"""Tasks shorter than this, in seconds, travel together ..."""
BATCH_SECONDS = 0.05
"""... as many as take this long together ..."""
BATCH_TASKS = 64
"""... but no more than this."""


Kind = tuple[str, str]
"""Tasks of one kind take about as long: their type, and the content of their program or model."""
KINDS = 10_000
"""How many kinds are remembered."""


class Dispatcher:
    """Places tasks on nodes and follows them to their end.

    ``draw`` returns random numbers, 0 <= x < 1, for the random strategy and to spread retries.
    """

    def __init__(
        self, draw: Callable[[], float], strategy: str = DEFAULT, max_retries: int = 3
    ) -> None:
        self.nodes: dict[str, NodeRecord] = {}
        self.tasks: dict[str, TaskRecord] = {}
        """The tasks that have not ended."""
        self.retries = 0
        self.paused_until = 0.0
        """Until when no more tasks are sent to nodes."""
        self._draw, self._strategy, self._max_retries = draw, strategy, max_retries
        self._ready: dict[str | None, list[tuple[int, int, TaskRecord]]] = {}
        self._delayed: list[tuple[float, int, TaskRecord]] = []
        self._seconds: dict[Kind, float] = {}
        self._last = ""
        self._launched = 0

    def submit(self, record: TaskRecord) -> None:
        """Take a task into the queue."""
        self.tasks[record.task.id] = record
        self._queue(record)

    def node_up(self, node: ComputeNode, *, cordoned: bool = False) -> None:
        """Put a node into service; an older one of the same name is forgotten."""
        capabilities = frozenset(node.capabilities)
        self.nodes[node.name] = NodeRecord(node.name, capabilities, cordoned=cordoned)

    def node_lost(self, name: str, now: float) -> list[Action]:
        """Put the tasks of a dead node back into the queue."""
        node = self.nodes.pop(name, None)
        if node is None:
            return []
        actions: list[Action] = []
        for position, launch in enumerate(node.launches.values()):
            # Those after the first had not begun: they are not to blame for the node's death.
            blamed = position < node.slots
            actions += self._return(launch, f"node {name} was lost", now, blamed=blamed)
        return actions

    def ended(self, key: str, outcomes: Iterable[Outcome], now: float) -> list[Action]:
        """Record the outcomes of a launch; those of one that was given up are ignored."""
        launch = self._take(key)
        if launch is None:
            return []
        node = self.nodes[launch.node]
        if not node.launches:
            node.occupied += now - node.since
        actions: list[Action] = []
        for record, outcome in zip(launch.records, outcomes, strict=True):
            node.worked += outcome.seconds
            if record.state is not State.RUNNING:
                continue
            self._learn(_kind(record), outcome.seconds)
            if outcome.verdict is Verdict.DONE:
                node.done += 1
                actions.append(self._finish(record, Event.FINISH, now, None, outcome.data))
            elif outcome.verdict is Verdict.FAILED:
                node.failed += 1
                actions.append(self._finish(record, Event.FAIL, now, outcome.error, outcome.data))
            else:
                node.failed += 1
                actions.append(self._retry(record, outcome.error or "unknown error", now))
        return actions

    def broken(self, key: str, why: str, now: float) -> list[Action]:
        """Handle a launch that ended without outcomes although its node is alive."""
        launch = self._take(key)
        return [] if launch is None else self._return(launch, why, now, blamed=True)

    def cancel(self, id: str, now: float) -> list[Action]:
        """End a task that is no longer wanted; if it is running, its node is replaced."""
        record = self.tasks.get(id)
        if record is None:
            return []
        actions: list[Action] = [self._finish(record, Event.CANCEL, now, "cancelled")]
        launch = self._launch_of(record)
        if launch is not None and len(launch.records) == 1:
            actions += self._replace(launch.node, f"task {id} was cancelled", now)
        return actions

    def expire(self, now: float) -> list[Action]:
        """End tasks that have taken too long."""
        actions: list[Action] = []
        for launch in [launch for node in self.nodes.values() for launch in node.launches.values()]:
            deadline = launch.deadline
            if deadline is None or deadline > now or launch.key not in self._launches(launch.node):
                continue
            record = launch.records[0]
            why = f"took longer than {record.task.timeout:g} s"
            actions.append(self._retry(record, why, now))
            actions += self._replace(launch.node, f"task {record.task.id} {why}", now)
        return actions

    def replace(self, name: str, why: str, now: float) -> list[Action]:
        """Give up a node that hangs."""
        for launch in list(self._launches(name).values())[:1]:
            if len(launch.records) > 1:
                break
            launch.records[0].alone = True
        return self._replace(name, why, now)

    def place(self, now: float) -> list[Action]:
        """Send as many tasks to nodes as there is room for."""
        while self._delayed and self._delayed[0][0] <= now:
            record = heapq.heappop(self._delayed)[2]
            if record.state is State.QUEUED:
                self._push(record)
        actions: list[Action] = []
        while now >= self.paused_until and (launch := self._place_one(now)) is not None:
            actions.append(launch)
            actions += [Save(record.change()) for record in launch.records]
        return actions

    def next_time(self) -> float | None:
        """Return when ``expire`` or ``place`` has something to do even if nothing happens."""
        times = [time for time, _, record in self._delayed[:1]]
        times += [self.paused_until] if self._ready and self.paused_until else []
        for node in self.nodes.values():
            times += [d for launch in node.launches.values() if (d := launch.deadline) is not None]
        return min(times, default=None)

    def overhead(self, now: float) -> float:
        """Return the share of their busy time that nodes did not spend on the tasks themselves."""
        nodes = self.nodes.values()
        occupied = sum(n.occupied + (now - n.since if n.launches else 0) for n in nodes if n.worked)
        worked = sum(node.worked for node in nodes)
        return max(0.0, 1 - worked / occupied) if occupied else 0.0

    # Queue

    def _queue(self, record: TaskRecord) -> None:
        if record.not_before is not None:
            heapq.heappush(self._delayed, (record.not_before, record.seq, record))
        else:
            self._push(record)

    def _push(self, record: TaskRecord) -> None:
        heap = self._ready.setdefault(record.task.capability, [])
        heapq.heappush(heap, (-record.task.priority, record.seq, record))

    def _heads(self) -> list[tuple[int, int, TaskRecord]]:
        """Return the first task of each queue, ordered among themselves; drop those that ended."""
        for capability, heap in list(self._ready.items()):
            while heap and heap[0][2].state is not State.QUEUED:
                heapq.heappop(heap)
            if not heap:
                del self._ready[capability]
        return sorted(heap[0] for heap in self._ready.values())

    def _place_one(self, now: float) -> Launch | None:
        for _, _, record in self._heads():
            candidates = list(self._candidates(record))
            if candidates:
                return self._launch(record, candidates, now)
        return None

    def _candidates(self, record: TaskRecord) -> Iterator[Candidate]:
        """Yield the nodes that answer, offer what the task needs and have room for it."""
        ahead = self._expected(record) < PREFETCH_BELOW and record.task.timeout is None
        for node in self.nodes.values():
            room = node.slots * (2 if ahead else 1)
            if (
                node.usable
                and not node.leaving
                and not node.cordoned
                and len(node.launches) < room
                and record.task.capability in (None, *node.capabilities)
            ):
                yield Candidate(
                    node.name, node.slots, node.running, node.capabilities, node.cached, node.cpu,
                    node.done,
                )  # fmt: skip

    def _launch(self, first: TaskRecord, candidates: list[Candidate], now: float) -> Launch:
        task = first.task
        files = frozenset(file.sha256 for file in task.files)
        need = Need(task.capability, files, self._last, self._draw())
        name = choose(task.strategy or self._strategy, candidates, need).name
        self._last = name
        self._launched += 1
        launch = Launch(f"{task.id}/{self._launched}", name, tuple(self._batch(first)), now)
        for record in launch.records:
            record.apply(Event.LAUNCH, now)
            record.node = name
        node = self.nodes[name]
        if not node.launches:
            node.since = now
        node.launches[launch.key] = launch
        return launch

    def _batch(self, first: TaskRecord) -> list[TaskRecord]:
        """Take a task from its queue, with those after it that may travel with it."""
        heap = self._ready[first.task.capability]
        heapq.heappop(heap)
        batch, expected = [first], self._expected(first)
        if first.alone or first.task.timeout is not None or expected >= BATCH_BELOW:
            return batch
        share = 1 + len(heap) // max(1, sum(node.slots for node in self.nodes.values()))
        limit = min(BATCH_TASKS, share, int(BATCH_SECONDS / max(expected, 1e-4)))
        while heap and len(batch) < limit:
            record = heap[0][2]
            if record.state is State.QUEUED:
                if not _same_kind(first, record):
                    break
                batch.append(record)
            heapq.heappop(heap)
        return batch

    def _expected(self, record: TaskRecord) -> float:
        """Return how many seconds such tasks took lately; long if none has run yet."""
        return self._seconds.get(_kind(record), 60.0)

    def _learn(self, kind: Kind, seconds: float) -> None:
        old = self._seconds.pop(kind, None)
        self._seconds[kind] = seconds if old is None else 0.8 * old + 0.2 * seconds
        if len(self._seconds) > KINDS:
            del self._seconds[next(iter(self._seconds))]

    # Ends

    def _launches(self, name: str) -> dict[str, Launch]:
        return self.nodes[name].launches if name in self.nodes else {}

    def _launch_of(self, record: TaskRecord) -> Launch | None:
        launches = self._launches(record.node or "").values()
        return next((launch for launch in launches if record in launch.records), None)

    def _take(self, key: str) -> Launch | None:
        for node in self.nodes.values():
            if key in node.launches:
                return node.launches.pop(key)
        return None

    def _replace(self, name: str, why: str, now: float) -> list[Action]:
        """End a node's process; its tasks go back to the queue."""
        node = self.nodes.get(name)
        if node is None or node.leaving:
            return []
        node.leaving = True
        actions: list[Action] = [Replace(name, why)]
        for launch in node.launches.values():
            actions += self._return(launch, why, now, blamed=False)
        node.launches.clear()
        return actions

    def _return(self, launch: Launch, why: str, now: float, *, blamed: bool) -> list[Action]:
        """Put tasks back into the queue; a blamed one that was alone has used up an attempt."""
        running = [record for record in launch.records if record.state is State.RUNNING]
        actions: list[Action] = []
        for record in running:
            if blamed and len(launch.records) == 1:
                actions.append(self._retry(record, why, now))
                continue
            record.alone = record.alone or blamed
            record.apply(Event.INTERRUPT, now)
            self._queue(record)
            actions.append(Save(record.change()))
        return actions

    def _retry(self, record: TaskRecord, why: str, now: float) -> Save:
        limit = record.task.max_retries
        if record.attempts >= (self._max_retries if limit is None else limit):
            return self._finish(record, Event.FAIL, now, why)
        record.apply(Event.RETRY, now, why)
        record.not_before = now + backoff(record.attempts, self._draw())
        self.retries += 1
        self._queue(record)
        return Save(record.change())

    def _finish(
        self, record: TaskRecord, event: Event, now: float, error: str | None, data: Content = b""
    ) -> Save:
        record.apply(event, now, error)
        assert record.state in TERMINAL
        del self.tasks[record.task.id]
        return Save(record.change(data))


def _same_kind(first: TaskRecord, other: TaskRecord) -> bool:
    """Return whether two tasks of one queue may travel together."""
    a, b = first.task, other.task
    same = _kind(first) == _kind(other) and a.priority == b.priority
    return same and b.timeout is None and not other.alone


def _kind(record: TaskRecord) -> Kind:
    files = record.task.files
    return record.task.type, files[0].sha256 if files else ""
