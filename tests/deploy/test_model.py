"""Compiled models from Python: what they answer, what they say of themselves, several at once."""

import json
import threading

import numpy as np
import pytest

from llmbol_core import deploy
from llmbol_core.deploy.security import create_keys, sign_file
from llmbol_core.errors import (
    LimitError,
    ModelError,
    ShapeError,
    SignatureError,
    Trap,
    UsageError,
)
from llmbol_core.nn.builder import build_model
from llmbol_core.nn.checkpoint import freeze, load_for_inference, save
from llmbol_core.nn.data import conform
from llmbol_core.nn.model import Input, Model
from llmbol_core.nn.quantize import quantize_checkpoint
from llmbol_core.vm.objectfile import write_module
from llmbol_core.vm.stackcode import BytecodeLoader


@pytest.fixture
def model():
    return build_model("mlp", [32]).linear(32, 64).relu().linear(64, 3).build()


@pytest.fixture
def program(model, tmp_path):
    path = str(tmp_path / "mlp.dis")
    deploy.compile(model, path)
    return path


def test_answers_are_the_engines(model, program, rng):
    x = rng.normal(size=(70, 32)).astype(np.float32)
    with deploy.open(program) as opened:
        for batch in (x, x[:1], x[:0], x[3]):
            expected = freeze(model).run(batch)
            found = opened.run(batch)
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, expected)


def test_a_model_tells_what_it_is(tmp_path):
    labels = ("100 %d # 'x'", 'a "quoted" \\n name', "ünï 🙂, ''")
    layers = build_model("n", [4]).linear(4, 3).build().layers
    model = Model('odd/näme "1"', Input((4,)), layers, labels)
    path = str(tmp_path / "odd.dis")
    deploy.compile(model.reset(0), path)
    with deploy.open(path) as opened:
        assert (opened.name, opened.labels) == (model.name, labels)
        assert (opened.input_shape, opened.output_shape) == ((4,), (3,))
    for option in ([], ["--json"]):
        done = deploy.run_file(path, [*option, "--top-k", "3"], stdin=b"1,2,3,4\n")
        assert (done.status, done.stderr) == (0, b"")
        text = done.stdout.decode()
        if option:
            assert {row["label"] for row in json.loads(text)} == set(labels)
        else:
            shown = {line.split("\t")[2] for line in text.splitlines()[1:]}
            assert shown == set(labels)


def test_checkpoints_compile_too(model, tmp_path, rng):
    paths = [str(tmp_path / name) for name in ("m.gguf", "q.gguf", "q.dis")]
    save(model, paths[0])
    quantize_checkpoint(paths[0], paths[1], "Q8_0")
    deploy.compile(paths[1], paths[2])
    with open(paths[2], "rb") as file:
        data = file.read()
    assert deploy.compile(paths[1]) == data
    x = rng.normal(size=(5, 32)).astype(np.float32)
    for source in (paths[2], data):
        with deploy.open(source) as opened:
            np.testing.assert_array_equal(opened(x), load_for_inference(paths[1]).run(x))


def test_nothing_is_left_in_the_machine(program):
    with deploy.open(program) as opened:
        opened.run(np.zeros((3, 32)))
        heap = opened._machine.heap
        before = heap.reserved, heap.objects
        for _ in range(20):
            opened.run(np.zeros((3, 32)))
        assert (heap.reserved, heap.objects) == before


def test_other_shapes_are_refused(program):
    with deploy.open(program) as opened:
        with pytest.raises(ShapeError, match="expected input of shape"):
            opened.run(np.zeros((2, 31)))
        assert opened.run(np.zeros((2, 32))).shape == (2, 3)


def test_limits_hold(program):
    with deploy.open(program, deploy.Limits(memory=1 << 17)) as opened:
        with pytest.raises(Trap, match="out of memory"):
            opened.run(np.zeros((5000, 32)))
        assert opened.run(np.zeros((2, 32))).shape == (2, 3)
    limits = deploy.Limits(instructions=40)
    with pytest.raises(LimitError, match="instruction"), deploy.open(program, limits) as opened:
        opened.run(np.zeros((1, 32)))


def test_a_key_is_asked_for(program, tmp_path):
    key = str(tmp_path / "key")
    create_keys(key)
    with pytest.raises(SignatureError, match="not signed"):
        deploy.open(program, key=key)
    sign_file(program, program, key)
    with deploy.open(program, key=f"{key}.pub") as opened:
        assert opened.run(np.zeros(32)).shape == (1, 3)


def test_what_is_no_model_is_refused(tmp_path):
    path = tmp_path / "five.dis"
    path.write_bytes(write_module(BytecodeLoader.create_module([0x01, 0x05, 0xFF])))
    with pytest.raises(ModelError, match="no compiled model"):
        deploy.open(path)


def test_several_at_once_on_threads(program, model, rng):
    batches = [rng.normal(size=(n, 32)).astype(np.float32) for n in (1, 5, 9, 64)]
    expected = [freeze(model).run(x) for x in batches]
    wrong: list[str] = []

    def work(number):
        with deploy.open(program) as opened:
            for turn in range(25):
                at = (number + turn) % len(batches)
                if not np.array_equal(opened.run(batches[at]), expected[at]):
                    wrong.append(f"thread {number}, batch {at}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_one_model_refuses_a_second_thread(program, monkeypatch):
    refused: list[str] = []

    def meanwhile(*given):
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
        return conform(*given)

    def attempt():
        try:
            opened(np.zeros(32))
        except UsageError as error:
            refused.append(str(error))

    with deploy.open(program) as opened:
        monkeypatch.setattr(deploy.model, "conform", meanwhile)
        assert opened.run(np.zeros(32)).shape == (1, 3)
    assert refused == ["another thread is using this CompiledModel: each needs one of its own"]


def test_a_machine_loads_it_as_any_module(program):
    with deploy.create_vm() as vm:
        vm.load_module("mlp", program)
        assert vm.execute("mlp", "shape") == [32]
        assert '"input": [32]' in vm.execute("mlp", "info")
        assert vm.execute("mlp", "labels") == []
