"""The objects that a module begins with: strings and arrays in its data, for ``pointees.py``."""

from __future__ import annotations

from collections.abc import Callable

from llmbol_core.vm.module import DataKind
from llmbol_core.vm.verification.pointees import Classes
from llmbol_core.vm.verification.structure import Layout, Structure


def bring_data(found: Structure, classes: Classes, variable: Callable[[int], int]) -> None:
    """Note the strings and arrays in the initial module data, whose pointers have these nodes."""
    outer: list[tuple[Callable[[int], int], dict[int, Layout]]] = []
    node, arrays = variable, dict[int, Layout]()
    for item in found.module.data:
        if item.kind is DataKind.DEFS:
            classes.bring(node(item.offset), "C")
        elif item.kind is DataKind.DEFA:
            layout = found.layouts[int(item.values[0])]
            array = node(item.offset)
            classes.bring(array, "A")
            classes.bring(classes.field(array, "element"), "", layout)
            arrays[item.offset] = layout
        elif item.kind is DataKind.DIND:
            outer.append((node, arrays))
            layout, array = arrays[item.offset], node(item.offset)
            node, arrays = _element_nodes(classes, array, layout), {}
        elif item.kind is DataKind.DAPOP:
            node, arrays = outer.pop()


def _element_nodes(classes: Classes, array: int, layout: Layout) -> Callable[[int], int]:
    element = classes.field(array, "element")

    def node(offset: int) -> int:
        return classes.field(element, "at", offset % layout.size)

    return node
