"""A real agent's workers: their users, their capabilities, and ``/healthz`` while they hang."""

import os
import signal

import pytest

from tests.cluster.waiting import wait_for
from tests.node.agents import HEALTH
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed, steerings

pytestmark = pytest.mark.netns

WEB = Service("web", "10.96.0.10")


@pytest.fixture(scope="module", params=steerings("nftables", "iptables", "local"))
def testbed(request, tmp_path_factory):
    """A node whose agent has one worker."""
    with Testbed(tmp_path_factory.mktemp("agent"), request.param, "--workers=1") as testbed:
        testbed.serve(with_endpoints(WEB, testbed.add_pods("one", tcp=8080)))
        wait_for("a worker", lambda: all(w["pid"] for w in workers(testbed)))
        yield testbed


def workers(testbed):
    """Return the workers from the status JSON."""
    return testbed.agent.status()["workers"]


def test_healthz_fails_while_the_only_worker_hangs_and_is_replaced(testbed):
    agent = testbed.agent
    (before,) = workers(testbed)
    os.kill(before["pid"], signal.SIGSTOP)
    wait_for("503", lambda: agent.read("/healthz", port=HEALTH)[0] == 503)
    assert agent.read("/livez", port=HEALTH)[0] == 200
    wait_for("a healthy agent", agent.is_healthy)
    (after,) = workers(testbed)
    assert after["hung"] - before["hung"] == 1
    assert testbed["pod"].get(WEB.address) == "one"
