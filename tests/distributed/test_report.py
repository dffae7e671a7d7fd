from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from llmbol_core.distributed import broker as broker_module
from llmbol_core.distributed.broker import Broker
from llmbol_core.distributed.node import local_nodes
from llmbol_core.distributed.report import KEEP_SECONDS, Config, Pruned
from llmbol_core.distributed.telemetry import Telemetry


def test_a_configuration_comes_back_as_it_was_written(tmp_path):
    config = Config(tuple(local_nodes(2)), "random", 5, ("node-1",), "127.0.0.1:7070", 60.0)
    config.write(tmp_path / "config.json")
    assert Config.read(tmp_path / "config.json") == config
    # One from before there were so many fields is as good.
    (tmp_path / "config.json").write_text('{"nodes": [], "strategy": "random", "max_retries": 1}')
    assert Config.read(tmp_path / "config.json") == Config((), "random", 1, keep=KEEP_SECONDS)


def test_old_tasks_are_forgotten_now_and_then(monkeypatch):
    monkeypatch.setattr(broker_module, "FORGET_SECONDS", 0.001)
    asked: list[float] = []
    noted: list[str] = []

    async def forget(seconds: float) -> Pruned:
        asked.append(seconds)
        if len(asked) == 3:
            raise asyncio.CancelledError
        return Pruned(len(asked) - 1, 0, 0.0)

    broker: Any = SimpleNamespace(
        config=Config((), keep=7.0), note=lambda subject, what: noted.append(what)
    )
    desk: Any = SimpleNamespace(forget=forget)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(Broker._forget(broker, desk))
    assert asked == [7.0] * 3
    assert noted == ["forgot 1 old tasks"]


def test_the_rate_is_that_of_the_last_ten_seconds():
    telemetry = Telemetry()
    for second, count in ((10, 7), (11, 5), (20, 15), (21, 100)):
        for _ in range(count):
            telemetry.ended(second + 0.5, 0.1)
    known = telemetry.metrics(21.9)
    assert known.rate == (5 + 15) / 10
    assert known.throughput[-12:] == (0, 7, 5, *[0] * 8, 15)
    assert (known.ended, len(known.throughput)) == (127, 60)
