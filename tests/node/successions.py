"""Cases in which one control process takes over from another, without effect on clients."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from tests.cluster.waiting import wait_for
from tests.node.load import Load
from tests.node.manifests import CLIENT_IP, Service, with_endpoints
from tests.node.processes import child_pids, is_alive
from tests.node.testbed import Testbed

PODS = ("one", "two")
WEB = Service("web", "10.96.0.10")
ADDED = Service("added", "10.96.0.11")
STICKY = Service("sticky", "10.96.0.12", more=CLIENT_IP)
DNS = Service("dns", "10.96.0.53", 53, "UDP", target=53)
SERVED = (WEB, STICKY, DNS)
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
RELIEVED = "previous workers are draining"
# The rate is low, because tests run in parallel. Even at this rate, a gap loses connections.
RATE = 30.0
# The timeout of a dial, long enough for a busy machine.
TIMEOUT_S = 30.0

Succession = Callable[[Testbed], AbstractContextManager[None]]
"""The next process serves when the block begins; in the block, the caller ends old connections."""


@contextlib.contextmanager
def take_over(testbed: Testbed) -> Iterator[None]:
    agent = testbed.agent
    old, agent.process = agent.process, None
    agent.flags = (*agent.flags, "--take-over")
    agent.start_until_ready()
    agent.flags = agent.flags[:-1]
    yield
    assert old is not None
    assert old.wait(TIMEOUT_S) == 0


@contextlib.contextmanager
def kill_control(testbed: Testbed) -> Iterator[None]:
    testbed.agent.kill_control()
    assert testbed["pod"].get(WEB.address) in PODS, "workers serve meanwhile"
    testbed.agent.start_until_ready()
    yield


@contextlib.contextmanager
def send_sigusr1(testbed: Testbed) -> Iterator[None]:
    testbed.agent.send(signal.SIGUSR1)
    assert testbed.agent.wait() == 0
    testbed.agent.start_until_ready()
    yield


@contextlib.contextmanager
def take_back(testbed: Testbed) -> Iterator[None]:
    """Start a next process that can't serve DNS, so that the previous one takes the node back."""
    with testbed["node-1"].new_udp() as taken:
        taken.bind(("127.0.0.1", 0))
        dns = f"--dns-bind-address=127.0.0.1:{taken.getsockname()[1]}"
        done = testbed.agent.run("--take-over", dns)
    assert done.returncode == 1, done.stderr
    assert "the running proxy has handed over the node" in done.stderr
    assert "cannot serve DNS" in done.stderr
    yield
    line = "taking the node back: the next process exited before it served clients"
    assert testbed.agent.log().count(line) == 1
    serve(testbed, *SERVED, ADDED)
    assert testbed["pod"].get(ADDED.address) in PODS
    serve(testbed, *SERVED)


def serve(testbed: Testbed, *services: Service) -> None:
    """Make the running agent serve exactly these Services with both pods."""
    served = [with_endpoints(s, [testbed.ip(name) for name in PODS]) for s in services]
    testbed.edit(*served)
    testbed.agent.wait_until_settled(*served)


def assert_unnoticed(testbed: Testbed, succeed: Succession) -> None:
    """Assert that a takeover refuses and resets no client, and keeps clients' endpoints."""
    agent, pod = testbed.agent, testbed["pod"]
    workers, relieved = child_pids(agent.control), agent.log().count(RELIEVED)
    sticky = {name: client.get(STICKY.address) for name, client in testbed.clients.items()}
    folder = agent.log_path.parent
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
    open_before = pod.dial(WEB.address)
    with succeed(testbed):
        wait_for(RELIEVED, lambda: agent.log().count(RELIEVED) > relieved, hint=agent.log)
        with open_before:
            open_before.sendall(REQUEST)
            assert b"200" in open_before.recv(99)
        # Dial in the reverse order, so that round robin would give each client the other endpoint.
        assert {name: testbed[name].get(STICKY.address) for name in reversed(sticky)} == sticky
        outcomes = [load.stop() for load in loads]
    for outcome in outcomes:
        assert outcome.made
        assert not outcome.failed, f"{outcome.failed}\n{agent.log()}"
    wait_for("the end of the last workers", lambda: not any(map(is_alive, workers)))
    wait_for("a healthy agent", agent.is_healthy, hint=agent.log)
