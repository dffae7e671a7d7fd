"""$Math: every function against Inferno's values, edges, arrays that do not fit."""

import math
import struct
from pathlib import Path

import pytest

from llmbol_core.builtins import HOST_MODULES, bessel
from llmbol_core.builtins.elementary import UNARY
from llmbol_core.errors import Trap
from llmbol_core.vm.heaptypes import BYTE, REAL, WORD
from llmbol_core.vm.ieee import _CALLED, CAREFUL, INVALID
from tests.builtins.calling import Caller

inf, nan = math.inf, math.nan


@pytest.fixture(scope="module")
def call():
    return Caller("$Math")


# fmt: off
# function, arguments, what Inferno printed with %.10g
PRINTED = [
    ("sqrt", (2.0,), "1.414213562"),
    ("cbrt", (27.0,), "3"),
    ("sin", (1.0,), "0.8414709848"),
    ("cos", (1.0,), "0.5403023059"),
    ("tan", (1.0,), "1.557407725"),
    ("asin", (0.5,), "0.5235987756"),
    ("acos", (0.5,), "1.047197551"),
    ("atan", (2.0,), "1.107148718"),
    ("atan2", (-1.0, -1.0), "-2.35619449"),
    ("sinh", (1.5,), "2.129279455"),
    ("cosh", (1.5,), "2.352409615"),
    ("tanh", (0.5,), "0.4621171573"),
    ("asinh", (2.0,), "1.443635475"),
    ("acosh", (2.0,), "1.316957897"),
    ("atanh", (0.25,), "0.2554128119"),
    ("exp", (3.0,), "20.08553692"),
    ("expm1", (1e-5,), "1.000005e-05"),
    ("log", (10.0,), "2.302585093"),
    ("log10", (1000.0,), "3"),
    ("log1p", (1e-5,), "9.99995e-06"),
    ("pow", (2.5, 3.5), "24.70529422"),
    ("pow10", (-3,), "0.001"),
    ("hypot", (3.0, 4.0), "5"),
    ("fabs", (-2.5,), "2.5"),
    ("floor", (-2.5,), "-3"),
    ("ceil", (-2.5,), "-2"),
    ("rint", (2.5,), "2"),
    ("rint", (3.5,), "4"),
    ("fmod", (7.5, 2.0), "1.5"),
    ("remainder", (7.5, 2.0), "-0.5"),
    ("copysign", (3.0, -0.5), "-3"),
    ("fdim", (5.0, 3.0), "2"),
    ("fmin", (5.0, 3.0), "3"),
    ("fmax", (5.0, 3.0), "5"),
    ("erf", (0.5,), "0.5204998778"),
    ("erfc", (0.5,), "0.4795001222"),
    ("j0", (1.5,), "0.5118276717"),
    ("j1", (1.5,), "0.5579365079"),
    ("jn", (3, 1.5), "0.06096395114"),
    ("y0", (1.5,), "0.3824489238"),
    ("y1", (1.5,), "-0.412308627"),
    ("yn", (2, 1.5), "-0.9321937598"),
    ("scalbn", (0.75, 10), "768"),
    ("ilogb", (1000.0,), "9"),
    ("ilogb", (0.001,), "-10"),
    ("isnan", (nan,), "1"),
    ("isnan", (1.0,), "0"),
    ("finite", (1.0,), "1"),
    ("finite", (inf,), "0"),
    ("realbits32", (1.5,), "1069547520"),
]
EDGES = [
    ("log", (0.0,), -inf),
    ("log", (-1.0,), nan),
    ("log10", (-0.0,), -inf),
    ("log1p", (-1.0,), -inf),
    ("exp", (1e3,), inf),
    ("exp", (-inf,), 0.0),
    ("expm1", (1e3,), inf),
    ("sinh", (-1e3,), -inf),
    ("cosh", (-1e3,), inf),
    ("atanh", (1.0,), inf),
    ("atanh", (-1.0,), -inf),
    ("atanh", (2.0,), nan),
    ("acosh", (0.5,), nan),
    ("asin", (2.0,), nan),
    ("sqrt", (-1.0,), nan),
    ("sin", (inf,), nan),
    ("fmod", (1.0, 0.0), nan),
    ("remainder", (1.0, 0.0), nan),
    ("fmod", (inf, 1.0), nan),
    ("tan", (nan,), nan),
    ("pow", (0.0, -1.0), inf),
    ("pow", (-0.0, -3.0), -inf),
    ("pow", (-10.0, 1001.0), -inf),
    ("pow", (-8.0, 0.5), nan),
    ("pow", (1.0, inf), nan),
    ("pow", (2.0, inf), inf),
    ("pow", (nan, 0.0), 1.0),
    ("pow10", (400,), inf),
    ("scalbn", (-1.0, 5000), -inf),
    ("scalbn", (1.0, -5000), 0.0),
    ("ilogb", (0.0,), -2147483647),
    ("ilogb", (inf,), 2147483647),
    ("ceil", (-0.5,), -0.0),
    ("floor", (-inf,), -inf),
    ("floor", (1e300,), 1e300),
    ("rint", (-0.2,), -0.0),
    ("rint", (nan,), nan),
    ("cbrt", (-27.0,), -3.0),
    ("cbrt", (-0.0,), -0.0),
    ("cbrt", (inf,), inf),
    ("fmax", (nan, 1.0), nan),
    ("fmax", (1.0, nan), 1.0),
    ("fdim", (1.0, 2.0), 0.0),
    ("nextafter", (1.0, 2.0), 1.0 + 2.0**-52),
    ("lgamma", (-0.5,), (-1, 1.2655121234846454)),
    ("lgamma", (5.5,), (1, math.lgamma(5.5))),
    ("lgamma", (-2.0,), (1, inf)),
    ("modf", (-3.75,), (-3, -0.75)),
    ("modf", (1e300,), (-(1 << 31), 0.0)),
    ("jn", (2, 0.0), 0.0),
    ("j0", (0.0,), 1.0),
    ("j0", (inf,), 0.0),
    ("y0", (0.0,), -inf),
    ("y1", (-1.0,), nan),
    ("yn", (3, inf), 0.0),
    ("jn", (1000, 5.0), 0.0),
    ("realbits64", (-0.1,), -4631501856787818086),
    ("bits64real", (0x400921FB54442D18,), math.pi),
    ("bits32real", (0x40490FDB,), 3.1415927410125732),
    ("realbits32", (1e300,), 0x7F800000),
]
# fmt: on


