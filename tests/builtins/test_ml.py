"""$Ml: every operation of the table through a frame, memory that counts, traces, arrays, text."""

import json
import math
import tracemalloc
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest

from llmbol_core.builtins.ml import tensors
from llmbol_core.builtins.ml.scratch import scratch_bytes
from llmbol_core.builtins.ml.tensors import keep, keep_view, tensor_of
from llmbol_core.errors import LimitError, LlmbolError, Trap
from llmbol_core.ml.engine import Engine
from llmbol_core.ml.graph import Graph
from llmbol_core.ml.ops import OPS
from llmbol_core.ml.quantization import quantize
from llmbol_core.ml.tensor import Tensor
from llmbol_core.vm import traps
from llmbol_core.vm.arena import FREE, NIL
from llmbol_core.vm.heaptypes import BYTE, REAL
from llmbol_core.vm.host import RESULT, Session
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.module import TypeDescriptor
from llmbol_core.vm.objects import ARRAY, STACK
from tests.builtins.calling import Borrowed, Caller


class MlCaller(Caller):
    """A process that calls $Ml."""

    def __init__(self, limit=1 << 24):
        super().__init__("$Ml", limit=limit)
        self.machine.session = Session()
        self.machine.limits = Limits()
        self.machine.scheduler = SimpleNamespace(processes={})

    def tensor(self, values, kind="F32"):
        """Return a reference to a tensor of these numbers."""
        tensor = Tensor(np.ascontiguousarray(values))
        made = tensor if kind in ("F32", tensor.dtype.name) else quantize(tensor, kind)
        return Borrowed(keep(self.heap, made))

    def fetch(self, kind, address):
        """Return references as such, so that they can be passed on."""
        if str(kind).startswith("ref "):
            return Borrowed(self.heap.pointer(address))
        return super().fetch(kind, address)

    def numbers(self, ref):
        """Return the numbers of a tensor."""
        return tensor_of(self.heap, ref.ref).numpy()

    def dropped(self, *refs):
        """Release references; return the bytes that still count."""
        for ref in refs:
            self.heap.release(ref.ref)
        return self.heap.reserved


@pytest.fixture
def call():
    caller = MlCaller()
    with caller.machine.session:
        yield caller


def example(name, rng):
    """Return the inputs of an operation's example, and all its attributes in order."""
    row = OPS[name]
    inputs, attributes = row.example(rng)
    plain = [x.astype(np.int32 if x.dtype.kind == "i" else np.float32) for x in inputs]
    return row, plain, row.conform(attributes)


@pytest.mark.parametrize("name", OPS)
def test_operation_gives_what_the_table_gives(call, rng, name):
    row, inputs, attributes = example(name, rng)
    expected = row(*inputs, **attributes)
    given = [call.tensor(x) for x in inputs]
    absent = [Borrowed(NIL)] * (len(row.inputs) - len(inputs))
    for _ in range(3):  # the first call looks, the next ones know
        result = call(name, *given, *absent, *attributes.values())
        found = call.numbers(result)
        assert found.dtype == row.dtype.layout
        assert found.tobytes() == np.ascontiguousarray(expected).tobytes()
        assert call.heap.word(result.ref) == expected.ndim
        assert call.heap.word(result.ref + 4) == expected.size


@pytest.mark.parametrize("name", OPS)
def test_operation_on_symbols_is_traced(call, rng, name):
    row, inputs, attributes = example(name, rng)
    batch, *rest = [x.astype(np.float32) for x in inputs]
    graph = Graph()
    try:
        weights = {str(i): x for i, x in enumerate(rest)}
        x = graph.input("x", batch.shape[1:])
        given = [x, *(graph.weight(key, w.shape) for key, w in weights.items())]
        graph.output(graph.op(name, *given, **attributes))
        expected = Engine(graph, weights).run(batch)
    except LlmbolError:
        pytest.skip("not for batches of numbers")
    symbol = call("input", list(batch.shape[1:]))
    absent = [Borrowed(NIL)] * (len(row.inputs) - len(inputs))
    y = call(name, symbol, *map(call.tensor, rest), *absent, *attributes.values())
    result = call("run", call("plan", symbol, y), call.tensor(batch))
    assert call.numbers(result).tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", OPS)
