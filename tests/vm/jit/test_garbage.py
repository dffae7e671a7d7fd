"""What cycles alone keep is freed, and nothing else: as the reference says."""

from __future__ import annotations

import random

import pytest

from llmbol_core.vm.arena import COUNT, NIL
from llmbol_core.vm.heaptypes import POINTER
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.module import TypeDescriptor
from tests.vm.conftest import ENGINES
from tests.vm.programs import assemble

NODE = TypeDescriptor(0, 16, b"\xe0")
"""A record with references at 0, 4 and 8."""
HELD = 400
"""More than fit in the ring of those to be visited next."""


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, code_cache):
    monkeypatch.setenv("LLMBOL_CACHE", code_cache)


class Grove:
    """Structures of records in random order of memory."""

    def __init__(self, heap, seed):
        self.heap, self.chance = heap, random.Random(seed)
        self.number = heap.type_number(NODE)
        self.held = [self.node() for _ in range(HELD)]

    def node(self):
        """Return a record that the caller holds."""
        return self.heap.new_record(self.number)

    def nodes(self, count):
        """Return records in random order."""
        made = [self.node() for _ in range(count)]
        self.chance.shuffle(made)
        return made

    def link(self, nodes, forth=0, back=None, closes=False):
        """Link records one after the other, and back by another field."""
        following = nodes[1:] + nodes[:1] if closes else nodes[1:]
        for ref, after in zip(nodes, following, strict=False):
            self.heap.assign(ref + forth, after)
            if back is not None:
                self.heap.assign(after + back, ref)

    def tree(self, nodes, up=None, fields=(0, 4)):
        """Link records as a binary tree, and up by another field."""
        for at, ref in enumerate(nodes[1:], 1):
            above = nodes[(at - 1) // 2]
            self.heap.assign(above + fields[at % 2], ref)
            if up is not None:
                self.heap.assign(ref + up, above)

    def tangle(self, nodes):
        """Link records at random."""
        for ref in nodes:
            for slot in self.heap.slots(ref):
                if self.chance.random() < 0.6:
                    self.heap.assign(slot, self.chance.choice(nodes))

    def spread(self, nodes):
        """Link records through arrays and lists."""
        for ref in nodes:
            array = self.heap.new_array(POINTER, self.chance.randrange(4))
            for at in range(self.heap.array_length(array)):
                other = self.chance.choice([*nodes, NIL])
                self.heap.assign(self.heap.array_data(array) + 4 * at, other)
            cell = self.heap.new_list(POINTER, NIL)
            self.heap.assign(self.heap.head(cell), self.chance.choice(nodes))
            self.heap.give(ref, array)
            self.heap.give(ref + 4, cell)

    def let_go(self, nodes, keeps):
        """Let go of records; sometimes of all, else something that is held leads to one."""
        if keeps:
            self.heap.assign(self.chance.choice(self.held), self.chance.choice(nodes))
        for ref in nodes:
            self.heap.release(ref)


SHAPES = {
    "chain": lambda grove, nodes: grove.link(nodes),
    "ring": lambda grove, nodes: grove.link(nodes, closes=True),
    "both ways": lambda grove, nodes: grove.link(nodes, 0, 4),
    "both ways, back first": lambda grove, nodes: grove.link(nodes, 4, 0),
    "ring both ways": lambda grove, nodes: grove.link(nodes, 8, 4, closes=True),
    "tree": lambda grove, nodes: grove.tree(nodes),
    "tree up": lambda grove, nodes: grove.tree(nodes, 8),
    "tree up first": lambda grove, nodes: grove.tree(nodes, 0, (4, 8)),
    "tangle": lambda grove, nodes: grove.tangle(nodes),
    "arrays": lambda grove, nodes: grove.spread(nodes),
}


def survivors(engine, shapes, seed):
    """Return what lives after collections, with its counts, and is left when nothing is held."""
    with InfernoVM(limits=Limits(1 << 22), engine=ENGINES[engine]) as vm:
        vm.load_module("test", assemble("movw $1,0(16(fp))\nret"))
        vm.execute("test", "main")
        heap, before = vm.heap, vm.heap.objects
        grove = Grove(heap, seed)
        for name in shapes:
            nodes = grove.nodes(grove.chance.choice([1, 2, 40, 1500]))
            SHAPES[name](grove, nodes)
            grove.let_go(nodes, grove.chance.random() < 0.7)
        heap.collect()
        living = [(heap.type_of(ref), heap.pointers[(ref + COUNT) >> 2]) for ref in heap.blocks()]
        for ref in grove.held:
            heap.release(ref)
        heap.collect()
        assert heap.objects == before
    return sorted(living)


@pytest.mark.parametrize("name", SHAPES)
def test_one_shape(name):
    for seed in range(4):
        assert survivors("native", [name], seed) == survivors("reference", [name], seed)


@pytest.mark.parametrize("seed", range(12))
def test_several_shapes_at_once(seed):
    names = random.Random(seed).choices(list(SHAPES), k=5)
    assert survivors("native", names, seed) == survivors("reference", names, seed)
