from __future__ import annotations

import pytest

from llmbol_core.distributed.strategies import (
    STRATEGIES,
    Candidate,
    Need,
    check_strategy,
    choose,
)
from llmbol_core.errors import UsageError

NODES = [Candidate(name, capabilities=frozenset({"inference"})) for name in ("a", "b", "c")]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_chooses_one_of_the_candidates(strategy):
    for draw in (0.0, 0.5, 0.999999):
        for some in (NODES, NODES[1:], NODES[:1]):
            assert choose(strategy, some, Need(draw=draw)) in some


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_is_described(strategy):
    assert (STRATEGIES[strategy].__doc__ or "").startswith("Choose")


def test_round_robin_goes_around_and_skips_who_is_not_there():
    last, seen = "", []
    for _ in range(5):
        last = choose("round-robin", NODES, Need(last=last)).name
        seen.append(last)
    assert seen == ["a", "b", "c", "a", "b"]
    assert choose("round-robin", [NODES[0], NODES[2]], Need(last="a")).name == "c"


def test_least_loaded_counts_tasks_per_slot():
    busy = Candidate("a", slots=1, running=1)
    roomy = Candidate("b", slots=4, running=2)
    assert choose("least-loaded", [busy, roomy], Need()) is roomy


def test_least_loaded_prefers_the_node_that_has_the_model():
    cold, warm = Candidate("a"), Candidate("b", cached=frozenset({"hash"}), cpu=90, done=9)
    assert choose("least-loaded", [cold, warm], Need(files=frozenset({"hash"}))) is warm
    assert choose("least-loaded", [cold, warm], Need()) is cold


def test_least_loaded_looks_at_processors_in_quarters():
    idle, busy = Candidate("a", cpu=20, done=9), Candidate("b", cpu=24)
    assert choose("least-loaded", [idle, busy], Need()) is busy
    busier = Candidate("b", cpu=26)
    assert choose("least-loaded", [idle, busier], Need()) is idle


def test_capability_based_keeps_versatile_nodes_free():
    both = Candidate("a", capabilities=frozenset({"inference", "training"}))
    plain = Candidate("b", running=3, capabilities=frozenset({"inference"}))
    assert choose("capability-based", [both, plain], Need("inference")) is plain


def test_random_reaches_every_node():
    reached = {choose("random", NODES, Need(draw=draw)).name for draw in (0.1, 0.5, 0.9)}
    assert reached == {"a", "b", "c"}


def test_an_unknown_strategy_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'round-robin'"):
        check_strategy("round_robin")
