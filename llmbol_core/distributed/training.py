"""Training as tasks: a model, its data and a team of nodes that share each batch.

What travels is a checkpoint with the initial values, so that every member begins alike; what comes
back is the trained one, the same from every member, kept once by its content.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmbol_core.distributed.parcels import Answer, Attachment, Packed, Received
from llmbol_core.distributed.splitting import member
from llmbol_core.distributed.store import CHUNK, hash_file
from llmbol_core.distributed.task import Task
from llmbol_core.errors import UsageError
from llmbol_core.nn.checkpoint import load, save
from llmbol_core.nn.container import is_container
from llmbol_core.nn.evaluate import load_data, training_of
from llmbol_core.nn.resume import resume_path, take_up_progress, write_progress
from llmbol_core.nn.shared_trainer import Regrouped, SharedTrainer
from llmbol_core.nn.spec import read_spec
from llmbol_core.nn.train import run_to_end
from llmbol_core.nn.trainer import Trainer

if TYPE_CHECKING:
    from llmbol_core.nn.model import Model
    from llmbol_core.nn.module import Array

MOST_MEMBERS = 256
PIECE = 4 << 20
"""Bytes of an array that are added up at a time."""


@dataclass(frozen=True, slots=True)
class Start:
    """A model that is to be trained: its file, and what its training section says."""

    model: Model
    data: Path

    @classmethod
    def read(
        cls,
        source: str,
        data: str | None = None,
        changes: Mapping[str, int | None] | None = None,
        settings: tuple[str, ...] = (),
    ) -> Start:
        """Read a spec, or a checkpoint to go on with, as ``nn train`` does; check the data."""
        trained_before = is_container(source)
        if trained_before and settings:
            raise UsageError(f"{source}: of a checkpoint nothing can be set: train its spec")
        model = load(source) if trained_before else read_spec(source, settings)
        section = training_of(model)
        for name, value in (changes or {}).items():
            if value is not None:
                setattr(section, name, value)
        section.check_fields()
        if not trained_before:
            model.seeded()
        path = Path(data or model.data_path)
        load_data(model, str(path))
        return cls(model, path)

    def pack(self, members: int) -> Packed:
        """Return what travels to each of so many members."""
        with tempfile.TemporaryDirectory(prefix="llmbol-") as folder:
            path = Path(folder, "start.gguf")
            section = training_of(self.model)
            kept = self.model.path, section.data
            # Whatever folder this is in, the file is the same.
            self.model.path, section.data = "", os.path.join(folder, self.data.name)
            try:
                save(self.model, str(path))
            finally:
                self.model.path, section.data = kept
            content = path.read_bytes()
        files = (Attachment("model", "start.gguf", content),
                 Attachment("data", self.data.name, self.data))  # fmt: skip
        return Packed({"members": members}, files)

    def write(self, trained: bytes, target: str) -> None:
        """Write what came back as a checkpoint that knows where its data are."""
        with tempfile.TemporaryDirectory(prefix="llmbol-") as folder:
            path = Path(folder, "trained.gguf")
            path.write_bytes(trained)
            model = load(str(path))
        model.path = ""
        training_of(model).data = str(self.data.absolute())
        save(model, target)


def train_tasks(whole: Task, start: Start, members: int) -> list[Task]:
    """Return a task for each member of a team that trains together."""
    if not 1 <= members <= MOST_MEMBERS:
        raise UsageError(f"{members} nodes: expected between 1 and {MOST_MEMBERS}")
    packed = start.pack(members)
    return [
        replace(whole, id=member(whole.id, n), group=whole.id, payload={"packed": packed})
        for n in range(1, members + 1)
    ]


class Link:
    """A member's connection to its team, through the broker."""

    def __init__(self, received: Received, size: int) -> None:
        self._ask, self._size = received.ask, size
        self._team = received.group
        self._member = f"{received.id}/{secrets.token_hex(4)}"
        self._node = received.node
        self.rank, self.world, self._generation = 0, 1, 0

    def join(self) -> dict[str, Any]:
        """Return where to begin, when there is a place."""
        answer = self._until({"call": "join", "node": self._node})
        self._sit(answer)
        return answer

    def gather(self, epoch: int, save: Callable[[], str]) -> None:
        """Wait for the others before an epoch; save where training stands if that is our part."""
        answer = self._until({"call": "gather", "epoch": epoch})
        if "save" in answer:
            self._until({"call": "saved", "epoch": epoch, "file": save()})
            answer = self._until({"call": "gather", "epoch": epoch})
        self._sit(answer)

    def sum(self, step: int, part: int, nodes: Mapping[int, Array], like: Array) -> Array:
        """Return the sum over a tree of shares; raises Regrouped if the members are others."""
        total, flat = np.empty_like(like), {n: array.reshape(-1) for n, array in nodes.items()}
        for number, piece in enumerate(_pieces(total)):
            own = b"".join(array[piece].tobytes() for array in flat.values())
            asked = {"call": "sum", "nodes": list(flat), "dtype": like.dtype.str}
            total.reshape(-1)[piece] = self._exchange(step, f"{part}.{number}", asked, own)
        return total

    def rows(self, step: int, part: int, start: int, own: Array, total: int) -> Array:
        """Return everybody's rows in order; raises Regrouped if the members are others."""
        whole, flat = np.empty((total, *own.shape[1:]), own.dtype), own.reshape(-1)
        first = start * math.prod(own.shape[1:])
        for number, piece in enumerate(_pieces(whole)):
            at, end = (max(0, place - first) for place in (piece.start, piece.stop))
            asked = {"call": "rows", "dtype": own.dtype.str}
            data = flat[at:end].tobytes()
            whole.reshape(-1)[piece] = self._exchange(step, f"{part}.{number}", asked, data)
        return whole

    def _exchange(self, step: int, part: str, asked: dict[str, Any], own: bytes) -> Array:
        """Return what comes of everybody's bytes."""
        key = {"generation": self._generation, "step": step, "part": part}
        answer, body = self._put(asked | key, own)
        if "rank" in answer:
            self._sit(answer)
            raise Regrouped
        return np.frombuffer(body, asked["dtype"])

    def finish(self, result: dict[str, Any]) -> None:
        """Hand in the result."""
        self._until({"call": "finish", "result": result})

    def send(self, path: str) -> str:
        """Store a file at the broker; return its hash."""
        sha256, size = hash_file(Path(path))
        if not self._ask("has", {"sha256": sha256}, b"")[0]:
            owner = secrets.token_hex(8)
            with open(path, "rb") as file:
                for offset in range(0, size, CHUNK):
                    where = {"sha256": sha256, "owner": owner, "offset": offset}
                    last = {"last": offset + CHUNK >= size}
                    self._ask("put", where | last, file.read(CHUNK))
        return sha256

    def receive(self, sha256: str) -> bytes:
        """Return a file that the broker has."""
        data = bytearray()
        while piece := self._ask("fetch", {"sha256": sha256, "offset": len(data)}, b"")[1]:
            data += piece
        return bytes(data)

    def _sit(self, answer: Mapping[str, Any]) -> None:
        if "rank" in answer:
            self.rank, self.world = answer["rank"], answer["world"]
            self._generation = answer["generation"]

    def _until(self, asked: dict[str, Any]) -> dict[str, Any]:
        return self._put(asked, b"")[0]

    def _put(self, asked: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        """Ask until there is an answer."""
        who = {"team": self._team, "member": self._member, "size": self._size}
        while True:
            answer, data = self._ask("team", who | asked, body)
            if "again" not in answer:
                return answer, data


def _pieces(array: Array) -> Iterator[slice]:
    """Yield where the pieces of a flat array are that travel one by one."""
    count = PIECE // array.itemsize
    return (slice(at, at + count) for at in range(0, array.size, count))


def run_member(received: Received) -> Answer:
    """Be a member of a team: train with the others until the model is trained."""
    link = Link(received, int(received.payload["members"]))
    begin = link.join()
    if "finished" in begin:
        return Answer(json.dumps(begin["finished"]).encode())
    _, path = received.one("model")
    _, data = received.one("data")
    model = load(str(path))
    trainer = SharedTrainer(model, load_data(model, str(data)), link)
    if begin["snapshot"] is not None:
        Path(resume_path("team")).write_bytes(link.receive(begin["snapshot"]))
        take_up_progress(trainer, "team")

    def save_progress() -> str:
        write_progress(trainer, "team")
        return link.send(resume_path("team"))

    def between(trainer: Trainer) -> None:
        if not trainer.done:
            link.gather(len(trainer.history), save_progress)

    run = run_to_end(trainer, keep=between)
    save(model, "trained.gguf")
    result = {"checkpoint": link.send("trained.gguf"), "run": asdict(run.row())}
    link.finish(result)
    return Answer(json.dumps(result).encode())
