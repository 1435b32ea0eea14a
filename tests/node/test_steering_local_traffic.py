"""Effects of local steering's guards on packets, and on other programs' state."""

from __future__ import annotations

import socket

import pytest
import steering_nodes as nodes
from steering_contract import CART, DNS, WEB, WEB_6
from steering_traffic import CANARY, DNS_6, FRONTENDS, NODE, RANGES, in_force

from userspace_proxy.kernel.listening_sockets import open_listening
from userspace_proxy.model import Frontend
from userspace_proxy.steering import SteeringFacts
from userspace_proxy.steering.local import LocalSteering

pytestmark = pytest.mark.netns
# An answer takes microseconds; a lost first SYN is retransmitted after a second.
SILENCE_S = 0.3
GUARDS = {
    "namespace-of-ours": lambda facts: LocalSteering(
        SteeringFacts(RANGES.service_cidrs, proxy_name=facts.proxy_name), own_namespace=True
    ),
    "nftables": LocalSteering,
}


@pytest.fixture(params=GUARDS)
def make(request):
    return GUARDS[request.param]


@pytest.fixture
async def steering(make, node):
    steering = make(NODE)
    await steering.start()
    yield steering
    await steering.clean_up()
    await steering.close()


@pytest.fixture
def listeners(steering):
    opened: list[socket.socket] = []

    def listen(*frontends: Frontend) -> list[socket.socket]:
        made = [
            socket.socket(
                fileno=open_listening(
                    f.protocol, f.address, freebind=True, transparent=steering.needs_transparent
                ).detach()
            )
            for f in frontends
        ]
        for sock in made:
            sock.settimeout(nodes.DEADLINE_S)
        opened.extend(made)
        return made

    yield listen
    for sock in opened:
        sock.close()


@pytest.fixture(params=["pod", "node"])
def client(request, cluster):
    return cluster.pod if request.param == "pod" else cluster.node


@pytest.fixture
def daemons(node):
    """Programs of the node that listen on all addresses."""
    made = [*(nodes.tcp_server(node, 2222, f) for f in (socket.AF_INET,))]
    six = node.tcp(socket.AF_INET6)
    six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    six.bind(("::", 2222))
    six.listen()
    yield
    for sock in (*made, six):
        sock.close()


def answers(net: nodes.Net, ip: str, port: int) -> bool:
    """Return whether a TCP dial succeeds; False if it is refused, prohibited or unanswered."""
    with net.tcp(socket.AF_INET6 if ":" in ip else socket.AF_INET) as client:
        client.settimeout(SILENCE_S)
        return client.connect_ex((ip, port)) == 0


