"""Programs that end what they don't expect: one client, or a PROXY header; with two workers."""

import contextlib
import socket

import pytest

from tests.cluster.waiting import wait_for
from tests.node.clients import listen
from tests.node.endpoints import accept_with_data
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed
from tests.node.wrong_servers import RESET

pytestmark = pytest.mark.netns

CLOSING = Service("closing", "10.96.0.10", target=9300)
RESETTING = Service("resetting", "10.96.0.11", target=9301)
ANNOUNCED = Service(
    "announced",
    "10.96.0.12",
    target=9302,
    annotations={"userspace-proxy.io/proxy-protocol": "v1"},
)
RESET_AT_CLOSE = socket.SOL_SOCKET, socket.SO_LINGER, RESET


@pytest.fixture(scope="module")
def testbed(tmp_path_factory):
    """A node with two clients, and a pod whose ports a test answers."""
    folder, clients = tmp_path_factory.mktemp("agent"), ("pod", "bare-pod")
    with Testbed(folder, "nftables", "--workers=2", clients=clients) as testbed:
        (one,) = testbed.add_pods("one", tcp=9399)
        services = CLOSING, RESETTING, ANNOUNCED
        testbed.serve(*(with_endpoints(service, [one]) for service in services))
        yield testbed


@pytest.mark.parametrize("service", [CLOSING, RESETTING], ids=lambda service: service.name)
def test_the_client_that_a_program_turns_away_is_named(testbed, service):
    with listen(testbed.pod("one"), service.target) as server:
        # Each worker takes some of them, and counts by what it has seen.
        for number in range(24):
            is_admitted = number % 2 == 1
            with testbed["pod" if is_admitted else "bare-pod"].tcp() as client:
                client.connect(service.address)
                client.sendall(b"question")
                accepted, _ = accept_with_data(server)
                with accepted:
                    if is_admitted:
                        accepted.sendall(b"answer")
                    elif service is RESETTING:
                        accepted.setsockopt(*RESET_AT_CLOSE)
                if is_admitted:
                    assert client.recv(100) == b"answer"
                elif service is CLOSING:
                    assert client.recv(100) == b""
                else:
                    with pytest.raises(ConnectionResetError):
                        client.recv(100)
    turned_away = testbed["bare-pod"].host.ip
    said = f"ended connections of {turned_away} without a byte, and answered others"
    state = wait_for_sentence(testbed, service, said)
    assert "access rule of the program" in state["hint"]


def test_a_header_that_a_program_does_not_expect_is_named(testbed):
    with listen(testbed.pod("one"), ANNOUNCED.target) as server:
        # A close with unread bytes is a reset.
        for number in range(6):
            with testbed["pod"].tcp() as client:
                client.connect(ANNOUNCED.address)
                client.sendall(b"question")
                accepted, _ = server.accept()
                with accepted:
                    assert accepted.recv(5) == b"PROXY"
                    if number != 3:
                        while not (text := accepted.recv(100)).endswith(b"question"):
                            assert text
                with contextlib.suppress(ConnectionResetError):
                    assert client.recv(100) == b""
    said = (
        "No byte has come back in 6 connections: {}:9302 accepts connections and ends them without "
        "answering (this proxy sends a PROXY header first)"
    ).format(testbed.ip("one"))
    state = wait_for_sentence(testbed, ANNOUNCED, said)
    assert state["level"] == "attention", "one reset of six"
    assert state["hint"].startswith("This proxy sends a PROXY header before")


def wait_for_sentence(testbed, service, said):
    """Wait until a Service's sentence contains a text; return its state."""

    def state():
        ports = testbed.agent.status()["ports"]
        return next(port["state"] for port in ports if port["service"] == service.name)

    wait_for(said, lambda: said in state()["sentence"], hint=lambda: state()["sentence"])
    return state()
