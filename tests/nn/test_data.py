"""Data files and splits."""

from __future__ import annotations

import io
import pickle
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbol_core.errors import DataFormatError, LlmbolError, UsageError
from llmbol_core.nn.data import (
    conform,
    parse_npy,
    pick,
    pick_named,
    random_split,
    read_arrays,
    read_samples,
    stratified_split,
)
from llmbol_core.nn.streams import SampleStream

DIGITS = "specs/data/digits.npz"


def npy(array, **options) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.uint8).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array(3, ">i4"),
        np.zeros((0, 4), np.float32),
        np.array([True, False]),
        np.arange(3, dtype=np.float16),
    ],
    ids=str,
)
def test_npy_is_read_as_numpy_reads_it(array):
    got = parse_npy(npy(array), "x")
    assert got.dtype == array.dtype
    np.testing.assert_array_equal(got, array)


def test_nothing_is_unpickled():
    with pytest.raises(DataFormatError, match="expected numbers, got elements of type"):
        read_arrays("x.npy", npy(np.array([{}], object), allow_pickle=True))
    with pytest.raises(DataFormatError, match=r"expected a \.npy"):
        read_arrays("x.npy", pickle.dumps({"a": 1}))


def test_sizes_are_not_trusted():
    whole = npy(np.zeros((4, 4)))
    with pytest.raises(DataFormatError, match="cut short: 8 bytes of an array of shape"):
        read_arrays("x", whole[:-8])
    huge = whole.replace(b"'shape': (4, 4), }          ", b"'shape': (999999999999, 4), ")
    with pytest.raises(DataFormatError, match="cut short: 31999999999840 bytes"):
        read_arrays("x", huge)


@settings(max_examples=200)
@given(st.binary(max_size=60), st.integers(0, 200), st.sampled_from(["npy", "npz", "csv"]))
def test_damaged_files_give_one_clear_error(noise, place, kind):
    stream = io.BytesIO()
    if kind == "npz":
        np.savez_compressed(stream, a=np.arange(8))
    elif kind == "npy":
        np.save(stream, np.arange(8))
    else:
        stream.write(b"a,b\n1,2\n3,4\n")
    good = stream.getvalue()
    with suppress(LlmbolError):
        read_arrays("x", good[:place] + noise + good[place + len(noise) :])


def test_csv_columns():
    arrays = read_arrays("x.csv", b"\xef\xbb\xbfa, label\n1,0\n\n2.5,1\n")
    assert list(arrays) == ["a", "label"]
    assert arrays["label"].dtype == np.int64
    np.testing.assert_array_equal(arrays["a"], [1, 2.5])
    assert list(read_arrays("x.csv", b"1,2,3\n")) == ["0", "1", "2"]
    large = read_arrays("x.csv", b"9007199254740991,9007199254740992,1e19\n")
    assert [column.dtype.kind for column in large.values()] == ["i", "f", "f"]
    assert large["2"][0] == 1e19
    samples = read_samples(arrays | {"b": np.array([5, 6])}, "x", "label", (2, 1), "x.csv")
    np.testing.assert_array_equal(samples, [[[1], [5]], [[2.5], [6]]])
    with pytest.raises(UsageError, match="1 columns for a sample, the model takes 4 values"):
        read_samples(arrays, "x", "label", (4,), "x.csv")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_columns_may_be_separated_by_other_signs(separator):
    text = 'a,label,"b ; c"\n1.5,x,2\n0.25,"y , z",3\n'.replace(",", separator)
    arrays = read_arrays("x.csv", text.encode())
    assert list(arrays) == ["a", "label", "b ; c"]
    assert arrays["a"].tolist() == [1.5, 0.25]
    assert arrays["label"].tolist() == ["x", f"y {separator} z"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"1,2\n3\n", "x.csv: at byte 4: row 2 has 1 values, expected 2"),
        (b"a,b\n1,2\n\n1,z\n", "x.csv: at byte 9: row 3, column 2: 'z' is no number"),
        (b"a,a\n1,2\n", "two columns are called 'a'"),
        (b"a,b\n", "no rows of numbers"),
        (b"", "no rows of numbers"),
        (b"caf\xe9,1\n", "at byte 3: not UTF-8 text"),
        (b"a\n1\n" + b"z" * 1000 + b"\n", "'zzzzzzzzzzzz...zzzzzzzzzzzzz' is no number"),
        (b"a,b\nx,1\ny,\n", "row 3, column 2: '' is no number"),
        (b"a,b\n,1\n", "row 2, column 1: '' is no number"),
    ],
)
def test_csv_mistakes(text, said):
    with pytest.raises(DataFormatError) as caught:
        read_arrays("x.csv", text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (b"kind,a,b\ncat,1,2\ndog,3,4\ncat,5,6\n", ["kind", "a", "b"]),
        (b"cat,1,2.5\ndog,3,4\ncat,5,6\n", ["0", "1", "2"]),
        (b"kind,0,1\ncat,1,2\ndog,3,4\ncat,5,6\n", ["kind", "0", "1"]),
        (b"a,b,7\n1,2,cat\n3,4,dog\n5,6,cat\n", ["a", "b", "7"]),
    ],
)
def test_columns_of_words(text, names):
    arrays = read_arrays("x.csv", text)
    assert list(arrays) == names
    (words,) = (name for name, column in arrays.items() if column.dtype.kind == "U")
    assert arrays[words].tolist() == ["cat", "dog", "cat"]
    samples = read_samples(arrays, "x", words, (2,), "x.csv")
    np.testing.assert_array_equal(samples[1:], [[3, 4], [5, 6]])
    other = next(name for name in names if name != words)
    with pytest.raises(UsageError, match="holds words, such as 'cat': expected numbers"):
        read_samples(arrays, "x", other, (2,), "x.csv")
    pieces = iter([text])
    taken = SampleStream(lambda most: next(pieces, b""), "x.csv", "x", words, (2,), 1 << 20)
    np.testing.assert_array_equal(taken.take(9), samples)
    pieces = iter([text])
    taken = SampleStream(lambda most: next(pieces, b""), "x.csv", "x", other, (2,), 1 << 20)
    with pytest.raises(DataFormatError, match="holds words, such as 'cat'"):
        taken.take(1)


