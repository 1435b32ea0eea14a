"""One control process takes over from another while clients dial: none is refused or reset."""

from __future__ import annotations

import os
import signal

import pytest

from tests.cluster.waiting import wait_for
from tests.node.manifests import with_endpoints
from tests.node.processes import child_pids, is_alive
from tests.node.successions import (
    PODS,
    RELIEVED,
    SERVED,
    STICKY,
    WEB,
    Succession,
    assert_unnoticed,
    kill_control,
    send_sigusr1,
    take_back,
    take_over,
)
from tests.node.testbed import Testbed, steerings

pytestmark = pytest.mark.netns

CLIENTS = ("pod", "laptop", "node-1")
STEERINGS = ("nftables", "iptables", "local")
SUCCESSIONS = (
    take_over,
    kill_control,
    send_sigusr1,
    pytest.param(take_back, marks=pytest.mark.long),
)
DRAIN = "--drain-timeout=30s"


def serve(testbed: Testbed) -> None:
    ips = testbed.add_pods(*PODS, tcp=8080, udp=53)
    testbed.serve(*(with_endpoints(service, ips) for service in SERVED))


@pytest.fixture(scope="module", params=steerings(*STEERINGS))
def testbed(request, tmp_path_factory):
    """A node whose agent serves after each test; nothing is left at the end."""
    folder = tmp_path_factory.mktemp("agent")
    with Testbed(folder, request.param, "--workers=2", DRAIN, clients=CLIENTS) as testbed:
        serve(testbed)
        yield testbed
        assert testbed.agent.stop() == 0
        assert "userspace-proxy" not in testbed.rules()


@pytest.mark.parametrize("succeed", SUCCESSIONS)
def test_an_upgrade_is_invisible_to_clients(testbed: Testbed, succeed: Succession) -> None:
    assert_unnoticed(testbed, succeed)


# This test runs without load, because an emulated processor is too slow for load during a start.
@pytest.mark.long
@pytest.mark.kernel
@pytest.mark.parametrize("testbed", ["nftables"], indirect=True)
def test_an_upgrade_keeps_session_affinity(testbed):
    before = {name: client.get(STICKY.address) for name, client in testbed.clients.items()}
    relieved = testbed.agent.log().count(RELIEVED)
    testbed.agent.kill_control()
    testbed.agent.start_until_ready()
    wait_for(RELIEVED, lambda: testbed.agent.log().count(RELIEVED) > relieved)
    for name in reversed(before):
        assert testbed[name].get(STICKY.address) == before[name]


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        pytest.param(
            ["--dns-bind-address=203.0.113.99:53"],
            "cannot serve DNS on 203.0.113.99:53: Cannot assign requested address",
            id="dns",
        ),
        pytest.param(
            ["--socket-lb=required", "--socket-lb-cgroup=/nowhere"], "connect()", id="hooks"
        ),
    ],
)
def test_a_process_that_cannot_start_requests_no_handover(testbed, flags, why):
    before = testbed.agent.log().count("handed over")
    done = testbed.agent.run("--take-over", *flags)
    assert done.returncode == 1
    assert why in done.stderr
    assert testbed.agent.log().count("handed over") == before
    assert testbed.agent.is_healthy()


@pytest.mark.long
def test_a_stopping_process_does_not_take_the_node_back_from_the_next_process(testbed):
    """The next process requests the takeover during a drain, and then can't start."""
    agent, flags = testbed.agent, testbed.agent.flags
    agent.log_path.write_text("")
    workers = child_pids(agent.pid)
    with testbed["node-1"].new_udp() as taken, testbed["pod"].dial(WEB.address):
        taken.bind(("127.0.0.1", 0))
        agent.send(signal.SIGTERM)
        wait_for("a drain", lambda: "stopping" in agent.log(), hint=agent.log)
        old, agent.process = agent.process, None
        dns = f"--dns-bind-address=127.0.0.1:{taken.getsockname()[1]}"
        agent.flags = ("--take-over", dns)
        agent.start()
        assert agent.wait() == 1
    for worker in filter(is_alive, workers):
        os.kill(worker, signal.SIGKILL)
    assert old.wait(30) == 0
    said = agent.log()
    assert "handing over the node, waiting for connections to end" in said
    assert "cannot serve DNS" in said
    assert "taking the node back" not in said
    agent.flags = flags
    agent.start_until_ready()
    assert testbed["pod"].get(WEB.address) in PODS
