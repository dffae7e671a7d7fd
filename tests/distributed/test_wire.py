"""Frames between the broker and those who talk to it."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time

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


def test_what_comes_in_pieces_is_read_to_its_end_and_no_further():
    near, far = socket.socketpair()
    connection = object.__new__(wire.Connection)
    with near, far:
        connection._stream = near  # type: ignore[assignment]
        near.settimeout(5)
        data = wire.request("submit", {"tasks": ["x"]}, b"\0" * 5000)

        def send() -> None:
            for at in range(0, len(data), 700):
                far.sendall(data[at : at + 700])
                time.sleep(0.001)

        sender = threading.Thread(target=send)
        sender.start()
        assert connection._read_frame() == (
            {"call": "submit", "arguments": {"tasks": ["x"]}},
            b"\0" * 5000,
        )
        sender.join()
        far.close()
        with pytest.raises(ConnectionResetError, match="closed"):
            connection._read_frame()
