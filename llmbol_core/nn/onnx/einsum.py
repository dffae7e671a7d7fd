"""The importer of ``Einsum``: sums of products over letters, as products of matrices.

Two terms at a time become one. The letters of a pair are of four kinds: those that both have and
that are wanted still go along (``batch``), those that both have and nobody wants any more are
summed over, and each term has some of its own. The batch of the model always goes along.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from llmbol_core.nn.onnx.importers import row
from llmbol_core.nn.onnx.node import Node
from llmbol_core.nn.onnx.operands import Constant, Operand, Traced, Unsupported
from llmbol_core.nn.onnx.shapes import reduce_axes
from llmbol_core.nn.onnx.tracing import Tracer

_SPREAD = "..."


@dataclass(frozen=True)
class _Term:
    """An operand with a letter for each axis."""

    letters: str
    operand: Operand

    def size(self, letter: str) -> int:
        """Return the length of an axis."""
        return self.operand.shape[self.letters.index(letter)]


@row("Einsum")
def einsum(tracer: Tracer, node: Node) -> Operand:
    """Emit products and sums, pair after pair."""
    terms, wanted = _parsed(str(node.attr("equation", "")), node.given())
    first, *rest = terms
    for number, term in enumerate(rest):
        needed = set(wanted).union(*(other.letters for other in rest[number + 1 :]))
        pair = [
            _summed(tracer, t, needed | set(o.letters)) for t, o in ((first, term), (term, first))
        ]
        first = _product(tracer, pair[0], pair[1], needed)
    first = _summed(tracer, first, set(wanted))
    return _arranged(tracer, first, wanted).operand


def _parsed(equation: str, operands: Sequence[Operand]) -> tuple[list[_Term], str]:
    """Return the terms and the letters of the result; what dots stand for gets letters, too."""
    text = equation.replace(" ", "")
    given, arrow, result = text.partition("->")
    parts = given.split(",")
    known = set(given.replace(_SPREAD, "").replace(",", ""))
    if not (all(map(_is_term, (*parts, result))) and known.issuperset(result.replace(_SPREAD, ""))):
        raise Unsupported(f"its equation {equation[:60]!r} cannot be read")
    if len(parts) != len(operands):
        raise Unsupported(f"its equation has {len(parts)} terms for {len(operands)} inputs")
    free = [chr(code) for code in range(0x100, 0x140)]
    counts = [
        len(x.shape) - len(part.replace(_SPREAD, ""))
        for part, x in zip(parts, operands, strict=True)
    ]
    most = max((n for n, part in zip(counts, parts, strict=True) if _SPREAD in part), default=0)
    names = "".join(free[:most])
    terms = []
    for part, count, x in zip(parts, counts, operands, strict=True):
        letters = part.replace(_SPREAD, names[most - count :]) if _SPREAD in part else part
        if len(letters) != len(x.shape):
            raise Unsupported(f"the term {part!r} does not fit {len(x.shape)} axes")
        if len(set(letters)) < len(letters):
            raise Unsupported(f"the term {part!r} takes a diagonal")
        terms.append(_Term(letters, x))
    if not arrow:
        every = "".join(term.letters for term in terms)
        result = _SPREAD + "".join(
            sorted(c for c in set(every) - set(names) if every.count(c) == 1)
        )
    return terms, result.replace(_SPREAD, names)


def _is_term(text: str) -> bool:
    """Tell whether a term or a result consists of letters, and at most one spread of others."""
    letters = text.replace(_SPREAD, "", 1)
    return letters.isascii() and (letters.isalpha() or not letters)


def _arranged(tracer: Tracer, term: _Term, letters: str) -> _Term:
    """Return a term with its axes in an order; letters that it does not have get length 1."""
    x, own = term.operand, [c for c in letters if c in term.letters]
    order = [term.letters.index(c) for c in own]
    sizes = [term.size(c) if c in term.letters else 1 for c in letters]
    if isinstance(x, Constant):
        return _Term(letters, x.with_array(x.array.transpose(order).reshape(sizes)))
    return _Term(letters, _sized(tracer, tracer.permute(x, order), sizes))


def _sized(tracer: Tracer, x: Operand, sizes: Sequence[int]) -> Operand:
    """Return an operand in another shape."""
    if isinstance(x, Constant):
        return x.with_array(x.array.reshape(sizes))
    return tracer.reshape(x, list(sizes))


def _summed(tracer: Tracer, term: _Term, needed: Collection[str]) -> _Term:
    """Return a term summed over the letters that nobody needs."""
    axes = [axis for axis, letter in enumerate(term.letters) if letter not in needed]
    if not axes:
        return term
    x, letters = term.operand, "".join(c for c in term.letters if c in needed)
    if isinstance(x, Constant):
        return _Term(letters, x.with_array(x.array.sum(axis=tuple(axes))))
    return _Term(letters, reduce_axes(tracer, x, "sum", axes, keeps=False))


def _product(tracer: Tracer, x: _Term, y: _Term, needed: Collection[str]) -> _Term:
    """Return the product of two terms, summed over what both have and nobody needs."""
    if isinstance(x.operand, Constant) and isinstance(y.operand, Traced):
        x, y = y, x
    shared = [c for c in x.letters if c in y.letters]
    along = [c for c in (*x.letters, *y.letters) if _goes_along(tracer, c, x, y, needed)]
    batch = "".join(dict.fromkeys(sorted(along, key=lambda c: not _is_batch(tracer, c, x, y))))
    summed = "".join(c for c in shared if c not in batch)
    left = "".join(c for c in x.letters if c not in batch + summed)
    right = "".join(c for c in y.letters if c not in batch + summed)
    size = math.prod(x.size(c) for c in summed)
    if any(x.size(c) != y.size(c) for c in summed):
        raise Unsupported("axes of other lengths have the same letter")
    first = _arranged(tracer, x, batch + left + summed).operand
    second = _arranged(tracer, y, batch + right + summed).operand
    if isinstance(second, Constant) and not batch:
        first = _sized(tracer, first, [*first.shape[: len(left)], size])
        matrix = second.with_array(second.array.reshape(-1, size))
        made: Operand = tracer.op("linear", first, matrix)
    else:
        fronts = [list(z.shape[: len(batch)]) for z in (first, second)]
        widths = [math.prod(term.size(c) for c in part) for term, part in ((x, left), (y, right))]
        first = _sized(tracer, first, [*fronts[0], widths[0], size])
        second = _sized(tracer, second, [*fronts[1], widths[1], size])
        made = tracer.op("matmul", first, _turned(tracer, second))
    letters = batch + left + right
    front = [max(term.size(c) if c in term.letters else 1 for term in (x, y)) for c in batch]
    sizes = [*front, *(x.size(c) for c in left), *(y.size(c) for c in right)]
    return _Term(letters, _sized(tracer, made, sizes))


def _turned(tracer: Tracer, x: Operand) -> Operand:
    """Return matrices transposed."""
    if isinstance(x, Constant):
        return x.with_array(x.array.swapaxes(-1, -2))
    rank = len(x.shape)
    return tracer.permute(x, [*range(rank - 2), rank - 1, rank - 2])


def _is_batch(tracer: Tracer, letter: str, *terms: _Term) -> bool:
    """Tell whether a letter is that of the model's batch."""
    traced = [t for t in terms if isinstance(t.operand, Traced) and letter in t.letters]
    return any(tracer.is_batched(t.size(letter)) for t in traced)


def _goes_along(tracer: Tracer, letter: str, x: _Term, y: _Term, needed: Collection[str]) -> bool:
    """Tell whether a letter is one of both terms' that is wanted still, or the batch's."""
    if _is_batch(tracer, letter, x, y):
        if letter not in needed:
            raise Unsupported("it sums over the axis of the batch")
        return True
    return letter in x.letters and letter in y.letters and letter in needed
