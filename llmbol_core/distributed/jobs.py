"""The table of jobs: what a task can be, how it is packed for the journey and run on a node.

A job is named in a task, never sent as code. Its row holds the two ends: ``pack`` and ``unpack``
run where the task was created, ``run`` on the node; between them travel JSON, files by content hash
and the bytes of the result.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from llmbol_core.distributed.parcels import Answer, Attachment, Packed, Received
from llmbol_core.errors import UsageError, nearest


@dataclass(frozen=True, slots=True)
class Job:
    """A row of the table."""

    capability: str | None
    """What a node must offer, unless the task asks for something else."""
    pack: Callable[[Mapping[str, Any]], Packed]
    run: Callable[[Received], Answer]
    unpack: Callable[[bytes], Any]
    text: Callable[[bytes], bytes]
    """The result as a person sees it: what ``dis run`` or ``nn infer`` prints."""
    summary: str


def _fields(
    job: str, payload: Mapping[str, Any], required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> list[Any]:
    """Return the values of a payload's fields in order; None for an optional one not given."""
    known = (*required, *optional)
    for name in payload:
        if name not in known:
            hint = nearest(name, known) or f": expected {', '.join(known)}"
            raise UsageError(f"payload of task type {job!r} has no field {name!r}{hint}")
    for name in required:
        if name not in payload:
            raise UsageError(f"payload of task type {job!r} lacks the field {name!r}")
    return [payload.get(name) for name in known]


# run: a .dis program


def _pack_run(payload: Mapping[str, Any]) -> Packed:
    program, arguments, inputs, memory = _fields(
        "run", payload, ("program",), ("arguments", "inputs", "max_memory")
    )
    path = _path(program, "program")
    paths = [_path(name, "input") for name in inputs or ()]
    names = [_portable(str(name)) for name in paths]
    if len({*names, path.name}) <= len(names):
        raise UsageError("two of the files have the same name, which a program cannot tell apart")
    files = [Attachment("program", path.name, path)]
    files += [Attachment("input", name, path) for name, path in zip(names, paths, strict=True)]
    plain: dict[str, Any] = {"arguments": [str(word) for word in arguments or ()]}
    return Packed(plain | _limits(memory=memory), tuple(files))


def _path(name: Any, what: str) -> Path:
    """Return the path of a file that a payload names."""
    if not isinstance(name, str | os.PathLike) or str(name) in ("", ".") or "\0" in str(name):
        raise UsageError(f"{name!r} is no name of a file: expected the path of the {what}")
    return Path(name)


def _limits(**limits: Any) -> dict[str, dict[str, int]]:
    """Return the part of a payload that holds a program's limits, those that were given."""
    given = {name: n for name, n in limits.items() if n is not None}
    for name, n in given.items():
        if not isinstance(n, int) or not 0 < n < 1 << 63:
            raise UsageError(f"a limit of {n!r} for {name}: expected a whole number above 0")
    return {"limits": given} if given else {}


def _portable(path: str) -> str:
    """Return the name that a program sees: the path as given, if it leads nowhere else.

    >>> _portable("data/x.npy"), _portable("/tmp/x.npy"), _portable("../x.npy")
    ('data/x.npy', 'x.npy', 'x.npy')
    """
    pure = PurePosixPath(path)
    return pure.name if pure.is_absolute() or ".." in pure.parts else str(pure)


def _run(received: Received) -> Answer:
    """Run the program in the current directory, which is the task's own."""
    from llmbol_core import deploy

    inputs = [name for role, name, _ in received.files if role == "input"]
    program, _ = received.one("program")
    for _, name, path in received.files:
        if (parent := os.path.dirname(name)) != "":
            os.makedirs(parent, exist_ok=True)
        _share(path, name)
    arguments = [*received.payload["arguments"], *inputs]
    limits = deploy.Limits(**received.payload.get("limits", {}))
    result = deploy.run_file(program, arguments, inputs, limits)
    if result.status == 0:
        return Answer(result.stdout)
    words = result.stderr.decode(errors="replace").strip()
    return Answer(result.stdout, words or f"ended with status {result.status}")


def _share(path: Path, name: str) -> None:
    """Give a stored file another name without copying it, if the file system can."""
    try:
        os.link(path, name)
    except OSError:
        os.symlink(path, name)


# inference: a model on an array


def _pack_inference(payload: Mapping[str, Any]) -> Packed:
    model, inputs = _fields("inference", payload, ("model", "input"))
    path = _path(model, "model")
    if isinstance(inputs, Attachment):
        x = inputs
    elif isinstance(inputs, str | os.PathLike):
        x = Attachment("input", Path(inputs).name, _path(inputs, "input"))
    else:
        from llmbol_core.distributed.arrays import array_bytes

        x = Attachment("input", "input.npy", array_bytes(inputs))
    return Packed({}, (Attachment("model", path.name, path), x))


