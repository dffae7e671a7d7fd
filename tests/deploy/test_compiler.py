"""Compiled models: the same answers as the engine bit for bit, within the limits of the machine."""

import numpy as np
import pytest

from llmbol_core import deploy
from llmbol_core.deploy.compiler import compile_file, list_file
from llmbol_core.deploy.listing import quoted
from llmbol_core.errors import LlmbolError
from llmbol_core.ml.text import format_rows
from llmbol_core.nn.builder import build_model
from llmbol_core.nn.checkpoint import freeze, load_for_inference, save
from llmbol_core.nn.model import Input, Model, Output
from llmbol_core.nn.module import Module
from llmbol_core.nn.quantize import quantize_checkpoint
from llmbol_core.vm.assembly import parse_assembly
from llmbol_core.vm.objectfile import read_module
from llmbol_core.vm.payload import find


@pytest.fixture
def mlp(tmp_path):
    model = build_model("mlp", [64]).linear(64, 32).batch_norm(32).relu().linear(32, 5).build()
    path = str(tmp_path / "mlp.gguf")
    save(model, path)
    return path


def answers(program, samples, tmp_path, **options):
    path = str(tmp_path / "x.npy")
    np.save(path, samples)
    return deploy.run_file(program, [path], granted=[path], **options)


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_0"])
@pytest.mark.parametrize("batch", [1, 7])
def test_equals_the_engine_bit_for_bit(mlp, tmp_path, rng, kind, batch):
    source, program = str(tmp_path / "source.gguf"), str(tmp_path / "mlp.dis")
    if kind == "F32":
        source = mlp
    else:
        quantize_checkpoint(mlp, source, kind)
    compile_file(source, program)
    samples = rng.normal(size=(batch, 64)).astype(np.float32)
    done = answers(program, samples, tmp_path)
    assert (done.status, done.stderr) == (0, b"")
    assert done.stdout.decode() == format_rows(load_for_inference(source).run(samples))


@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
def test_folded_batch_norm_is_computed_once_in_the_program(tmp_path, rng, kind):
    network = build_model("cnn", [4, 20]).conv1d(4, 8, 8).batch_norm(8).relu()
    model = network.flatten().linear(104, 32).batch_norm(32).linear(32, 3).build()
    for name, value in model.network.state().items():
        if "running" in name:
            value += rng.uniform(0.1, 1, value.shape).astype(np.float32)
    paths = [str(tmp_path / name) for name in ("plain.gguf", "source.gguf", "program.dis")]
    save(model, paths[0])
    quantize_checkpoint(paths[0], paths[1], kind)
    compile_file(paths[1], paths[2])
    samples = rng.normal(size=(5, 4, 20)).astype(np.float32)
    loaded = load_for_inference(paths[1])
    done = answers(paths[2], samples, tmp_path)
    assert done.stdout.decode() == format_rows(loaded.run(samples))
    assert "batch_norm" not in {step.op for step in loaded.graph.steps}
    expected = model.evaluate().forward(samples)
    np.testing.assert_allclose(loaded.run(samples), expected, atol=1e-5 if kind == "F32" else 0.05)
    forward = list_file(paths[1]).split("forward:")[1].split("init:")[0]
    assert "sqrt" not in forward


@pytest.mark.parametrize("cls", Module.table.values(), ids=Module.table)
def test_every_layer_compiles(cls, tmp_path, rng):
    layer, shape = cls.example()
    model = Model("one", Input(shape), [layer]).reset(0)
    source, program = str(tmp_path / "one.gguf"), str(tmp_path / "one.dis")
    save(model, source)
    compile_file(source, program)
    samples = cls.example_batch(rng, 3).astype(np.float32)
    done = answers(program, samples, tmp_path)
    assert done.stderr == b""
    assert done.stdout.decode() == format_rows(load_for_inference(source).run(samples))


def test_same_checkpoint_gives_the_same_bytes(mlp, tmp_path):
    for name in ("a.dis", "b.dis"):
        compile_file(mlp, str(tmp_path / name))
    assert (tmp_path / "a.dis").read_bytes() == (tmp_path / "b.dis").read_bytes()


def test_payload_is_the_checkpoint(mlp, tmp_path):
    compile_file(mlp, str(tmp_path / "mlp.dis"))
    data = memoryview((tmp_path / "mlp.dis").read_bytes())
    payload = find(data, "mlp.dis")
    assert payload is not None
    assert payload == memoryview((tmp_path / "mlp.gguf").read_bytes())
    assert {e.name for e in read_module(data).exports} == {
        "init",
        "forward",
        "labels",
        "shape",
        "info",
    }


def test_listing_assembles_to_the_same_module(mlp, tmp_path):
    from llmbol_core.builtins import signature_of

    compile_file(mlp, str(tmp_path / "mlp.dis"))
    module = read_module((tmp_path / "mlp.dis").read_bytes())
    again = parse_assembly(list_file(mlp), "listing", signature_of)
    assert again.instructions == module.instructions


