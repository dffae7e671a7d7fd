"""The print formats, held to what Inferno printed and to the quirks of its manual."""

import math

import pytest

from llmbol_core.builtins.format import format_text
from llmbol_core.errors import Trap


class Given:
    """Hands out the arguments of a test; each has the type that is asked for."""

    def __init__(self, values):
        self.values = list(values)

    def next(self, kind):
        value = self.values.pop(0)
        assert isinstance(value, kind)
        return value

    def reference(self):
        return self.word()

    def word(self):
        return self.next(int)

    def big(self):
        return self.next(int)

    def real(self):
        return self.next(float)

    def string(self):
        return self.next(str)


# fmt: off
CASES = [
    ("[%d] [%5d] [%-5d] [%05d] [%+d]", (42,) * 5,   "[42] [   42] [42   ] [00042] [+42]"),
    ("[%d] [%5d] [%-5d] [%05d] [%+d]", (-42,) * 5,  "[-42] [  -42] [-42  ] [-0042] [-42]"),
    ("[%x] [%X] [%#x] [%#X] [%08x]", (48879,) * 5,  "[beef] [BEEF] [0xbeef] [0XBEEF] [0000beef]"),
    ("[%o] [%#o] [%#o]", (493, 493, 0),             "[755] [0755] [0]"),
    ("[%ud] [%ux] [%x] [%X]", (-1,) * 4,            "[4294967295] [ffffffff] [-1] [-1]"),
    ("[%bd] [%20bd] [%bx]", (1 << 40, -5, -1),      "[1099511627776] [                  -5] [-1]"),
    ("[%bud] [%ubx]", (-1, -1),                     "[18446744073709551615] [ffffffffffffffff]"),
    ("[%,d] [%,d] [%,d]", (999, 1000, -1234567),    "[999] [1,000] [-1,234,567]"),
    ("[%.4d] [%8.3d] [% d]", (7, 7, 7),             "[0007] [     007] [ 7]"),
    ("[%hd] [%hhd] [%uhx]", (70000, 300, -1),       "[4464] [44] [ffff]"),
    ("[%c] [%c] [%3c] [%-3c]", (97, 233, 122, 98),  "[a] [é] [  z] [b  ]"),
    ("[%c] [%c]", (-1, 0xD800),                     "[\ufffd] [\ufffd]"),
    ("[%s] [%10s] [%-10s]", ("abcdef", "abc", "abc"),   "[abcdef] [       abc] [abc       ]"),
    ("[%.3s] [%10.2s] [%.0s]", ("abcdef", "abc", "x"),  "[abc] [        ab] []"),
    ("[%5s] [%-5s]", ("日本", "日本"),                "[   日本] [日本   ]"),
    ("[%q] [%q] [%q] [%q]", ("plain", "two words", "it's", ""),
                                                    "[plain] ['two words'] ['it''s'] ['']"),
    ("[%#q] [%6q] [%-6q] [%6q]", ("a", "b", "c d", "é é"),  "['a'] [     b] ['c d' ] ['é é']"),
    ("[%e] [%f] [%g]", (12345.678,) * 3,            "[1.234568e+04] [12345.678000] [12345.678]"),
    ("[%E] [%G] [%g]", (12345.678, 1e-20, 1e300),   "[1.234568E+04] [1E-20] [1e+300]"),
    ("[%.0f] [%.2f] [%10.3f]", (2.5, 2.345, 3.14159),   "[2] [2.35] [     3.142]"),
    ("[%-10.3f] [%010.3f] [%+.1e]", (3.14159, 3.14159, 31415.9),
                                                    "[3.142     ] [     3.142] [+3.1e+04]"),
    ("[%#e] [%#.1f] [%#12g]", (-math.inf, math.inf, -math.nan),
                                                    "[-Infinity.] [Infinity.] [       -NaN.]"),
    ("[%g] [%g] [%g] [%g]", (0.0, 1e5, 1e6, 1e-4),  "[0] [100000] [1e+06] [.0001]"),
    ("[%g] [%g] [%g]", (1e-5, -0.25, 2.5),          "[1e-05] [-.25] [2.5]"),
    ("[%.15g] [%.17g] [%.3g]", (0.1, 0.1, 123456.0),    "[0.1] [0.10000000000000001] [1.23e+05]"),
    ("[%.3g] [%8g] [%+g] [%.0g]", (0.25, 0.25, 1.0, 1234.5), "[0.25] [    0.25] [1] [1234.5]"),
    ("[%g] [%g] [%g]", (math.inf, -math.inf, math.nan), "[Infinity] [-Infinity] [NaN]"),
    ("[%10.2f] [%+.1g] [%e]", (math.inf, math.inf, math.nan),
                                                    "[  Infinity] [+Infinity] [NaN]"),
    ("[%.30f]", (0.5,),                             "[0.50000000000000000000]"),
    ("[%*d] [%-*d] [%*d] [%.*f]", (6, 7, 6, 7, -6, 7, 3, 2.0),
                                                    "[     7] [7     ] [7     ] [2.000]"),
    ("100%% %d%%", (50,),                           "100% 50%"),
    ("[%5%] [%r] [%20r]", (),                       "[%] [why] [why]"),
    ("[%zd]", (5,),                                 "[%z%d]"),
    ("cut %", (),                                   "cut "),
    ("cut %5", (),                                  "cut "),
    ("nul [%s]", ("a\0b",),                         "nul [a]"),
    ("%H", (-1,),                                   "ffffffff"),
]
# fmt: on


@pytest.mark.parametrize(("template", "values", "expected"), CASES)
def test_format(template, values, expected):
    assert format_text(template, Given(values), "why") == expected


def test_a_directive_that_ends_the_text_takes_no_argument():
    assert format_text("%d %", Given([1]), "") == "1 "


def test_wide_fields_of_zeros_are_bounded():
    assert len(format_text("%0500d", Given([1]), "")) < 80


@pytest.mark.parametrize(
    ("template", "values"),
    [
        ("%999999999d", [1]),
        ("%99999999999999999999s", ["a"]),
        ("%*d", [1 << 30, 1]),
        ("%60s%60s", ["a", "b"]),
        ("%s", ["x" * 101]),
    ],
)
def test_what_is_too_long_is_not_made(template, values):
    with pytest.raises(Trap, match="out of memory: heap"):
        format_text(template, Given(values), "", 100)
