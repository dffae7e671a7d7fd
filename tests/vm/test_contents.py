"""What files contain, and what they load."""

from __future__ import annotations

import numpy as np
import pytest

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.builtins.types import type_of
from llmbol_core.deploy.contents import list_contents
from llmbol_core.errors import FileError
from llmbol_core.ml import gguf
from llmbol_core.ml.tensor import Tensor
from llmbol_core.vm import payload
from llmbol_core.vm.contents import measure
from llmbol_core.vm.dependencies import dependencies, loads
from llmbol_core.vm.objectfile import read_module, write_module
from tests.vm.objects import DATA_DIRECTORY
from tests.vm.programs import assemble

FILES = sorted(DATA_DIRECTORY.rglob("*.dis"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_sections_add_up_to_the_file(path):
    data = path.read_bytes()
    found = measure(data, str(path))
    assert sum(row.bytes for row in found.sections) == found.file_bytes == len(data)
    items = {row.section: row.items for row in found.sections}
    module = read_module(data)
    assert items["code"] == len(module.instructions)
    assert items["exports"] == len(module.exports)
    assert (found.module, found.data_size) == (module.name, module.data_size)


def test_payload_padding_and_trailing_bytes_are_told_apart():
    module = write_module(assemble("ret", 'source "test.b"'))
    file = b"".join(payload.attach(module, b"GGUF and so on"))
    rows = {row.section: row.bytes for row in measure(file, "m.dis").sections}
    assert rows["payload"] == 14
    assert rows["padding"] == payload.ALIGNMENT - len(module) + payload.TRAILER_SIZE
    assert sum(rows.values()) == len(file)
    rows = {row.section: row.bytes for row in measure(module + b"\0rest", "m.dis").sections}
    assert rows["trailing bytes"] > 0


def test_contents_name_types_where_they_are_known():
    path = DATA_DIRECTORY / "exceptions_user.dis"
    found = list_contents(path.read_bytes(), str(path))
    assert found.exports[0].limbo == "fn(nil: ref Draw->Context, argv: list of string)"
    imports = {(row.module, row.function): row.limbo for row in found.imports}
    assert imports["$Sys", "print"] == "fn(s: string, *): int"
    assert found.types[9].pointers == (32, 40, 44)
    assert {row.value for row in found.data} >= {"'$Sys'", "0 10 2147483647"}
    assert [row.exception for row in found.handlers] == [
        *(f"ExceptionsUser.0.{name}" for name in ("Empty", "Overflow", "Parse", "Empty", "Parse")),
        "ExceptionsUser.0.Empty", "'fail:*'", "ExceptionsUser.0.Parse", "'*'",
    ]  # fmt: skip
    assert (found.payload, found.tensors) == (None, ())


def test_a_payload_in_gguf_shows_its_tensors(tmp_path):
    gguf.write(tmp_path / "w.gguf", {}, {"w": Tensor.of(np.zeros((2, 3), np.float32))})
    carried = (tmp_path / "w.gguf").read_bytes()
    found = list_contents(b"".join(payload.attach(write_module(assemble("ret")), carried)), "m.dis")
    assert found.payload is not None
    assert vars(found.payload) == {"offset": 4096, "bytes": len(carried), "format": "GGUF"}
    assert [vars(row) for row in found.tensors] == [
        {"tensor": "w", "dtype": "F32", "shape": "2x3", "bytes": 24}
    ]


def test_types_by_signature():
    assert type_of("$Math", "pow", 0xF293F6CF) == "fn(x: real, y: real): real"
    assert type_of("$Math", "pow", 1) is None
    assert type_of(None, "any", 0xF293F6CF) == "fn(real, real): real"
    assert type_of("/dis/x.dis", "any", 1) is None


LOADS = """
    load 0(mp),$0,16(mp)
    load 4(mp),$1,16(mp)
    load 8(mp),$1,16(mp)
    load 4(mp),$1,16(mp)
    load 32(fp),$1,16(mp)
    ret
"""


def loading(name, *paths):
    texts = "".join(f'string @mp+{4 * i},"{path}"\n' for i, path in enumerate(paths))
    return assemble(LOADS, f"{texts}ldts @ldt,2\nword @ldt+0,0\nword @ldt+4,0", name=name)


def test_loads_are_constants_or_computed():
    found = loads(loading("M", "$Sys", "/dis/a.dis", "$self"))
    assert [(load.pc, load.path, load.imports) for load in found] == [
        (0, "$Sys", 0), (1, "/dis/a.dis", 1), (2, "$self", 1), (3, "/dis/a.dis", 1), (4, None, 1),
    ]  # fmt: skip


def test_dependencies_are_followed_once_each():
    files = {
        "/a.dis": write_module(loading("A", "$Sys", "/b.dis", "$Nope")),
        "/b.dis": write_module(loading("B", "$self", "/a.dis", "/c.dis")),
        "/c.dis": b"damaged",
    }

    def read(path):
        if path not in files:
            raise FileError(path, "does not exist")
        return files[path]

    module = loading("M", "/a.dis", "/missing.dis", "/b.dis")
    found = dependencies(module, "/m.dis", HOST_MODULES, read)
    assert [(row.depth, row.loaded_by, row.path, row.state) for row in found] == [
        (1, "/m.dis", "/a.dis", "found"),
        (2, "/a.dis", "$Sys", "built-in"),
        (2, "/a.dis", "/b.dis", "found"),
        (3, "/b.dis", "$self", "itself"),
        (3, "/b.dis", "/a.dis", "found"),
        (
            3,
            "/b.dis",
            "/c.dis",
            "/c.dis: at byte 0: bad magic: not a Dis object file (64 61 6d 61)",
        ),
        (3, "/b.dis", "pc 4", "computed"),
        (2, "/a.dis", "$Nope", "missing"),
        (2, "/a.dis", "pc 4", "computed"),
        (1, "/m.dis", "/missing.dis", "missing"),
        (1, "/m.dis", "/b.dis", "found"),
        (1, "/m.dis", "pc 4", "computed"),
    ]
    assert {row.state for row in dependencies(module, "/m.dis", HOST_MODULES, None)} == {
        "unknown", "computed",
    }  # fmt: skip
