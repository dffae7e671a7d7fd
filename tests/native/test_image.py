"""Objects in memory without a compiler: what they compute, what they refer to, what is refused."""

from __future__ import annotations

import ctypes

import pytest

from llmbol_core.native import image, llvm
from llmbol_core.native.cpu import processor_identity
from llmbol_core.native.library import function

TEXT = """
@numbers = private constant [4 x i32] [i32 10, i32 20, i32 30, i32 40]
@count = internal global i32 0
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
define i32 @number(i32 %i) {
 %z = zext i32 %i to i64
 %p = getelementptr i32, ptr @numbers, i64 %z
 %v = load i32, ptr %p
 ret i32 %v
}
define double @scaled(double %x) {
 %y = fmul double %x, 1.25
 ret double %y
}
define void @clear(ptr %p, i64 %n) {
 call void @llvm.memset.p0.i64(ptr %p, i8 0, i64 %n, i1 false)
 ret void
}
define i32 @twice(i32 %i) {
 %v = call i32 @number(i32 %i)
 %r = add i32 %v, %v
 ret i32 %r
}
"""


@pytest.fixture(scope="module")
def data():
    return llvm.compile_text(TEXT, 0)


@pytest.mark.parametrize("load", [image.load_object, llvm.load_object])
def test_functions_find_constants_each_other_and_the_c_library(data, load):
    library = load(data, ["number", "scaled", "clear", "twice"])
    addresses = library.addresses
    number = function(addresses["number"], ctypes.c_int32, ctypes.c_int32)
    assert [number(i) for i in range(4)] == [10, 20, 30, 40]
    assert function(addresses["twice"], ctypes.c_int32, ctypes.c_int32)(2) == 60
    assert function(addresses["scaled"], ctypes.c_double, ctypes.c_double)(4.0) == 5.0
    memory = ctypes.create_string_buffer(b"abcdefgh")
    clear = function(addresses["clear"], None, ctypes.c_void_p, ctypes.c_int64)
    clear(ctypes.addressof(memory), 3)
    assert memory.raw == b"\0\0\0defgh\0"


def test_a_name_that_is_not_there_is_an_error(data):
    with pytest.raises(KeyError):
        image.load_object(data, ["missing"])


def test_an_object_for_another_processor_is_left_to_the_compilers_loader(data, monkeypatch):
    asked = []
    monkeypatch.setattr(llvm, "load_object", lambda data, names: asked.append(names))
    image.load_object(data[:18] + b"\xb7\0" + data[20:], ["number"])
    image.load_object(b"\xfe\xed\xfa\xce" + bytes(100), ["number"])
    image.load_object(b"", ["number"])
    assert asked == [["number"]] * 3


def test_a_processor_has_the_same_identity_every_time():
    assert processor_identity() == processor_identity()
    assert all(processor_identity())
