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
from llmbol_core.distributed.security import Certificates, Role, invitation_of, role_of
from llmbol_core.errors import ClusterError, LlmbolError, UsageError, nearest

log = logging.getLogger("llmbol.door")

HANDSHAKE_SECONDS = 20.0
"""How long TLS may take to begin or end: clients give up sooner (``wire``) and try again."""

Answer = tuple[Any, bytes]
Handler = Callable[[dict[str, Any], bytes], Awaitable[Answer]]
Refusal = Callable[[str | None, Role | None], str | None]
"""Why the holder of an invitation is not let in, if so."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What can be asked for, and by whom."""

    roles: frozenset[Role]
    handle: Handler


@dataclass(frozen=True, slots=True)
class Guest:
    """Who is at the other end of a connection, as the certificate says."""

    role: Role | None
    invitation: str | None


class Door:
    """A TLS server that answers requests with the operations of a table."""

    def __init__(
        self,
        certificates: Certificates,
        operations: Mapping[str, Operation],
        refusal: Refusal = lambda invitation, role: None,
    ) -> None:
        self._context = certificates.server_context(Role.BROKER)
        self._operations, self._refusal = operations, refusal
        self._open: dict[asyncio.StreamWriter, Guest] = {}

    async def start(self, host: str, port: int = 0) -> str:
        """Open the door; return its address, host:port."""
        self._server = await asyncio.start_server(
            self._serve, host, port, ssl=self._context,
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
        certificate = writer.get_extra_info("peercert")
        self._open[writer] = guest = Guest(role_of(certificate), invitation_of(certificate))
        try:
            refusal = self._refusal(guest.invitation, guest.role)
            writer.write(wire.greeting(refusal))
            while refusal is None:
                header, body = await wire.read_frame(reader)
                writer.write(await self._answer(guest, header, body))
                await writer.drain()
            log.warning("refused a %s: %s", guest.role, refusal)
        except ClusterError as error:
            # Not our protocol: nothing that follows can be understood.
            log.warning("hung up on a %s: %s", guest.role, error)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self._open.pop(writer, None)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def sweep(self) -> None:
        """Hang up on those who may stay no longer."""
        for writer, guest in list(self._open.items()):
            if (refusal := self._refusal(guest.invitation, guest.role)) is not None:
                log.warning("hung up on a %s: %s", guest.role, refusal)
                writer.transport.abort()

    async def _answer(self, guest: Guest, header: dict[str, Any], body: bytes) -> bytes:
        try:
            operation, arguments = self._find(guest, header)
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

    def _find(self, guest: Guest, header: dict[str, Any]) -> tuple[Operation, dict[str, Any]]:
        """Return the operation that a request asks for, if the role may."""
        call = str(header.get("call"))
        if call not in self._operations:
            raise UsageError(f"unknown request {call!r}{nearest(call, self._operations)}")
        operation = self._operations[call]
        if guest.role not in operation.roles:
            raise ClusterError(f"a certificate with the role {guest.role} does not allow {call!r}")
        if (refusal := self._refusal(guest.invitation, guest.role)) is not None:
            raise ClusterError(refusal)
        # Who asks stands in the certificate, not in the request.
        return operation, {**(header.get("arguments") or {}), "invitation": guest.invitation}
