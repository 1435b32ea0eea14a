"""Tests that the steering keeps its guard correct; tests/node has the contract and real traffic."""

from __future__ import annotations

import contextlib
import errno
import socket

import pytest

from userspace_proxy.errors import SteeringError
from userspace_proxy.kernel.conntrack import StaleEntries
from userspace_proxy.kernel.netlink import Requests
from userspace_proxy.kernel.nf_tables.expressions import expression
from userspace_proxy.kernel.offers import KernelOffers
from userspace_proxy.model import Frontend, IPFamily, Protocol
from userspace_proxy.steering import SteeringFacts
from userspace_proxy.steering.local import LocalSteering, guard_table
from userspace_proxy.steering.local.kernel import RoutingTables
from userspace_proxy.steering.local.steering import RETRY_EVERY

WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
CART = Frontend("10.96.7.2", 80, Protocol.TCP)
DNS = Frontend("10.96.0.10", 53, Protocol.UDP)
OPEN = {
    "own_namespace": True,
    "kernel": KernelOffers({"nf_tables": errno.EPROTONOSUPPORT}),
}
"""Options without nftables, so no table guards the routes."""


@contextlib.contextmanager
def open_connection(frontend):
    """Open a client's connection to a frontend; the server's side closes it first."""
    with socket.socket() as server:
        server.setsockopt(socket.IPPROTO_IP, 19, 1)  # 19 is IP_TRANSPARENT.
        server.bind(frontend.address)
        server.listen()
        with socket.create_connection(frontend.address):
            accepted, _ = server.accept()
            yield
            # The remaining TIME_WAIT doesn't count as a connection.
            accepted.close()


@pytest.fixture
def make(node):
    node.run("ip address add 10.1.0.1/24 dev lo")

    def make(**options) -> LocalSteering:
        return LocalSteering(SteeringFacts(node_addresses=("10.1.0.1",)), **options)

    return make


@pytest.fixture
async def steering(make):
    steering = make()
    await steering.start()
    yield steering
    await steering.clean_up()
    await steering.close()


async def test_udp_frontends_are_removed_immediately_and_idle_tcp_frontends_later(node, steering):
    await steering.apply({WEB: 80, DNS: 53})
    await steering.change({}, [WEB, DNS, CART])
    assert await steering.render() == ""
    (route,) = node.run("ip route show table local proto 117").splitlines()
    assert route.startswith("local 10.96.7.1 ")
    assert await steering.repair() == 0
    assert node.run("ip route show table local proto 117") == ""


async def test_a_frontend_with_open_connections_lingers(node, steering):
    await steering.apply({WEB: 80})
    with open_connection(WEB):
        await steering.change({}, [WEB])
        await steering.repair()
        assert "10.96.7.1" in node.run("ip route show table local proto 117")


async def test_a_lingering_frontend_added_again_is_steered_after_its_connections_end(
    node, steering
):
    await steering.apply({WEB: 80})
    with open_connection(WEB):
        await steering.change({}, [WEB])
        await steering.change({WEB: 80}, [])
    assert await steering.repair() == 0
    assert await steering.render() == "TCP 10.96.7.1:80 -> :80"


@pytest.mark.parametrize("was", ["served", "lingering"])
@pytest.mark.parametrize("options", [{}, OPEN], ids=["guard", "open"])
async def test_open_connections_keep_the_routes_of_an_earlier_run(node, make, was, options):
    """The earlier run's workers may outlive it while they drain."""
    earlier, successor = make(**options), make(**options)
    await earlier.start()
    await earlier.apply({WEB: 80, CART: 80})
    with open_connection(WEB):
        if was == "lingering":
            await earlier.change({}, [WEB])
        await earlier.close()
        await successor.start()
        await successor.apply({CART: 80})
        await successor.repair()
        assert "10.96.7.1" in node.run("ip route show table local proto 117")
        assert await successor.render() == "TCP 10.96.7.2:80 -> :80"
        if not options:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(WEB.address, 5.0)
    await successor.repair()
    assert "10.96.7.1" not in node.run("ip route show table local proto 117")
    await successor.clean_up()
    await successor.close()


async def test_addresses_of_an_earlier_run_linger_if_the_first_apply_fails(node, make, monkeypatch):
    earlier, successor = make(), make()
    await earlier.start()
    await earlier.apply({WEB: 80})
    await earlier.close()
    await successor.start()
    with monkeypatch.context() as refused:
        refused.setattr(RoutingTables, "change", _refuse)
        with pytest.raises(SteeringError, match="no memory"):
            await successor.apply({DNS: 53})
    await successor.apply({})
    assert "10.96.7.1" in node.run("ip route show table local proto 117")
    assert await successor.repair() == 0
    assert node.run("ip route show table local proto 117") == ""
    await successor.clean_up()
    await successor.close()


async def test_the_next_repair_removes_a_lingering_frontend_after_a_rejected_removal(
    node, steering, monkeypatch
):
    await steering.apply({WEB: 80})
    await steering.change({}, [WEB])
    with monkeypatch.context() as refused:
        refused.setattr(RoutingTables, "change", _refuse)
        with pytest.raises(SteeringError, match="no memory"):
            await steering.repair()
    await steering.repair()
    assert node.run("ip route show table local proto 117") == ""


