"""Parquet files as data."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

from llmbol_core.errors import DataFormatError, LlmbolError
from llmbol_core.nn.checkpoint import load_for_inference, save
from llmbol_core.nn.data import read_arrays
from llmbol_core.nn.infer import infer
from llmbol_core.nn.spec import parse_spec
from llmbol_core.nn.train import train_file

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def written(path, **columns) -> str:
    pq.write_table(pa.table(columns), path, row_group_size=7)
    return str(path)


def test_numbers_and_lists(tmp_path, rng):
    images = rng.normal(size=(20, 2, 3)).astype(np.float32)
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(images.reshape(-1)), 6)
    path = written(
        tmp_path / "d.parquet",
        label=np.arange(20) % 3,
        weight=rng.normal(size=20),
        flag=np.arange(20) > 5,
        image=pa.array([image.tolist() for image in images], pa.list_(pa.list_(pa.float32()))),
        flat=fixed,
        kind=pa.array(["b", "a"] * 10).dictionary_encode(),
        price=pa.array([Decimal("1.25")] * 20),
    )
    arrays = read_arrays(path)
    np.testing.assert_array_equal(arrays["label"], np.arange(20) % 3)
    np.testing.assert_array_equal(arrays["flag"], np.arange(20) > 5)
    np.testing.assert_array_equal(arrays["image"], images)
    np.testing.assert_array_equal(arrays["flat"], images.reshape(20, 6))
    assert arrays["weight"].dtype == np.float64
    assert arrays["kind"].tolist() == ["b", "a"] * 10
    assert arrays["price"].tolist() == [1.25] * 20


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (["a", None], "the column 'x' has 1 empty values"),
        ([["a"], ["b"]], "the column 'x' has string values, expected numbers"),
        ([1.0, None], "the column 'x' has 1 empty values"),
        ([[1.0], [2.0, 3.0]], "the column 'x' has lists of different lengths"),
        ([[1.0], None], "the column 'x' has 1 empty values"),
        ([], "no rows of numbers"),
    ],
)
def test_what_is_no_array(tmp_path, column, said):
    with pytest.raises(DataFormatError, match=said):
        read_arrays(written(tmp_path / "d.parquet", x=column))


def test_damaged_files(tmp_path, rng):
    data = tmp_path / "d.parquet"
    written(data, x=rng.normal(size=500))
    whole = data.read_bytes()
    for _ in range(100):
        changed = bytearray(whole)
        changed[rng.integers(4, len(whole))] ^= 1 << rng.integers(8)
        data.write_bytes(bytes(changed)[: rng.integers(len(whole) // 2, len(whole) + 1)])
        try:
            read_arrays(str(data))
        except (LlmbolError, MemoryError):
            continue


def test_memory_is_asked_for_first(tmp_path):
    path = written(tmp_path / "d.parquet", x=np.arange(100_000))
    with pytest.raises(MemoryError):
        read_arrays(path, most=1000)


def test_train_and_infer(tmp_path, rng):
    x = rng.normal(size=(60, 3))
    columns = {"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "kind": (x[:, 0] > 0).astype(int)}
    written(tmp_path / "d.parquet", **columns)
    (tmp_path / "m.yaml").write_text(
        "name: m\ninput: {shape: [3]}\n"
        "layers:\n  - Linear: {in_features: 3, out_features: 2}\n"
        "train: {data: d.parquet, targets: kind, epochs: 30, optimizer: {Adam: {lr: 0.1}}}\n"
    )
    run = train_file(str(tmp_path / "m.yaml"), str(tmp_path / "m.gguf"))
    assert run.accuracy is not None
    assert run.accuracy > 0.8
    model = load_for_inference(str(tmp_path / "m.gguf"))
    got = infer(model, str(tmp_path / "d.parquet"))
    np.testing.assert_array_equal(got, model.run(x))
    save(parse_spec((tmp_path / "m.yaml").read_text()), str(tmp_path / "again.gguf"))
