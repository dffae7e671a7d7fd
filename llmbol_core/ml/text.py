"""Arrays as text: one line per sample, the same from every program that prints outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def format_rows(array: npt.NDArray[Any]) -> str:
    r"""Return one line per sample: its values as the shortest float32 texts, tabs between them.

    Reading a text back as float32 gives the same number, so equal lines mean equal bits but for
    the sign and payload of NaN.

    >>> format_rows(np.array([[0.1, 2], [1e-9, np.inf]]))
    '0.1\t2.0\n1e-09\tinf\n'
    """
    rows = np.asarray(array, np.float32)
    count = len(rows) if rows.ndim else 1
    rows = rows.reshape(count, rows.size // max(count, 1))
    return "".join("\t".join(map(str, row)) + "\n" for row in rows)
