"""Node ports that the proxy reserves, and node ports that other programs hold."""

import socket
import struct

import pytest

from tests.descriptors import descriptors_left
from userspace_proxy.agent.rounds import node_ports
from userspace_proxy.agent.rounds.node_ports import (
    LOOK_EVERY_S,
    NodePort,
    NodePortReservations,
    RefusePort,
)
from userspace_proxy.errors import ListenError
from userspace_proxy.model import Frontend, FrontendKind, IPFamily, Protocol

from ...port_numbers import free_port, own_name

V4, V6 = IPFamily.IPV4, IPFamily.IPV6
TCP, UDP = Protocol.TCP, Protocol.UDP
KINDS = {TCP: socket.SOCK_STREAM, UDP: socket.SOCK_DGRAM}
FAMILIES = {V4: socket.AF_INET, V6: socket.AF_INET6}
ALL = [
    pytest.param(protocol, family, id=f"{protocol}-{family}".lower())
    for protocol in Protocol
    for family in IPFamily
]


@pytest.fixture
def reservations():
    reservations = NodePortReservations()
    yield reservations
    reservations.close()


def bound(protocol, family, ip="", port=0):
    """Return a daemon's socket; both families can bind the same number."""
    sock = socket.socket(FAMILIES[family], KINDS[protocol])
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, protocol is TCP)
    if family is V6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        sock.bind((ip, port))
        if protocol is TCP:
            sock.listen()
    except OSError:
        sock.close()
        raise
    return sock


@pytest.mark.parametrize(("protocol", "family"), ALL)
def test_a_daemon_started_later_cannot_bind_the_reserved_port(reservations, protocol, family):
    port = free_port(protocol, family)
    assert reservations.take(NodePort(protocol, family, port), now=0) == ""
    assert reservations.take(NodePort(protocol, family, port), now=1) == ""
    with pytest.raises(OSError, match="in use"):
        bound(protocol, family, port=port)
    loopback = "127.0.0.1" if family is V4 else "::1"
    with pytest.raises(OSError, match="in use"):
        bound(protocol, family, loopback, port)


@pytest.mark.parametrize(("protocol", "family"), ALL)
def test_a_client_bypassing_the_rules_is_refused_immediately(reservations, protocol, family):
    port = free_port(protocol, family)
    reservations.take(NodePort(protocol, family, port), now=0)
    with socket.socket(FAMILIES[family], KINDS[protocol]) as client:
        client.settimeout(60)
        with pytest.raises(ConnectionRefusedError):  # noqa: PT012 - UDP is refused by the answer.
            client.connect(("127.0.0.1" if family is V4 else "::1", port))
            client.send(b"question")
            client.recv(100)


@pytest.mark.parametrize("ip", ["", "127.0.0.1"], ids=["everywhere", "on-one-address"])
@pytest.mark.parametrize("protocol", list(Protocol))
def test_a_node_port_in_use_is_reported_with_the_daemon(reservations, protocol, ip):
    with bound(protocol, V4, ip) as daemon:
        port = daemon.getsockname()[1]
        reason = f"node port {port}/{protocol} is held by {own_name()}"
        assert reservations.take(NodePort(protocol, V4, port), now=0) == reason
        assert not reservations._held
    assert reservations.take(NodePort(protocol, V4, port), now=1) == ""


@pytest.mark.parametrize("protocol", list(Protocol))
def test_a_port_steered_by_the_previous_run_is_taken_despite_a_foreign_listener(
    reservations, protocol, caplog
):
    with bound(protocol, V4) as daemon:
        port = daemon.getsockname()[1]
        reservations.claim([NodePort(protocol, V4, port)])
        for now in (0, 1):
            assert reservations.take(NodePort(protocol, V4, port), now=now) == ""
        assert [r.holder for r in caplog.records] == [own_name()]
    assert reservations.take(NodePort(protocol, V4, port), now=2) == ""
    with pytest.raises(OSError, match="in use"):
        bound(protocol, V4, port=port)
    reservations.release(NodePort(protocol, V4, port))
    with bound(protocol, V4, port=port):
        assert "is held by" in reservations.take(NodePort(protocol, V4, port), now=3)


def test_a_node_port_used_by_connections_is_reserved_after_they_end(reservations):
    with bound(TCP, V4, "127.0.0.1") as server:
        client = socket.create_connection(server.getsockname())
        port = client.getsockname()[1]
        with client:
            assert reservations.take(NodePort(TCP, V4, port), now=0) == ""
            # Reset the connection, so that its port isn't left in TIME_WAIT.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert reservations.take(NodePort(TCP, V4, port), now=1) == ""
    with pytest.raises(OSError, match="in use"):
        bound(TCP, V4, port=port)


