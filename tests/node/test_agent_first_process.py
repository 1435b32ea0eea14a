"""The agent as the first process of a PID namespace, as in a container."""

import os
import signal

import pytest

from tests.cluster.waiting import wait_for
from tests.node.contained import ContainedAgent
from tests.node.load import Load
from tests.node.manifests import Service, with_endpoints
from tests.node.processes import child_pids, is_alive
from tests.node.testbed import Testbed

pytestmark = [pytest.mark.long, pytest.mark.netns]

WEB = Service("web", "10.96.0.10")
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
RELIEVED = "previous workers stopped accepting connections"


@pytest.fixture
def testbed(tmp_path):
    with Testbed(tmp_path, "nftables", clients=["pod"], agent=ContainedAgent) as testbed:
        testbed.serve(with_endpoints(WEB, testbed.add_pods("one", tcp=8080)))
        yield testbed


def test_a_killed_control_process_costs_no_connection(testbed):
    agent = testbed.agent
    log = agent.log_path.with_name("load.log")
    load = Load(testbed["pod"].host, log, WEB.address, 30.0, timeout_s=30.0)
    open_before = testbed["pod"].dial(WEB.address)
    killed = agent.control
    workers = child_pids(killed)
    os.kill(killed, signal.SIGKILL)
    wait_for("the next control process", lambda: RELIEVED in agent.log(), hint=agent.log)
    assert agent.control != killed
    open_before.sendall(REQUEST)
    assert b"200" in open_before.recv(99)
    open_before.close()
    outcome = load.stop()
    assert not outcome.failed, f"{outcome.failed}\n{agent.log()}"
    wait_for("the end of the last workers", lambda: not any(map(is_alive, workers)))
    assert "the control process ended by signal 9 and is started again" in agent.log()
    assert agent.is_healthy()


def test_sigterm_stops_it_and_removes_the_rules(testbed):
    os.kill(testbed.agent.first, signal.SIGTERM)
    assert testbed.agent.wait() == 0
    assert "userspace-proxy" not in testbed.rules()
