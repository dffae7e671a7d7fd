"""From text to machine code and back from the object file."""

from __future__ import annotations

import ctypes

import pytest

from llmbol_core.errors import UsageError
from llmbol_core.native import llvm

TEXT = """
define i32 @three_more(i32 %a) {
 %b = add i32 %a, 3
 ret i32 %b
}
define double @third(double %x) {
 %y = fdiv double %x, 3.0
 ret double %y
}
"""


@pytest.mark.parametrize("level", [1, 2])
def test_compiled_functions_run(level):
    library = llvm.load_object(llvm.compile_text(TEXT, level), ["three_more", "third"])
    three_more = llvm.function(library.addresses["three_more"], ctypes.c_int32, ctypes.c_int32)
    third = llvm.function(library.addresses["third"], ctypes.c_double, ctypes.c_double)
    assert three_more(4) == 7
    assert third(1.5) == 0.5


def test_an_object_can_be_loaded_twice():
    data = llvm.compile_text(TEXT)
    first, second = (llvm.load_object(data, ["third"]) for _ in range(2))
    assert first.addresses != second.addresses


def test_malformed_text_is_refused():
    with pytest.raises(UsageError, match="LLVM refuses the code"):
        llvm.compile_text("define i32 @f() { ret i33 0 }")


def test_a_pass_of_the_callers_own_runs_behind_llvms():
    seen = []

    def after(text):
        seen.append(text)
        return text.replace("%x, 3.0", "%x, 4.0").replace("3.000000e+00", "4.000000e+00")

    library = llvm.load_object(llvm.compile_text(TEXT, after=after), ["third"])
    quarter = llvm.function(library.addresses["third"], ctypes.c_double, ctypes.c_double)
    assert quarter(1.0) == 0.25
    llvm.compile_text(TEXT, 1, after=after)
    assert len(seen) == 1
