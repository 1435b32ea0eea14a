"""One control process follows another while clients dial: none is refused, reset or forgotten."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from tests.cluster.waiting import wait_for
from tests.node.load import Load, Outcome
from tests.node.manifests import Service, with_endpoints
from tests.node.processes import child_pids, is_alive
from tests.node.steerings import steerings
from tests.node.testbed import Testbed

pytestmark = pytest.mark.netns

WEB = Service("web", "10.96.0.10")
DNS = Service("dns", "10.96.0.53", 53, "UDP", target=53)
ADDED = Service("added", "10.96.0.11")
STEERINGS = ("nftables", "iptables", "local")
# Low, as tests run in parallel: what is lost is lost at any rate.
RATE = 30.0
# On a busy machine.
TIMEOUT_S = 30.0


@pytest.fixture(params=steerings(*STEERINGS))
def testbed(request, tmp_path):
    """A node whose agent serves."""
    with Testbed(tmp_path, request.param, clients=["pod", "laptop", "node-1"]) as testbed:
        ips = testbed.add_pods("one", "two", tcp=8080, udp=53)
        testbed.serve(with_endpoints(WEB, ips), with_endpoints(DNS, ips))
        yield testbed


@contextlib.contextmanager
def load(testbed: Testbed) -> Iterator[list[Outcome]]:
    """Dial from a pod and from outside; the outcomes are in the list at the end."""
    outcomes: list[Outcome] = []
    folder = testbed.agent.log_path.parent
    loads = [
        Load(
            testbed[name].host,
            folder / f"{name}-{service.name}.log",
            service.address,
            RATE,
            protocol=service.protocol,
            timeout_s=TIMEOUT_S,
        )
        for name in ("pod", "laptop")
        for service in (WEB, DNS)
    ]
    try:
        yield outcomes
    finally:
        outcomes += [one.stop() for one in loads]


def assert_nothing_lost(outcomes: list[Outcome], testbed: Testbed) -> None:
    for outcome in outcomes:
        assert not outcome.failed, f"{outcome.failed}\n{testbed.agent.log()}"
        assert outcome.made


def assert_continues(connection: socket.socket) -> None:
    """Have an open connection of an old worker carry a request, and close it."""
    with connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"200" in connection.recv(99)


def wait_until_relieved(testbed: Testbed, count: int = 1) -> None:
    line = "previous workers stopped accepting connections"
    wait_for(line, lambda: testbed.agent.log().count(line) == count, hint=testbed.agent.log)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_new_process_takes_over_without_a_lost_request(testbed, workers):
    testbed.agent.stop()
    testbed.agent.flags = (f"--workers={workers}", "--take-over", "--drain-timeout=30s")
    testbed.agent.start_until_ready()
    with load(testbed) as outcomes:
        open_before = testbed["pod"].dial(WEB.address)
        old = testbed.agent.process
        testbed.agent.process = None
        testbed.agent.start_until_ready()
        wait_until_relieved(testbed)
        assert_continues(open_before)
    assert_nothing_lost(outcomes, testbed)
    assert old.wait(30) == 0
    assert testbed.agent.stop() == 0
    assert "userspace-proxy" not in testbed.rules()


def test_workers_serve_while_the_control_process_is_dead(testbed):
    with load(testbed) as outcomes:
        workers = child_pids(testbed.agent.pid)
        open_before = testbed["pod"].dial(WEB.address)
        testbed.agent.kill_control()
        assert testbed["pod"].get(WEB.address) in ("one", "two")
        testbed.agent.start_until_ready()
        wait_until_relieved(testbed)
        assert_continues(open_before)
    assert_nothing_lost(outcomes, testbed)
    wait_for("the end of the last workers", lambda: not any(map(is_alive, workers)))


# Without a load, which an emulated processor can't carry beside a start.
@pytest.mark.parametrize(
    "testbed",
    [pytest.param("nftables", marks=pytest.mark.kernel), *steerings(*STEERINGS)[1:]],
    indirect=True,
)
@pytest.mark.long
def test_clients_stay_with_their_endpoint(testbed):
    ips = [testbed.ip("one"), testbed.ip("two")]
    sticky = with_endpoints(
        Service("sticky", "10.96.0.12", more={"sessionAffinity": "ClientIP"}), ips
    )
    web, dns = with_endpoints(WEB, ips), with_endpoints(DNS, ips)
    testbed.edit(web, dns, sticky)
    testbed.agent.wait_until_settled(web, dns, sticky)
    before = {name: client.get(sticky.address) for name, client in testbed.clients.items()}
    assert set(before.values()) == {"one", "two"}, "in turn"
    testbed.agent.kill_control()
    testbed.agent.start_until_ready()
    wait_until_relieved(testbed)
    # In the other order, so that turns would give them the other endpoint.
    for name in reversed(before):
        assert testbed[name].get(sticky.address) == before[name]


def test_sigusr1_leaves_the_node_to_the_next_process(testbed):
    with load(testbed) as outcomes:
        testbed.agent.send(signal.SIGUSR1)
        assert testbed.agent.wait() == 0
        testbed.agent.start_until_ready()
        wait_until_relieved(testbed)
    assert_nothing_lost(outcomes, testbed)


@pytest.mark.long
def test_a_connection_that_waits_in_an_old_worker_ends_at_its_deadline(testbed):
    held = Service("web", WEB.ip, annotations={"userspace-proxy.io/hold": "5s"})
    testbed.edit(held)
    testbed.agent.wait_until_settled(held)
    old = testbed["pod"].dial(WEB.address)
    wait_for("it to wait", lambda: testbed.agent.status()["ports"][0]["waits"]["waiting"] == 1)
    testbed.agent.kill_control()
    testbed.agent.start_until_ready()
    wait_until_relieved(testbed)
    held = with_endpoints(held, [testbed.ip("one")])
    testbed.edit(held)
    testbed.agent.wait_until_settled(held)
    assert testbed["pod"].get(WEB.address) == "one"
    with pytest.raises(ConnectionResetError):
        old.recv(1)


def take_over_and_fail(testbed: Testbed, *flags: str) -> str:
    """Have a next process fail by its flags; return what it said."""
    done = testbed.agent.run("--take-over", *flags)
    assert done.returncode == 1, done.stderr
    return done.stderr


@pytest.mark.long
def test_a_process_takes_the_node_back_from_one_that_cannot_start(testbed):
    workers = child_pids(testbed.agent.pid)
    with testbed["node-1"].new_udp() as taken, load(testbed) as outcomes:
        taken.bind(("127.0.0.1", 0))
        open_before = testbed["pod"].dial(WEB.address)
        dns = f"--dns-bind-address=127.0.0.1:{taken.getsockname()[1]}"
        said = take_over_and_fail(testbed, dns)
        assert "the running proxy has handed over the node" in said
        assert "cannot serve DNS" in said
        wait_until_relieved(testbed)
        wait_for("a healthy agent", testbed.agent.is_healthy, hint=testbed.agent.log)
        ips = [testbed.ip("one"), testbed.ip("two")]
        all_three = [with_endpoints(service, ips) for service in (WEB, DNS, ADDED)]
        testbed.edit(*all_three)
        testbed.agent.wait_until_settled(*all_three)
        assert testbed["pod"].get(ADDED.address) in ("one", "two")
        assert_continues(open_before)
    assert_nothing_lost(outcomes, testbed)
    line = "the next process ended before it served, taking the node back"
    assert testbed.agent.log().count(line) == 1
    wait_for(
        "the end of the last workers",
        lambda: not set(workers) & set(child_pids(testbed.agent.pid)),
    )
    assert testbed.agent.stop() == 0
    assert "userspace-proxy" not in testbed.rules()


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
def test_a_process_that_cannot_start_asks_for_nothing(testbed, flags, why):
    said = take_over_and_fail(testbed, *flags)
    assert why in said
    assert "handed over" not in testbed.agent.log()
    assert testbed.agent.is_healthy()


@pytest.mark.long
def test_a_process_that_was_told_to_stop_takes_nothing_back(testbed):
    """A next process asks while the last one drains, and can't start."""
    testbed.agent.stop()
    testbed.agent.flags = ("--drain-timeout=60s",)
    testbed.agent.start_until_ready()
    workers = child_pids(testbed.agent.pid)
    with testbed["node-1"].new_udp() as taken, testbed["pod"].dial(WEB.address):
        taken.bind(("127.0.0.1", 0))
        testbed.agent.send(signal.SIGTERM)
        wait_for("a drain", lambda: "stopping" in testbed.agent.log(), hint=testbed.agent.log)
        old, testbed.agent.process = testbed.agent.process, None
        dns = f"--dns-bind-address=127.0.0.1:{taken.getsockname()[1]}"
        testbed.agent.flags = ("--take-over", dns)
        testbed.agent.start()
        assert testbed.agent.wait() == 1
    for worker in filter(is_alive, workers):
        os.kill(worker, signal.SIGKILL)
    assert old.wait(30) == 0
    said = testbed.agent.log()
    assert "handing over the node, waiting for connections to end" in said
    assert "cannot serve DNS" in said
    assert "taking the node back" not in said
    testbed.agent.flags = ()
    testbed.agent.start_until_ready()
    assert testbed["pod"].get(WEB.address) in ("one", "two")
    assert testbed.agent.stop() == 0
    assert "userspace-proxy" not in testbed.rules()
