"""What is sent with a task, and what a node is given to run one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbol_core.distributed.excerpt import Excerpt
from llmbol_core.distributed.task import FileRef

if TYPE_CHECKING:
    from llmbol_core.nn.checkpoint import InferenceModel

Ask = Callable[[str, dict[str, Any], bytes], tuple[Any, bytes]]


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file to travel with a task: its part in it, the name it has there, and its content."""

    role: str
    name: str
    content: Path | bytes | Excerpt


@dataclass(frozen=True, slots=True)
class Packed:
    """A payload ready to be sent: a form for JSON, and files."""

    payload: dict[str, Any]
    files: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True)
class Received:
    """What a job is given on a node: the payload, the files, and a cache of loaded models."""

    payload: dict[str, Any]
    files: tuple[tuple[str, str, Path], ...]
    """Role, name and path of each."""
    models: ModelCache
    ask: Ask
    """Asks the broker for something: see the table of operations."""
    id: str = ""
    """The task's own id."""
    group: str = ""
    """What the task is a part of, or its own id."""
    node: str = ""
    """Where this is."""
    excerpts: tuple[FileRef, ...] = ()
    """What lies in other files on this machine."""

    def one(self, role: str) -> tuple[str, Path]:
        """Return the name and the path of the file with a role."""
        return next((name, path) for its_role, name, path in self.files if its_role == role)

    def read(self, role: str) -> tuple[str, bytes, memoryview]:
        """Return the name of what has a role and its bytes, those of an excerpt in two parts."""
        for file in self.excerpts:
            if file.role == role and file.excerpt is not None:
                return file.name, file.excerpt.head, file.excerpt.body(file.sha256)
        name, path = self.one(role)
        return name, b"", memoryview(path.read_bytes())


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a job; an error says that the job ended, but badly."""

    data: bytes
    error: str | None = None


class ModelCache:
    """The models that a node's process has loaded, by content hash, the latest last."""

    def __init__(self, budget: int = 1 << 30) -> None:
        self._budget = budget
        self._models: dict[str, tuple[InferenceModel, int]] = {}

    @property
    def hashes(self) -> tuple[str, ...]:
        """The content hashes of the models."""
        return tuple(self._models)

    def load(self, path: Path, name: str) -> InferenceModel:
        """Return the model in a file of the store, loaded at most once while there is room.

        Errors about it use the name that its owner gave it.
        """
        from llmbol_core.ml import gguf
        from llmbol_core.native.files import map_file
        from llmbol_core.nn.checkpoint import inference_model

        held = self._models.pop(path.name, None)
        if held is None:
            data = map_file(path)
            held = inference_model(gguf.read_buffer(data, name)), len(data)
        self._models[path.name] = held
        while len(self._models) > 1 and sum(n for _, n in self._models.values()) > self._budget:
            del self._models[next(iter(self._models))]
        return held[0]