async def test_a_refused_route_is_retried_without_any_event(steering, monkeypatch):
    def refuse(_tables, added=(), removed=()):
        return dict.fromkeys(added, SteeringError("no memory"))

    with monkeypatch.context() as refused:
        refused.setattr(RoutingTables, "change", refuse)
        await steering.apply({WEB: 80, CART: 80})
        await steering.change({}, [CART])
    assert await steering.render() == ""
    assert steering.unsteered.keys() == {WEB}
    for _ in range(RETRY_EVERY):
        await steering.repair()
    assert await steering.render() == "TCP 10.96.7.1:80 -> :80"


async def test_a_repair_after_a_rejected_removal_keeps_frontends_steered(steering, monkeypatch):
    await steering.apply({WEB: 80, DNS: 53})
    with monkeypatch.context() as refused:
        refused.setattr(RoutingTables, "change", _refuse)
        with pytest.raises(SteeringError, match="no memory"):
            await steering.change({}, [WEB, DNS])
    await steering.repair()
    assert await steering.render() == "TCP 10.96.7.1:80 -> :80\nUDP 10.96.0.10:53 -> :53"


@pytest.mark.parametrize("step", ["apply", "change", "repair"])
async def test_a_flow_translated_by_another_programs_rules_reaches_the_listener(
    node, steering, step, monkeypatch
):
    node.run("ip route add 10.96.0.0/16 dev lo")
    node.run(
        "nft 'table ip other { chain out { type nat hook output priority -100; "
        "ip daddr 10.96.0.10 udp dport 53 dnat to 10.1.0.1:5300; }; "
        "chain tracking { type filter hook input priority 0; ct state invalid drop; }; }'"
    )
    with (
        socket.socket(type=socket.SOCK_DGRAM) as client,
        socket.socket(type=socket.SOCK_DGRAM) as server,
    ):
        client.sendto(b"translated", DNS.address)
        # The flow's conntrack entry outlives the rule.
        node.run("nft flush chain ip other out")
        await steering.apply({DNS: 53} if step == "apply" else {})
        if step == "repair":
            with monkeypatch.context() as refused:
                refused.setattr(StaleEntries, "forget_changed", _refuse)
                await steering.apply({DNS: 53})
            await steering.repair()
        elif step == "change":
            await steering.change({DNS: 53}, ())
            await steering.forget_stale()
        server.setsockopt(socket.IPPROTO_IP, 19, 1)  # 19 is IP_TRANSPARENT.
        server.bind(DNS.address)
        server.settimeout(5.0)
        client.sendto(b"to the listener", DNS.address)
        assert server.recv(100) == b"to the listener"


def _refuse(*_: object, **__: object) -> int:
    raise SteeringError("no memory")


async def test_listeners_must_be_transparent_only_with_a_guard_table(make):
    found = {}
    for name, options in {
        "nftables": {},
        "open": OPEN,
    }.items():
        steering = make(**options)
        await steering.start()
        found[name] = steering.needs_transparent
        await steering.close()
    assert found == {"nftables": True, "open": False}


async def test_an_address_assigned_to_the_node_is_no_longer_routed(node, steering):
    await steering.apply({WEB: 80})
    node.run("ip address add 10.96.7.1/32 dev lo")
    await steering.repair()
    assert node.run("ip route show table local proto 117") == ""
    node.run("ip address del 10.96.7.1/32 dev lo")
    assert await steering.repair() > 0
    assert "10.96.7.1" in node.run("ip route show table local proto 117")


async def test_without_socket_lookup_the_guard_omits_the_socket_check(node, steering, monkeypatch):
    monkeypatch.setattr(guard_table, "TO_OTHER_SOCKET", expression("no_such_expression"))
    await steering.apply({WEB: 80})
    assert await steering.render() == "TCP 10.96.7.1:80 -> :80"
    assert steering.unguarded == "this kernel has no nft_socket"
    assert "socket" not in node.run("nft list table inet userspace-proxy/local")


async def test_neither_change_nor_repair_fails_if_routes_change_during_a_read(
    node, steering, monkeypatch
):
    """On a node with many short-lived pods, this happens repeatedly (#52)."""

    def interrupted(_requests, _request):
        raise OSError(errno.EBUSY, "something changed during each of 10 listings")

    await steering.apply({WEB: 80})
    node.run("ip route flush table local proto 117")
    with monkeypatch.context() as busy:
        busy.setattr(Requests, "list_supported", interrupted)
        await steering.change({CART: 80}, ())
        assert await steering.repair() == 0
    assert "10.96.7.1" not in node.run("ip route show table local proto 117")
    assert await steering.repair() > 0
    assert await steering.render() == "TCP 10.96.7.1:80 -> :80\nTCP 10.96.7.2:80 -> :80"


async def test_each_family_keeps_its_source_while_the_node_has_it(node, steering):
    node.run("ip address add 10.2.0.9/24 dev lo; ip address add fd00:1::1/64 dev lo nodad")
    node.run("ip address del 10.1.0.1/24 dev lo")
    await steering.apply({WEB: 80, Frontend("fd00:96::1", 80, Protocol.TCP): 80})
    sources = {IPFamily.IPV4: "10.2.0.9", IPFamily.IPV6: "fd00:1::1"}
    assert await steering._do(lambda one: dict(one._desired.sources)) == sources
    node.run("ip address add 10.1.0.1/24 dev lo; ip address del fd00:1::1/64 dev lo")
    await steering.repair()
    del sources[IPFamily.IPV6]
    assert await steering._do(lambda one: dict(one._desired.sources)) == sources