def test_unbound_node_ports_are_bound_later_without_a_service_change(reservations, monkeypatch):
    monkeypatch.setattr(node_ports, "_BOUND_AGAIN", 1)
    kinds = ((TCP, V4), (UDP, V4), (TCP, V6))
    first, released, last = (NodePort(*kind, free_port(*kind)) for kind in kinds)
    with descriptors_left(0):
        for each in (first, released, last):
            assert reservations.take(each, now=0) == ""
        reservations.bind_again()
    bound(TCP, V4, port=first.port).close()
    reservations.release(released)
    for _ in range(2):
        reservations.bind_again()
    for each in (first, last):
        with pytest.raises(OSError, match="in use"):
            bound(*each[:2], port=each.port)
    bound(UDP, V4, port=released.port).close()


def test_a_port_lost_to_a_daemon_is_not_bound_again_when_the_daemon_exits(reservations):
    port = NodePort(TCP, V4, free_port(TCP, V4))
    with descriptors_left(0):
        assert reservations.take(port, now=0) == ""
    with bound(TCP, V4, port=port.port):
        assert "is held by" in reservations.take(port, now=1)
    reservations.bind_again()
    bound(TCP, V4, port=port.port).close()


def test_a_port_is_released_once_no_service_port_uses_it(reservations):
    port = NodePort(TCP, V4, free_port(TCP, V4))
    reservations.take(port, now=0)
    for _ in range(2):
        reservations.count_uses(set(), {port})
    reservations.count_uses({port}, set())
    reservations.release_unused()
    with pytest.raises(OSError, match="in use"):
        bound(TCP, V4, port=port.port)
    reservations.count_uses({port}, set())
    reservations.release_unused()
    bound(TCP, V4, port=port.port).close()
    reservations.take(port, now=1)
    reservations.release_unused()
    with pytest.raises(OSError, match="in use"):
        bound(TCP, V4, port=port.port)


@pytest.mark.parametrize("protocol", list(Protocol))
def test_a_daemon_bound_to_a_single_interface_holds_the_port(reservations, protocol):
    with bound(protocol, V4) as daemon:
        daemon.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        assert own_name() in reservations.take(
            NodePort(protocol, V4, daemon.getsockname()[1]), now=0
        )


def test_a_daemon_started_since_the_last_search_is_not_yet_named(reservations):
    with bound(TCP, V4) as old:
        reservations.take(NodePort(TCP, V4, old.getsockname()[1]), now=0)
        with bound(TCP, V4) as new:
            port = new.getsockname()[1]
            assert reservations.take(NodePort(TCP, V4, port), now=1) == (
                f"node port {port}/TCP is held by another process"
            )
            assert own_name() in reservations.take(NodePort(TCP, V4, port), now=LOOK_EVERY_S)


def test_only_node_ports_are_reserved():
    ip, at = "192.0.2.10", Frontend("192.0.2.10", 30080, UDP, FrontendKind.NODE_PORT)
    others = (Frontend(ip, 80, TCP), Frontend(ip, 81, TCP, FrontendKind.LOAD_BALANCER))
    assert node_ports.node_ports([at, *others]) == {NodePort(UDP, V4, 30080)}


def test_the_holder_of_a_port_that_is_not_reserved_is_found(reservations):
    for protocol in Protocol:
        with bound(protocol, V4, "127.0.0.1") as daemon:
            port = daemon.getsockname()[1]
            assert reservations.holder(protocol, V4, (port,), now=0) == own_name()
            assert reservations.holder(protocol, V6, (port,), now=0) == ""
        assert reservations.holder(protocol, V4, (port,), now=0) == ""


def test_close_releases_all_ports_and_is_idempotent(reservations):
    port = free_port()
    reservations.take(NodePort(TCP, V4, port), now=0)
    reservations.close()
    reservations.close()
    bound(TCP, V4, port=port).close()


@pytest.fixture
def refuse_port():
    port = RefusePort()
    yield port
    port.close()


def test_the_refuse_port_is_a_free_port_of_the_range_reserved_against_other_programs(refuse_port):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        last = taken.getsockname()[1]
        number = refuse_port.open(last - 200, last)
    assert last - 200 <= number < last
    assert number == refuse_port.number
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", number)).close()


def test_a_client_dialling_the_refuse_port_is_refused(refuse_port):
    number = refuse_port.open(29000, 29999)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", number), timeout=60)


def test_a_refuse_port_outside_an_exhausted_range_is_reserved(refuse_port):
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        number = refuse_port.open(port, port)
    assert number != port
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", number)).close()


def test_a_node_without_a_free_port_is_an_error_with_a_remedy(refuse_port, monkeypatch):
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(node_ports, "_ELSEWHERE", range(port, port + 1))
        with pytest.raises(ListenError, match=f"{port}-{port} and of {port}-{port} is in use"):
            refuse_port.open(port, port)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
@pytest.mark.parametrize(
    ("family", "ip"),
    [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")],
    ids=["ipv4", "ipv6"],
)
def test_a_refuse_port_is_reserved_for_both_protocols_and_families_until_closed(
    refuse_port, family, kind, ip
):
    number = refuse_port.open(29000, 29999)
    with socket.socket(family, kind) as sock:
        with pytest.raises(OSError, match="in use"):
            sock.bind((ip, number))
        refuse_port.close()
        sock.bind((ip, number))