@pytest.mark.parametrize(("name", "values", "printed"), PRINTED)
def test_values_that_inferno_printed(call, name, values, printed):
    assert f"{call(name, *values):.10g}" == printed


def printed_exactly():
    """Yield function, arguments and result of calls whose results Inferno printed exactly."""
    for line in (Path(__file__).parent / "data" / "elementary.txt").read_text().splitlines()[1:]:
        name, *values, result = line.split()
        yield name, *map(number, values), float(result)


def number(text):
    return int(text) if text.removeprefix("-").isdigit() else float(text)


def test_every_digit_is_infernos(call):
    for name, *values, result in printed_exactly():
        found = call(name, *values)
        assert struct.pack("d", found) == struct.pack("d", result), (name, values)


@pytest.mark.parametrize("x", [1e6, -1e15, 1e22, 3e100, -1.7e308])
def test_angles_of_any_size(call, x):
    for name in ("sin", "cos", "tan"):
        assert call(name, x) == pytest.approx(getattr(math, name)(x), rel=1e-14)


@pytest.mark.parametrize(("name", "values", "expected"), EDGES)
def test_edges(call, name, values, expected):
    found = call(name, *values)
    assert found == expected or (math.isnan(found) and math.isnan(expected))
    if found == 0:
        assert math.copysign(1, found) == math.copysign(1, expected)


@pytest.mark.parametrize("n", [0, 1, 2, 7, 30])
@pytest.mark.parametrize("x", [1e-12, 0.01, 0.9, 8.6537, 24.9999, 25.0001, 300.0, 1e6])
def test_bessel_functions_satisfy_their_wronskian(n, x):
    j, y = ([f(k, x) for k in (n, n + 1)] for f in (bessel.jn, bessel.yn))
    product = j[1] * y[0] - j[0] * y[1]
    assert not math.isfinite(product) or product == pytest.approx(2 / (math.pi * x), rel=1e-12)


def test_bessel_reflections():
    assert bessel.jn(-3, 1.5) == -bessel.jn(3, 1.5) == bessel.jn(3, -1.5)
    assert bessel.jn(-2, 1.5) == bessel.jn(2, 1.5) == bessel.jn(2, -1.5)
    assert bessel.yn(-3, 1.5) == -bessel.yn(3, 1.5)


