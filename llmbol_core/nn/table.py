"""Tables: rows of comma-separated numbers, read line by line, whatever their number."""

from __future__ import annotations

import codecs
import csv
import reprlib
from collections.abc import Iterable, Iterator

from llmbol_core.errors import DataFormatError

_LONGEST_LINE = 1 << 24


class Table:
    """The columns' names and, one after the other, the rows.

    The names are the first line's if a word of that is no number, else positions: "0", "1".
    """

    def __init__(self, pieces: Iterable[bytes], path: str) -> None:
        """Read the first line of a text that comes in pieces. Raises DataFormatError."""
        self._path = path
        self._start = self._end = 0
        self._words = csv.reader(self._lines(pieces), strict=True)
        self._number = 0
        first = self._next()
        if first is None:
            raise DataFormatError(path, self._end, "no rows of numbers")
        named = not all(map(is_number, first))
        self.names = [word.strip() if named else str(i) for i, word in enumerate(first)]
        self._pending = None if named else first
        if len(set(self.names)) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise DataFormatError(path, 0, f"two columns are called {twice!r}")

    def rows(self) -> Iterator[list[float]]:
        """Yield the rows that are left. Raises DataFormatError at one that does not fit."""
        while (row := self._pending or self._next()) is not None:
            self._pending = None
            try:
                if len(row) == len(self.names):
                    yield list(map(float, row))
                    continue
            except ValueError:
                pass
            raise self._wrong(row)

    def _wrong(self, row: list[str]) -> DataFormatError:
        """Return what is wrong with a row."""
        where = f"row {self._number}"
        if len(row) != len(self.names):
            why = f"{where} has {len(row)} values, expected {len(self.names)}"
        else:
            at = next(i for i, word in enumerate(row) if not is_number(word))
            why = f"{where}, column {at + 1}: {reprlib.repr(row[at])} is no number"
        return DataFormatError(self._path, self._start, why)

    def _next(self) -> list[str] | None:
        """Return the words of the next row that is not empty."""
        try:
            for row in self._words:
                if row:
                    self._number += 1
                    return row
        except csv.Error as error:
            why = f"not comma-separated text: {error}"
            raise DataFormatError(self._path, self._start, why) from error
        return None

    def _lines(self, pieces: Iterable[bytes]) -> Iterator[str]:
        """Yield the lines, each with its end; ``_start`` is where the last one begins."""
        decoder, text, done = codecs.getincrementaldecoder("utf-8-sig")(), "", 0
        for piece in _ended(pieces):
            try:
                text += decoder.decode(piece, final=not piece)
            except UnicodeDecodeError as error:
                raise DataFormatError(self._path, done + error.start, "not UTF-8 text") from error
            done += len(piece)
            *whole, text = text.split("\n")
            lines = [line + "\n" for line in whole]
            if len(text) > _LONGEST_LINE:
                why = f"a line of more than {_LONGEST_LINE} characters"
                raise DataFormatError(self._path, self._end, why)
            if text and not piece:
                lines.append(text)
            for line in lines:
                self._start, self._end = self._end, self._end + len(line.encode())
                yield line


def _ended(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield pieces and, at the end, an empty one."""
    for piece in pieces:
        if piece:
            yield piece
    yield b""


def is_number(word: str) -> bool:
    """Return whether a word is a number as Python reads it."""
    try:
        float(word)
    except ValueError:
        return False
    return True
