"""Weights of large models: what is made from them is shared and costs a program nothing."""

from pathlib import Path

import numpy as np
import pytest

from llmbol_core import deploy
from llmbol_core.deploy.compiler import compile_file
from llmbol_core.errors import LlmbolError
from llmbol_core.ml import derived
from llmbol_core.ml.kernels.target import target
from llmbol_core.native import shared
from llmbol_core.nn.builder import build_model
from llmbol_core.nn.checkpoint import load_for_inference, save
from llmbol_core.nn.quantize import quantize_checkpoint

LEAST = 2048
"""What counts as large here."""


def linear():
    return build_model("linear", [96]).linear(96, 70).relu().linear(70, 40)


def pictures():
    network = build_model("pictures", [6, 9, 9]).conv2d(6, 40, 3, padding=1).batchnorm(40).relu()
    network = network.conv2d(40, 36, 3, groups=2).maxpool2d(2).relu()
    return network.flatten().linear(324, 33)


def narrow():
    return build_model("narrow", [3, 20, 20]).conv2d(3, 64, 5).relu().flatten().linear(16384, 3)


def recurrent(kind):
    def make():
        network = getattr(build_model(kind, [7, 40]), kind)(40, 36)
        return network.select(1, -1).linear(36, 32)

    return make


def words():
    return build_model("words", [12]).embedding(100, 32).transformerencoderlayer(32, 4, 64)


NETWORKS = [linear, pictures, narrow, *map(recurrent, ("rnn", "lstm", "gru")), words]
NAMES = ["linear", "pictures", "narrow", "rnn", "lstm", "gru", "words"]


@pytest.fixture(params=NETWORKS, ids=NAMES)
def model(request, rng):
    made = request.param().build()
    for name, value in made.network.state().items():
        if "running" in name:
            value += rng.uniform(0.1, 1, value.shape).astype(np.float32)
    return made.evaluate()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Share what is smaller than usual, in a directory of this test."""
    monkeypatch.setattr(derived, "_LARGE", LEAST)
    monkeypatch.setattr(shared, "default_directory", lambda: str(tmp_path / "cache"))
    if not Path("/proc/sys/kernel/random/boot_id").exists():
        pytest.skip("nothing tells here whether the machine was started anew")
    return tmp_path / "cache" / "shared"


def samples(model, rng):
    shape = (3, *model.input.shape)
    if model.name == "words":
        return rng.integers(0, 100, shape).astype(np.float32)
    return rng.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q5_K"])
def test_answers_are_those_of_memory_of_ones_own(model, kind, tmp_path, monkeypatch, rng, folder):
    plain, source = str(tmp_path / "plain.gguf"), str(tmp_path / "source.gguf")
    save(model, plain)
    quantize_checkpoint(plain, source, kind)
    x = samples(model, rng)
    monkeypatch.setattr(derived, "_LARGE", 1 << 40)
    own = load_for_inference(source)
    wanted = own.run(x)
    monkeypatch.setattr(derived, "_LARGE", LEAST)
    first = load_for_inference(source)
    np.testing.assert_array_equal(first.run(x), wanted)
    kept = set(folder.iterdir()) if folder.exists() else set()
    again = load_for_inference(source)
    np.testing.assert_array_equal(again.run(x), wanted)
    assert set(folder.iterdir() if folder.exists() else ()) == kept
    assert first.engine.held_bytes == again.engine.held_bytes <= own.engine.held_bytes
    if target() is not None:
        assert kept


def test_compiled_models_share_with_others(model, tmp_path, rng, folder):
    source, program = str(tmp_path / "source.gguf"), str(tmp_path / "model.dis")
    save(model, source)
    compile_file(source, program)
    x = samples(model, rng)
    wanted = load_for_inference(source).run(x)
    for _ in range(2):
        with deploy.open(program) as compiled:
            np.testing.assert_array_equal(compiled.run(x), wanted)


def test_large_weights_cost_a_program_nothing(tmp_path, monkeypatch, rng):
    monkeypatch.setattr(derived, "_LARGE", 1 << 20)
    source, program = str(tmp_path / "wide.gguf"), str(tmp_path / "wide.dis")
    save(build_model("wide", [1024]).linear(1024, 2048).relu().linear(2048, 512).build(), source)
    compile_file(source, program)
    x = rng.normal(size=(4, 1024)).astype(np.float32)
    with deploy.open(program, deploy.Limits(memory=1 << 20)) as compiled:
        np.testing.assert_array_equal(compiled.run(x), load_for_inference(source).run(x))


def test_what_cannot_be_shared_counts(tmp_path, monkeypatch, rng, folder):
    source, program = str(tmp_path / "wide.gguf"), str(tmp_path / "wide.dis")
    save(build_model("wide", [1024]).linear(1024, 2048).build(), source)
    compile_file(source, program)
    folder.parent.mkdir()
    folder.write_text("in the way")
    if not load_for_inference(source).engine.held_bytes:
        pytest.skip("plans hold nothing beside the weights here")
    x = rng.normal(size=(4, 1024)).astype(np.float32)
    with (
        deploy.open(program, deploy.Limits(memory=1 << 20)) as compiled,
        pytest.raises(LlmbolError, match="out of memory"),
    ):
        compiled.run(x)