def test_orders_are_bounded(call):
    with pytest.raises(Trap, match="invalid math argument"):
        call("jn", 1 << 30, 1.0)


def test_vectors(call):
    x, y = [1.0, -2.0, 3.0, -4.0], [0.5, 0.25, 2.0, 1.0]
    assert call("dot", x, y) == 2
    assert call("norm1", x) == 10
    assert call("norm2", x) == math.sqrt(30)
    assert call("iamax", x) == 3
    assert call("iamax", [1.0, -5.0, 5.0]) == 1
    assert call("iamax", []) == call("norm2", []) == 0


# fmt: off
MISFITS = [
    ("dot",           ([1.0], [1.0, 2.0]),         "invalid math argument"),
    ("dot",           (None, [1.0]),               "dereference of nil"),
    ("norm1",         (None,),                     "dereference of nil"),
    ("sort",          ([1.0, 2.0], [0, 2]),        "invalid math argument"),
    ("sort",          ([1.0, 2.0], [-1]),          "invalid math argument"),
    ("export_int",    (bytes(7), [1, 2]),          "invalid math argument"),
    ("import_real",   (bytes(8), [1.0, 2.0]),      "invalid math argument"),
    ("import_real32", (None, [1.0]),               "dereference of nil"),
]
# fmt: on


@pytest.mark.parametrize(("name", "values", "why"), MISFITS)
def test_vectors_that_do_not_fit(call, name, values, why):
    with pytest.raises(Trap, match=why):
        call(name, *values)


def test_sort_orders_the_permutation(call):
    order = call.array(WORD, [0, 1, 2, 3])
    call("sort", [3.0, 1.0, 2.0, 1.0], order)
    assert call.items(order, "i") == [1, 3, 2, 0]


def test_sort_leaves_equal_values_where_inferno_does(call):
    order = call.array(WORD, range(14))
    call("sort", [float(i % 3 == 0) for i in range(14)], order)
    assert call.items(order, "i") == [13, 1, 2, 5, 7, 8, 10, 11, 4, 3, 0, 9, 6, 12]


# fmt: off
BYTES = [
    ("int",    WORD, "i", [1, -2, 1 << 30],    ">3i"),
    ("real",   REAL, "d", [1.5, -0.1, inf],    ">3d"),
    ("real32", REAL, "d", [1.5, -0.25, inf],   ">3f"),
]
# fmt: on


@pytest.mark.parametrize(("suffix", "kind", "item", "values", "layout"), BYTES)
def test_export_and_import(call, suffix, kind, item, values, layout):
    data = call.array(BYTE, bytes(struct.calcsize(layout)))
    call(f"export_{suffix}", data, values)
    assert bytes(call.items(data, "B")) == struct.pack(layout, *values)
    back = call.array(kind, [0, 0, 0])
    call(f"import_{suffix}", data, back)
    assert call.items(back, item) == values


def test_export_of_a_real_too_large_for_32_bits(call):
    data = call.array(BYTE, bytes(4))
    call("export_real32", data, [1e300])
    assert bytes(call.items(data, "B")) == b"\x7f\x80\0\0"


def test_modules_that_know_of_the_words_are_known_by_what_they_call():
    functions = HOST_MODULES["$Math"].functions
    calls = {(f.name, f.signature) for f in functions if "FP" in f.name}
    assert calls == set(_CALLED)


@pytest.mark.parametrize("name", UNARY)
def test_what_is_no_number_raises_nothing(name):
    call = Caller("$Math")
    call.process.floating = CAREFUL | INVALID
    for _ in range(50):
        assert math.isnan(call(name, nan))


def test_control_words():
    call = Caller("$Math")
    assert call("getFPcontrol") == 15
    assert call("FPcontrol", 0, 31) == 15
    assert call("getFPcontrol") == 0
    assert call("FPcontrol", 2 << 8, 3 << 8) == 0
    assert call("getFPcontrol") == 2 << 8
    assert call("FPstatus", 4, 31) == 0
    assert call("getFPstatus") == 4
    assert Caller("$Math")("getFPcontrol") == 15


def reference_gemm(trans, m, n, k, alpha, beta, arrays):
    """Return C by the definition, element by element."""
    (a, lda), (b, ldb), (c, ldc) = arrays
    result = list(c)
    for i in range(m):
        for j in range(n):
            total = 0.0
            for q in range(k):
                left = a[i + q * lda] if trans[0] == "N" else a[q + i * lda]
                right = b[q + j * ldb] if trans[1] == "N" else b[j + q * ldb]
                total += left * right
            result[i + j * ldc] = alpha * total + beta * c[i + j * ldc]
    return result


