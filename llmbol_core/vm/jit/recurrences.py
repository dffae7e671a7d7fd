"""Shorter chains from one iteration of a loop to the next.

Where each iteration waits for numbers of the one before, as in hashes and generators of random
numbers, the loop is as slow as that chain is long. After LLVM's own passes it is tried whether the
chain gets shorter if the loop carries other views of those numbers (``views.py``)::

    a = (a ^ (b << 3)) + i;                      c = b << 3, d = a modulo 2 are carried too:
    b = (b & 16rffffff) * 3 + (a >> 5);   =>     a = (a ^ c) + i;  d = d + i;
    if((a & 1) == 0)                             c = (c & 16r7fffff8) * 3 -
        b -= i;                                      (i << 3 if d & 1 == 0 else 0) + (a >> 5 << 3);

and if sums join last what is available last (``latency.py``). The loop still computes all that it
did: what matters only when control leaves is computed then. Loops that would not become faster,
judged by how long instructions take, stay as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from llmbol_core.vm.jit.latency import Sums, pace
from llmbol_core.vm.jit.looptext import PAIRED, Function, Loop, Node
from llmbol_core.vm.jit.views import TooLong, Views, cycles_through, mask_bits, number

_FUNCTION = re.compile(r"^define [^\n]*@[rof][\d.]*\(.*?^\}", re.MULTILINE | re.DOTALL)
"""The functions of regions; the runtime that they call is left alone."""
_WORTH = 0.85
"""A change is made if it leaves at most this part of the time."""
_LEAST = 4.0
"""Cycles below which an iteration cannot become much faster."""
_MOST_NODES, _MOST_ROOTS = 120, 8
_ORDERINGS = 3
_MOVABLE = PAIRED | {"select", "icmp", "zext", "sext", "trunc", "getelementptr"}


def shorten_recurrences(text: str) -> str:
    """Return a module in LLVM's language whose loops wait less for their own results."""
    prefix = "%chain."
    while prefix in text:
        prefix = f"%x{prefix[1:]}"
    return _FUNCTION.sub(lambda found: _shorten_all(found[0], prefix), text)


def _shorten_all(text: str, prefix: str) -> str:
    """Change the loops of one function."""
    seen: set[str] = set()
    body, changed = text[:-1], True
    while changed:
        function, changed = Function(body), False
        for loop in function.loops():
            head = loop.labels[0]
            own = f"{prefix}{len(seen)}."
            if head not in seen:
                seen.add(head)
                better = shortened(loop, own)
                if better is not None:
                    function.put(better, f"{own[1:]}out")
                    body, changed = function.text, True
                    break
    return f"{body}}}"


def shortened(loop: Loop, prefix: str) -> Loop | None:
    """Return a loop that does the same in less time, if there is one."""
    nodes = list(loop.nodes)
    if len(nodes) > _MOST_NODES or any(_is_call(node) for node in nodes):
        return None
    together = cycles_through(loop)
    roots = roots_of(loop, together)
    if not 0 < len(roots) <= _MOST_ROOTS:
        return None
    before = pace(loop)
    if before.cycles < _LEAST:
        return None
    best = tried(loop, roots, together, prefix)
    for root in roots:
        fewer = [other for other in best.roots if other is not root]
        other = tried(loop, fewer, together, prefix)
        if (other.cycles, other.length) <= (best.cycles, best.length):
            best = other
    return best.loop if best.cycles <= _WORTH * before.cycles else None


def roots_of(loop: Loop, together: dict[str, set[str]]) -> list[Node]:
    """Return the instructions for which other views of what they use may do."""
    return [node for node in loop.nodes if _is_root(node) and node.name in together[node.name]]


def _is_call(node: Node) -> bool:
    return " call " in node.text and " @llvm." not in node.text


def _is_root(node: Node) -> bool:
    if not node.kind:
        return False
    if node.op == "shl":
        return number(node.args[1]) is not None
    return 0 < mask_bits(node) < node.bits


