"""Effects of rules on packets between pods, the node, and plain servers on proxy ports."""

from __future__ import annotations

import asyncio
import socket

import pytest
import steering_nodes as nodes
from steering_contract import CART, DNS, WEB
from steering_traffic import (
    DNS_6,
    REFUSED_UDP,
    TARGETS,
    WEB_6,
    connected,
    dial_again,
    dial_in_vain,
    net_of,
)

from userspace_proxy.model import Frontend
from userspace_proxy.steering import REFUSE

pytestmark = pytest.mark.netns
FLUSH = {
    "iptables": "iptables-legacy -t nat -F",
    "nftables": "nft flush table inet userspace-proxy",
}
DNAT = {
    "iptables": "-j DNAT --to-destination 10.1.0.1:36001",
    "nftables": "dnat ip to 10.1.0.1:ip daddr",
}


def leads_to(node, *ips):
    """Return whether packets are translated to any of these addresses."""
    text = nodes.tables(node) + nodes.ruleset(node)
    return any(f"--to-destination {ip}:" in text or f"dnat ip to {ip}:" in text for ip in ips)


everywhere = pytest.mark.parametrize("where", ["pod", "node", "bare-pod"])


@pytest.mark.kernel
@everywhere
async def test_clients_reach_the_listener_on_the_proxy_port(cluster, steering, web, dns, where):
    client = net_of(cluster, where)
    await steering.apply(TARGETS)
    assert nodes.can_dial(client, WEB.ip, 80)
    with connected(client, DNS) as asker:
        assert nodes.exchange(asker, dns)
        assert nodes.exchange(asker, dns)


@pytest.mark.kernel
@everywhere
async def test_without_usable_endpoints_clients_are_refused_immediately(cluster, steering, where):
    client = net_of(cluster, where)
    await steering.apply(TARGETS)
    assert not nodes.can_dial(client, CART.ip, 80)
    with connected(client, REFUSED_UDP) as asker:
        assert nodes.is_refused(asker)
        assert nodes.is_refused(asker)


@pytest.mark.parametrize("where", ["pod", "node"])
async def test_no_client_can_dial_a_proxy_port_directly(cluster, steering, web, dns, where):
    client = net_of(cluster, where)
    assert nodes.can_dial(client, nodes.NODE_IP, 36001)
    await steering.apply(TARGETS)
    assert not nodes.can_dial(client, nodes.NODE_IP, 36001)
    with client.udp() as asker:
        asker.connect((nodes.NODE_IP, 36002))
        assert nodes.is_refused(asker)


async def test_another_daemon_inside_the_proxy_port_range_is_reachable(cluster, steering):
    await steering.apply(TARGETS)
    with nodes.tcp_server(cluster.node, 36500):
        assert nodes.can_dial(cluster.pod, nodes.NODE_IP, 36500)
    foreign = nodes.UdpServer(cluster.node, 36001)
    with cluster.pod.udp() as asker:
        asker.connect((nodes.NODE_IP, 36001))
        assert nodes.exchange(asker, foreign)
    foreign.close()


async def test_the_nodes_own_connections_are_unaffected(cluster, steering):
    """Replies to the proxy's own sockets come from endpoints and must pass the guard."""
    await steering.apply(TARGETS)
    endpoint = nodes.UdpServer(cluster.pod, 36002)
    with nodes.tcp_server(cluster.pod, 36001):
        assert nodes.can_dial(cluster.node, nodes.POD_IP, 36001)
    with cluster.node.udp() as leg:
        leg.connect((nodes.POD_IP, 36002))
        assert nodes.exchange(leg, endpoint)
    endpoint.close()


@pytest.mark.kernel
async def test_ipv6_clients_are_served_and_refused(cluster, steering):
    await steering.apply(
        {WEB_6: 36001, DNS_6: 36002, Frontend("fd00:96::2", 80, WEB.protocol): REFUSE}
    )
    dns = nodes.UdpServer(cluster.node, 36002, socket.AF_INET6)
    with nodes.proxy_listener(cluster.node, 36001, socket.AF_INET6):
        for client in (cluster.pod, cluster.node):
            assert nodes.can_dial(client, WEB_6.ip, 80)
            assert not nodes.can_dial(client, "fd00:96::2", 80)
            assert not nodes.can_dial(client, nodes.NODE_IP6, 36001)
            with connected(client, DNS_6) as asker:
                assert nodes.exchange(asker, dns)
    dns.close()


async def test_an_unnumbered_interface_added_later_is_served_after_a_repair(
    cluster, kind, steering, web
):
    await steering.apply(TARGETS)
    pod = cluster.add_bare_pod()
    assert await steering.repair() == 0, "a new interface is no drift"
    assert nodes.can_dial(pod, WEB.ip, 80)
    assert nodes.can_dial(cluster.pod, WEB.ip, 80)
    assert DNAT[kind] in nodes.tables(cluster.node) + nodes.ruleset(cluster.node)


@pytest.mark.kernel
async def test_dnat_follows_the_nodes_address(cluster, steering, web):
    pod = cluster.add_bare_pod()
    await steering.apply(TARGETS)
    cluster.node.run(
        "ip address add 10.3.0.1/32 dev lo; ip address del 10.1.0.1/24 dev pod0;"
        "ip address add 10.1.0.9/24 dev pod0"
    )
    assert await steering.repair() == 0, "a new address is no drift"
    # On a slow machine, the previous listing of addresses stays in use for a moment.
    async with asyncio.timeout(60):
        while not leads_to(cluster.node, "10.3.0.1", "10.1.0.9"):
            await steering.repair()
    assert nodes.can_dial(pod, WEB.ip, 80)


async def test_a_tcp_client_dialling_during_a_flush_is_served_from_the_same_port(
    cluster, kind, steering, web
):
    await steering.apply(TARGETS)
    cluster.node.run(f"echo 1 > /proc/sys/net/ipv4/ip_forward; {FLUSH[kind]}")
    dial_in_vain(cluster.pod, WEB)
    assert await steering.repair() > 0
    dial_again(cluster.pod, WEB).close()


@pytest.mark.kernel
async def test_a_udp_client_follows_its_frontend_to_another_port(cluster, steering, dns):
    await steering.apply(TARGETS)
    other = nodes.UdpServer(cluster.node, 36005)
    with connected(cluster.pod, DNS) as asker:
        assert nodes.exchange(asker, dns)
        await steering.apply({DNS: 36005})
        assert nodes.exchange(asker, other)
        await steering.apply({DNS: REFUSE})
        assert nodes.is_refused(asker)
        await steering.apply({DNS: 36002})
        assert nodes.exchange(asker, dns)
    other.close()