def test_scratch_is_bounded_by_its_rule(rng, name):
    """What NumPy allocates at the peak of an example is no more than what is set aside."""
    row, inputs, attributes = example(name, rng)
    for longer in ([np.repeat(x, 3000, axis=0) for x in inputs], inputs):
        first = [longer[0], *inputs[1:]]
        for given in (first, longer):
            with suppress(LlmbolError):
                row(*given, **attributes)
                _hold_to_rule(row, given, attributes)
                return
    pytest.fail("no example runs")


def _hold_to_rule(row, inputs, attributes):
    shapes = [x.shape for x in inputs] + [None] * (len(row.inputs) - len(inputs))
    inputs = [row.value(name, x) for name, x in zip(row.inputs, inputs, strict=False)]
    output = row.run(*inputs, **attributes)
    tracemalloc.start()
    row.run(*inputs, **attributes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    allowed = scratch_bytes(row, output.shape, shapes, attributes) + output.nbytes
    assert peak <= allowed + (1 << 16)


def test_quantized_weights_pass(call, rng):
    x, w = rng.normal(size=(3, 64)).astype(np.float32), rng.normal(size=(8, 64)).astype(np.float32)
    blocks = quantize(Tensor(w), "Q4_0")
    for _ in range(2):
        y = call("linear", call.tensor(x), call.tensor(w, "Q4_0"), Borrowed(NIL))
        np.testing.assert_array_equal(call.numbers(y), OPS["linear"](x, blocks))
    assert call("dtype", call.tensor(w, "Q4_0")) == "Q4_0"
    expanded = call("dequantize", call.tensor(w, "Q4_0"))
    assert call("dtype", expanded) == "F32"
    assert call("shape", expanded) == [8, 64]


def test_bytes_count_and_are_released(call):
    heap = call.heap
    assert heap.reserved == 0
    a = call.tensor(np.ones((100, 100), np.float32))
    assert heap.reserved == 40_000
    b = call("add", a, a)
    assert heap.reserved == 80_000
    assert call.dropped(a) == 40_000
    assert call.dropped(b) == 0


def test_a_view_keeps_what_it_shares(call):
    a = call.tensor(np.arange(1000, dtype=np.float32).reshape(10, 100))
    part = call("slice", a, 0, 3, 4, 1)
    assert call.dropped(a) == 4000, "the whole is still there"
    assert call.numbers(part).tolist() == [list(range(300, 400))]
    assert call.dropped(part) == 0


def test_no_more_than_the_limit(call):
    a = call.tensor(np.zeros((1000, 1000), np.float32))
    for name, *attributes in (
        ("repeat", 0, 100),
        ("pad", 0, 1 << 28, 1 << 28, 0.0),
        ("pad_circular", 0, 900, 900),
        ("upsample_nearest", [1 << 16, 1 << 16]),
    ):
        wide = call("reshape", a, [1, 1, 1000, 1000]) if name == "upsample_nearest" else a
        with pytest.raises(Trap, match="out of memory"):
            call(name, wide, *attributes)
    column, row = call("slice", a, 0, 0, 1, 1), call("slice", a, 1, 0, 1, 1)
    row = call("repeat", row, 0, 100)
    with pytest.raises(Trap, match="out of memory"):
        call("add", call("repeat", column, 1, 100), row)
    with pytest.raises(Trap, match="out of memory"):
        call("concat", a, a, 0)
    assert call.heap.used <= call.heap.limit


def test_scores_of_attention_count(call):
    long = call.tensor(np.zeros((1, 1, 100_000, 2), np.float32))
    with pytest.raises(Trap, match="out of memory"):
        call("attention", long, long, long, Borrowed(NIL), 0.0, 0)


def test_refusals_name_operation_shapes_and_types(call, rng):
    x = call.tensor(np.zeros((2, 31), np.float32))
    w = call.tensor(rng.normal(size=(8, 64)).astype(np.float32), "Q8_0")
    with pytest.raises(Trap) as caught:
        call("linear", x, w, Borrowed(NIL))
    for word in ("ml: ", "linear", "x 2x31 F32", "weight 8x64 Q8_0"):
        assert word in caught.value.name
    with pytest.raises(Trap, match="dereference of nil"):
        call("relu", Borrowed(NIL))
    with pytest.raises(Trap, match="ml: no tensor"):
        call("relu", Borrowed(call.heap.new_array(BYTE, 8)))
    with pytest.raises(Trap, match=r"get_rows.*F32"):
        call("get_rows", x, x)
    with pytest.raises(Trap, match="get_rows"):
        call("get_rows", x, call.tensor(np.array([0, 99], np.int32)))


ODD = [0, 1, -1, 2, 3, -7, 255, 1 << 16, (1 << 31) - 1, -(1 << 31)]
REALS = [0.0, -1.0, 1e300, -1e-300, math.inf, math.nan]


def odd_value(kind, rng):
    """Return a value that an attribute of a kind should not have."""
    if kind is tuple:
        return [int(n) for n in rng.choice(ODD, rng.integers(0, 4))]
    return float(rng.choice(REALS)) if kind is float else int(rng.choice(ODD))


@pytest.mark.parametrize("seed", range(4))
def test_odd_attributes_are_refused_or_work(seed):
    """Whatever the numbers, a call ends with a tensor within the limit or with an exception."""
    rng = np.random.default_rng(seed)
    caller, said = MlCaller(1 << 22), set()
    with caller.machine.session:
        for name in OPS:
            row, inputs, attributes = example(name, rng)
            if not attributes:
                continue
            given = [
                caller.tensor(x if x.dtype.kind == "i" else x.astype(np.float32)) for x in inputs
            ]
            given += [Borrowed(NIL)] * (len(row.inputs) - len(inputs))
            for _ in range(6):
                values = dict(attributes)
                for attribute in row.attributes:
                    if rng.random() < 0.5:
                        values[attribute.name] = odd_value(attribute.kind, rng)
                try:
                    caller(name, *given, *values.values())
                except Trap as error:
                    said.add(error.name)
                assert caller.heap.used <= caller.heap.limit
    assert len(said) > 50
    assert all(text.startswith(("ml: ", "out of memory")) for text in said)


# ---- arrays ----


def test_tensors_from_arrays_and_back(call):
    t = call("tensor", [0.1, -2.0, 1e300], [3])
    assert call.numbers(t).tolist() == [np.float32(0.1), -2.0, math.inf]
    back = call("reals", t)
    assert back.cast("B").cast("d").tolist() == [float(np.float32(0.1)), -2.0, math.inf]
    with pytest.raises(Trap, match="2 numbers do not fill the shape"):
        call("tensor", [1.0, 2.0], [3])
    with pytest.raises(Trap, match="shape"):
        call("tensor", [], [-1, 0])


def test_views_share_the_memory_of_arrays(call):
    array = call.array(REAL, [1.0, 2.0, 3.0, 4.0])
    t = call("reals_view", array, [2, 2])
    assert call.heap.reserved == 0
    call.heap.array_bytes(array.ref).cast("d")[3] = 7.0
    assert call.numbers(t).tolist() == [[1, 2], [3, 7]]
    y = call("relu", t)
    assert call.numbers(y).dtype == np.float32
    data = call.array(BYTE, list(np.arange(4, dtype="<f4").tobytes()))
    plain = call("view", data, "F32", [4])
    assert call.numbers(plain).tolist() == [0, 1, 2, 3]
    with pytest.raises(Trap, match=r"16 bytes, F32 of shape .* takes 20"):
        call("view", data, "F32", [5])
    with pytest.raises(Trap, match="no storage type"):
        call("view", data, "F33", [4])


def test_a_view_keeps_its_array(call):
    heap = call.heap
    array = call.array(BYTE, list(range(64)))
    before = heap.objects
    t = call("view", array, "U8", [64])
    heap.release(array.ref)
    assert heap.objects == before + 1
    assert call.numbers(t).tolist() == list(range(64))
    heap.release(t.ref)


def test_views_give_back_arrays_of_their_own_type_only(call):
    data = call.array(BYTE, list(np.arange(8.0).tobytes()))
    numbers = np.asarray(call("reals", call("view", data, "F64", [8])))
    assert numbers.tolist() == list(range(8))
    assert not np.may_share_memory(numbers, np.asarray(call.heap.array_bytes(data.ref)))


def test_a_view_of_a_view_gives_back_bytes(call):
    values = np.arange(800, dtype=np.float32)
    data = call.array(BYTE, list(values.tobytes()))
    shaped = call("reshape", call("view", data, "F32", [800]), [20, 40])
    assert np.may_share_memory(call.numbers(shaped), np.asarray(call.heap.array_bytes(data.ref)))
    assert bytes(call("bytes", shaped)) == values.tobytes()


def test_bytes_of_blocks(call, rng):
    w = rng.normal(size=(2, 32)).astype(np.float32)
    blocks = quantize(Tensor(w), "Q8_0")
    data = bytes(call("bytes", call.tensor(w, "Q8_0")))
    assert data == blocks.tobytes()
    again = call("view", call.array(BYTE, list(data)), "Q8_0", [2, 32])
    assert tensor_of(call.heap, again.ref).tobytes() == data


def test_text(call):
    t = call.tensor(np.array([[0.1, 2.0], [math.nan, -math.inf]], np.float32))
    assert call("text", t) == "0.1\t2.0\nnan\t-inf\n"
    assert call("numeral", 0.1, 0) == "0.1"
    assert json.loads(call("numeral", 0.1, 1)) == 0.1
    assert call("numeral", math.nan, 1) == "null"


# ---- traces ----


def test_symbols_have_no_numbers(call):
    x = call("input", [4])
    assert call("shape", x) == [1, 4]
    for name in ("text", "dtype", "reals", "dequantize"):
        with pytest.raises(Trap, match="no numbers yet"):
            call(name, x)
    with pytest.raises(Trap, match="symbols of 2 networks"):
        call("add", x, call("input", [4]))
    with pytest.raises(Trap, match="ml: plan"):
        call("plan", call.tensor(np.zeros(4, np.float32)), x)
    with pytest.raises(Trap, match="ml: plan"):
        call("plan", call("relu", x), x)


def test_a_plan_keeps_its_weights(call):
    heap = call.heap
    x = call("input", [4])
    w = call.tensor(np.eye(4, dtype=np.float32))
    y = call("relu", call("linear", x, w, Borrowed(NIL)))
    plan = call("plan", x, y)
    for ref in (x, w, y):
        heap.release(ref.ref)
    batch = call.tensor(np.array([[1, -2, 3, -4]], np.float32))
    assert call.numbers(call("run", plan, batch)).tolist() == [[1, 0, 3, 0]]
    with pytest.raises(Trap, match="expected a batch of shape Nx4, given 1x3 F32"):
        call("run", plan, call.tensor(np.zeros((1, 3), np.float32)))


def test_results_without_a_place_are_let_go(call, monkeypatch):
    x, run = call.tensor(np.zeros(2)), call.run
    held = call.heap.objects

    def nowhere(function, base):
        call.heap.set_pointer(base + RESULT, NIL)
        return run(function, base)

    monkeypatch.setattr(call, "run", nowhere)
    for _ in range(2):
        with pytest.raises(Trap, match=traps.NIL_DEREFERENCE):
            call("relu", x)
    assert call.heap.objects == held


def test_what_a_killed_process_computes_with_is_kept_until_that_is_over(call, monkeypatch):
    monkeypatch.setattr(tensors, "OPERATIONS_INLINE", 0)
    call.machine.scheduler.processes = {1: None, 2: None}
    array, run, works = call.array(REAL, [1.0] * 4), call.run, []
    x = call("reals_view", array, [2, 2])

    def begin(function, base):
        works.append(run(function, base))
        raise LimitError("time", "killed")

    monkeypatch.setattr(call, "run", begin)
    with pytest.raises(LimitError):
        call("relu", x)
    monkeypatch.setattr(call, "run", run)
    for at in call.heap.blocks():
        if call.heap.type_of(at) == STACK and call.heap.pointer(at + 32) == x.ref:
            call.heap.give(at + 32, NIL)
    call.dropped(x, array)
    assert call.heap.type_of(array.ref) == ARRAY
    works[0].run()
    call("relu", call.tensor(np.zeros(2)))
    assert call.heap.type_of(array.ref) == FREE


def test_endless_traces_end_at_the_limit(call):
    x = call("input", [4])

    def trace():
        for _ in range(1_000_000):
            call.heap.release(call("relu", x).ref)

    with pytest.raises(Trap, match="out of memory"):
        trace()
    assert call.heap.used <= call.heap.limit


def test_views_of_nothing_cost_nothing(call):
    empty = call.tensor(np.zeros((0, 4), np.float32))
    assert call.numbers(call("relu", empty)).shape == (0, 4)
    assert keep_view(call.heap, Tensor(np.zeros(1, np.float32))) != NIL


def test_a_list_of_numbers_is_one(call):
    x, other = call.tensor(np.zeros((2, 3))), call.heap.new_record(TypeDescriptor(-1, 16))
    with pytest.raises(Trap, match="type check"):
        call("reshape", x, Borrowed(other))
