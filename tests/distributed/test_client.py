"""The client's patience with brokers that die."""

from __future__ import annotations

import time

import pytest

from llmbol_core.distributed import client as client_module
from llmbol_core.distributed.client import Client
from llmbol_core.distributed.state import StateDirectory
from llmbol_core.errors import NoCluster


class Stub(Client):
    """Asks brokers that live for a while, each, before they die with the request."""

    def __init__(self, state: StateDirectory, deaths: int, *, there: bool) -> None:
        super().__init__(state)
        self.deaths, self.there, self.calls = deaths, there, 0

    def _call_once(self, name, arguments, body):
        self.calls += 1
        if self.calls > self.deaths:
            return "answer", b""
        time.sleep(0.1)
        if self.there:
            self._seen = time.monotonic()
        raise NoCluster("gone")

    def _is_expected(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(client_module, "PATIENCE", 0.15)
    monkeypatch.setattr(client_module, "LIVES", 5)


def test_patience_begins_anew_with_each_broker_that_was_there(tmp_path):
    client = Stub(StateDirectory(tmp_path), 4, there=True)
    assert client.call("wait", {}) == ("answer", b"")


def test_but_not_for_ever(tmp_path):
    client = Stub(StateDirectory(tmp_path), 1000, there=True)
    with pytest.raises(NoCluster):
        client.call("wait", {})
    assert 5 < client.calls <= 5 + 3


def test_who_finds_nobody_gives_up(tmp_path):
    client = Stub(StateDirectory(tmp_path), 1000, there=False)
    with pytest.raises(NoCluster):
        client.call("wait", {})
    assert client.calls <= 3