@dataclass
class Try:
    """A loop with the views for some instructions, and how fast it is."""

    roots: list[Node]
    loop: Loop
    cycles: float
    length: int


def tried(loop: Loop, roots: list[Node], together: dict[str, set[str]], prefix: str) -> Try:
    """Return a loop in which some of the instructions use other views."""
    try:
        new = _without_useless(_with_views(loop, roots, together, prefix))
    except TooLong:
        return Try(roots, loop, float("inf"), 0)
    best, found = new, pace(new)
    last = found
    for count in range(_ORDERINGS):
        new = Sums(new, f"{prefix}{count}").ordered(last.ready)
        last = pace(new)
        if last.cycles < found.cycles:
            best, found = new, last
    return Try(roots, best, found.cycles, len(list(best.nodes)))


def _with_views(loop: Loop, roots: list[Node], together: dict[str, set[str]], prefix: str) -> Loop:
    """Have instructions use views of what they used."""
    views = Views(loop, prefix)
    names, own = {}, {}
    for root in roots:
        views.together = together[root.name]
        if root.op == "shl":
            names[root.name] = views.shifted(root.args[0], int(root.args[1]), root.kind)
        else:
            own[root.name] = {root.args[0]: views.low(root.args[0], mask_bits(root))}
    _use_narrowed(loop, views, names, own)
    blocks: list[list[Node]] = []
    for block in loop.blocks:
        made: list[Node] = []
        for at, node in enumerate(block):
            changed = node.renamed(own[node.name]) if node.name in own else node
            made.append(changed.renamed(names))
            is_last_phi = node.op == "phi" and block[at + 1].op != "phi"
            for new in views.behind["" if is_last_phi else node.name or "-"]:
                made.append(new.renamed(names))
        blocks.append(made)
    return replace(loop, blocks=blocks, entering=dict(views.entering))


def _use_narrowed(
    loop: Loop, views: Views, names: dict[str, str], own: dict[str, dict[str, str]]
) -> None:
    """Use phis that are carried shifted for themselves too, if their high bits do not matter."""
    for phi in loop.phis:
        by, _ = views.scale.get(phi.name, (0, ""))
        users = [node for node in loop.nodes if phi.name in node.uses and node.name not in names]
        fits = all(0 < mask_bits(user) <= phi.bits - by and user.name not in own for user in users)
        if by and fits and phi.name not in loop.outside:
            for user in users:
                own[user.name] = {phi.name: views.narrowed(phi, by)}


def _without_useless(loop: Loop) -> Loop:
    """Drop what is not used; move what matters only when control leaves to its one way out."""
    made_by = {node.name: node for node in loop.nodes if node.name}
    has_way_out = len(loop.exits) == 1
    needed: set[str] = set()

    def need(names: list[str]) -> None:
        work = [name for name in names if name in made_by]
        while work:
            name = work.pop()
            if name not in needed:
                needed.add(name)
                work += [used for used in _inputs(made_by[name], loop) if used in made_by]

    for node in loop.nodes:
        is_kept = node.op not in _MOVABLE and node.op != "phi"
        if is_kept or (node.name in loop.outside and (node.op == "phi" or not has_way_out)):
            need([node.name] if node.name else node.uses)
    later: list[Node] = []
    while True:
        wanted = {name for name in loop.outside if name in made_by} - needed
        later = []
        for node in reversed(list(loop.nodes)):
            if node.name in wanted and node.name not in needed:
                wanted.update(node.uses)
                later.insert(0, node)
        phis = [node.name for node in later if node.op == "phi"]
        if not phis:
            break
        need(phis)
    blocks = [
        [node for node in block if not node.name or node.name in needed] for block in loop.blocks
    ]
    outside = loop.outside.union(*(node.uses for node in later))
    return replace(loop, blocks=blocks, leaving=[node.text for node in later], outside=outside)


def _inputs(node: Node, loop: Loop) -> list[str]:
    return [node.came(loop.latch)] if node.op == "phi" else node.uses
