"""Rules for products, views and operations on single values."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.graph import Step, Value
from llmbol_core.ml.kernels import elementwise, gemm
from llmbol_core.ml.kernels import matmul as matmuls
from llmbol_core.ml.kernels.declaration import Kernel
from llmbol_core.ml.ops.quantized import multiplied
from llmbol_core.ml.packed import packed_weights
from llmbol_core.ml.plan.emitter import Emitter, Unsupported
from llmbol_core.ml.plan.packing import packed, padded
from llmbol_core.ml.plan.rooms import Argument, At, Held, Room, Samples
from llmbol_core.ml.plan.rules import rule
from llmbol_core.ml.tensor import Tensor

Array = NDArray[Any]

_DEPTH = 4096
"""How much of the depth of a product is done at a time."""
_NO_LIMITS = (-math.inf, math.inf)


def limits_of(step: Step) -> tuple[float, float] | None:
    """Return the limits that an operation puts on values, None if it does something else."""
    if step.op == "relu":
        return 0.0, math.inf
    if step.op == "relu6":
        return 0.0, 6.0
    if step.op == "clamp":
        return step.attributes["low"], step.attributes["high"]
    return None


def following_limits(emitter: Emitter, step: Step) -> tuple[Step, tuple[float, float]]:
    """Return the last step that can be fused into a product, and the limits of its result."""
    user = emitter.sole_user(step.output)
    limits = limits_of(user) if user is not None else None
    return (step, _NO_LIMITS) if user is None or limits is None else (user, limits)


@rule("linear")
def linear(emitter: Emitter, step: Step) -> None:
    """Multiply with a packed weight; limits are fused."""
    weight = _matrix(emitter, step.inputs[1])
    if isinstance(weight, Tensor):
        weight = multiplied(weight)
    bias = emitter.weights(step, 2)[0] if len(step.inputs) > 2 else None
    _multiply(emitter, step, step.inputs[0], weight, bias)


@rule("mul_mat")
def mul_mat(emitter: Emitter, step: Step) -> None:
    """Multiply with a packed weight that comes first."""
    _multiply(emitter, step, step.inputs[1], _matrix(emitter, step.inputs[0]), None)


@rule("matmul")
def matmul(emitter: Emitter, step: Step) -> None:
    """Multiply with a matrix that is known beforehand, by way of its transpose's rows."""
    if not any(map(emitter.is_constant, step.inputs)):
        _multiply_each(emitter, step)
        return
    weight = emitter.constant(step.inputs[1])
    if not isinstance(weight, np.ndarray) or weight.ndim != 2:
        raise Unsupported
    _multiply(emitter, step, step.inputs[0], weight.T, None)


def _matrix(emitter: Emitter, value: Value) -> Any:
    """Return a weight whose rows are those of a product: a large one of 16 bits as it is stored."""
    halves = emitter.halves(value)
    return emitter.constant(value) if halves is None else halves.data


def _multiply_each(emitter: Emitter, step: Step) -> None:
    """Emit products of matrices that both come with the batch; axes in front may repeat."""
    x, y = (value.shape for value in step.inputs)
    if min(len(x), len(y)) < 3 or len(x) != len(y):
        raise Unsupported
    front = step.output.shape[1:-2]
    emitter.table(2 * math.prod(front))
    helds = [emitter.rows(value) for value in step.inputs]
    starts = []
    for held in helds:
        size = math.prod(held.shape[-2:])
        numbers = np.arange(math.prod(held.shape[:-2])).reshape(held.shape[:-2]) * size
        starts.append(emitter.keep(np.ascontiguousarray(np.broadcast_to(numbers, front))))
    scratch = Room(matmuls.scratch_size(emitter.lanes), is_scratch=True)
    out, count = emitter.fresh(step), math.prod(front)
    rows, columns = step.output.shape[-2:]
    emitter.call(
        matmuls.multiply_each,
        *(At(helds[0].room), At(helds[1].room), At(out.room), At(scratch), rows, x[-1], columns),
        *(helds[0].size, helds[1].size, count, *starts),
        items=count,
        flops=count * rows * columns * x[-1],
    )


