from __future__ import annotations

import pytest

from tests.cluster.chaos import FAULTS, run

pytestmark = pytest.mark.cluster


def test_nothing_is_lost_when_things_break():
    tally = run(faults=4, seed=1044, pause=0.3)
    assert tally.good, "\n".join(tally.lines())
    assert {"kill-node", "kill-broker", "kill-guardian"} <= set(tally.faults)


@pytest.mark.slow
def test_nothing_is_lost_when_many_things_break():
    tally = run(faults=60, seed=1, pause=0.7)
    assert tally.good, "\n".join(tally.lines())
    assert set(tally.faults) == set(FAULTS)
