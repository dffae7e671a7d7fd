"""Calls functions of a built-in module as a Dis program would: through a frame in the heap."""

from types import SimpleNamespace
from typing import Any

from llmbol_core.builtins import HOST_MODULES, built_in
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.environment import Environment
from llmbol_core.vm.heaptypes import BYTE, REAL, WORD
from llmbol_core.vm.host import RESULT, HostCall, Sleep, Until, Work
from llmbol_core.vm.ieee import AT_START, Arithmetic
from llmbol_core.vm.layout import NONE, Field, frame, place, pointer_map
from llmbol_core.vm.module import TypeDescriptor
from llmbol_core.vm.objects import STACK, Heap
from llmbol_core.vm.process import TYPE


class Machine:
    """What the functions know of a machine."""

    scheduler = SimpleNamespace(has_ready=False)
    engine = SimpleNamespace(arithmetic=Arithmetic(), adapt=lambda process: None)


class Caller:
    """One process that calls a built-in module."""

    def __init__(self, module, environment=None, limit=1 << 22, heap=None):
        self.heap = heap or Heap(limit)
        self.machine: Any = Machine()
        own = environment or Environment.first()
        self.process: Any = SimpleNamespace(
            environment=own, pid=7, group=1, pc=0, floating=AT_START
        )
        self._binding = built_in(module)
        self._types: dict[TypeDescriptor, int] = {}
        self._functions = {f.name: f for f in HOST_MODULES[module].functions}

    @property
    def error(self):
        return self.process.environment.error

    def __call__(self, name, *values, rest=()):
        """Call with Python values; ``rest`` are the types and values behind the ``*``."""
        heap, bound, function = self.heap, self._binding, self._functions[name]
        layout = frame(bound.declared(name))
        base = heap.new_object(STACK, 1024)
        heap.bytes[base : base + 1024] = b"\xff" * 1024
        address = base + 512
        heap.set_pointer(base + RESULT, address)
        for part, value in zip(layout.arguments, values, strict=True):
            if isinstance(value, Borrowed):
                heap.assign(base + part.offset, value.ref)
            else:
                bound.encoder(part.type)(heap, base + part.offset, value)
        end = max((a.offset + a.type.size for a in layout.arguments), default=32)
        others, size, _ = place(rest_fields(rest), end)
        for part in others:
            bound.encoder(part.type)(heap, base + part.offset, part.name)
        parts = (*layout.arguments, *others)
        pointers = [part.offset + at for part in parts for at in part.type.pointers()]
        made = TypeDescriptor(-1, size, pointer_map(size, pointers))
        if made not in self._types:
            self._types[made] = heap.type_number(made)
        heap.set_word(base + TYPE, self._types[made])
        result = self.run(function, base)
        while isinstance(result, Work | Until):
            result = result.finish(result.run()) if isinstance(result, Work) else result.then()
        found = None
        if layout.result is not NONE:
            found = self.fetch(layout.result, address)
        for part in layout.arguments:
            for at in part.type.pointers():
                heap.give(base + part.offset + at, NIL)
        return result if isinstance(result, Sleep) else found

    def run(self, function, base):
        """Let a function do what the frame at an address asks for."""
        return function.run(HostCall(self.machine, self.process, self.heap, base, None))

    def fetch(self, kind, address):
        """Return the result at an address as a Python value."""
        return self._binding.decoder(kind)(self.heap, address)

    def array(self, kind, values):
        """Return an array for an argument that the function writes to."""
        ref = self.heap.new_array(kind, len(values))
        items: Any = self.heap.array_bytes(ref)
        items = items.cast({BYTE: "B", WORD: "i", REAL: "d"}[kind])
        for i, value in enumerate(values):
            items[i] = value
        return Borrowed(ref)

    def items(self, array, item):
        """Return the items of an array."""
        return self.heap.array_bytes(array.ref).cast(item).tolist()


class Borrowed:
    """A reference that the test keeps while it is passed."""

    def __init__(self, ref):
        self.ref = ref


def rest_fields(rest):
    return [Field(value, kind) for kind, value in rest]
