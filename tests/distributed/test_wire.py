"""Frames between the broker and those who talk to it."""

from __future__ import annotations

import asyncio
import struct

import pytest

from llmbol_core.distributed import wire
from llmbol_core.errors import ClusterError


def read(data: bytes):
    async def frame():
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        return await wire.read_frame(reader)

    return asyncio.run(frame())


def test_a_frame_is_read_as_it_was_written():
    data = wire.request("submit", {"tasks": ["é"]}, b"\0\1")
    assert read(data) == ({"call": "submit", "arguments": {"tasks": ["é"]}}, b"\0\1")


@pytest.mark.parametrize("header", [b"", b"[]", b"nul", b"\xff\xfe", b"[" * 100_000])
def test_a_header_that_is_no_object_is_refused(header):
    with pytest.raises(ClusterError, match="no JSON object"):
        read(struct.pack(">II", len(header), 0) + header)


@pytest.mark.parametrize("sizes", [(wire.MAX_HEADER + 1, 0), (2, wire.MAX_BODY + 1)], ids=str)
def test_a_message_that_would_be_too_large_is_not_waited_for(sizes):
    with pytest.raises(ClusterError, match=f"{sizes[0]} . {sizes[1]} bytes is too large"):
        read(struct.pack(">II", *sizes) + b"{}")
