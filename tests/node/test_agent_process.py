"""The agent as a process: signals, and ports in use by other programs."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from tests.cluster.waiting import wait_for
from tests.node.agents import ADMIN, CLEANUP, HEALTH
from tests.node.manifests import Service, with_endpoints
from tests.node.processes import child_pids, is_alive
from tests.node.testbed import Testbed
from tests.users import OTHER_UID, as_another_user

pytestmark = pytest.mark.netns

WEB = Service("web", "10.96.0.10")
OTHER = Service("other", "10.96.0.11")
REPEATED = 50


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


def test_repeated_sigterms_from_timeout_count_as_one(testbed):
    testbed.agent.start_until_ready()
    assert testbed["pod"].get(WEB.address)
    # The kernel merges signals that arrive at the same moment, so two signals aren't enough.
    for _ in range(REPEATED):
        testbed.agent.send(signal.SIGTERM)
    assert testbed.agent.wait() == 0
    assert "userspace-proxy" not in testbed.rules()


@pytest.mark.long
def test_ports_used_by_another_program_are_served_after_it_closes_them(testbed):
    with contextlib.ExitStack() as stack:
        taken = {
            port: stack.enter_context(testbed.agent.listener(port)) for port in (HEALTH, ADMIN)
        }
        testbed.agent.start()
        wait_for("its rules", lambda: "plan applied" in testbed.agent.log(), hint=testbed.agent.log)
        assert testbed["pod"].get(WEB.address)
        words = "Address already in use by"
        for said in (
            f"the status page on 127.0.0.1:{ADMIN}",
            f"health checks on 0.0.0.0:{HEALTH}",
        ):
            assert testbed.agent.log().count(f"cannot serve {said}: {words}") == 1
        for flag in ("--metrics-bind-address", "--healthz-bind-address"):
            assert f"choose another address with {flag}" in testbed.agent.log()
        taken[ADMIN].close()
        wait_for("the page", lambda: "status address available" in testbed.agent.log())
        (problem,) = testbed.agent.status()["unserved"]
        assert f"health checks on 0.0.0.0:{HEALTH}: {words}" in problem["problem"]
    wait_for("its health", testbed.agent.is_healthy)
    assert testbed.agent.stop() == 0


@pytest.mark.long
@as_another_user
def test_another_users_socket_prevents_neither_start_nor_cleanup(testbed):
    with testbed.agent.unix_socket() as stranger, testbed.agent.unix_socket() as odd:
        stranger.bind("\0userspace-proxy")
        odd.bind(b"\0x\xff\xfe")
        os.seteuid(OTHER_UID)
        stranger.listen()
        os.seteuid(0)

        testbed.agent.start_until_ready()
        assert testbed["pod"].get(WEB.address)
        second = testbed.agent.run()
        assert second.returncode == 1
        assert f"another userspace-proxy (pid {testbed.agent.pid}) steers" in second.stderr
        testbed.agent.kill()
        assert "table inet userspace-proxy" in testbed.rules()
        assert testbed.agent.run(command=CLEANUP).returncode == 0
        assert "userspace-proxy" not in testbed.rules()
