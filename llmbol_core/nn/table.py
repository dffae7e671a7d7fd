"""Tables: rows of comma-separated numbers, read line by line, whatever their number.

Where the first line has no comma, semicolons or tabs may separate them.
A column whose first row is a word holds words: its values are their numbers in ``Table.words``.
"""

from __future__ import annotations

import codecs
import csv
import itertools
import reprlib
from collections.abc import Iterable, Iterator

from llmbol_core.errors import DataFormatError

_LONGEST_LINE = 1 << 24


class Table:
    """The columns' names and, one after the other, the rows.

    The names are the first line's if that has none of the numbers that follow, else positions:
    "0", "1".
    """

    def __init__(self, pieces: Iterable[bytes], path: str) -> None:
        """Read the first line of a text that comes in pieces. Raises DataFormatError."""
        self._path = path
        self._start = self._end = 0
        lines = self._lines(pieces)
        head = next(lines, "")
        separator = "," if "," in head else next((sign for sign in head if sign in ";\t"), ",")
        whole = itertools.chain([head], lines)
        self._lines_read = csv.reader(whole, strict=True, delimiter=separator)
        self._number = 0
        self._pending: list[list[str]] = []
        first = self._next()
        if first is None:
            raise DataFormatError(path, self._end, "no rows of numbers")
        named = self._has_names(first)
        self.names = [word.strip() if named else str(i) for i, word in enumerate(first)]
        if not named:
            self._pending.insert(0, first)
        self.words: dict[int, dict[str, int]] = {}
        """By the number of a column that holds words: the number of each."""
        if len(set(self.names)) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise DataFormatError(path, 0, f"two columns are called {twice!r}")

    def _has_names(self, first: list[str]) -> bool:
        """Tell whether the first line has names; one with words and numbers may be a row."""
        numbers = [word for word in first if is_number(word)]
        if not numbers or len(numbers) == len(first):
            return not numbers
        if [word.strip() for word in numbers] in _counted(len(numbers)):
            return True
        if (second := self._next()) is None:
            return True
        self._pending.append(second)
        pairs = zip(first, second, strict=False)
        return all(is_number(below) for word, below in pairs if not is_number(word))

    def rows(self) -> Iterator[list[float]]:
        """Yield the rows that are left. Raises DataFormatError at one that does not fit."""
        is_first = True
        while (row := self._pending.pop(0) if self._pending else self._next()) is not None:
            if is_first and len(row) == len(self.names):
                wordy = (i for i, word in enumerate(row) if word.strip() and not is_number(word))
                self.words = {i: {} for i in wordy}
            is_first = False
            try:
                if len(row) == len(self.names):
                    for i, known in self.words.items():
                        row[i] = known.setdefault(row[i].strip(), len(known))  # type: ignore[call-overload]  # a number in place of a word
                    yield list(map(float, row))
                    continue
            except ValueError:
                pass
            raise self._wrong(row)

    def refuse_words(self, columns: Iterable[int]) -> None:
        """Raise DataFormatError if one of these columns holds words."""
        for i in columns:
            if i in self.words:
                word, name = next(iter(self.words[i])), self.names[i]
                why = f"the column {name!r} holds words, such as {reprlib.repr(word)}"
                raise DataFormatError(self._path, 0, f"{why}: expected numbers")

    def _wrong(self, row: list[str]) -> DataFormatError:
        """Return what is wrong with a row."""
        where = f"row {self._number}"
        if len(row) != len(self.names):
            why = f"{where} has {len(row)} values, expected {len(self.names)}"
        else:
            at = next(i for i, word in enumerate(row) if not is_number(str(word)))
            why = f"{where}, column {at + 1}: {reprlib.repr(row[at])} is no number"
        return DataFormatError(self._path, self._start, why)

    def _next(self) -> list[str] | None:
        """Return the words of the next row that is not empty."""
        try:
            for row in self._lines_read:
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


def _counted(count: int) -> list[list[str]]:
    """Return what positions may be called: counted from 0 or from 1."""
    return [[str(start + i) for i in range(count)] for start in (0, 1)]


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
