"""The bounds of what Inferno says: error strings, ends of processes, names in messages.

An error string has room for 127 bytes. What is copied there and is longer ends in three dots; what
is printed there is cut. A message about a file whose name is long has only the last element of it.
"""

from __future__ import annotations

_MOST = 127
_DOTS = b"..."
_LONG_NAME = 42


def shortened(text: str) -> str:
    """Return a text as an error string, with three dots in place of what there is no room for."""
    data = text.encode(errors="replace")
    if len(data) <= _MOST:
        return text
    end = _MOST - len(_DOTS) - 1
    while data[end] & 0xC0 == 0x80:
        end -= 1
    return (data[:end] + _DOTS).decode()


def cut(text: str) -> str:
    """Return what of a text there is room for."""
    return text.encode(errors="replace")[:_MOST].decode(errors="ignore")


def about_file(name: str, why: str) -> str:
    """Return the message about a file, given its name up to the element that is to blame."""
    at = name.rfind("/")
    if len(name.encode(errors="replace")) >= _LONG_NAME and at > 0:
        name = f"...{name[at:]}"
    name = name.replace("'", "''").encode(errors="replace")[: _MOST - 2].decode(errors="ignore")
    return cut(f"'{name}' {why}")


def uncapitalized(text: str) -> str:
    """Return what a host says as part of a message of ours."""
    return text[:1].lower() + text[1:]
