"""Manifests are edited while clients are at work: traffic follows, and nobody is left behind.

    before ──clients begin──▶ edit ──▶ after ──▶ delete everything

Each edit is waited for once; the tests look at what became of whom.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field, replace

import pytest

from tests.cluster.waiting import wait_for
from tests.node.clients import ask, echoes, refusal
from tests.node.manifests import Service, with_endpoints
from tests.node.steerings import steerings
from tests.node.testbed import CLIENTS, Testbed

pytestmark = pytest.mark.netns

WEB = Service("web", "10.96.0.10")
PORT = Service("port", "10.96.0.11")
ECHO = Service("echo", "10.96.0.12", 7, target=81)
EMPTIED = Service("emptied", "10.96.0.13")
FILLED = Service("filled", "10.96.0.14")
DELETED = Service("deleted", "10.96.0.15")
CREATED = Service("created", "10.96.0.16")
DNS = Service("dns", "10.96.0.53", 53, "UDP", target=53)
PORT_UDP = Service("port-udp", "10.96.0.54", 53, "UDP", target=53)
EMPTIED_UDP = Service("emptied-udp", "10.96.0.55", 53, "UDP", target=53)
FILLED_UDP = Service("filled-udp", "10.96.0.56", 53, "UDP", target=53)
CREATED_UDP = Service("created-udp", "10.96.0.57", 53, "UDP", target=53)
OLD_UDP = (DNS, PORT_UDP, EMPTIED_UDP)


@pytest.fixture(scope="module", params=steerings("nftables", "iptables", "local"))
def testbed(request, tmp_path_factory):
    """A node whose agent serves the Services of before the edit."""
    folder = tmp_path_factory.mktemp("agent")
    with Testbed(folder, request.param, clients=CLIENTS) as testbed:
        one, _two = testbed.add_pods("one", "two", tcp=8080, echo=81, udp=53)
        testbed.pod("one").serve("new-port", tcp=8081, udp=54)
        testbed.serve(
            *(with_endpoints(service, [one]) for service in (WEB, PORT, ECHO, EMPTIED, DELETED)),
            *(with_endpoints(service, [one]) for service in OLD_UDP),
            FILLED,
            FILLED_UDP,
        )
        yield testbed


@dataclass
class Edited:
    """Clients that began before the edit, and what one saw in the course of it."""

    udp: dict[tuple[str, str], socket.socket] = field(default_factory=dict)
    """By Service and client."""
    tcp: list[socket.socket] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    def ask_all(self, service: Service) -> set[bytes]:
        return {ask(sock) for (name, _), sock in self.udp.items() if name == service.name}


@pytest.fixture(scope="module")
def edited(testbed):
    """All clients are at work, then the manifests are edited, and the edit is in force."""
    edited = Edited()
    one, two = testbed.ip("one"), testbed.ip("two")
    for name, client in testbed.clients.items():
        for service in (*OLD_UDP, FILLED_UDP, CREATED_UDP):
            edited.udp[service.name, name] = sock = client.udp(service.address)
            if service in OLD_UDP:
                assert ask(sock) == b"one: hello"
            else:
                sock.send(b"too early")
        edited.tcp.append(client.dial(ECHO.address))
    assert all(map(echoes, edited.tcp))
    after = (
        *(with_endpoints(service, [two]) for service in (WEB, ECHO, FILLED, CREATED)),
        *(with_endpoints(service, [two]) for service in (DNS, FILLED_UDP, CREATED_UDP)),
        replace(with_endpoints(PORT, [one]), target=8081),
        replace(with_endpoints(PORT_UDP, [one]), target=54),
        EMPTIED,
        EMPTIED_UDP,
    )
    testbed.edit(*after)

    def has_changed():
        edited.seen.append(testbed["pod"].get(WEB.address))
        return edited.seen[-1] == "two"

    wait_for("traffic to follow", has_changed)
    testbed.agent.wait_until_settled(*after)
    edited.seen += [testbed["pod"].get(WEB.address) for _ in range(10)]
    for sock in edited.udp.values():
        # Who was told meanwhile that nobody is there has heard it; reading it forgets it.
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    yield edited
    testbed.hang_up()


def test_traffic_follows_edited_endpoints_and_never_returns_to_old_ones(edited):
    assert edited.seen == sorted(edited.seen)
    assert set(edited.seen) == {"one", "two"}


def test_traffic_follows_an_edited_target_port(testbed, edited):
    assert {client.get(PORT.address) for client in testbed.clients.values()} == {"new-port"}


def test_udp_clients_that_keep_their_port_leave_a_removed_endpoint(edited):
    assert edited.ask_all(DNS) == {b"two: hello"}


def test_udp_clients_that_keep_their_port_follow_an_edited_target_port(edited):
    assert edited.ask_all(PORT_UDP) == {b"new-port: hello"}


def test_udp_clients_that_keep_their_port_are_refused_when_no_endpoint_is_left(edited):
    said = {name: refusal(edited.udp[EMPTIED_UDP.name, name]) for name in CLIENTS}
    assert said == dict.fromkeys(CLIENTS, "refused")


def test_udp_clients_that_sent_before_the_first_endpoint_are_served_once_it_exists(edited):
    assert edited.ask_all(FILLED_UDP) == {b"two: hello"}


def test_udp_clients_that_sent_before_the_service_existed_are_served_once_it_does(edited):
    assert edited.ask_all(CREATED_UDP) == {b"two: hello"}


def test_clients_are_refused_when_no_endpoint_is_left(testbed, edited):
    said = {name: client.tcp_refusal(EMPTIED.address) for name, client in testbed.clients.items()}
    assert said == dict.fromkeys(testbed.clients, "refused")


@pytest.mark.parametrize("service", [FILLED, CREATED], ids=lambda service: service.name)
def test_clients_are_served_once_there_is_an_endpoint(testbed, edited, service):
    assert {client.get(service.address) for client in testbed.clients.values()} == {"two"}


def test_a_deleted_service_is_removed_everywhere(testbed, edited):
    # With rules its address goes where routing sends it: beyond the node, where nobody is.
    gone = "refused" if testbed.agent.steering == "local" else "[Errno 113] No route to host"
    said = {name: client.tcp_refusal(DELETED.address) for name, client in testbed.clients.items()}
    assert said == dict.fromkeys(testbed.clients, gone)


def test_open_connections_outlive_their_endpoint(edited):
    assert all(map(echoes, edited.tcp))


def test_open_connections_outlive_their_service(testbed, edited):
    testbed.edit()
    testbed.agent.wait_until_settled()
    assert testbed["pod"].tcp_refusal(ECHO.address) != "accepted"
    assert all(map(echoes, edited.tcp))
