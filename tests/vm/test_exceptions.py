"""Exceptions: which handler takes one, and what is left when it does."""

from __future__ import annotations

import pytest

from llmbol_core.errors import Trap
from llmbol_core.vm import traps
from llmbol_core.vm.limits import Limits
from tests.vm.programs import run

STRING = """
    raise 0(mp)
    movw $0,0(16(fp))
    ret
    movw $1,0(16(fp))
    ret
    movw $2,0(16(fp))
    ret
"""
TABLE = """
    string @mp+0,"{raised}"
    exceptions 1
    exception 0, 1, 36, -1, {count}, {typed}
    {labels}
    exctab *, {default}
"""
OBJECT = "new $2,32(fp)\nmovp 0(mp),0(32(fp))\nmovw $5,4(32(fp))\nraise 32(fp)\n"


def table(raised, *labels, default=-1, typed=0):
    lines = "\n".join(f'exctab "{pattern}", {pc}' for pattern, pc in labels)
    return TABLE.format(
        raised=raised, count=len(labels), typed=typed, labels=lines, default=default
    )


@pytest.mark.parametrize(
    ("raised", "labels", "default", "wanted"),
    [
        ("abc", [("abc", 3)], -1, 1),
        ("abc", [("ab*", 3)], -1, 1),
        ("abc", [("*", 3)], -1, 1),
        ("abc", [("abc*", 3)], -1, 1),
        ("abc", [("ab", 3), ("abc", 5)], -1, 2),
        ("abc", [("ab", 3), ("abd*", 5)], 3, 1),
        ("abc", [("a*", 3), ("abc", 5)], -1, 1),
        ("abc", [("ab", 3)], -1, None),
        ("abc", [("a*c", 3)], -1, None),
        ("fail:x", [("fail:*", 5)], -1, 2),
    ],
)
def test_patterns(raised, labels, default, wanted):
    more = table(raised, *labels, default=default)
    if wanted is None:
        with pytest.raises(Trap, match=raised):
            run(STRING, more)
    else:
        assert run(STRING, more) == wanted


def test_the_value_is_the_string():
    code = "raise 0(mp)\nret\nlenc 36(fp),0(16(fp))\nret"
    assert run(code, table("four", ("*", 2))) == 4


def test_a_fault_is_the_string_of_its_text():
    code = "movw 4(4(mp)),64(fp)\nret\nlenc 36(fp),0(16(fp))\nret"
    assert run(code, table("x", ("dereference*", 2))) == len(traps.NIL_DEREFERENCE)


def raising_object(*labels, default=-1, typed=1, depth=0):
    """Return a program that raises an object so many calls below its handler."""
    code = ""
    for level in range(depth):
        code += f"frame $6,64(fp)\ncall 64(fp),f{level}\nret\nf{level}: "
    code += OBJECT + "ret\nmovw $1,0(16(fp))\nret\nmovw $2,0(16(fp))\nret\n"
    start = 3 * depth
    more = table("Mod.0.Name", *((p, start + pc) for p, pc in labels), typed=typed)
    if default >= 0:
        more = more.replace("exctab *, -1", f"exctab *, {start + default}")
    end = start + 4 if depth == 0 else 2
    more = more.replace("exception 0, 1", f"exception 0, {end}")
    # A frame that can hold the object's reference, for those in between.
    return code.replace("$6", "$1"), more


def run_object(*labels, **options):
    code, more = raising_object(*labels, **options)
    return run(code, more, verify=False)


def test_typed_labels_take_objects_and_patterns_take_strings():
    both = [("Mod.0.Name", 5), ("*", 7)]
    assert run_object(*both) == 1
    with pytest.raises(Trap, match=r"Mod\.0\.Name"):
        run_object(("Mod.0.Name", 5), typed=0)
    assert run_object(("Other", 5), default=7) == 2


def test_an_object_reaches_the_caller_and_then_only_its_name_goes_on():
    both = [("Mod.0.Name", 5), ("Mod*", 7)]
    assert run_object(*both, depth=1) == 1
    assert run_object(*both, depth=2) == 2
    # Where only a pattern fits, the caller is offered the name at once.
    assert run_object(("Other", 5), ("Mod*", 7), depth=1) == 2


def test_handlers_are_tried_in_the_order_of_the_table():
    more = table("abc", ("*", 3)).replace("exceptions 1", "exceptions 2")
    more += 'exception 0, 3, 36, -1, 1, 0\nexctab "*", 5\nexctab *, -1\n'
    assert run(STRING, more) == 1


def test_frames_locals_and_frames_not_yet_called_are_released():
    """The heap is empty afterwards: ``run`` checks that."""
    code = """
    new $2,40(fp)
    frame $1,64(fp)
    movp 0(mp),32(64(fp))
    call 64(fp),one
    movw $0,0(16(fp))
    ret
    caught: beqw 40(fp),$-1,gone
    movw $2,0(16(fp))
    ret
    gone: movw $1,0(16(fp))
    ret
    one: new $2,32(fp)
    frame $1,64(fp)
    new $2,32(64(fp))
    frame $1,68(fp)
    new $2,36(68(fp))
    frame $1,72(fp)
    call 72(fp),two
    call 68(fp),two
    call 64(fp),two
    ret
    two: newa $10,$5,32(fp)
    indw 32(fp),64(fp),$0
    new $2,0(64(fp))
    raise 0(mp)
    ret
    """
    more = table("abc", ("*", 6)).replace("exception 0, 1, 36, -1", "exception 3, 4, 36, 8")
    assert run(code, "desc $8,44,(40)\n" + more) == 1


def test_the_stack_can_be_used_again_after_unwinding_over_its_extents():
    code = """
    movw $0,64(fp)
    again: frame $8,68(fp)
    movw $2000,32(68(fp))
    call 68(fp),deep
    ret
    caught: addw $1,64(fp)
    bltw 64(fp),$5,again
    movw 64(fp),0(16(fp))
    ret
    deep: bgtw 32(fp),$0,deeper
    raise 0(mp)
    deeper: frame $8,36(fp)
    subw $1,32(fp),32(36(fp))
    call 36(fp),deep
    ret
    """
    more = table("abc", ("*", 5)).replace("exception 0, 1", "exception 3, 4")
    assert run(code, 'desc $8,40,""\n' + more, limits=Limits(1 << 19)) == 5


def test_that_memory_is_short_is_handled_again_and_again_with_nothing_left():
    code = """
    consw 60(fp),32(fp)
    jmp $0
    movp 28(mp),32(fp)
    consw 60(fp),32(fp)
    jmp $3
    movp 28(mp),32(fp)
    lenc 36(fp),64(fp)
    lenc 40(fp),68(fp)
    addw 64(fp),68(fp),0(16(fp))
    ret
    """
    more = f"""
    exceptions 2
    exception 0, 2, 36, -1, 1, 0
    exctab "{traps.HEAP_FULL}", 2
    exctab *, -1
    exception 3, 5, 40, -1, 1, 0
    exctab "{traps.HEAP_FULL}", 5
    exctab *, -1
    """
    assert run(code, more, limits=Limits(1 << 17)) == 2 * len(traps.HEAP_FULL)
