"""The coach: keeps the broker's teams, wakes members that wait, records how far they are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbol_core.distributed.state import write_private
from llmbol_core.distributed.task import check_id
from llmbol_core.distributed.teams import Team
from llmbol_core.errors import FileError, UsageError

if TYPE_CHECKING:
    from llmbol_core.distributed.broker import Broker

Answer = tuple[Any, bytes]
Brought = tuple[list[int], bytes]
"""Some nodes of a tree of sums, and their arrays, one after the other."""
HOLD_SECONDS = 10.0
"""How long a member is kept waiting before it has to ask again."""
LOOK_SECONDS = 0.25


class Coach:
    """Answers the members of teams; see ``Team`` for what they ask."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._folder = broker.state.root / "teams"
        self._teams: dict[str, Team] = {}
        self._changed = asyncio.Event()

    async def answer(self, asked: Mapping[str, Any], body: bytes) -> Answer:
        """Answer a member, which may have to wait for the others."""
        name, member = check_id(asked["team"]), str(asked["member"])
        team = self._team(name, int(asked["size"]))
        before = (team.snapshot, team.finished)
        ask = self._question(team, member, asked, body)
        deadline = asyncio.get_running_loop().time() + HOLD_SECONDS
        answer = ask()
        self._wake()
        while answer is None and asyncio.get_running_loop().time() < deadline:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._changed.wait()
            answer = ask()
        if (team.snapshot, team.finished) != before:
            await asyncio.to_thread(self._write, name, team)
            if before[0] is not None:
                await asyncio.to_thread(self._broker.store.remove, before[0])
        if isinstance(answer, bytes):
            return {}, answer
        return {"again": True} if answer is None else answer, b""

    def node_lost(self, node: str) -> None:
        """Tell teams that a node is gone."""
        self._lost(lambda member, its_node: its_node == node)

    def task_ended(self, id: str) -> None:
        """Tell teams that an attempt at a task is over."""
        self._lost(lambda member, node: member.partition("/")[0] == id)

    def prune(self, known: Callable[[str], object]) -> set[str]:
        """Forget teams that have no tasks any more; return the files that the others need."""
        needed = set()
        for path in self._folder.glob("*.json"):
            if known(path.stem):
                team = self._read(path)
                finished = team.get("finished") or {}
                needed |= {str(team.get("snapshot")), str(finished.get("checkpoint"))}
            else:
                path.unlink(missing_ok=True)
                self._teams.pop(path.stem, None)
        return needed

    def _question(
        self, team: Team, member: str, asked: Mapping[str, Any], body: bytes
    ) -> Callable[[], Any]:
        """Return a function that answers a member's question, None until it can."""
        now = self._broker.now
        match asked["call"]:
            case "join":
                node = str(asked["node"])
                return lambda: team.join(member, node, now())
            case "gather":
                epoch = int(asked["epoch"])
                return lambda: team.gather(member, epoch, now())
            case "saved":
                team.saved(member, int(asked["epoch"]), str(asked["file"]), now())
            case "sum" | "rows" as call:
                key = (int(asked["step"]), str(asked["part"]))
                generation, kind = int(asked["generation"]), str(asked["dtype"])
                nodes = [int(node) for node in asked["nodes"]] if call == "sum" else []
                own = (nodes, body)
                add = partial(_add, kind) if call == "sum" else _join
                return lambda: team.sum(member, generation, key, own, add)
            case "finish":
                result = dict(asked["result"])
                team.finish({"checkpoint": str(result["checkpoint"]), "run": result["run"]})
            case "leave":
                self._lost(lambda other, node: other == member)
            case other:
                raise UsageError(f"unknown question {other!r} of a team's member")
        return dict

    def _team(self, name: str, size: int) -> Team:
        if name not in self._teams:
            known = self._read(self._folder / f"{name}.json")
            self._teams[name] = Team(size, known.get("snapshot"), known.get("finished"))
        return self._teams[name]

    def _lost(self, gone: Callable[[str, str], bool]) -> None:
        for team in self._teams.values():
            if team.lost(gone):
                self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            known = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    def _write(self, name: str, team: Team) -> None:
        fields = {"snapshot": team.snapshot, "finished": team.finished}
        # Without room for it, more is repeated after a crash, but nothing is lost.
        with suppress(FileError, OSError):
            self._folder.mkdir(mode=0o700, exist_ok=True)
            write_private(self._folder / f"{name}.json", json.dumps(fields).encode())


def _add(kind: str, brought: list[Brought]) -> bytes:
    """Return the sum over a tree, of which each member has brought the sums at some nodes."""
    import numpy as np

    from llmbol_core.nn.sharing import add_up

    if kind not in ("<f4", "<f8"):
        raise UsageError(f"arrays of {kind!r} that cannot be added")
    known: dict[int, Any] = {}
    for nodes, data in brought:
        if nodes:
            arrays = np.frombuffer(data, kind).reshape(len(nodes), -1)
            known |= dict(zip(nodes, arrays, strict=True))
    known = add_up(known)
    if known.keys() != {1}:
        raise UsageError(f"sums at the nodes {sorted(known)} that do not fit together")
    return bytes(known[1].tobytes())


def _join(brought: list[Brought]) -> bytes:
    """Return the bytes of all in order."""
    return b"".join(data for _, data in brought)
