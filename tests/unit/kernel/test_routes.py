"""Links and routes of a node, as listed by a real kernel."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from tests.netns import DEADLINE_S, Net
from userspace_proxy.errors import SteeringError
from userspace_proxy.kernel.netlink import rtnetlink
from userspace_proxy.kernel.netlink.messages import request
from userspace_proxy.kernel.routes import NodeRoutes, read_bridge_filter, route_refusal
from userspace_proxy.model.node_network import BridgeFilter, NodeLink, NodeRoute


@pytest.fixture
def node():
    node = Net("node")
    node.run("""
        ip link add br0 type bridge
        ip link add veth0 type veth peer name veth1
        ip link set veth1 master br0
        ip link set veth0 up
        ip link set br0 up
        ip address add 10.9.0.1/24 dev br0
        ip route add 10.1.0.0/16 via 10.9.0.7
        ip route add unreachable 10.2.0.0/16""")
    yield node
    node.close()


def test_links_and_routes_are_listed(node):
    routes = listed(node)
    by_name = {link.name: link for link in routes.now.links}
    bridge, port = by_name["br0"], by_name["veth1"]
    assert (bridge.kind, port.kind, port.master) == ("bridge", "veth", bridge.number)
    assert by_name["lo"] == NodeLink(1, "lo", "")
    assert {route for route in routes.now.routes if route.network.startswith("10.")} == {
        NodeRoute("10.9.0.0/24", bridge.number),
        NodeRoute("10.9.0.1/32", is_local=True),
        NodeRoute("10.1.0.0/16", bridge.number, has_gateway=True),
        NodeRoute("10.2.0.0/16"),
    }
    assert NodeRoute("::1/128", is_local=True) in routes.now.routes


@pytest.mark.parametrize(
    ("network", "gateways"),
    [("10.3.0.0/16", ("10.9.0.7", "10.9.0.8")), ("fd00:3::/64", ("fd00:9::7", "fd00:9::8"))],
)
def test_a_multipath_route_contains_the_interfaces_of_its_gateways(node, network, gateways):
    hops = " ".join(f"nexthop via {ip}" for ip in gateways)
    node.run(f"""
        ip address add fd00:9::1/64 dev br0 nodad
        ip route add {network} {hops}""")
    routes = listed(node)
    number = next(link.number for link in routes.now.links if link.name == "br0")
    wanted = NodeRoute(network, has_gateway=True, gateway_links=(number, number))
    assert wanted in routes.now.routes


def test_a_multipath_route_without_gateways_has_no_interface(node):
    node.run("ip route add 10.4.0.0/16 nexthop dev br0 nexthop dev veth0")
    assert NodeRoute("10.4.0.0/16", has_gateway=True) in listed(node).now.routes


def test_many_routes_are_read_without_blocking_the_loop(node):
    """Clients wait while the event loop is busy, so a thread must do the listing."""
    line = "route add 10.%d.%d.0/24 dev veth0\\n"
    node.run(f"seq 0 4999 | awk '{{printf \"{line}\", 100 + $1 / 256, $1 % 256}}' | ip -batch -")

    async def do():
        reported = asyncio.Event()
        began = time.thread_time()
        routes = NodeRoutes(asyncio.get_running_loop(), reported.set, networks_of)
        at_once = time.thread_time() - began
        await asyncio.to_thread(node.run, "ip route add 10.3.0.2/32 dev veth0")
        began = time.thread_time()
        async with asyncio.timeout(DEADLINE_S):
            await reported.wait()
        took = time.thread_time() - began
        routes.close()
        return at_once, took

    with node:
        at_once, took = asyncio.run(do())
    assert took < at_once / 3


def test_route_refusal_returns_a_missing_routes_error_and_raises_other_errors(node, monkeypatch):
    with node:
        found = [route_refusal(ip) for ip in ("10.1.0.5", "10.2.0.5", "192.0.2.1")]
        assert found == ["", "a route of type unreachable", "Network is unreachable"]
        monkeypatch.setattr(rtnetlink, "find_route", lambda _ip: request(9999, 0, b""))
        with pytest.raises(SteeringError, match="not supported"):
            route_refusal("10.1.0.5")


def listed(node):
    async def do():
        routes = NodeRoutes(asyncio.get_running_loop(), lambda: None, networks_of)
        routes.close()
        routes.close()
        return routes

    with node:
        return asyncio.run(do())


@pytest.mark.parametrize(
    ("change", "network"),
    [
        pytest.param("ip route add 10.3.0.2/32 dev veth0", "10.3.0.2/32", id="route"),
        pytest.param("ip address add 10.3.0.1/32 dev veth0", "10.3.0.1/32", id="address"),
        pytest.param("ip -6 route add fd00:3::/64 dev veth0", "fd00:3::/64", id="ipv6"),
    ],
)
def test_a_route_change_is_reported(node, change, network):
    assert network in reported_after(node, change)


def test_the_proxys_own_routes_are_not_reported(node):
    ours = "ip route add local 10.3.0.0/24 dev lo proto 117"
    after = reported_after(node, f"{ours}; ip route add 10.4.0.0/24 dev veth0")
    assert "10.4.0.0/24" in after
    assert "10.3.0.0/24" not in after


def test_unreadable_settings_of_bridges_do_not_look_like_a_missing_module(tmp_path):
    (tmp_path / "bridge-nf-call-iptables").mkdir()
    with pytest.raises(IsADirectoryError):
        read_bridge_filter(tmp_path)
    assert read_bridge_filter(tmp_path / "absent") == BridgeFilter()


def test_changed_settings_of_bridges_are_reported(node, tmp_path, monkeypatch):
    monkeypatch.setattr(read_bridge_filter, "__defaults__", (tmp_path,))

    async def do():
        reported = asyncio.Event()
        routes = NodeRoutes(asyncio.get_running_loop(), reported.set, networks_of)
        for name, value in (("bridge-nf-call-iptables", 1), ("bridge-nf-call-ip6tables", 0)):
            (tmp_path / name).write_text(f"{value}\n")
        routes.look_at_settings()
        async with asyncio.timeout(DEADLINE_S):
            await reported.wait()
        routes.close()
        return routes.now.bridge_filter

    with node:
        assert asyncio.run(do()) == BridgeFilter(True, True, False)


def reported_after(node, change):
    """Return the known networks at the first report of a change."""

    async def do():
        reported = asyncio.Event()
        routes = NodeRoutes(asyncio.get_running_loop(), reported.set, networks_of)
        await asyncio.to_thread(node.run, change)
        async with asyncio.timeout(DEADLINE_S):
            await reported.wait()
        routes.close()
        return routes.now.derived

    with node:
        return asyncio.run(do())


def networks_of(links, routes):
    return {route.network for route in routes}


def test_values_derived_from_changed_routes_are_computed_in_another_thread(node):
    """The constructor does the first listing, so values are available immediately."""
    seen = []

    def derive(links, routes):
        seen.append((threading.current_thread() is threading.main_thread(), links, routes))
        return len(seen)

    async def do():
        reported = asyncio.Event()
        routes = NodeRoutes(asyncio.get_running_loop(), reported.set, derive)
        assert routes.now.derived == 1
        await asyncio.to_thread(node.run, "ip route add 10.3.0.2/32 dev veth0")
        async with asyncio.timeout(DEADLINE_S):
            await reported.wait()
        routes.close()
        return routes

    with node:
        routes = asyncio.run(do())
    assert seen[routes.now.derived - 1] == (False, routes.now.links, routes.now.routes)