class TestTraffic:
    """The same traffic with each guard."""

    @pytest.mark.kernel
    async def test_listeners_see_their_clients_address(self, steering, listeners, client):
        await steering.apply(FRONTENDS)
        own = {"pod": (nodes.POD_IP, nodes.POD_IP6), "node": (nodes.NODE_IP, nodes.NODE_IP6)}
        seen = []
        for frontend, server in zip((WEB, WEB_6), listeners(WEB, WEB_6), strict=True):
            with client.tcp(server.family) as sock:
                sock.connect((frontend.ip, frontend.port))
                accepted, (ip, *_) = server.accept()
                accepted.close()
                seen.append(ip)
        assert tuple(seen) == own[client.name]

    @pytest.mark.kernel
    async def test_a_wildcard_daemon_is_not_reached_on_a_frontend(self, steering, daemons, client):
        await steering.apply(FRONTENDS)
        assert nodes.can_dial(client, nodes.NODE_IP, 2222)
        assert nodes.can_dial(client, nodes.NODE_IP6, 2222)
        for frontend in FRONTENDS:
            assert not answers(client, frontend.ip, 2222)

    async def test_datagrams_to_unserved_ports_do_not_reach_a_daemon(self, steering, node, client):
        await steering.apply(FRONTENDS)
        with node.udp() as daemon, client.udp() as asker:
            daemon.bind(("", 2222))
            daemon.settimeout(SILENCE_S)
            asker.sendto(b"question", (WEB.ip, 2222))
            with pytest.raises(TimeoutError):
                daemon.recv(99)

    async def test_open_connections_outlive_their_frontend(self, steering, listeners, client):
        await steering.apply(FRONTENDS)
        (server,) = listeners(WEB)
        with client.tcp() as sock:
            sock.connect(WEB.address)
            accepted, _ = server.accept()
            server.close()
            await steering.change({}, [WEB])
            await steering.repair()
            assert "10.96.7.1:80" not in await steering.render()
            assert not answers(client, WEB.ip, 80)
            sock.send(b"still")
            assert accepted.recv(9) == b"still"
            accepted.send(b"there")
            assert sock.recv(9) == b"there"
            accepted.close()
        await steering.apply({CART: 80})
        accepted.close()

    async def test_two_proxies_do_not_affect_each_other(self, make, node):
        stable, canary = make(NODE), make(CANARY)
        await stable.apply({WEB: 80})
        alone = in_force(node)
        await canary.apply({CART: 80, Frontend(WEB.ip, 81, WEB.protocol): 81})
        assert (await stable.repair(), await canary.repair()) == (0, 0)
        await canary.clean_up()
        assert await stable.repair() == 0
        assert in_force(node) == alone
        await stable.clean_up()
        await stable.close()
        await canary.close()

    async def test_the_guard_table_of_an_earlier_run_is_removed(self, make, node):
        before = in_force(node)
        for earlier in GUARDS.values():
            steering = earlier(NODE)
            await steering.apply(FRONTENDS)
            await steering.close()
        steering = make(NODE)
        await steering.apply(FRONTENDS)
        now = in_force(node)
        await steering.clean_up()
        assert in_force(node) == before
        await steering.apply(FRONTENDS)
        assert in_force(node) == now
        await steering.clean_up()
        await steering.close()


@pytest.mark.parametrize("make", [GUARDS["nftables"]], ids=["nftables"])
async def test_fragmented_datagrams_arrive(cluster, steering, listeners):
    await steering.apply(FRONTENDS)
    for frontend, server in zip((DNS, DNS_6), listeners(DNS, DNS_6), strict=True):
        with cluster.pod.udp(server.family) as sock:
            sock.connect((frontend.ip, frontend.port))
            sock.send(b"q" * 5000)
            assert len(server.recv(6000)) == 5000


@pytest.mark.parametrize(
    ("chain", "said"),
    [
        pytest.param(
            "type filter hook input priority 0; tcp dport 80 drop",
            "(input, priority 0) drops packets to it; delete what drops these packets, as `nft "
            "list chain ip admin c` shows, or accept them first in that chain",
            id="drops-on-input",
        ),
        pytest.param(
            "type nat hook prerouting priority 0; fib daddr type local tcp dport 80 redirect to 9",
            "(prerouting, priority 0) translates it before packets reach this proxy; "
            "delete that rule, as `nft list chain ip admin c` shows",
            id="translates",
        ),
    ],
)
async def test_a_chain_translating_or_dropping_a_frontends_packets_first_is_reported(
    cluster, steering, listeners, chain, said
):
    await steering.apply({WEB: 80, DNS: 53})
    listeners(WEB)
    assert nodes.can_dial(cluster.pod, *WEB.address)
    cluster.node.run(f"nft 'table ip admin {{ chain c {{ {chain}; }}; }}'")
    with cluster.pod.tcp() as client:
        client.settimeout(SILENCE_S)
        with pytest.raises((TimeoutError, ConnectionRefusedError)):
            client.connect(WEB.address)
    assert await steering.repair() == 0
    assert {f: str(cause) for f, cause in steering.unsteered.items()} == {
        WEB: f"nftables chain ip admin c of another program {said}"
    }
