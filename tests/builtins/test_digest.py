"""The digests of $Keyring and $Crypt: in one piece, in several, and refused."""

import hashlib
import hmac

import pytest

from llmbol_core.builtins import HOST_MODULES, signature_of
from llmbol_core.errors import Trap
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.heaptypes import BYTE
from tests.builtins.calling import Borrowed, Caller

NAMES = ["md5", "sha1", "sha224", "sha256", "sha384", "sha512"]


@pytest.fixture
def call():
    return Caller("$Keyring")


@pytest.mark.parametrize("name", NAMES)
def test_digests_in_pieces(call, name):
    size = hashlib.new(name).digest_size
    target = call.array(BYTE, bytes(size + 1))
    state = call(name, b"abc", 3, None, NIL)
    assert call(name, b"defg", 3, target, state) == state
    assert bytes(call.items(target, "B")[:size]) == hashlib.new(name, b"abcdef").digest()


@pytest.mark.parametrize("name", ["md5", "sha1"])
def test_codes(call, name):
    size = hashlib.new(name).digest_size
    target = call.array(BYTE, bytes(size))
    call(f"hmac_{name}", b"text", 4, b"key", target, NIL)
    assert bytes(call.items(target, "B")) == hmac.digest(b"key", b"text", name)
    with pytest.raises(Trap, match="bad encryption key"):
        call(f"hmac_{name}", b"text", 4, bytes(65), target, NIL)


def test_copies_go_on_apart(call):
    state = Borrowed(call("sha1", b"a", 1, None, NIL))
    other = Borrowed(call("DigestState.copy", state))
    target = call.array(BYTE, bytes(20))
    call("sha1", b"b", 1, target, state)
    call("sha1", b"c", 1, target, other)
    assert bytes(call.items(target, "B")) == hashlib.sha1(b"ac").digest()
    assert call("DigestState.copy", NIL) == NIL


def test_what_does_not_fit_is_refused(call):
    with pytest.raises(Trap, match="bad digest value"):
        call("md5", b"a", 1, bytes(15), NIL)
    with pytest.raises(Trap, match="invalid argument"):
        call("md5", None, 1, None, NIL)
    state = call("md5", b"a", 1, None, NIL)
    with pytest.raises(Trap, match="type check: DigestState"):
        call("sha1", b"a", 1, None, state)
    with pytest.raises(Trap, match="type check: DigestState"):
        call("sha1", b"a", 1, None, call.heap.new_record(BYTE))


def test_a_state_goes_with_its_last_reference(call):
    state = Borrowed(call("md5", b"a", 1, None, NIL))
    assert call.heap.reserved > 0
    call.heap.release(state.ref)
    assert call.heap.reserved == 0


def test_both_modules_have_them():
    assert HOST_MODULES["$Crypt"].name == "$Crypt"
    assert signature_of("$Crypt", "md5") == signature_of("$Keyring", "md5")
