"""A page about the cluster for a browser on this machine, and the same as metrics for Prometheus.

It is served on the loopback by the command that asks for it, never by the cluster itself, and only
to who knows the token in its address. Requests that name another host are refused, so that no page
from elsewhere can have a browser ask for it.

::

    /             the page        /status.json   what it shows        /metrics   for Prometheus
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any
from urllib.parse import parse_qs, urlsplit

from llmbol_core.distributed.client import Client
from llmbol_core.distributed.processes import LOOPBACK
from llmbol_core.distributed.report import ClusterStatus, NodeStatus, TaskStatus
from llmbol_core.distributed.telemetry import Metrics
from llmbol_core.errors import FileError, LlmbolError, UsageError

SHOWN_TASKS = 20
Answer = tuple[int, str, bytes]
"""Status, content type, content."""


class Dashboard:
    """A web server about a cluster; ``serve`` is its life."""

    def __init__(self, client: Client, port: int = 0) -> None:
        """Listen on a port of the loopback; 0 lets the system choose."""
        if not 0 <= port <= 65535:
            raise UsageError(f"port {port}: expected a whole number between 0 and 65535")
        self._client, self.token = client, secrets.token_urlsafe(24)
        try:
            self._server = _Server((LOOPBACK, port), self)
        except OSError as error:
            raise FileError(f"{LOOPBACK}:{port}", (error.strerror or str(error)).lower()) from error

    @property
    def url(self) -> str:
        """Where to look, token and all."""
        return f"http://{LOOPBACK}:{self._server.server_port}/?token={self.token}"

    def serve(self) -> None:
        """Answer until ``stop`` is called from another thread."""
        self._server.serve_forever(0.2)

    def stop(self) -> None:
        """End ``serve``."""
        self._server.shutdown()

    def close(self) -> None:
        """Listen no more."""
        self._server.server_close()

    def answer(self, path: str, host: str, authorization: str) -> Answer:
        """Return what to answer a request."""
        port = self._server.server_port
        if host not in (f"{LOOPBACK}:{port}", f"localhost:{port}"):
            return _refusal(403, "this page is for this machine only")
        place = urlsplit(path)
        given = parse_qs(place.query).get("token", [authorization.removeprefix("Bearer ")])[0]
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            return _refusal(403, "the token in the address is missing or wrong")
        page = _PAGES.get(place.path)
        if page is None:
            return _refusal(404, f"nothing is here: expected one of {' '.join(_PAGES)}")
        try:
            return page(self._client)
        except LlmbolError as error:
            return 503, "application/json", json.dumps({"error": str(error)}).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], dashboard: Dashboard) -> None:
        self.dashboard = dashboard
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10
    server_version, sys_version = "llmbol", ""

    def do_GET(self) -> None:  # the name is http.server's
        """Answer a request."""
        status, kind, content = self.server.dashboard.answer(
            self.path, self.headers.get("Host", ""), self.headers.get("Authorization", "")
        )
        nonce = secrets.token_urlsafe(12)
        content = (
            content.replace(b"NONCE", nonce.encode()) if kind.startswith("text/html") else (content)
        )
        with suppress(ConnectionError):
            self.send_response(status)
            for name, value in {
                "Content-Type": kind,
                "Content-Length": str(len(content)),
                "Cache-Control": "no-store",
                "Referrer-Policy": "no-referrer",
                "X-Content-Type-Options": "nosniff",
                "X-Frame-Options": "DENY",
                "Content-Security-Policy": (
                    "default-src 'none'; style-src 'unsafe-inline'; connect-src 'self'; "
                    f"script-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'"
                ),
            }.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: addresses hold the token."""


def _page(client: Client) -> Answer:
    text = resources.files(__package__).joinpath("dashboard.html").read_bytes()
    return 200, "text/html; charset=utf-8", text


