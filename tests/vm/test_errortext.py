"""Messages that are too long: what Inferno makes of the same ones."""

import pytest

from llmbol_core.vm.environment import Environment
from llmbol_core.vm.errortext import about_file, cut, shortened
from llmbol_core.vm.files.namespace import Namespace
from llmbol_core.vm.files.openfile import OREAD, FileFault

DIGITS = "0123456789" * 30


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (DIGITS[:127], DIGITS[:127]),
        (DIGITS[:128], DIGITS[:123] + "..."),
        ("é日" + DIGITS, "é日" + DIGITS[:118] + "..."),
        (DIGITS[:122] + "日本語" + DIGITS, DIGITS[:122] + "..."),
        ("", ""),
    ],
)
def test_error_strings_end_in_dots(text, said):
    assert shortened(text) == said
    environment = Environment.first()
    environment.error = text
    assert environment.error == said


def test_what_is_printed_is_cut():
    assert cut(DIGITS) == DIGITS[:127]
    assert cut(DIGITS[:126] + "é") == DIGITS[:126]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/tmp/short", "'/tmp/short' does not exist"),
        ("/tmp/it's", "'/tmp/it''s' does not exist"),
        ("/tmp/vm/" + "a" * 34, "'.../" + "a" * 34 + "' does not exist"),
        ("/tmp/vm/" + "a" * 33, "'/tmp/vm/" + "a" * 33 + "' does not exist"),
        ("b" * 60, "'" + "b" * 60 + "' does not exist"),
        ("/" + DIGITS, f"'/{DIGITS[:124]}'"),
        ("/tmp/" + DIGITS, f"'.../{DIGITS[:121]}'"),
    ],
)
def test_messages_about_files_have_the_end_of_a_long_name(name, said):
    assert about_file(name, "does not exist") == said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "empty file name"),
        ("/" + DIGITS, f"'/{DIGITS[:124]}'"),
        ("/a/directory of some length/with more/file", "'/a' file does not exist"),
    ],
)
def test_names_that_lead_nowhere(tmp_path, name, said):
    with pytest.raises(FileFault) as fault:
        Namespace(tmp_path).open(name, OREAD)
    assert str(fault.value) == said


@pytest.mark.parametrize(
    ("name", "is_changed"),
    [
        ("/a", True),
        ("/", False),
        ("/dev", False),
        ("/dev/null", True),
        ("/dev/../env", False),
        ("#p/1", False),
        ("one", False),
        ("../b", True),
    ],
)
def test_names_that_lead_somewhere_leave_an_error_string(tmp_path, name, is_changed):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    environment = Environment.first(Namespace(tmp_path))
    environment.namespace.change_directory("/a")
    environment.error = "mine"
    environment.looked_up(name)
    assert environment.error == ("file does not exist" if is_changed else "mine")


def test_a_relative_name_is_looked_up_in_the_root_too(tmp_path):
    environment = Environment.first(Namespace(tmp_path))
    environment.error = "mine"
    environment.looked_up("prog")
    assert environment.error == "mine"
    environment.looked_up("a")
    assert environment.error == "file does not exist"
