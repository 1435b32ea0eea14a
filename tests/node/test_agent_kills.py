"""All processes are killed at any moment: it serves again, and nothing of before is left behind."""

from __future__ import annotations

import os
import statistics

import pytest

from tests.node.kills import FLAGS, Kills, moments
from tests.node.testbed import Testbed

pytestmark = pytest.mark.netns

STEERINGS = ("nftables", "iptables", "local")
# Fifty in all.
KILLS = 17
SEED = 14
# One process alone needs 0.3 s; all parts of the tests run at the same time.
RESTART_S = 1.0


@pytest.mark.parametrize("steering", STEERINGS)
def test_killed_at_any_moment_it_serves_again_with_the_same_rules(steering, tmp_path):
    flags = (*FLAGS, f"--state-dir={tmp_path}/state")
    with Testbed(tmp_path, steering, *flags, clients=["pod", "node-1"]) as testbed:
        kills = Kills(testbed)
        for moment in moments(KILLS, SEED + STEERINGS.index(steering)):
            kills.kill_and_start(moment)
        load = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        assert statistics.median(kills.restarts_s) < RESTART_S * load, kills.restarts_s