def _status(client: Client) -> Answer:
    told = {
        "status": client.status().to_json(),
        "metrics": client.metrics().to_json(),
        "tasks": [asdict(TaskStatus.of(entry)) for entry in client.tasks(SHOWN_TASKS)],
    }
    return 200, "application/json", json.dumps(told).encode()


def _metrics(client: Client) -> Answer:
    text = prometheus(client.status(), client.metrics())
    return 200, "text/plain; version=0.0.4; charset=utf-8", text.encode()


# fmt: off
# path            what is there
_PAGES: dict[str, Callable[[Client], Answer]] = {
    "/":            _page,
    "/status.json": _status,
    "/metrics":     _metrics,
}
# fmt: on


def _refusal(status: int, why: str) -> Answer:
    return status, "text/plain; charset=utf-8", f"{why}\n".encode()


def _tasks(status: ClusterStatus, metrics: Metrics) -> dict[str, float]:
    states = ("queued", "running", "done", "failed", "cancelled")
    return {f'{{state="{state}"}}': getattr(status, state) for state in states}


def _latency(status: ClusterStatus, metrics: Metrics) -> dict[str, float]:
    known = (("0.5", metrics.p50_ms), ("0.9", metrics.p90_ms), ("0.99", metrics.p99_ms))
    quantiles = {f'{{quantile="{q}"}}': ms / 1000 for q, ms in known if ms is not None}
    return {**quantiles, "_sum": metrics.latency_s, "_count": metrics.ended}


Values = Callable[[ClusterStatus, Metrics], dict[str, float]]

# fmt: off
# name               type       what                             values by label
_CLUSTER: tuple[tuple[str, str, str, Values], ...] = (
    ("uptime_seconds",   "gauge",   "Since the broker started.",     lambda s, m: {"": s.uptime}),
    ("tasks",            "gauge",   "Tasks in the ledger by state.", _tasks),
    ("retries_total",    "counter", "Attempts that were repeated.",  lambda s, m: {"": s.retries}),
    ("tasks_per_second", "gauge",   "Tasks that ended lately.",      lambda s, m: {"": m.rate}),
    ("overhead_percent", "gauge",   "Nodes' time not for tasks.",    lambda s, m: {"": s.overhead}),
    ("latency_seconds",  "summary", "From submission to the end.",   _latency),
)
# name                type       what                               value
_NODE: tuple[tuple[str, str, str, Callable[[NodeStatus], float]], ...] = (
    ("up",                "gauge",   "Whether a node serves.",        lambda n: n.serves),
    ("running",           "gauge",   "Tasks that a node has.",        lambda n: n.running),
    ("done_total",        "counter", "Tasks that a node did.",        lambda n: n.done),
    ("failed_total",      "counter", "Tasks that failed on a node.",  lambda n: n.failed),
    ("cpu_percent",       "gauge",   "Percent of one core.",          lambda n: n.cpu),
    ("memory_bytes",      "gauge",   "Resident memory.",              lambda n: n.memory_mb * 1e6),
    ("models",            "gauge",   "Models that it has loaded.",    lambda n: n.models),
    ("heartbeat_seconds", "gauge",   "Since it was last heard of.",   lambda n: n.heartbeat),
)
# fmt: on


def prometheus(status: ClusterStatus, metrics: Metrics) -> str:
    """Return metrics in Prometheus's text format, version 0.0.4."""
    lines = []

    def add(name: str, kind: str, what: str, values: dict[str, float]) -> None:
        lines.extend([f"# HELP llmbol_{name} {what}", f"# TYPE llmbol_{name} {kind}"])
        lines.extend(f"llmbol_{name}{label} {float(v):.10g}" for label, v in values.items())

    for name, kind, what, values in _CLUSTER:
        add(name, kind, what, values(status, metrics))
    for name, kind, what, value in _NODE:
        by_node = {f'{{node="{node.name}"}}': value(node) for node in status.nodes}
        add(f"node_{name}", kind, what, by_node)
    return "\n".join(lines) + "\n"