@pytest.mark.parametrize("beta", [0.0, 1.0, -0.5])
@pytest.mark.parametrize("trans", ["NN", "NT", "TN", "TT", "CC"])
def test_gemm(call, trans, beta):
    m, n, k, lda, ldb, ldc = 2, 3, 4, 5, 6, 3
    a = [float(i % 7 - 3) for i in range(25)]
    b = [float(i % 5 - 2) for i in range(36)]
    c = [float(i) for i in range(12)]
    array = call.array(REAL, c)
    ops = [ord(t) for t in trans]
    call("gemm", *ops, m, n, k, 2.0, a, lda, b, ldb, beta, array, ldc)
    expected = reference_gemm(trans, m, n, k, 2.0, beta, ((a, lda), (b, ldb), (c, ldc)))
    assert call.items(array, "d") == expected


def test_gemm_without_a_and_without_alpha(call):
    array = call.array(REAL, [1.0, 2.0, 3.0, 4.0])
    call("gemm", 78, 84, 2, 2, 0, 2.0, None, 0, [1.0, 2.0, 3.0, 4.0], 2, 1.0, array, 2)
    # Inferno leaves C alone when k is 0 and beta 1, whatever else is given.
    assert call.items(array, "d") == [1.0, 2.0, 3.0, 4.0]
    call("gemm", 78, 84, 2, 2, 2, 2.0, None, 0, [1.0, 2.0, 3.0, 4.0], 2, 1.0, array, 2)
    assert call.items(array, "d") == [3.0, 8.0, 7.0, 12.0]
    call("gemm", 78, 78, 2, 2, 1, 0.0, [1.0, 2.0], 2, [1.0, 2.0], 1, 2.0, array, 2)
    assert call.items(array, "d") == [6.0, 16.0, 14.0, 24.0]
    call("gemm", 78, 78, 2, 2, 1, 0.0, [1.0, 2.0], 2, [1.0, 2.0], 1, 0.0, array, 2)
    assert call.items(array, "d") == [0.0] * 4


# fmt: off
BAD_PRODUCTS = [
    ((88, 78, 1, 1, 1, 1.0, [1.0], 1, [1.0], 1, 0.0, [1.0], 1),         "invalid math argument"),
    ((78, 78, -1, 1, 1, 1.0, [1.0], 1, [1.0], 1, 0.0, [1.0], 1),        "invalid math argument"),
    ((78, 78, 2, 1, 1, 1.0, [1.0], 1, [1.0], 1, 0.0, [1.0, 1.0], 2),    "array bounds error"),
    ((78, 78, 2, 2, 1, 1.0, [1.0] * 2, 2, [1.0] * 2, 1, 0.0, [1.0], 2), "array bounds error"),
    ((78, 78, 1, 1, 9, 1.0, [1.0], 1, [1.0], 9, 0.0, [1.0], 1),         "array bounds error"),
    ((78, 78, 1, 1, 1, 1.0, [1.0], 1, None, 1, 0.0, [1.0], 1),          "dereference of nil"),
    ((78, 78, 1, 1, 1, 1.0, [1.0], 1, [1.0], 1, 0.0, None, 1),          "dereference of nil"),
]
# fmt: on


@pytest.mark.parametrize(("arguments", "why"), BAD_PRODUCTS)
def test_gemm_refuses(call, arguments, why):
    with pytest.raises(Trap, match=why):
        call("gemm", *arguments)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("sqrt", (-1.0,)),
        ("acos", (2.0,)),
        ("log", (-1.0,)),
        ("fmod", (1.0, 0.0)),
        ("pow", (-1.0, inf)),
        ("yn", (2, -1.0)),
    ],
)
def test_undefined_operations_have_the_sign_of_the_386(call, name, arguments):
    value = call(name, *arguments)
    assert math.isnan(value)
    assert math.copysign(1.0, value) < 0


def test_infinities_and_zeros_keep_to_the_library(call):
    assert call("lgamma", -inf) == (1, inf)
    assert math.copysign(1.0, call("j1", -0.0)) < 0
    assert math.copysign(1.0, call("jn", -1, 0.0)) < 0
