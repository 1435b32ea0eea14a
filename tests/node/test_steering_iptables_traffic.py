"""Effects on packets that only legacy tables have; test_steering_traffic tests the others."""

from __future__ import annotations

import pytest
import steering_nodes as nodes
from steering_contract import CART, DNS, WEB
from steering_traffic import (
    ACK,
    FIN,
    REFUSED_UDP,
    SYN,
    TARGETS,
    connected,
    dial_again,
    net_of,
    send_segment,
)

from tests.cluster.waiting import wait_for

pytestmark = [pytest.mark.netns, pytest.mark.needs("legacy tables")]


@pytest.fixture
def kind():
    return "iptables"


@pytest.mark.parametrize("where", ["pod", "bare-pod"])
async def test_an_input_drop_policy_blocks_no_pod(cluster, steering, web, dns, where):
    client = net_of(cluster, where)
    await steering.apply(TARGETS)
    cluster.node.run("iptables-legacy -P INPUT DROP")
    assert nodes.can_dial(client, WEB.ip, 80)
    assert not nodes.can_dial(client, CART.ip, 80)
    with connected(client, DNS) as asker, connected(client, REFUSED_UDP) as refused:
        assert nodes.exchange(asker, dns)
        assert nodes.is_refused(refused)


async def test_under_a_drop_policy_a_frontends_removal_ends_no_open_connection(
    cluster, steering, web
):
    await steering.apply(TARGETS)
    cluster.node.run("iptables-legacy -P INPUT DROP")
    client = cluster.pod.tcp()
    client.connect((WEB.ip, 80))
    server, _ = web.accept()
    server.settimeout(nodes.DEADLINE_S)
    await steering.apply({DNS: 36002})
    client.send(b"still here")
    assert server.recv(100) == b"still here"
    client.close()
    server.close()


async def test_only_the_syn_of_a_connection_traverses_the_rules(cluster, steering, web):
    await steering.apply(TARGETS)
    with dial_again(cluster.pod, WEB) as client:
        server, _ = web.accept()
        for _ in range(10):
            client.send(b"question")
            server.recv(100)
        server.close()
    later, steered, *others = packets(cluster.node, "UPROXY-TCP")
    assert later >= 10
    # On a busy machine a client retransmits its SYN.
    assert 1 <= steered < 10
    assert others == [0] * 5


@pytest.mark.parametrize(
    ("flags", "met"),
    [
        pytest.param(SYN, [0, 0, 0, 0, 1], id="syn"),
        pytest.param(SYN | FIN, [0, 0, 0, 0, 1], id="syn-fin"),
        pytest.param(SYN | ACK, [1, 0, 0, 0, 0], id="syn-ack"),
        pytest.param(ACK, [1, 0, 0, 0, 0], id="ack"),
    ],
)
async def test_no_segment_to_a_proxy_port_opens_a_connection(cluster, steering, web, flags, met):
    await steering.apply(TARGETS)
    send_segment(cluster.pod, (nodes.NODE_IP, 36001), flags)
    # The node receives the segment in a softirq, which a busy machine may delay.
    wait_for("the segment", lambda: any(packets(cluster.node, "UPROXY-TCP")))
    assert packets(cluster.node, "UPROXY-TCP")[:5] == met
    assert cluster.node.run("ss -Htan state syn-recv state established") == ""


async def test_a_dial_to_no_frontend_matches_no_steering_rule(cluster, steering, web):
    await steering.apply(TARGETS)
    with nodes.tcp_server(cluster.node, 81):
        assert nodes.can_dial(cluster.pod, nodes.NODE_IP, 81)
    counted = cluster.node.run("iptables-legacy -t nat -vxnL UPROXY-PRE")
    assert all(line.split()[0] == "0" for line in counted.splitlines()[2:])


def packets(node: nodes.Net, chain: str) -> list[int]:
    """Return the number of packets that each rule of a chain has matched."""
    lines = node.run(f"iptables-legacy -vxnL {chain}").splitlines()[2:]
    return [int(line.split()[0]) for line in lines]


async def test_an_nftables_chain_translating_a_frontend_first_is_reported(cluster, steering, web):
    await steering.apply({WEB: 36001, DNS: 36002})
    rule = "ip daddr 10.96.7.1 tcp dport 80 redirect to 9"
    chain = f"type nat hook prerouting priority -150; {rule};"
    cluster.node.run(f"nft 'table ip admin {{ chain c {{ {chain} }}; }}'")
    with cluster.pod.tcp() as client:
        client.settimeout(0.5)
        with pytest.raises((TimeoutError, ConnectionRefusedError)):
            client.connect((WEB.ip, 80))
    assert await steering.repair() == 0
    assert {f: str(cause) for f, cause in steering.unsteered.items()} == {
        WEB: "nftables chain ip admin c of another program (prerouting, priority -150) translates "
        "it before this proxy does; delete that rule, as `nft list chain ip admin c` shows, or "
        "give the chain a priority above -100"
    }
    await steering.change({}, [WEB])
    await steering.repair()
    assert steering.unsteered == {}