def test_pick_names_the_nearest():
    arrays = {"images": np.zeros(1), "labels": np.zeros(1)}
    with pytest.raises(UsageError, match="did you mean 'images'"):
        pick(arrays, "image", "x.npz")
    assert pick({"": np.ones(2)}, "image", "x.npy").sum() == 2
    with pytest.raises(UsageError, match="its only array has no name, so it cannot be 'image'"):
        pick_named({"": np.ones(2)}, "image", "x.npy")


def test_split_is_scikit_learns():
    arrays = read_arrays(DIGITS)
    inputs = (arrays["images"].reshape(-1, 64) / 16).astype(np.float32)
    labels = arrays["labels"].astype(np.int64)
    train, test = stratified_split(labels, 0.2, 0)
    assert (len(train), len(test)) == (1437, 360)
    # What train_test_split(test_size=0.2, stratify=y, random_state=0) of scikit-learn 1.9.1 gives.
    assert zlib.crc32(inputs[test].tobytes()) == 976538140
    assert zlib.crc32(labels[test].tobytes()) == 3021064937
    assert sorted(np.concatenate([train, test])) == list(range(1797))
    assert np.bincount(labels[test]).tolist() == [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]


def test_splits_that_cannot_be():
    with pytest.raises(UsageError, match="cannot be split in proportion"):
        stratified_split(np.array([0, 0, 0, 1]), 0.5, 0)
    with pytest.raises(UsageError, match="0 samples of 0 classes cannot be split"):
        stratified_split(np.zeros(0, np.int64), 0.5, 0)
    with pytest.raises(UsageError, match="cannot be split"):
        random_split(np.zeros(1), 0.2, 0)
    for share in (0.0, 1.0):
        with pytest.raises(UsageError, match="10 samples cannot be split"):
            random_split(np.zeros(10), share, 0)
    # One of each class is enough on either side.
    halves = np.array([0, 1] * 5)
    assert sorted(halves[stratified_split(halves, 0.2, 0)[1]]) == [0, 1]
    assert sorted(halves[stratified_split(halves, 0.8, 0)[0]]) == [0, 1]
    train, test = random_split(np.zeros(10), 0.25, 1)
    assert sorted([*train, *test]) == list(range(10))
    assert len(test) == 3


LINES = b"[1, 2]\n\n[3, 4.5]\n[5, 6]"
ROWS = b'{"a": 1, "b": 2}\n{"a": 3, "b": 4.5}\n{"a": 5, "b": 6}\n'


def stream(data: bytes, size: int) -> SampleStream:
    """Return the samples of bytes that come some at a time."""
    pieces = iter([data[i : i + size] for i in range(0, len(data), size)])
    return SampleStream(lambda most: next(pieces, b""), "x.json", "x", "y", (2,), 1 << 20)


def take_all(data: bytes, size: int, most: int) -> list[np.ndarray]:
    """Return all parts of a stream."""
    taken, parts = stream(data, size), []
    while (part := taken.take(most)) is not None:
        parts.append(part)
    return parts


@pytest.mark.parametrize("data", [LINES, ROWS, LINES.replace(b"\n", b"\r\n")])
@pytest.mark.parametrize("size", [1, 5, 1000])
def test_lines_of_json(data, size):
    samples = np.array([[1, 2], [3, 4.5], [5, 6]], np.float32)
    arrays = read_arrays("x.json", data)
    np.testing.assert_array_equal(read_samples(arrays, "x", "y", (2,), "x.json"), samples)
    parts = take_all(data, size, 2)
    assert [len(part) for part in parts] == [2, 1]
    np.testing.assert_array_equal(np.concatenate(parts), samples)


def test_what_is_read_whole_is_taken_in_parts():
    samples = np.arange(10, dtype=np.float32).reshape(5, 2)
    file = io.BytesIO()
    np.savez(file, x=samples, y=np.zeros(5))
    parts = take_all(file.getvalue(), 100, 2)
    assert [len(part) for part in parts] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(parts), samples)


def test_lines_of_json_are_answered_as_they_come():
    pieces = [b"[1.0, 2]\n", b"[3, 4]\n[5"]
    taken = SampleStream(lambda most: pieces.pop(0), "x.json", "x", "y", (2,), 1 << 20)
    for wanted, left in (([[1, 2]], 1), ([[3, 4]], 0)):
        np.testing.assert_array_equal(taken.take(1), wanted)
        assert len(pieces) == left


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"[1, 2]\n[3, 4", "at byte 12: not JSON"),
        (b"[1, 2]\n[3]", "expected (input of shape|numbers in lists)"),
        (b'[1, 2]\n{"a": 3}', "(lists of equal lengths|1 columns)"),
        (b"[1, 2] [3, 4]\n", "at byte 7: not JSON: extra data"),
    ],
)
def test_wrong_lines_of_json(data, said):
    with pytest.raises(LlmbolError, match=said):
        conform(read_samples(read_arrays("x.json", data), "x", "y", (2,), "x"), (2,), "x")
    with pytest.raises(LlmbolError, match=said):
        take_all(data, 3, 1)