def _multiply(emitter: Emitter, step: Step, value: Value, weight: Any, bias: Array | None) -> None:
    """Emit x W^T + b with float32 weights or with blocks."""
    if emitter.is_constant(value):
        raise Unsupported
    rows = math.prod(step.output.shape[1:-1])
    if isinstance(weight, Tensor):
        _multiply_blocks(emitter, step, value, weight, bias)
        return
    if not isinstance(weight, np.ndarray):
        raise Unsupported
    held = emitter.value(value)
    if len(held.shape) > 1 or not held.is_dense:
        held = emitter.rows(value)
    end, limits = following_limits(emitter, step)
    emitter.done.add(step.output.index)
    out = emitter.fresh(end)
    product(emitter, held.room, out.room, rows, weight, bias, limits, held.order)


def _multiply_blocks(
    emitter: Emitter, step: Step, value: Value, weight: Tensor, bias: Array | None
) -> None:
    """Quantize rows and multiply integers, as ``PackedWeights.product`` does."""
    made = packed_weights(weight)
    if made is None:
        raise Unsupported
    held = emitter.rows(value)
    rows = math.prod(step.output.shape[1:-1])
    blocks = rows * made.blocks
    out = emitter.fresh(step)
    activations = tuple(At(emitter.room(n * blocks)) for n in made.activation_words)
    quantizing, numbers = made.quantizer
    emitter.call(quantizing, At(held.room), *activations, *numbers, items=blocks, grain=2)
    emitter.reads(made.nbytes, rows)
    emitter.call(
        made.kernel,
        *(made.data, *activations),
        None if bias is None else emitter.keep(np.ascontiguousarray(bias, np.float32)),
        *(At(out.room), made.blocks, Samples(rows), made.rows, made.rows),
        items=0,
        fixed=made.panels,
        grain=1,
        flops=rows * made.rows * made.columns // 4,
    )