def test_many_samples_are_taken_as_they_fit_the_memory(mlp, tmp_path, rng):
    program = str(tmp_path / "mlp.dis")
    compile_file(mlp, program)
    samples = rng.normal(size=(20_000, 64)).astype(np.float32)
    done = answers(program, samples, tmp_path, limits=deploy.Limits(memory=1 << 20))
    assert done.stdout.decode() == format_rows(load_for_inference(mlp).run(samples))


def test_memory_limit_holds(tmp_path):
    source, program = str(tmp_path / "wide.gguf"), str(tmp_path / "wide.dis")
    save(build_model("wide", [4]).linear(4, 100_000).relu().linear(100_000, 2).build(), source)
    compile_file(source, program)
    samples = np.zeros((1, 4), np.float32)
    done = answers(program, samples, tmp_path, limits=deploy.Limits(memory=1 << 18))
    assert (done.status, done.stdout) == (1, b"")
    assert b"out of memory" in done.stderr
    assert answers(program, samples, tmp_path).status == 0


def test_only_granted_files_are_there(mlp, tmp_path):
    program, path = str(tmp_path / "mlp.dis"), str(tmp_path / "x.npy")
    compile_file(mlp, program)
    np.save(path, np.zeros((1, 64), np.float32))
    done = deploy.run_file(program, [path])
    assert done.status == 1
    assert path.encode() in done.stderr
    assert b"does not exist" in done.stderr


def test_wrong_shape_is_one_clear_line(mlp, tmp_path):
    program = str(tmp_path / "mlp.dis")
    compile_file(mlp, program)
    done = answers(program, np.zeros((2, 63), np.float32), tmp_path)
    assert done.status == 1
    assert b"expected input of shape [64]" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_damaged_payload_is_one_clear_line(mlp, tmp_path):
    program = tmp_path / "mlp.dis"
    compile_file(mlp, str(program))
    data = bytearray(program.read_bytes())
    data[4096 : 4096 + 64] = bytes(64)
    program.write_bytes(data)
    done = answers(str(program), np.zeros((1, 64), np.float32), tmp_path)
    assert done.status == 1
    assert len(done.stderr.splitlines()) == 1


def test_what_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "not.gguf"
    path.write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(LlmbolError, match=r"not\.gguf"):
        compile_file(str(path), str(tmp_path / "out.dis"))
    assert not (tmp_path / "out.dis").exists()


def test_a_checkpoint_is_not_overwritten(mlp):
    with pytest.raises(LlmbolError, match="name another one"):
        compile_file(mlp, mlp)


def test_quoted_text_reads_back():
    text = 'a "quoted"\\ line\n\ttab and é'
    module = parse_assembly(f"ret\ndesc $0,8,(0)\nvar @mp,8\nstring @mp+0,{quoted(text)}\nmodule M")
    assert module.data[0].payload.decode() == text


def test_shards_become_one_payload(mlp, tmp_path, rng):
    quantize_checkpoint(mlp, str(tmp_path / "q.gguf"), "Q8_0", shard_bytes=2048)
    (first, *others) = sorted(map(str, tmp_path.glob("q-0*.gguf")))
    assert others
    compile_file(first, str(tmp_path / "mlp.dis"))
    samples = rng.normal(size=(3, 64)).astype(np.float32)
    done = answers(str(tmp_path / "mlp.dis"), samples, tmp_path)
    assert done.stdout.decode() == format_rows(load_for_inference(first).run(samples))


def test_what_planning_takes_beside_the_weights_counts(tmp_path):
    source, program = str(tmp_path / "wide.gguf"), str(tmp_path / "wide.dis")
    network = build_model("wide", [256])
    for _ in range(6):
        network = network.linear(256, 256)  # too small to be shared
    save(network.build(), source)
    if not load_for_inference(source).engine.held_bytes:
        pytest.skip("plans hold nothing beside the weights here")
    compile_file(source, program)
    samples = np.zeros((1, 256), np.float32)
    done = answers(program, samples, tmp_path, limits=deploy.Limits(memory=1 << 20))
    assert done.status == 1
    assert b"ml: plan: out of memory: " in done.stderr
    assert answers(program, samples, tmp_path).status == 0


def test_answers_are_shown_as_the_spec_says(tmp_path, rng):
    layers = build_model("few", [4]).linear(4, 3).build().layers
    model = Model("few", Input((4,)), layers, ("a", "b", "c"), output=Output(2)).reset(0)
    program, samples = str(tmp_path / "few.dis"), str(tmp_path / "x.npy")
    deploy.compile(model.evaluate(), program)
    x = rng.normal(size=(2, 4)).astype(np.float32)
    np.save(samples, x)
    said = deploy.run_file(program, [samples], granted=[samples]).stdout.decode().splitlines()
    best = np.argsort(-model.forward(x), axis=1)[:, :2]
    shown = [line.split("\t")[:3] for line in said[1:]]
    assert shown == [
        [str(n), str(rank + 1), "abc"[number]]
        for n, row in enumerate(best)
        for rank, number in enumerate(row)
    ]
    whole = deploy.run_file(program, ["--top-k", "0", samples], granted=[samples])
    assert whole.stdout.decode() == format_rows(freeze(model).run(x))
