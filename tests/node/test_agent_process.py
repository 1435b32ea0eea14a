"""The agent as a process: signals, and ports in use by other programs."""

from __future__ import annotations

import signal

import pytest

from tests.cluster.waiting import wait_for
from tests.node.manifests import Service, with_endpoints
from tests.node.processes import child_pids, is_alive
from tests.node.testbed import Testbed

pytestmark = pytest.mark.netns

WEB = Service("web", "10.96.0.10")
OTHER = Service("other", "10.96.0.11")


@pytest.fixture
def testbed(tmp_path):
    with Testbed(tmp_path, "nftables", "--workers=1", clients=["pod"]) as testbed:
        testbed.ips = testbed.add_pods("one", tcp=8080)
        testbed.agent.manifests.write(with_endpoints(WEB, testbed.ips))
        yield testbed


@pytest.mark.long
def test_a_second_sigterm_stops_the_agent_immediately_and_keeps_its_rules(testbed):
    testbed.agent.flags = ("--workers=1", "--drain-timeout=1h")
    testbed.agent.start_until_ready()
    children = child_pids(testbed.agent.pid)
    client = testbed["pod"].dial(WEB.address)
    testbed.agent.send(signal.SIGTERM)
    wait_for("the drain", lambda: "stopping" in testbed.agent.log())

    def has_ended() -> bool:
        # A signal within a second of the first one doesn't count as a second request.
        testbed.agent.send(signal.SIGTERM)
        return not is_alive(testbed.agent.pid)

    wait_for("its end", has_ended)
    assert testbed.agent.wait() == 128 + signal.SIGTERM
    wait_for("the end of its workers", lambda: not any(map(is_alive, children)))
    client.close()
    assert "table inet userspace-proxy" in testbed.rules()
    testbed.agent.start_until_ready()
    assert testbed["pod"].get(WEB.address)
    assert testbed.agent.stop() == 0
