"""A model drawn as a diagram: layers from top to bottom, branches side by side, shapes between."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmbol_core.nn.containers import Branches
from llmbol_core.nn.drawing import Box, Line, Picture, Point, Shape, Words
from llmbol_core.nn.layers.composite import Composite
from llmbol_core.nn.model import Model
from llmbol_core.nn.module import Form, Module
from llmbol_core.nn.summary import passages, shown
from llmbol_core.nn.tables import Residual

_HIGH, _GAP, _MARGIN, _LETTER = 44.0, 34.0, 24.0, 7.0
_LINE = "#555555"
_FILLS = {"parameters": "#d8e8f8", "operation": "#eef7e8", "plain": "#f6f1e4"}
_FRAME = "#aaaaaa"


@dataclass
class _Block:
    """A drawn part: its size, where data come in and go out, and its shapes from its corner."""

    wide: float
    high: float
    shapes: list[Shape] = field(default_factory=list)

    @property
    def middle(self) -> float:
        """Where data come in above and go out below."""
        return self.wide / 2

    def put(self, block: _Block, x: float, y: float) -> None:
        """Draw another block at a place inside."""
        self.shapes += [_moved(shape, x, y) for shape in block.shapes]


def _moved(shape: Shape, x: float, y: float) -> Shape:
    if isinstance(shape, Line):
        points = tuple((px + x, py + y) for px, py in shape.points)
        return Line(points, shape.colour, shape.width)
    if isinstance(shape, Box):
        return Box(shape.x + x, shape.y + y, shape.wide, shape.high, shape.fill, shape.colour)
    where = (shape.x + x, shape.y + y)
    return Words(*where, shape.text, shape.size, shape.anchor, shape.colour)


def draw_model(model: Model) -> Picture:
    """Return the diagram of a model, from its input to its output."""
    body = _row_of(model.network, model.input.shape, "")
    label = f"{model.name}: {model.network.parameter_count():,} parameters"
    wide = max(body.wide, len(label) * _LETTER * 1.25) + 2 * _MARGIN
    picture = Picture(wide, body.high + 2 * _GAP + 60 + 2 * _MARGIN)
    x, y = (wide - body.wide) / 2, _MARGIN + 30 + _GAP
    picture.add(Words(_MARGIN, _MARGIN + 6, label, 15))
    middle, bottom = wide / 2, y + body.high
    picture.add(_arrow((middle, y - _GAP + 6), (middle, y)))
    picture.add(*(_moved(shape, x, y) for shape in body.shapes))
    picture.add(Words(middle + 6, y - _GAP / 2 + 4, f"input {shown(model.input.shape)}", 11))
    picture.add(_arrow((middle, bottom), (middle, bottom + _GAP - 6)))
    picture.add(Words(middle + 6, bottom + _GAP / 2 + 4, f"output {shown(model.output_shape)}", 11))
    return picture


def _arrow(start: Point, end: Point) -> Line:
    x, y = end
    return Line((start, end, (x - 4, y - 6), end, (x + 4, y - 6)), _LINE)


def _drawn(module: Module, form: Form, path: str) -> _Block:
    """Return a module as a block: a box, or a frame with what is inside."""
    if isinstance(module, Branches):
        return _framed(module, _side_by_side(module, form, path), path)
    if module.children():
        inner = _framed(module, _row_of(module, form, path), path)
        return _with_bypass(inner) if isinstance(module, Residual) else inner
    return _box(module, path)


def _box(module: Module, path: str) -> _Block:
    """Return a layer as a box with its name, its sizes and its parameters."""
    title = f"{path.rstrip('.')} {type(module).__name__}" + (f" {module.name}" * bool(module.name))
    detail = module.details().strip()
    count = module.parameter_count()
    detail += f"  {count:,} parameters" if count else ""
    wide = max(len(title) * _LETTER * 1.1, len(detail) * _LETTER * 0.92, 110.0) + 20
    kind = "parameters" if count else "operation" if isinstance(module, Composite) else "plain"
    block = _Block(wide, _HIGH)
    block.shapes.append(Box(0, 0, wide, _HIGH, _FILLS[kind]))
    lift = 0 if detail else 6
    block.shapes.append(Words(wide / 2, 18 + lift, title, 13, "middle"))
    if detail:
        block.shapes.append(Words(wide / 2, 35, detail, 11, "middle", "#333333"))
    return block


def _row_of(container: Module, form: Form, path: str) -> _Block:
    """Return the modules inside from top to bottom, shapes on the arrows between."""
    parts = passages(container, form)
    blocks = [_drawn(p.module, p.source, f"{path}{p.index}.") for p in parts]
    wide = max((block.wide for block in blocks), default=110.0)
    whole = _Block(wide, 0.0)
    for number, (part, block) in enumerate(zip(parts, blocks, strict=True)):
        if number:
            start = (wide / 2, whole.high)
            whole.shapes.append(_arrow(start, (wide / 2, whole.high + _GAP)))
            label = Words(wide / 2 + 6, whole.high + _GAP / 2 + 4, shown(part.source), 11)
            whole.shapes.append(label)
            whole.high += _GAP
        whole.put(block, (wide - block.wide) / 2, whole.high)
        whole.high += block.high
    return whole


def _side_by_side(container: Module, form: Form, path: str) -> _Block:
    """Return the modules inside next to each other, joined above and below."""
    parts = passages(container, form)
    blocks = [_drawn(p.module, p.source, f"{path}{p.index}.") for p in parts]
    wide = sum(block.wide for block in blocks) + 20 * max(len(blocks) - 1, 0)
    high = max((block.high for block in blocks), default=0.0)
    whole = _Block(max(wide, 110.0), high + 2 * _GAP)
    x = 0.0
    for part, block in zip(parts, blocks, strict=True):
        middle, top = x + block.middle, _GAP + (high - block.high) / 2
        whole.shapes.append(Line(((whole.middle, 0), (middle, _GAP / 2), (middle, top)), _LINE))
        end = (whole.middle, whole.high)
        bottom = top + block.high
        whole.shapes.append(Line(((middle, bottom), (middle, whole.high - _GAP / 2), end), _LINE))
        whole.shapes.append(Words(middle + 6, bottom + 14, shown(part.result), 11))
        whole.put(block, x, top)
        x += block.wide + 20
    return whole


def _framed(module: Module, inner: _Block, path: str) -> _Block:
    """Return a block in a frame with the name of its container."""
    title = f"{path.rstrip('.')} {type(module).__name__}{module.details()}"
    wide = max(inner.wide + 24, len(title) * _LETTER + 20)
    block = _Block(wide, inner.high + 50)
    block.shapes.append(Box(0, 0, wide, block.high, "#fcfcfc", _FRAME))
    block.shapes.append(Words(8, 16, title, 11, colour="#666666"))
    middle = wide / 2
    block.shapes.append(Line(((middle, 0), (middle, 26)), _LINE))
    block.shapes.append(Line(((middle, 26 + inner.high), (middle, block.high)), _LINE))
    block.put(inner, (wide - inner.wide) / 2, 26)
    return block


def _with_bypass(inner: _Block) -> _Block:
    """Return a block with a path around it on the right that is added below."""
    side = 30.0
    block = _Block(inner.wide + 2 * side, inner.high + 24)
    block.put(inner, side, 0)
    middle, right = block.middle, block.wide - side / 2
    bottom = inner.high
    around = ((middle, 2.0), (right, 2.0), (right, bottom + 12), (middle + 8, bottom + 12))
    block.shapes.append(Line(around, _LINE))
    block.shapes.append(Line(((middle, bottom), (middle, block.high)), _LINE))
    block.shapes.append(Box(middle - 8, bottom + 4, 16, 16, "#ffffff", _LINE))
    block.shapes.append(Words(middle, bottom + 17, "+", 14, "middle"))
    return block


def write_diagram(model: Model, path: str) -> None:
    """Write the diagram of a model, as .svg or .png."""
    draw_model(model).write(path)
