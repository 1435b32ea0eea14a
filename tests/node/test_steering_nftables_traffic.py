"""Effects of nftables steering on packets, beside other programs' rules."""

from __future__ import annotations

import pytest
import steering_nodes as nodes
from steering_contract import DNS, WEB, WEB_6
from steering_traffic import ACK, FACTS, FIN, SYN, TARGETS, connected, net_of, send_segment

from userspace_proxy.model import Frontend, FrontendKind, Protocol, SocketAddress
from userspace_proxy.steering import EndpointChoice, KernelTarget, make_steering

pytestmark = pytest.mark.netns


@pytest.fixture
def kind():
    return "nftables"


@pytest.mark.needs("legacy tables")
@pytest.mark.parametrize("where", ["pod", "node"])
async def test_a_direct_dial_to_a_proxy_port_is_refused_immediately_despite_a_later_drop_policy(
    cluster, steering, web, where
):
    client = net_of(cluster, where)
    await steering.apply(TARGETS)
    cluster.node.run("iptables-legacy -P INPUT DROP; iptables-legacy -A INPUT -i lo -j ACCEPT")
    assert not nodes.can_dial(client, nodes.NODE_IP, 36001)
    with client.udp() as asker:
        asker.connect((nodes.NODE_IP, 36002))
        assert nodes.is_refused(asker)


@pytest.mark.kernel
@pytest.mark.parametrize("where", ["pod", "node", "bare-pod"])
async def test_ports_that_a_cluster_ip_lacks_are_refused_and_counted_until_it_is_removed(
    cluster, steering, web, where
):
    client = net_of(cluster, where)
    balancer = Frontend("10.96.8.1", 80, Protocol.TCP, FrontendKind.LOAD_BALANCER)
    await steering.apply({**TARGETS, WEB_6: 36001, balancer: 36001})
    # The bare pod has no IPv6 address.
    ips = (WEB.ip,) if where == "bare-pod" else (WEB.ip, WEB_6.ip)
    for ip in ips:
        assert [nodes.can_dial(client, ip, 81) for _ in range(2)] == [False, False]
        for _ in range(2):
            with connected(client, Frontend(ip, 81, Protocol.UDP)) as asker:
                assert nodes.is_refused(asker)
    assert nodes.can_dial(client, WEB.ip, 80)
    others = (Frontend(ip, 81, protocol) for ip in ips for protocol in Protocol)
    assert await steering.other_ports() == dict.fromkeys(others, 2)
    addresses = "nft list set inet userspace-proxy cluster_ips4"
    assert "10.96.7.1" in cluster.node.run(addresses)
    assert "10.96.8.1" not in cluster.node.run(addresses)
    await steering.change({}, [WEB])
    assert "10.96.7.1" not in cluster.node.run(addresses)


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(SYN, id="syn"),
        pytest.param(SYN | FIN, id="syn-fin"),
        pytest.param(SYN | ACK, id="syn-ack"),
        pytest.param(ACK, id="ack"),
    ],
)
async def test_no_segment_to_a_proxy_port_opens_a_connection(cluster, steering, web, flags):
    await steering.apply(TARGETS)
    send_segment(cluster.pod, (nodes.NODE_IP, 36001), flags)
    assert cluster.node.run("ss -Htan state syn-recv state established") == ""


async def test_a_restart_a_flush_and_a_frontends_removal_end_no_open_connection(
    cluster, steering, web
):
    await steering.apply(TARGETS)
    client = cluster.pod.tcp()
    client.connect(WEB.address)
    server, _ = web.accept()
    server.settimeout(nodes.DEADLINE_S)

    def speak() -> None:
        client.send(b"still here")
        assert server.recv(100) == b"still here"

    await steering.close()
    successor = make_steering("nftables", FACTS)
    await successor.apply(TARGETS)
    speak()
    cluster.node.run("nft flush ruleset")
    assert await successor.repair() > 0
    speak()
    await successor.apply({DNS: 36002})
    speak()
    client.close()
    server.close()
    await successor.close()


async def test_an_open_flow_follows_a_change_after_stale_conntrack_entries_are_removed(
    cluster, steering, dns
):
    other = nodes.UdpServer(cluster.node, 36005)
    await steering.apply({DNS: 36002})
    with cluster.pod.udp() as known, cluster.pod.udp() as new:
        for asker in (known, new):
            asker.connect((DNS.ip, DNS.port))
        assert nodes.exchange(known, dns)
        await steering.change({DNS: 36005}, ())
        assert nodes.exchange(known, dns)
        assert nodes.exchange(new, other)
        await steering.forget_stale()
        assert nodes.exchange(known, other)
    other.close()


def evil(priority: int) -> str:
    """Return the command with which another program adds a chain that translates frontends."""
    return f"""nft '
        table ip evil {{
            chain pre {{
                type nat hook prerouting priority {priority}
                ip daddr 10.96.0.0/16 jump more
            }}
            chain more {{ tcp dport 80 counter redirect to :9; }}
        }}'"""


def causes(steering):
    return {frontend: str(cause) for frontend, cause in steering.unsteered.items()}


def caused_by_evil(priority: int, above: int) -> str:
    return (
        f"nftables chain ip evil pre of another program (prerouting, priority {priority}) "
        "translates it before this proxy does; delete that rule, as `nft list chain ip evil pre` "
        f"shows, or give the chain a priority above {above}"
    )


async def test_a_chain_translating_a_frontend_first_is_reported(cluster, steering, web):
    await steering.apply({WEB: 36001, DNS: 36002})
    assert await steering.repair() == 0
    assert steering.unsteered == {}
    cluster.node.run(evil(-150))
    assert not nodes.can_dial(cluster.pod, WEB.ip, 80)
    assert await steering.repair() == 0
    assert causes(steering) == {WEB: caused_by_evil(-150, -110)}
    cluster.node.run("nft flush chain ip evil more")
    assert await steering.repair() == 0
    assert steering.unsteered == {}
    assert nodes.can_dial(cluster.pod, WEB.ip, 80)


@pytest.mark.parametrize("is_first", [True, False], ids=["added-before", "added-after"])
async def test_a_chain_of_equal_priority_is_certainly_first_only_in_a_newer_table(
    cluster, steering, web, is_first
):
    """The kernel evaluates chains of equal priority in the reverse order of their creation."""
    if is_first:
        await steering.clean_up()
        cluster.node.run(evil(-110))
    await steering.apply({WEB: 36001})
    if not is_first:
        cluster.node.run(evil(-110))
    assert nodes.can_dial(cluster.pod, WEB.ip, 80) is is_first
    await steering.repair()
    assert [one.is_certain for one in steering.unsteered.values()] == [not is_first]


@pytest.mark.parametrize(
    ("priority", "certain"),
    [
        pytest.param(-110, [], id="after"),
        pytest.param(-111, [True], id="equal"),
        pytest.param(-112, [True], id="before"),
    ],
)
async def test_on_the_kernel_path_only_a_chain_that_runs_before_dnat_is_reported(
    cluster, steering, priority, certain
):
    endpoints = (SocketAddress(nodes.POD_IP, 8080),)
    await steering.apply({WEB: KernelTarget(36001, (EndpointChoice(endpoints),))})
    cluster.node.run(evil(priority))
    await steering.repair()
    assert [one.is_certain for one in steering.unsteered.values()] == certain
    assert not any(certain) or causes(steering) == {WEB: caused_by_evil(priority, -111)}
