"""The ciphers of $Keyring and $Crypt, held to what Inferno's own made of the same bytes."""

import pytest

from llmbol_core.errors import Trap
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.heaptypes import BYTE
from tests.builtins.calling import Borrowed, Caller


def row(count, step):
    """Return 3, 3 + step and so on, as bytes."""
    return bytes((step * i + 3) % 256 for i in range(count))


@pytest.fixture
def call():
    return Caller("$Keyring")


# fmt: off
# cipher, mode, key, vector, the text's length, what Inferno printed
PRINTED = [
    ("aes", "cbc", row(16, 7), row(16, 5), row(45, 1),
     "bb922059874b7d33f665c8ba63e13423dd79f6ace6653d774847b96a99c11fabd5ebaf4f9bb1663bee79b40c5a"),
    ("aes", "cbc", row(32, 7), row(16, 5), row(45, 1),
     "d0d3a01657283cbf8cc04df9764afa1c6808f4de693aa55f6039a22abc004a0e1290c02f6095fa7fe76ae942d8"),
    ("des", "ecb", row(8, 9), None, row(24, 3), "193a8a0a5f1e5f5222d5a7ad6763e91178060c4354755693"),
    ("des", "cbc", row(8, 9), None, row(24, 3), "193a8a0a5f1e5f52eb1bd00f6220a4a44eb194185a8cac12"),
    ("idea", "ecb", row(16, 9), None, row(24, 3),
     "167fe1918ac0df457fcd456968304b162a3d6b2dbfe6a0b3"),
    ("idea", "cbc", row(16, 9), row(8, 2), row(24, 3),
     "33130e54ade2ccddba7d42324a554ff13c6a8c1083692c73"),
    ("blowfish", "cbc", row(7, 9), row(8, 2), row(24, 3),
     "57acc123d023acd44d262bc864e0acbb1f94fb1ad8cafbcf"),
    ("blowfish", "cbc", row(2, 9), None, row(24, 3),
     "98717ee816bcfbe56a01e595521a1a7a3edaf0723077538c"),
]
# fmt: on


@pytest.mark.parametrize(("name", "mode", "key", "vector", "text", "printed"), PRINTED)
@pytest.mark.parametrize("first", [16, None])
def test_block_ciphers(call, name, mode, key, vector, text, printed, first):
    pieces = [text[:first], text[first:]] if first else [text]
    found = b""
    made = Borrowed(call(f"{name}setup", key, vector))
    for piece in pieces:
        data = call.array(BYTE, piece)
        call(f"{name}{mode}", made, data, len(piece), 0)
        found += bytes(call.items(data, "B"))
    assert found.hex() == printed
    data = call.array(BYTE, found)
    made = Borrowed(call(f"{name}setup", key, vector))
    call(f"{name}{mode}", made, data, len(found), 1)
    assert bytes(call.items(data, "B")) == text


def test_the_stream_cipher_goes_on_back_and_ahead(call):
    state, data = Borrowed(call("rc4setup", row(11, 3))), call.array(BYTE, row(24, 3))
    call("rc4", state, data, 24)
    assert bytes(call.items(data, "B")).hex() == "e1b740c5f33bc72907a9df99749560c8586447b74e82b1f9"
    call("rc4back", state, 24)
    call("rc4", state, data, 24)
    assert bytes(call.items(data, "B")) == row(24, 3)
    call("rc4skip", state, 100)
    call("rc4", state, data, 24)
    assert bytes(call.items(data, "B")).hex() == "91bc91fd290d762d997768f8bcf0cb4063d3ce0002849842"
    assert call("rc4setup", None) == NIL


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("aessetup", (row(15, 1), None), "bad encryption key"),
        ("aessetup", (row(16, 1), row(3, 1)), "bad ivec"),
        ("dessetup", (None, None), "bad encryption key"),
        ("blowfishsetup", (b"", None), "bad encryption key"),
        ("blowfishsetup", (row(8, 1), row(9, 1)), "bad ivec"),
        ("desecb", (NIL, row(8, 1), 8, 0), "dereference of nil"),
        ("desecb", (NIL, row(8, 1), 7, 0), "data not multiple of block size"),
        ("desecb", (NIL, row(8, 1), 16, 0), "array bounds error"),
        ("rc4", (NIL, row(8, 1), -1), "array bounds error"),
    ],
)
def test_what_cannot_be_is_refused(call, name, arguments, why):
    with pytest.raises(Trap, match=why):
        call(name, *arguments)
    with pytest.raises(Trap, match="bad encryption state"):
        call("descbc", call("aessetup", row(16, 1), None), row(8, 1), 8, 0)
