"""A real agent's workers: their users and capabilities, and health while the only one hangs."""

import os
import signal
from pathlib import Path

import pytest

from tests.cluster.waiting import wait_for
from tests.node.agents import HEALTH
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed, steerings
from userspace_proxy.plane.privileges import CAP_NET_RAW, WORKER_ID

pytestmark = pytest.mark.netns

WEB = Service("web", "10.96.0.10")


@pytest.fixture(scope="module", params=steerings("nftables", "iptables", "local"))
def testbed(request, tmp_path_factory):
    """A node whose agent has one worker."""
    with Testbed(tmp_path_factory.mktemp("agent"), request.param, "--workers=1") as testbed:
        testbed.serve(with_endpoints(WEB, testbed.add_pods("one", tcp=8080)))
        wait_for("its worker", lambda: all(w["pid"] for w in workers(testbed)))
        yield testbed


def workers(testbed):
    """Return the workers from the status JSON."""
    return testbed.agent.status()["workers"]


def process(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines)


def test_workers_hold_only_the_capability_for_client_addresses(testbed):
    """In a user namespace with only one user, workers keep that user."""
    agent = process(testbed.agent.pid)
    mapped = Path(f"/proc/{testbed.agent.pid}/uid_map").read_text().split()
    user = str(WORKER_ID) if int(mapped[2]) > WORKER_ID else agent["Uid"].split()[0]
    assert int(agent["CapEff"], 16) != 0
    for worker in workers(testbed):

        def has_user(pid=worker["pid"]):
            return process(pid)["Uid"].split() == [user] * 4

        # A worker starts as the agent's user.
        wait_for(f"a worker of user {user}", has_user)
        said = process(worker["pid"])
        sets = ("CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd")
        kept = 1 << CAP_NET_RAW
        assert [int(said[name], 16) for name in sets] == [kept, kept, 0, 0, 0]
        assert said["NoNewPrivs"] == "1"
        assert said["PPid"] == str(testbed.agent.pid)


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