def _infer(received: Received) -> Answer:
    from llmbol_core.distributed.arrays import outputs

    name, path = received.one("model")
    model = received.models.load(path, name)
    return Answer(outputs(model, *received.read("input")))


def _unpack_inference(data: bytes) -> Any:
    from llmbol_core.distributed.arrays import array_of

    return array_of(data)


def _inference_text(data: bytes) -> bytes:
    from llmbol_core.ml.text import format_rows

    return _with_newline(format_rows(_unpack_inference(data)).encode())


def _with_newline(text: bytes) -> bytes:
    return text if text.endswith(b"\n") else text + b"\n"


# execute: a function of a module


def _pack_execute(payload: Mapping[str, Any]) -> Packed:
    module, entry, args, memory, threads = _fields(
        "execute", payload, ("module", "entry", "args"), ("max_memory", "max_threads")
    )
    content = bytes(module) if isinstance(module, bytes | bytearray | memoryview) else Path(module)
    try:
        plain = json.loads(_encode(list(args)))
    except TypeError as error:
        raise UsageError(f"arguments for a cluster: {error}") from error
    limits = _limits(max_memory=memory, max_threads=threads)
    return Packed(
        {"entry": str(entry), "args": plain, **limits},
        (Attachment("module", "module.dis", content),),
    )


def _execute(received: Received) -> Answer:
    from llmbol_core import deploy

    _, path = received.one("module")
    args = _decode(json.dumps(received.payload["args"]).encode())
    with deploy.create_vm(**received.payload.get("limits", {})) as vm:
        vm.load_module("module", path)
        return Answer(_encode(vm.execute("module", received.payload["entry"], args)))


_TAG = "base64"


def _encode(value: Any) -> bytes:
    """Return a value as JSON, with bytes as ``{"base64": text}``.

    >>> _decode(_encode([1, "a", b"b"]))
    [1, 'a', b'b']
    """

    def tagged(thing: Any) -> dict[str, str]:
        if isinstance(thing, bytes | bytearray | memoryview):
            return {_TAG: base64.b64encode(thing).decode()}
        name = type(thing).__name__
        raise TypeError(f"what is of type {name!r} cannot travel: expected numbers, text or bytes")

    return json.dumps(value, default=tagged).encode()


def _decode(data: bytes) -> Any:
    """Return the value that ``_encode`` wrote; tuples come back as lists."""

    def untagged(fields: dict[str, Any]) -> Any:
        return base64.b64decode(fields[_TAG]) if fields.keys() == {_TAG} else fields

    return json.loads(data, object_hook=untagged)


# train: a member of a team


def _pack_train(payload: Mapping[str, Any]) -> Packed:
    from llmbol_core.distributed.training import Start

    prepared = payload.get("packed")
    if isinstance(prepared, Packed):
        return prepared
    spec, data = _fields("train", payload, ("spec",), ("data",))
    path = _path(spec, "spec")
    return Start.read(str(path), None if data is None else str(_path(data, "data"))).pack(1)


def _train(received: Received) -> Answer:
    from llmbol_core.distributed.training import run_member

    return run_member(received)


def _run_text(data: bytes) -> bytes:
    return json.dumps(json.loads(data)["run"]).encode() + b"\n"


# probe: nothing but the journey


def _pack_probe(payload: Mapping[str, Any]) -> Packed:
    echo, seconds = _fields("probe", payload, (), ("echo", "seconds"))
    return Packed({"echo": echo, "seconds": float(seconds or 0)})


def _probe(received: Received) -> Answer:
    time.sleep(received.payload["seconds"])
    return Answer(json.dumps(received.payload["echo"]).encode())


# fmt: off
JOBS: dict[str, Job] = {
    # type            capability   pack             run       unpack             text
    "run":       Job(None,         _pack_run,       _run,     bytes,             bytes,
                     "run a .dis program in its sandbox; the result is what it prints"),
    "inference": Job("inference",  _pack_inference, _infer,   _unpack_inference, _inference_text,
                     "run a model on an array; the result is the array of outputs"),
    "execute":   Job(None,         _pack_execute,   _execute, _decode,           _with_newline,
                     "call a function of a .dis module; the result is what it returns"),
    "train":     Job("training",  _pack_train,     _train,    json.loads,        _run_text,
                     "train a model together with the other members of its group"),
    "probe":     Job(None,         _pack_probe,     _probe,   json.loads,        _with_newline,
                     "return what was sent, after some seconds: measures the journey"),
}
# fmt: on


def job(type: str) -> Job:
    """Return the row of a task type; raises UsageError saying which there are."""
    try:
        return JOBS[type]
    except KeyError:
        hint = nearest(type, JOBS) or f": expected one of {', '.join(JOBS)}"
        raise UsageError(f"unknown task type {type!r}{hint}") from None
