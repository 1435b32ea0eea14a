"""Connections that wait for an endpoint: a real agent, two workers, each steering mode."""

import socket
import threading

import pytest

from tests.cluster.waiting import wait_for
from tests.node.clients import listen, read_all
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed, steerings

pytestmark = pytest.mark.netns

HOLD = {"userspace-proxy.io/hold": "60s,1000"}
WEB = Service("web", "10.96.0.10", annotations=HOLD)
DNS = Service("dns", "10.96.0.53", 53, "UDP", target=53, annotations=HOLD)
PART = 250


@pytest.fixture(scope="module", params=steerings("nftables", "iptables", "local"))
def testbed(request, tmp_path_factory):
    """A node whose agent has two workers; tests start the pods' servers."""
    with Testbed(tmp_path_factory.mktemp("agent"), request.param, "--workers=2") as testbed:
        for name in ("one", "two", "three"):
            testbed.sandbox.add_pod(name)
        testbed.pod("two").serve(udp=53)
        testbed.serve(WEB, DNS)
        yield testbed


@pytest.fixture(autouse=True)
def _hang_up(testbed):
    yield
    testbed.hang_up()


class Pod:
    """A server in a pod that answers each connection with its name until it is stopped."""

    def __init__(self, testbed, name):
        self._name = name.encode()
        self._server = listen(testbed.pod(name), 8080)
        self._server.settimeout(None)
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def stop(self):
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join(30)
        self._server.close()

    def _answer(self):
        while True:
            try:
                accepted, _ = self._server.accept()
            except OSError:
                return
            with accepted:
                assert accepted.recv(100) == b"who?"
                accepted.sendall(self._name)


def put(testbed, *pods, service=WEB):
    served = with_endpoints(service, [testbed.ip(pod) for pod in pods])
    other = DNS if service is WEB else WEB
    testbed.edit(served, other)
    testbed.agent.wait_until_settled(served, other)


def ask_later(testbed, count=1):
    """Return connections on which clients have sent a request; the caller reads the answers."""
    names = list(testbed.clients)
    asked = []
    for number in range(count):
        sock = testbed[names[number % len(names)]].dial(WEB.address)
        sock.sendall(b"who?")
        asked.append(sock)
    return asked


def waits(testbed, service="web"):
    return testbed.agent.port(service)["waits"]


def wait_until_waiting(testbed, count, service="web"):
    wait_for(f"{count} to wait", lambda: waits(testbed, service)["waiting"] == count)


def test_replacing_all_pods_together_loses_none_of_1000_connections(testbed):
    before = waits(testbed)
    one, two = Pod(testbed, "one"), Pod(testbed, "two")
    put(testbed, "one", "two")
    assert {read_all(sock) for sock in ask_later(testbed, PART)} == {b"one", b"two"}
    one.stop()
    two.stop()
    # The proxy hasn't been notified yet that the pods are gone.
    asked = ask_later(testbed, PART)
    wait_until_waiting(testbed, PART)
    put(testbed)
    asked += ask_later(testbed, PART)
    # The pod is listed, but doesn't listen yet.
    put(testbed, "three")
    asked += ask_later(testbed, PART)
    wait_until_waiting(testbed, 3 * PART)
    three = Pod(testbed, "three")
    assert [read_all(sock) for sock in asked] == [b"three"] * 3 * PART
    after = waits(testbed)
    assert {name: after[name] - before[name] for name in ("total", "timeouts", "overflows")} == {
        "total": 3 * PART,
        "timeouts": 0,
        "overflows": 0,
    }
    three.stop()
