"""Learning curves: the losses of a training's epochs as text for a terminal and as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llmbol_core.nn.drawing import Line, Picture, Words
from llmbol_core.nn.trainer import Epoch

_WIDTH, _HEIGHT = 60, 12
_MARKS = (("train", "*"), ("watched", "o"))
_LEFT, _TOP, _WIDE, _HIGH = 60, 40, 520, 260
_COLOURS = ("#1f6fb4", "#d9661f")


def _series(history: Sequence[Epoch]) -> list[list[float]]:
    """Return the losses in training and those of the watched samples."""
    return [[epoch.train_loss for epoch in history], [epoch.loss for epoch in history]]


def _span(series: list[list[float]]) -> tuple[float, float]:
    """Return the least and the greatest loss, never the same."""
    values = [value for row in series for value in row if math.isfinite(value)]
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def curve_text(history: Sequence[Epoch], title: str) -> str:
    """Return the losses over the epochs as lines of text.

    >>> curve_text([Epoch(1, 0.1, 2.0, 1.5, None, {})], "m").splitlines()[0]
    'm: loss, * train, o watched'
    """
    series = _series(history)
    low, high = _span(series)
    rows = [[" "] * _WIDTH for _ in range(_HEIGHT)]
    for values, (_, mark) in zip(series, _MARKS, strict=True):
        for place, value in enumerate(values):
            if math.isfinite(value):
                column = place * (_WIDTH - 1) // max(1, len(values) - 1)
                row = round((high - value) / (high - low) * (_HEIGHT - 1))
                rows[row][column] = mark
    lines = [f"{title}: loss, " + ", ".join(f"{mark} {name}" for name, mark in _MARKS)]
    labels = [f"{high:.4g}", *[""] * (_HEIGHT - 2), f"{low:.4g}"]
    for label, cells in zip(labels, rows, strict=True):
        lines.append(f"{label:>6} |{''.join(cells)}".rstrip())
    last = str(len(history))
    lines += [f"{'':6} +{'-' * _WIDTH}", f"{'epoch':>6}  1{last:>{_WIDTH - 1}}"]
    return "\n".join(lines)


def curve_picture(history: Sequence[Epoch], title: str) -> Picture:
    """Return the losses over the epochs as a picture."""
    series = _series(history)
    low, high = _span(series)
    bottom = _TOP + _HIGH
    picture = Picture(640, 360)
    picture.add(Words(_LEFT, 24, f"{title}: loss", 15))
    picture.add(Line(((_LEFT, _TOP), (_LEFT, bottom), (_LEFT + _WIDE, bottom))))
    for step in range(5):
        value, y = high - (high - low) * step / 4, _TOP + _HIGH * step / 4
        picture.add(Words(_LEFT - 6, y + 4, f"{value:.4g}", anchor="end"))
    for number in sorted({1, len(history)}):
        picture.add(Words(_across(number - 1, len(history)), bottom + 18, str(number)))
    for values, (name, _), colour in zip(series, _MARKS, _COLOURS, strict=True):
        points = tuple(
            (_across(i, len(values)), _TOP + _HIGH * (high - value) / (high - low))
            for i, value in enumerate(values)
            if math.isfinite(value)
        )
        y = 24 + 16 * (name != _MARKS[0][0])
        picture.add(Line(points, colour, 1.5))
        picture.add(Words(_LEFT + _WIDE - 50, y, name, colour=colour))
    picture.add(Words(_LEFT + _WIDE / 2, bottom + 36, "epoch"))
    return picture


def _across(place: int, count: int) -> float:
    """Return where an epoch lies from left to right."""
    return _LEFT + _WIDE * place / max(1, count - 1)


def write_curve(history: Sequence[Epoch], title: str, path: str) -> None:
    """Write the picture to a file, .svg or .png."""
    curve_picture(history, title).write(path)
