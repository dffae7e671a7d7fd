"""Pictures of lines, boxes and words, written as SVG or PNG, whichever the file's name says."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from typing import Literal
from xml.sax.saxutils import escape

from llmbol_core.errors import UsageError
from llmbol_core.native.files import atomic_write

Point = tuple[float, float]
Anchor = Literal["start", "middle", "end"]

_SCALE = 2
"""Pixels of a PNG for each unit of length."""
_ENDINGS = (".svg", ".png")


@dataclass(frozen=True)
class Line:
    """A line through points."""

    points: tuple[Point, ...]
    colour: str = "#000000"
    width: float = 1.0

    def svg(self) -> str:
        """Return it as SVG."""
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)
        style = f'fill="none" stroke="{self.colour}" stroke-width="{self.width:g}"'
        return f'<polyline points="{places}" {style}/>'


@dataclass(frozen=True)
class Box:
    """A rectangle with a border."""

    x: float
    y: float
    wide: float
    high: float
    fill: str = "#ffffff"
    colour: str = "#000000"

    def svg(self) -> str:
        """Return it as SVG."""
        place = (
            f'x="{self.x:.1f}" y="{self.y:.1f}" width="{self.wide:.1f}" height="{self.high:.1f}"'
        )
        return f'<rect {place} rx="4" fill="{self.fill}" stroke="{self.colour}"/>'


@dataclass(frozen=True)
class Words:
    """A line of text, its foot on a height."""

    x: float
    y: float
    text: str
    size: float = 12.0
    anchor: Anchor = "start"
    colour: str = "#000000"

    def svg(self) -> str:
        """Return it as SVG."""
        style = f'font-size="{self.size:g}" text-anchor="{self.anchor}" fill="{self.colour}"'
        return f'<text x="{self.x:.1f}" y="{self.y:.1f}" {style}>{escape(self.text)}</text>'


Shape = Line | Box | Words


@dataclass
class Picture:
    """Shapes on white, the later ones above; lengths are in pixels, y grows downwards."""

    wide: float
    high: float
    shapes: list[Shape] = field(default_factory=list)

    def add(self, *shapes: Shape) -> None:
        """Draw on top."""
        self.shapes += shapes

    def svg(self) -> str:
        """Return the picture as SVG."""
        size = f'width="{self.wide:.0f}" height="{self.high:.0f}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">'
        ground = f'<rect {size} fill="white"/>'
        return "\n".join([head, ground, *(shape.svg() for shape in self.shapes), "</svg>\n"])

    def png(self) -> bytes:
        """Return the picture as PNG, two pixels for each of ours."""
        from PIL import Image, ImageDraw, ImageFont

        size = (round(self.wide * _SCALE), round(self.high * _SCALE))
        image = Image.new("RGB", size, "white")
        pen = ImageDraw.Draw(image)
        for shape in self.shapes:
            if isinstance(shape, Line):
                points = [(x * _SCALE, y * _SCALE) for x, y in shape.points]
                if len(points) > 1:
                    pen.line(points, shape.colour, max(1, round(shape.width * _SCALE)), "curve")
            elif isinstance(shape, Box):
                low = (shape.x * _SCALE, shape.y * _SCALE)
                high = ((shape.x + shape.wide) * _SCALE, (shape.y + shape.high) * _SCALE)
                pen.rounded_rectangle((*low, *high), 8, shape.fill, shape.colour, _SCALE)
            else:
                font = ImageFont.load_default(shape.size * _SCALE)
                anchor = {"start": "ls", "middle": "ms", "end": "rs"}[shape.anchor]
                place = (shape.x * _SCALE, shape.y * _SCALE)
                pen.text(place, shape.text, shape.colour, font, anchor)
        stream = io.BytesIO()
        image.save(stream, "PNG")
        return stream.getvalue()

    def write(self, path: str) -> None:
        """Write the picture; it appears complete or not at all."""
        check_ending(path)
        data = self.png() if path.lower().endswith(".png") else self.svg().encode()
        with atomic_write(path) as file:
            file.write(data)


def check_ending(path: str) -> None:
    """Refuse a file whose name does not say what kind of picture it is to be."""
    if os.path.splitext(path)[1].lower() not in _ENDINGS:
        raise UsageError(f"{path}: pictures are written as {' or '.join(_ENDINGS)}")
