"""Functions that can take long: a program whose time is up is stopped in the midst of them."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from llmbol_core.vm.arena import NIL
from llmbol_core.vm.collector import collect_cycles
from llmbol_core.vm.heaptypes import BYTE, REAL, WORD
from llmbol_core.vm.host import HostCall
from tests.builtins.calling import Borrowed, Caller

MANY = 10_000


class Stop(Exception):
    """The time is up."""


def stop(*given):
    raise Stop


class Countdown:
    """Time that is up when it was looked at so often."""

    def __init__(self, looks):
        self.looks = looks

    def __call__(self):
        self.looks -= 1
        if self.looks < 0:
            raise Stop


def reals(call, count=MANY):
    return call.array(REAL, [float(i % 7) for i in range(count)])


def bytes_of(call, count=5 * MANY):
    return call.array(BYTE, bytes(count))


def gemm(call):
    a = reals(call, 2500)
    return [78, 78, 50, 50, 50, 1.0, a, 50, a, 50, 0.0, a, 50]


def state(call, name, *key):
    return Borrowed(call(name, *key))


LARGE = 1 << 2000


def cipher(name):
    def arguments(call):
        return [state(call, f"{name}setup", bytes(16), None), bytes_of(call), 4 * MANY, 0]

    return arguments


def digest(call):
    return [bytes_of(call), 5 * MANY, None, NIL]


def stream(call):
    return state(call, "rc4setup", b"key")


# fmt: off
CALLS = {
    "$Math": {
        "dot": lambda call: [reals(call), reals(call)],
        "norm1": lambda call: [reals(call)],
        "norm2": lambda call: [reals(call)],
        "iamax": lambda call: [reals(call)],
        "sort": lambda call: [reals(call), call.array(WORD, range(MANY))],
        "gemm": gemm,
        "jn": lambda call: [MANY, 1.0],
        "yn": lambda call: [MANY, 1.0],
        "export_int": lambda call: [bytes_of(call, 4 * MANY), call.array(WORD, range(MANY))],
        "import_real": lambda call: [bytes_of(call, 8 * MANY), reals(call)],
    },
    "$Keyring": {
        "md4": digest,
        "sha1": digest,
        "hmac_md5": lambda call: [bytes_of(call), 5 * MANY, b"key", None, NIL],
        "aescbc": cipher("aes"),
        "descbc": cipher("des"),
        "rc4": lambda call: [stream(call), bytes_of(call), 5 * MANY],
        "rc4skip": lambda call: [stream(call), 5 * MANY],
        "rc4back": lambda call: [stream(call), 5 * MANY],
    },
    "$Sys": {
        "tokenize": lambda call: ["a b " * MANY, " "],
        "utfbytes": lambda call: [bytes_of(call), 5 * MANY],
        "pctl": lambda call: [0, [1, 2]],
    },
    "$IPints": {
        "IPint.expmod": lambda call: [77, 77, LARGE],
        "IPint.invert": lambda call: [77, LARGE],
        "probably_prime": lambda call: [77, 3],
        "genprime": lambda call: [64, 3],
        "gensafeprime": lambda call: [64, 3],
        "DSAprimes": lambda call: [],
    },
}
# fmt: on


@pytest.mark.parametrize("name", [(module, name) for module in CALLS for name in CALLS[module]])
def test_long_calls_look_whether_time_is_up(name, monkeypatch):
    module, function = name
    call = Caller(module)
    arguments = CALLS[module][function](call)
    before = call.heap.objects
    monkeypatch.setattr(HostCall, "apart", stop)
    call.heap.pause = stop
    with pytest.raises(Stop):
        call(function, *arguments)
    assert call.heap.objects <= before + len(arguments)


def bare_call(heap):
    nothing: Any = None
    return HostCall(nothing, nothing, heap, 0, None)


def test_what_is_done_apart_ends_with_the_program():
    heap = Caller("$Math").heap
    ended, heap.pause = threading.Event(), Countdown(3)

    def endless():
        try:
            while True:
                ended.wait(0.001)
        finally:
            ended.set()

    with pytest.raises(Stop):
        bare_call(heap).apart(endless)
    assert ended.wait(60)


def test_what_is_done_apart_gives_its_result():
    call = bare_call(Caller("$Math").heap)
    assert call.apart(lambda: 42) == 42
    with pytest.raises(ZeroDivisionError):
        call.apart(lambda: 1 // 0)


def test_a_list_that_is_not_finished_is_released():
    call = Caller("$Sys")
    call.heap.pause = Countdown(5)
    before = call.heap.objects
    with pytest.raises(Stop):
        call("tokenize", "a " * MANY, " ")
    call.heap.pause = lambda: None
    collect_cycles(call.heap)
    assert call.heap.objects == before + 2, "the text and the delimiters are the call's"
