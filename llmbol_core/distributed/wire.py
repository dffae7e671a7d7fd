"""How clients and nodes talk to the broker: frames of JSON and bytes over mutual TLS.

::

    u32 size of the header | u32 size of the body | header: JSON | body: bytes     (big-endian)

The broker begins with a frame that says ``{"protocol": 2}``. A request's header is
``{"call": name, "arguments": {...}}``, that of the answer ``{"result": ...}`` or
``{"error": kind, "why": text}``. Nothing that is received is ever executed or unpickled.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
from typing import TYPE_CHECKING, Any

from llmbol_core.distributed.security import Certificates, Role, server_name
from llmbol_core.errors import ClusterError, NoCluster, UsageError

if TYPE_CHECKING:
    import asyncio

PROTOCOL = 2
MAX_HEADER = 64 << 20
MAX_BODY = 32 << 20
CONNECT_SECONDS = 5.0

_SIZES = struct.Struct(">II")
_ERRORS: dict[str, type[ClusterError] | type[UsageError]] = {
    "usage": UsageError,
    "cluster": ClusterError,
}


def pack(header: dict[str, Any], body: bytes = b"") -> bytes:
    """Return a frame."""
    text = json.dumps(header, separators=(",", ":")).encode()
    return _SIZES.pack(len(text), len(body)) + text + body


def greeting(refusal: str | None = None) -> bytes:
    """Return the frame that a broker begins with; it may be its last."""
    return pack({"protocol": PROTOCOL} | ({"refused": refusal} if refusal else {}))


def request(call: str, arguments: dict[str, Any], body: bytes = b"") -> bytes:
    """Return the frame that asks for something."""
    return pack({"call": call, "arguments": arguments}, body)


def failure(error: Exception) -> bytes:
    """Return the frame that refuses a request."""
    kind = "usage" if isinstance(error, UsageError) else "cluster"
    return pack({"error": kind, "why": str(error)})


async def read_frame(reader: asyncio.StreamReader) -> tuple[dict[str, Any], bytes]:
    """Return the header and the body of the next frame; raises ClusterError if it is none."""
    header_size, body_size = _sizes(await reader.readexactly(_SIZES.size))
    header = _header(await reader.readexactly(header_size))
    return header, await reader.readexactly(body_size)


class Connection:
    """A connection to a broker, for one thread at a time."""

    def __init__(self, address: str, certificates: Certificates, role: Role) -> None:
        host, _, port = address.rpartition(":")
        context = certificates.client_context(role)
        self._address, self._certificates, self._role = address, certificates, role
        try:
            plain = socket.create_connection((host, int(port)), CONNECT_SECONDS)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise NoCluster(f"nothing answers at {address}: {why}") from error
        # The end of a request must not wait until its beginning was acknowledged.
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._stream = context.wrap_socket(plain, server_hostname=server_name(Role.BROKER))
        except OSError as error:
            plain.close()
            raise _refusal(address, error) from error
        try:
            self._greet()
        except BaseException:
            self.close()
            raise

    @property
    def own_address(self) -> str:
        """The numeric address of this end of the connection."""
        return str(self._stream.getsockname()[0])

    def close(self) -> None:
        """Hang up."""
        self._stream.close()

    def call(
        self, name: str, arguments: dict[str, Any], body: bytes = b"", timeout: float | None = 30.0
    ) -> tuple[Any, bytes]:
        """Return the result of a request and the bytes that came with it.

        Raises what the broker answered, NoCluster if it went away or was silent for ``timeout``
        seconds.
        """
        self._stream.settimeout(timeout)
        try:
            self._stream.sendall(request(name, arguments, body))
            header, answer = self._read_frame()
        except TimeoutError as error:
            raise NoCluster(f"the broker at {self._address} does not answer") from error
        except OSError as error:
            raise NoCluster(f"the broker at {self._address} went away") from error
        if "error" in header:
            raise _ERRORS.get(header["error"], ClusterError)(header.get("why", "refused"))
        return header["result"], answer

    def _greet(self) -> None:
        """Read the greeting: who gets none was refused, since TLS judges clients last."""
        try:
            header, _ = self._read_frame()
        except TimeoutError as error:
            raise NoCluster(f"the broker at {self._address} does not answer") from error
        except OSError as error:
            expired = self._certificates.has_expired(self._role)
            why = "it has expired" if expired else "it is from another cluster"
            raise ClusterError(
                f"the broker at {self._address} refused the certificate: {why}"
            ) from error
        if "refused" in header:
            raise ClusterError(f"the broker at {self._address} refused: {header['refused']}")
        if header.get("protocol") != PROTOCOL:
            raise ClusterError(
                f"the broker speaks protocol {header.get('protocol')!r}, not {PROTOCOL}; "
                "restart the cluster with this version of llmbol: cluster stop, cluster start"
            )

    def _read_frame(self) -> tuple[dict[str, Any], bytes]:
        header_size, body_size = _sizes(self._read(_SIZES.size))
        header = _header(self._read(header_size))
        return header, self._read(body_size)

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece = self._stream.recv(min(size - len(data), 1 << 20))
            if not piece:
                raise ConnectionResetError("the connection was closed")
            data += piece
        return bytes(data)


def _sizes(data: bytes) -> tuple[int, int]:
    header_size, body_size = _SIZES.unpack(data)
    if header_size > MAX_HEADER or body_size > MAX_BODY:
        raise ClusterError(f"a message of {header_size} + {body_size} bytes is too large")
    return header_size, body_size


def _header(data: bytes) -> dict[str, Any]:
    try:
        header = json.loads(data)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise ClusterError("a message that is no JSON object")
    return header


def _refusal(address: str, error: OSError) -> ClusterError:
    """Say in plain words why there is no connection."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return ClusterError(
            f"{address} is not the broker of this cluster: its certificate is from elsewhere"
        )
    if isinstance(error, ssl.SSLError):
        return ClusterError(f"{address} does not speak this cluster's protocol")
    return NoCluster(f"the broker at {address} went away")
