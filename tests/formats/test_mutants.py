"""A part of the campaign of damaged inputs; all of it is `python -m tests.campaigns.mutants`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.campaigns import mutants, seeds
from tests.tools import TIER

# seconds; a machine that is slower, or busy, runs fewer
LONGEST = 600.0 if TIER == "all" else 60.0
COUNT = 4000 if TIER == "all" else 400

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> mutants.Campaign:
    return mutants.Campaign("ci", seeds.make(tmp_path_factory.mktemp("seeds")))


def test_damaged_inputs(campaign: mutants.Campaign, tmp_path: Path) -> None:
    """Each is done, or refused in words, in seconds, and left as it was."""
    workers = len(os.sched_getaffinity(0)) if TIER == "all" else 1
    results = mutants.run_all(campaign, range(COUNT), tmp_path, workers, LONGEST)
    wrong = [r for r in results if r.faults]
    assert not wrong, mutants.summary(results)
    assert len(results) > 50
    ended = {r.ended for r in results}
    assert {"done", "refused"} <= ended


def test_a_mutant_is_always_the_same(campaign: mutants.Campaign) -> None:
    again = mutants.Campaign(campaign.name, campaign.inputs)
    for number in range(40):
        assert campaign.mutant(number) == again.mutant(number)
    assert campaign.mutant(1).data != campaign.mutant(1).seed.data
