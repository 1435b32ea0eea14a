"""All processes are killed at any moment: it serves again, and nothing of before is left behind."""

from __future__ import annotations

import pytest

from tests.node.kills import FLAGS, Kills, moments
from tests.node.testbed import Testbed

pytestmark = [pytest.mark.netns, pytest.mark.long]

STEERINGS = ("nftables", "iptables", "local")
# Fifty in all.
KILLS = 17
SEED = 14


@pytest.mark.parametrize("steering", STEERINGS)
def test_killed_at_any_moment_it_serves_again_with_the_same_rules(steering, tmp_path):
    flags = (*FLAGS, f"--state-dir={tmp_path}/state")
    with Testbed(tmp_path, steering, *flags, clients=["pod", "node-1"]) as testbed:
        kills = Kills(testbed)
        for moment in moments(KILLS, SEED + STEERINGS.index(steering)):
            kills.kill_and_start(moment)
