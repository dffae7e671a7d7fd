"""The broker's door: the one place where clients and nodes ask for something.

It opens only for holders of the cluster's certificates, on the loopback address, and each operation
only for the roles in its row.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from llmbol_core.distributed import wire
from llmbol_core.distributed.security import Certificates, Role, role_of
from llmbol_core.errors import ClusterError, LlmbolError, UsageError, nearest

log = logging.getLogger("llmbol.door")

HANDSHAKE_SECONDS = 5.0

Answer = tuple[Any, bytes]
Handler = Callable[[dict[str, Any], bytes], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Operation:
    """What can be asked for, and by whom."""

    roles: frozenset[Role]
    handle: Handler


class Door:
    """A TLS server that answers requests with the operations of a table."""

    def __init__(self, certificates: Certificates, operations: Mapping[str, Operation]) -> None:
        self._context = certificates.server_context(Role.BROKER)
        self._operations = operations
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self, host: str) -> str:
        """Open the door; return its address, host:port."""
        self._server = await asyncio.start_server(
            self._serve, host, 0, ssl=self._context,
            ssl_handshake_timeout=HANDSHAKE_SECONDS, ssl_shutdown_timeout=HANDSHAKE_SECONDS,
        )  # fmt: skip
        address, port, *_ = self._server.sockets[0].getsockname()
        return f"{address}:{port}"

    async def stop(self) -> None:
        """Close the door and hang up on everybody."""
        self._server.close()
        for writer in list(self._open):
            # An orderly end of TLS would wait for the other side.
            writer.transport.abort()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._server.wait_closed(), 1)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        role = role_of(writer.get_extra_info("peercert"))
        try:
            writer.write(wire.greeting())
            while True:
                header, body = await wire.read_frame(reader)
                writer.write(await self._answer(role, header, body))
                await writer.drain()
        except ClusterError as error:
            # Not our protocol: nothing that follows can be understood.
            log.warning("hung up on a %s: %s", role, error)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, role: Role | None, header: dict[str, Any], body: bytes) -> bytes:
        try:
            operation, arguments = self._find(role, header)
            result, data = await operation.handle(arguments, body)
            return wire.pack({"result": result}, data)
        except LlmbolError as error:
            return wire.failure(error)
        except (KeyError, TypeError, ValueError) as error:
            call = header.get("call")
            log.warning("a request %r that does not fit", call, exc_info=True)
            return wire.failure(ClusterError(f"request {call!r} does not fit: {error!r}"))
        except Exception as error:
            # Who is hung up on would ask again and again.
            log.exception("a request %r that went wrong", header.get("call"))
            return wire.failure(ClusterError(f"the broker could not answer: {error}"))

    def _find(self, role: Role | None, header: dict[str, Any]) -> tuple[Operation, dict[str, Any]]:
        """Return the operation that a request asks for, if the role may."""
        call = str(header.get("call"))
        if call not in self._operations:
            raise UsageError(f"unknown request {call!r}{nearest(call, self._operations)}")
        operation = self._operations[call]
        if role not in operation.roles:
            raise ClusterError(f"a certificate with the role {role} does not allow {call!r}")
        return operation, dict(header.get("arguments") or {})
