"""The harnesses tell what they have counted, also when they are interrupted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.vm import fuzz
from tests.vm.batches import try_all


def counted(seeds: Sequence[int]) -> tuple[Counter[str], list[str]]:
    """Count seeds as a harness does, which is interrupted at one of them."""
    if 5 in seeds:
        raise KeyboardInterrupt
    return Counter(tried=len(seeds)), []


def test_what_was_counted_before_an_interruption_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert try_all(counted, range(1000), 5, 1) == (Counter(tried=5), 0)
    said = capsys.readouterr()
    assert said.out == "        5 tried\n"
    assert said.err.startswith("interrupted")


def test_so_does_the_fuzzer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "_BATCH", 5)
    monkeypatch.setattr(fuzz, "try_seeds", until_ten)
    assert fuzz.fuzz([], range(1000), 1, ()) == (Counter(tried=10), [])


def until_ten(
    files: Sequence[Path], seeds: range, engines: tuple[str, ...]
) -> tuple[Counter[str], list[str]]:
    """Count seeds as the fuzzer does, until it is interrupted."""
    if 10 in seeds:
        raise KeyboardInterrupt
    return Counter(tried=len(seeds)), []
