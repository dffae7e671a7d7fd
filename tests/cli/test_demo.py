"""The demonstration: every stage, every answer, and what happens when two of them differ."""

import json
import subprocess
import sys

import pytest

from llmbol_core import demo
from llmbol_core.errors import FileError, ModelError


@pytest.mark.cluster
def test_all_stages_agree(tmp_path):
    script = "from llmbol_cli.nn import main; main()"
    folder = tmp_path / "- files"  # a name that programs must not take for an option
    done = subprocess.run(
        [sys.executable, "-c", script, "demo", "-o", folder.name, "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    rows = {(row["answers"], row["format"]): row for row in report["rows"]}
    assert set(rows) == {
        ("nn infer", "F32"),
        ("nn infer", "Q8_0"),
        ("nn infer", "Q4_0"),
        ("dis run", "Q8_0"),
        ("cluster", "Q8_0"),
    }
    float_accuracy = rows["nn infer", "F32"]["accuracy"]
    assert report["samples"] == 360
    assert float_accuracy >= 0.965
    assert rows["nn infer", "Q8_0"]["accuracy"] >= float_accuracy - 0.003
    assert rows["nn infer", "Q4_0"]["accuracy"] >= float_accuracy - 0.012
    names = {path.name for path in folder.iterdir()}
    assert {"digits.gguf", "digits-q8_0.gguf", "digits-q4_0.gguf", "digits.dis"} <= names
    assert f"the files are in {folder.name}/" in done.stderr


def test_a_difference_is_an_error():
    with pytest.raises(ModelError, match="the cluster and the virtual machine differ: sample 2"):
        demo._hold("1\t2\n3\t4\n", "1\t2\n3\t5\n", "the cluster", "the virtual machine")
    with pytest.raises(ModelError, match="their number"):
        demo._hold("1\n", "1\n2\n", "the cluster", "the virtual machine")


def test_what_cannot_be_a_folder_is_an_error(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(FileError, match="taken"):
        demo.run_demo(str(tmp_path / "taken"))
    with pytest.raises(FileError, match="'': no such file or directory"):
        demo.run_demo("")
