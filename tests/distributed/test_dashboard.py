"""The page about the cluster: as a program asks for it, and in a real browser."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from llmbol_core.distributed.dashboard import Dashboard
from llmbol_core.distributed.task import create_task
from llmbol_core.errors import FileError, UsageError
from tests.conftest import running

pytestmark = pytest.mark.cluster

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster(shared_cluster):
    return shared_cluster


@pytest.fixture
def page(client) -> Iterator[Dashboard]:
    made = Dashboard(client)
    thread = threading.Thread(target=made.serve)
    thread.start()
    yield made
    made.stop()
    thread.join()
    made.close()


def ask(page: Dashboard, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
    place = urlsplit(page.url)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    told = answer.status, dict(answer.getheaders()), answer.read().decode()
    connection.close()
    return told


def test_only_who_knows_the_token_sees_anything(page):
    for path in ("/", "/status.json", "/metrics", "/nothing"):
        for token in ("", "?token=", "?token=wrong", f"?token={page.token[:-1]}", "?token=%ff"):
            status, _, text = ask(page, path + token)
            assert (status, "node-1" in text) == (403, False)
    status, _, text = ask(page, f"/?token={page.token}", Host="evil.example")
    assert (status, text) == (403, "this page is for this machine only\n")
    assert ask(page, f"/nothing?token={page.token}")[0] == 404
    assert ask(page, "/metrics", Authorization=f"Bearer {page.token}")[0] == 200


def test_the_page_allows_itself_nothing_from_elsewhere(page):
    status, headers, text = ask(page, f"/?token={page.token}")
    assert status == 200
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    (nonce,) = re.findall(r"nonce-([\w-]+)'", policy)
    assert f'<script nonce="{nonce}">' in text
    assert headers["Cache-Control"] == "no-store"
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")


def test_metrics_are_what_prometheus_reads(page, client):
    client.wait(client.submit([create_task(f"m{n}", "probe", {"echo": n}) for n in range(5)]))
    _, headers, text = ask(page, f"/metrics?token={page.token}")
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    line = re.compile(
        r'# (HELP|TYPE) llmbol_\w+ .+|llmbol_\w+(\{\w+="[\w.-]+"\})? [-+\d.e]+'
    )  # fmt: skip
    assert all(line.fullmatch(each) for each in text.splitlines()), text
    values = dict(each.rsplit(" ", 1) for each in text.splitlines() if each[0] != "#")
    assert float(values['llmbol_tasks{state="done"}']) >= 5
    assert values['llmbol_node_up{node="node-1"}'] == "1"
    assert float(values['llmbol_latency_seconds{quantile="0.99"}']) > 0
    assert float(values["llmbol_latency_seconds_count"]) >= 5
    assert 0 < float(values["llmbol_latency_seconds_sum"]) < 60
    assert float(values['llmbol_node_done_total{node="node-1"}']) >= 0
    if promtool := shutil.which("promtool"):
        told = subprocess.run(
            [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
        )
        assert (told.returncode, told.stderr) == (0, "")
    assert json.loads(ask(page, f"/status.json?token={page.token}")[2])["status"]["nodes"]


def test_a_port_that_is_taken_is_told(page, client):
    port = urlsplit(page.url).port
    assert port is not None
    with pytest.raises(FileError, match="address already in use"):
        Dashboard(client, port)
    with pytest.raises(UsageError, match="port 70000"):
        Dashboard(client, 70000)


@pytest.mark.skipif(BROWSER is None, reason="no chromium here")
def test_a_browser_shows_nodes_tasks_and_events(page, client, tmp_path):
    client.wait(client.submit([create_task("seen-in-browser", "probe", {"echo": 1})]))
    assert BROWSER is not None
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--user-data-dir={tmp_path}", "--virtual-time-budget=5000",
    ]  # fmt: skip
    shown = subprocess.run(
        [*command, "--dump-dom", page.url], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert re.search(r'<td>node-1</td><td class="up">up</td>', shown)
    assert re.search(r"<td>seen-in-browser</td>", shown)
    assert "node-2: up" in shown
    assert shown.count("<rect") == 60
    assert re.search(r'<b>[\d.]+</b><span class="dim">p99 ms</span>', shown)
    assert re.search(r'id="alarm"[^>]* hidden', shown)
    # Without the token there is nothing to see.
    bare = subprocess.run(
        [*command, "--dump-dom", page.url.partition("?")[0]],
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    assert "missing or wrong" in bare
    assert "node-1" not in bare


def test_the_command_serves_until_it_is_interrupted(cluster):
    command = [sys.executable, "-c", "from llmbol_cli.cluster import main; main()", "dashboard"]
    environment = {**os.environ, "LLMBOL_STATE": str(cluster.root), "PYTHONPATH": str(ROOT)}
    with running(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        url = urlsplit(process.stdout.readline().decode().strip())
        connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=10)
        connection.request("GET", f"/status.json?{url.query}")
        assert connection.getresponse().status == 200
        connection.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