def product(
    emitter: Emitter,
    x: Room,
    out: Room,
    rows: int,
    weight: Array,
    bias: Array | None,
    limits: tuple[float, float] = _NO_LIMITS,
    order: Array | None = None,
) -> None:
    """Emit out = x W^T + b for so many rows of each sample, whose numbers stand in some order.

    Weights are float32, float16, or bfloat16 as unsigned integers.
    """
    columns, depth = weight.shape
    lanes = emitter.lanes
    w = emitter.keep(_packed(weight, lanes, order))
    b = emitter.keep(padded(bias, columns, lanes))
    emitter.lasting(-(-24 // max(rows, 1)))
    emitter.reads(weight.nbytes, rows)
    arguments: tuple[Argument, ...] = (
        *(At(x), w, b, At(out), depth, columns, columns, depth),
        *(float(limits[0]), float(limits[1]), min(max(depth, 1), _DEPTH)),
    )
    panels = gemm.panel_count(columns, lanes)
    by_rows, by_panels = gemm.PRODUCTS[weight.dtype.itemsize, weight.dtype.kind]

    def inside(batch: int) -> list[tuple[Kernel, tuple[Argument, ...], int]]:
        if batch * rows > 4 * panels:
            return [(by_rows, arguments, batch * rows)]
        return [(by_panels, (batch * rows, *arguments), panels)]

    flops = rows * columns * depth
    emitter.call(by_rows, *arguments, items=rows, inside=inside, flops=flops)


def _packed(weight: Array, lanes: int, order: Array | None) -> Array:
    """Pack a weight; its columns are put into the order in which the numbers of a sample stand."""
    if order is None:
        return packed(weight, lanes)

    def arrange(part: Array) -> Array:
        result = np.empty_like(part, order="C")
        result[:, order] = part
        return result

    which = hashlib.sha256(order.tobytes()).hexdigest()
    return packed(weight, lanes, ("columns", which), arrange)


# ---- views ----


@rule("flatten", "reshape", "squeeze", "unsqueeze")
def view(emitter: Emitter, step: Step) -> None:
    """View a value in another shape."""
    held, shape = emitter.value(step.inputs[0]), step.output.shape[1:]
    if math.prod(shape) != held.size:
        raise Unsupported
    if held.in_rows:
        emitter.put(step, Held(held.room, shape))
    else:
        emitter.budget.spend(8 * held.size)
        emitter.put(step, Held(held.room, shape, order=held.places().reshape(shape)))


# ---- single values ----


@rule(*elementwise.UNARY)
def unary(emitter: Emitter, step: Step) -> None:
    """Apply a function to each number, however they lie."""
    held = emitter.dense(step.inputs[0])
    _, names = elementwise.UNARY[step.op]
    numbers = [float(step.attributes[name]) for name in names]
    a, b = (*numbers, 0.0, 0.0)[:2]
    out = emitter.room(held.size)
    kernel = elementwise.UNARY_KERNELS[step.op]
    emitter.call(kernel, At(held.room), At(out), held.size, a, b)
    emitter.put(step, Held(out, held.shape, held.last, held.order))


@rule("power")
def power(emitter: Emitter, step: Step) -> None:
    """Square values; other powers are left to the definition."""
    exponent = emitter.constant(step.inputs[1])
    if not isinstance(exponent, np.ndarray) or not (exponent == 2).all():
        raise Unsupported
    if step.inputs[0].shape[1:] != step.output.shape[1:]:
        raise Unsupported
    held = emitter.dense(step.inputs[0])
    out = emitter.room(held.size)
    kernel = elementwise.UNARY_KERNELS["square"]
    emitter.call(kernel, At(held.room), At(out), held.size, 0.0, 0.0)
    emitter.put(step, Held(out, held.shape, held.last, held.order))


@rule(*elementwise.BINARY)
def binary(emitter: Emitter, step: Step) -> None:
    """Combine two values of a shape, or a value and a constant along its last axes."""
    constants = [emitter.constant(value) for value in step.inputs]
    if all(c is None for c in constants):
        _pair(emitter, step)
        return
    swap = constants[0] is not None
    value = step.inputs[1 if swap else 0]
    other = constants[0 if swap else 1]
    if not isinstance(other, np.ndarray) or value.shape[1:] != step.output.shape[1:]:
        raise Unsupported
    row = _row(emitter, value, other)
    held, out = emitter.rows(value), emitter.fresh(step)
    count = held.size // row.size
    emitter.call(
        elementwise.ROW_KERNELS[step.op],
        *(At(held.room), emitter.keep(row), At(out.room), row.size, count, int(swap)),
    )


def _pair(emitter: Emitter, step: Step) -> None:
    if len({value.shape[1:] for value in (*step.inputs, step.output)}) > 1:
        raise Unsupported
    first, second = (emitter.value(value) for value in step.inputs)
    alike = first.last == second.last and first.is_dense and second.is_dense
    if not alike or first.order is not None or second.order is not None:
        first, second = (emitter.rows(value) for value in step.inputs)
    out = emitter.room(first.size)
    arguments = (At(first.room), At(second.room), At(out), first.size)
    emitter.call(elementwise.PAIR_KERNELS[step.op], *arguments)
    emitter.put(step, Held(out, step.output.shape[1:], first.last))


def _row(emitter: Emitter, value: Value, constant: Array) -> Array:
    """Return a constant as the row that repeats along a sample of a value."""
    shape = constant.shape
    if len(shape) == len(value.shape):
        if shape[0] != 1:
            raise Unsupported
        shape = shape[1:]
    while shape and shape[0] == 1:
        shape = shape[1:]
    sample = value.shape[1:]
    if len(shape) > len(sample) or math.prod(shape) == 0:
        raise Unsupported
    # Axes of one number inside are spread; those in front repeat by themselves.
    wanted = sample[len(sample) - len(shape) :]
    if math.prod(wanted) > constant.size:
        emitter.table(math.prod(wanted))
    spread = np.broadcast_to(constant.reshape(shape), wanted)
    return np.ascontiguousarray(spread, np.float32).reshape(-1)
