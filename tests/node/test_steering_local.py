"""Local steering in a real namespace: the contract, routes and guards, and traffic."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from textwrap import dedent

import pytest
import steering_nodes as nodes
from steering_contract import CART, DNS, REPAIRS, WEB, WEB_6, SelectiveSteeringContract

from tests.node.processes import as_another_user, readable_runtime
from userspace_proxy.dataplane.sockets import open_listening
from userspace_proxy.errors import SteeringConflict
from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering import REFUSE, Steering, SteeringFacts, make_steering
from userspace_proxy.steering.local import LocalSteering, remove_routes
from userspace_proxy.steering.local.rule_guard import table_number
from userspace_proxy.steering.names import owner_number

pytestmark = pytest.mark.netns
RANGES = SteeringFacts(service_cidrs=("10.96.0.0/16", "fd00:96::/112"))
NODE = SteeringFacts(node_addresses=(nodes.NODE_IP, nodes.NODE_IP6))
CANARY = SteeringFacts(proxy_name="canary")
DNS_6 = Frontend("fd00:96::a", 53, Protocol.UDP)
FRONTENDS = {WEB: 80, WEB_6: 80, DNS: 53, DNS_6: 53, CART: REFUSE}
# What another program may have: routes and rules of the same kinds as ours, and a table.
FOREIGN = """
    ip route add local 203.0.113.0/24 dev lo proto static
    ip route add 203.0.113.9 via 10.1.0.2 metric 117
    ip rule add to 203.0.113.9 ipproto tcp dport 80 lookup main priority 5
    ip -6 rule add to fd00:99::1 prohibit priority 6
    nft 'add table inet others; add chain inet others input { type filter hook input priority 0; }'
    nft 'add rule inet others input tcp dport 9999 reject'"""


@pytest.fixture
def cluster():
    """A node and a pod; the test's thread stands in the node."""
    nodes.need_namespaces()
    cluster = nodes.Cluster()
    with cluster.node:
        yield cluster
    cluster.close()


@pytest.fixture
def node(cluster):
    return cluster.node


def our_routes(node: nodes.Net) -> str:
    return node.run("ip route show table local proto 117; ip -6 route show table local proto 117")


def in_force(node: nodes.Net) -> str:
    # Link-local routes come when the kernel is done with its address detection, and it notices
    # later than we that a link is up.
    said = nodes.ruleset(node) + node.run(
        "{ ip route show table all; ip -6 route show table all; } | grep -v -e fe80 -e ff00;"
        "ip rule; ip -6 rule"
    )
    return said.replace(" linkdown", "")


class TestInANamespaceOfOurs(SelectiveSteeringContract):
    facts = RANGES
    breaking = "ip route flush table local proto 117"

    def make(self) -> Steering:
        return LocalSteering(self.facts, own_namespace=True)

    @pytest.fixture
    def steerings(self, node):
        self.node = node
        return self.make

    def in_force(self) -> str:
        return in_force(self.node)

    @contextmanager
    def refusal(self, frontend: Frontend):
        metric = owner_number(self.facts.proxy_name)
        route = f"unreachable {frontend.ip} table local proto static metric {metric}"
        self.node.run(f"ip route add {route}")
        yield
        self.node.run(f"ip route del {route}")

    def break_it(self, steering: Steering) -> None:
        self.node.run(self.breaking)


class TestInANamespaceOfOursWithoutRanges(TestInANamespaceOfOurs):
    facts = SteeringFacts()


class TestInANamespaceOfOursWithoutNftables(TestInANamespaceOfOurs):
    def make(self) -> Steering:
        return LocalSteering(self.facts, own_namespace=True, uses_nftables=False)


class TestOnANode(TestInANamespaceOfOurs):
    facts = NODE

    def make(self) -> Steering:
        return LocalSteering(self.facts)


class TestOnANodeWithoutTheTable(TestOnANode):
    breaking = "nft delete table inet userspace-proxy/local"


class TestOnANodeWithAnElementLess(TestOnANode):
    breaking = (
        "nft delete element inet userspace-proxy/local frontends4 '{ 10.96.7.1 . tcp . 80 }';"
        "nft flush set inet userspace-proxy/local addresses4"
    )

    async def test_drift_is_counted_and_put_right(self, steering):
        await steering.apply({WEB: 80})
        before = await steering.render()
        self.break_it(steering)
        assert await steering.render() != before
        assert await steering.repair() == 2
        assert await steering.render() == before
        assert await steering.repair() == 0

    async def test_a_change_on_top_of_drift_puts_it_right(self, steering):
        await steering.apply({WEB: 80})
        self.break_it(steering)
        await steering.change({CART: 80}, ())
        assert await steering.render() == "TCP 10.96.7.1:80 -> :80\nTCP 10.96.7.2:80 -> :80"


class TestOnANodeByRules(TestOnANode):
    # Whoever has a route of its family in our table is in the way of the first of a family.
    outside = Frontend("2001:db8::7", 443, WEB.protocol)
    breaking = "ip rule flush protocol 117; ip -6 rule flush protocol 117"

    def make(self) -> Steering:
        return LocalSteering(self.facts, uses_nftables=False)

    @contextmanager
    def refusal(self, frontend: Frontend):
        assert frontend is self.outside
        table = table_number(owner_number(self.facts.proxy_name))
        route = f"unreachable default table {table} proto static metric 1024"
        self.node.run(f"ip -6 route add {route}")
        yield
        self.node.run(f"ip -6 route del {route}")

    async def test_a_port_that_no_rule_can_name_spoils_nothing_else(self, steering):
        await steering.apply({WEB: 80, Frontend(CART.ip, 65535, CART.protocol): 65535})
        assert await steering.render() == "TCP 10.96.7.1:80 -> :80"
        await steering.change({CART: 80}, ())
        assert await steering.repair() == 0


class TestOnANodeWithoutTheRoutingTable(TestOnANodeByRules):
    breaking = f"ip route flush table {table_number(0)}"


class TestOnANodeByRulesOfAProxyWithAName(TestOnANodeByRules):
    facts = CANARY


class TestOfAProxyWithAName(TestOnANode):
    facts = CANARY


GUARDS = {
    "namespace-of-ours": lambda facts: LocalSteering(
        SteeringFacts(RANGES.service_cidrs, proxy_name=facts.proxy_name), own_namespace=True
    ),
    "nftables": LocalSteering,
    "rules": lambda facts: LocalSteering(facts, uses_nftables=False),
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
    """Have listeners of ours on frontends."""
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
    """Programs of the node that listen at all addresses."""
    made = [*(nodes.tcp_server(node, 2222, f) for f in (socket.AF_INET,))]
    six = node.tcp(socket.AF_INET6)
    six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    six.bind(("::", 2222))
    six.listen()
    yield
    for sock in (*made, six):
        sock.close()


def dial_code(net: nodes.Net, ip: str, port: int) -> int:
    """Return what a TCP dial ends with: 0 for a connection, EAGAIN for silence."""
    with net.tcp(socket.AF_INET6 if ":" in ip else socket.AF_INET) as client:
        client.settimeout(0.3)
        return client.connect_ex((ip, port))


def udp_code(net: nodes.Net, ip: str, port: int) -> int:
    """Return what a question over UDP ends with: 0 for an answer, EAGAIN for silence."""
    with net.udp() as client:
        client.settimeout(0.3)
        try:
            client.connect((ip, port))
            client.send(b"question")
            client.recv(99)
        except OSError as exc:
            return exc.errno or errno.EAGAIN
    return 0


def answers(net: nodes.Net, ip: str, port: int) -> bool:
    """Return whether a TCP connection comes about; refused, prohibited and silence are none."""
    return dial_code(net, ip, port) == 0


class TestTraffic:
    """The same, whatever the guard."""

    async def test_listeners_see_the_address_of_their_client(self, steering, listeners, client):
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

    async def test_datagrams_come_and_are_answered(self, steering, listeners, client):
        await steering.apply(FRONTENDS)
        for frontend, server in zip((DNS, DNS_6), listeners(DNS, DNS_6), strict=True):
            with client.udp(server.family) as sock:
                sock.connect((frontend.ip, frontend.port))
                sock.send(b"question")
                question, asker = server.recvfrom(99)
                server.sendto(b"answer", asker)
                assert (question, sock.recv(99)) == (b"question", b"answer")

    async def test_a_daemon_on_all_addresses_is_not_reached(self, steering, daemons, client):
        await steering.apply(FRONTENDS)
        assert nodes.can_dial(client, nodes.NODE_IP, 2222)
        assert nodes.can_dial(client, nodes.NODE_IP6, 2222)
        for frontend in FRONTENDS:
            assert not answers(client, frontend.ip, 2222)

    async def test_datagrams_for_a_daemon_do_not_come(self, steering, node, client):
        await steering.apply(FRONTENDS)
        with node.udp() as daemon:
            daemon.bind(("", 2222))
            daemon.settimeout(0.1)
            udp_code(client, WEB.ip, 2222)
            with pytest.raises(TimeoutError):
                daemon.recv(99)

    async def test_without_ipv6_the_frontends_of_ipv4_are_served(
        self, steering, listeners, client, node
    ):
        node.run("echo 1 | tee /proc/sys/net/ipv6/conf/*/disable_ipv6")
        await steering.apply(FRONTENDS)
        listeners(WEB)
        assert nodes.can_dial(client, *WEB.address)
        assert steering.unsteered.keys() == {WEB_6, DNS_6}
        assert "IPv6 is switched off on this node (sysctl -w" in steering.unsteered[WEB_6]
        await steering.change({CART: 80}, [WEB_6])
        assert steering.unsteered.keys() == {DNS_6}
        node.run("echo 0 | tee /proc/sys/net/ipv6/conf/*/disable_ipv6")
        for _ in range(REPAIRS):
            await steering.repair()
        assert steering.unsteered == {}
        assert "UDP [fd00:96::a]:53 -> :53" in await steering.render()

    async def test_a_refused_frontend_is_refused_at_once(self, steering, client, node):
        # By rules it is told by ICMP, which only nodes that forward send.
        node.run("echo 1 > /proc/sys/net/ipv4/ip_forward")
        refused = Frontend(CART.ip, 53, Protocol.UDP)
        await steering.apply({**FRONTENDS, refused: REFUSE})
        codes = {dial_code(client, CART.ip, CART.port), udp_code(client, *refused.address)}
        by_icmp = {errno.EACCES, errno.EHOSTUNREACH}
        by_rules = "prohibit" in node.run("ip rule")
        assert codes <= (by_icmp if by_rules else {errno.ECONNREFUSED})

    async def test_a_daemon_does_not_answer_for_a_refused_frontend(self, steering, daemons, client):
        await steering.apply({Frontend(WEB.ip, 2222, WEB.protocol): REFUSE})
        assert not answers(client, WEB.ip, 2222)

    async def test_a_daemon_that_comes_later_does_not_either(self, steering, client, node):
        await steering.apply({Frontend(WEB.ip, 2224, WEB.protocol): REFUSE})
        with nodes.tcp_server(node, 2224):
            await steering.repair()
            assert nodes.can_dial(client, nodes.NODE_IP, 2224)
            assert not answers(client, WEB.ip, 2224)
        assert await steering.repair() == 0

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

    async def test_what_others_have_stays_as_it_is(self, make, node):
        node.run(FOREIGN)
        before = in_force(node)
        steering = make(NODE)
        await steering.apply({**FRONTENDS, Frontend("203.0.113.9", 80, WEB.protocol): 80})
        await steering.apply({CART: 80})
        node.run("ip route flush table local proto 117; ip rule flush protocol 117")
        await steering.repair()
        await steering.clean_up()
        assert in_force(node) == before
        await steering.close()

    async def test_two_proxies_mind_their_own(self, make, node):
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

    async def test_whatever_an_earlier_run_used_is_gone(self, make, node):
        before = in_force(node)
        # A kernel that holds our table can't lose nftables.
        for earlier in [make] if make is GUARDS["rules"] else GUARDS.values():
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

    async def test_routes_and_rules_of_every_proxy_can_be_removed(self, make, node):
        before = in_force(node)
        for facts in (NODE, CANARY):
            steering = make(facts)
            await steering.apply(FRONTENDS)
            await steering.close()
        remove_routes()
        left = in_force(node)
        node.run("nft delete table inet userspace-proxy/local || true")
        node.run("nft delete table inet userspace-proxy/local-canary || true")
        assert in_force(node) == before
        assert "proto 117" not in left


async def test_on_a_node_only_what_has_frontends_is_routed(node):
    steering = LocalSteering(SteeringFacts(RANGES.service_cidrs))
    own = Frontend(nodes.NODE_IP, 30080, WEB.protocol)
    loopback = Frontend("127.0.0.9", 80, WEB.protocol)
    await steering.apply({WEB: 80, CART: REFUSE, WEB_6: 80, own: 30080, loopback: 80})
    assert our_routes(node) == (
        "local 10.96.7.1 dev lo scope host src 10.1.0.1 \n"
        "local 10.96.7.2 dev lo scope host src 10.1.0.1 \n"
        "local fd00:96::1 dev lo src fd00:1::1 metric 1024 pref medium\n"
    )
    assert "127.0.0.9:80" in await steering.render()
    assert "10.1.0.1:30080" in await steering.render()
    await steering.close()


TABLE = dedent("""\
    table inet userspace-proxy/local {
        set addresses4 {
            type ipv4_addr
            elements = {
                10.96.0.10
                10.96.7.1
                10.96.7.2
            }
        }

        set addresses6 {
            type ipv6_addr
            elements = {
                fd00:96::1
                fd00:96::a
            }
        }

        set frontends4 {
            type ipv4_addr . inet_proto . inet_service
            elements = {
                10.96.0.10 . udp . 53
                10.96.7.1 . tcp . 80
            }
        }

        set frontends6 {
            type ipv6_addr . inet_proto . inet_service
            elements = {
                fd00:96::1 . tcp . 80
                fd00:96::a . udp . 53
            }
        }

        chain guard {
            frag frag-off != 0 accept
            tcp flags syn / syn,ack ip daddr . meta l4proto . tcp dport != @frontends4 reject with tcp reset
            tcp flags syn / syn,ack ip6 daddr . meta l4proto . tcp dport != @frontends6 reject with tcp reset
            tcp flags syn / syn,ack socket transparent 0 reject
            ip daddr . meta l4proto . udp dport != @frontends4 reject
            ip6 daddr . meta l4proto . udp dport != @frontends6 reject
            meta l4proto udp socket transparent 0 reject
            meta l4proto != { icmp, tcp, udp, ipv6-icmp } reject
        }

        chain input {
            type filter hook input priority filter - 10; policy accept;
            ip daddr @addresses4 goto guard
            ip6 daddr @addresses6 goto guard
        }
    }
    """)  # noqa: E501 - as nft prints it


async def test_the_table_of_a_node(node):
    steering = LocalSteering(NODE)
    await steering.apply(FRONTENDS)
    assert nodes.ruleset(node) == TABLE
    await steering.close()


@pytest.mark.parametrize("make", [GUARDS["nftables"]], ids=["nftables"])
async def test_datagrams_come_in_fragments(cluster, steering, listeners):
    await steering.apply(FRONTENDS)
    for frontend, server in zip((DNS, DNS_6), listeners(DNS, DNS_6), strict=True):
        with cluster.pod.udp(server.family) as sock:
            sock.connect((frontend.ip, frontend.port))
            sock.send(b"q" * 5000)
            assert len(server.recv(6000)) == 5000


async def test_a_range_is_routed_with_the_nodes_address_as_source(node):
    facts = SteeringFacts(RANGES.service_cidrs, node_addresses=("192.0.2.9", nodes.NODE_IP))
    steering = make_steering("local", facts, own_namespace=True)
    await steering.apply({WEB: 80})
    assert our_routes(node) == (
        "local 10.96.0.0/16 dev lo scope host src 10.1.0.1 \n"
        "local fd00:96::/112 dev lo src fd00:1::1 metric 1024 pref medium\n"
    )
    assert not nodes.can_dial(node, "10.96.99.99", 80)
    await steering.close()


async def test_an_address_of_the_nodes_own_is_neither_routed_nor_fenced(node, daemons):
    steering = LocalSteering(NODE)
    await steering.apply({WEB: 80})
    assert not answers(node, WEB.ip, 2222)
    node.run(f"ip address add {WEB.ip}/32 dev pod0")
    await steering.repair()
    assert nodes.can_dial(node, WEB.ip, 2222)
    assert our_routes(node) == ""
    node.run(f"ip address del {WEB.ip}/32 dev pod0")
    assert await steering.repair() > 0
    assert not answers(node, WEB.ip, 2222)
    assert "10.96.7.1" in our_routes(node)
    await steering.clean_up()
    await steering.close()


async def test_routes_come_back_after_the_source_address_has_gone_and_come(node):
    """The kernel takes IPv4 routes away with their source, and says nothing of it."""
    steering = LocalSteering(SteeringFacts())
    await steering.apply({WEB: 80})
    node.run("ip address add 10.5.0.77/24 dev pod0; ip address del 10.1.0.1/24 dev pod0")
    assert await steering.repair() > 0
    assert "src 10.5.0.77" in our_routes(node)
    await steering.close()


async def test_what_others_do_to_routes_is_no_drift(node):
    steering = LocalSteering(NODE)
    await steering.apply({WEB: 80})
    node.run("for i in $(seq 50); do ip route add 203.0.113.$i via 10.1.0.2; done")
    assert await steering.repair() == 0
    await steering.close()


async def test_a_table_that_another_program_owns_is_a_conflict(node):
    steering = LocalSteering(NODE)
    with owned_table(), pytest.raises(SteeringConflict) as caught:
        await steering.apply({WEB: 80})
    assert str(caught.value) == (
        "cannot use the nftables table inet userspace-proxy/local: another program owns it "
        "(stop that program, or run with --steering=iptables)"
    )
    assert our_routes(node) == ""
    await steering.close()


@contextmanager
def owned_table():
    """Let the table of our name be another program's own."""
    pipe = subprocess.PIPE
    with subprocess.Popen(["nft", "-i"], stdin=pipe, stdout=pipe, text=True) as owner:
        assert owner.stdin is not None
        assert owner.stdout is not None
        table = "userspace-proxy/local { flags owner; }"
        print(f"add table inet {table}\nlist ruleset", file=owner.stdin)
        owner.stdin.flush()
        assert any("flags owner" in line for line in owner.stdout)
        yield
        owner.stdin.close()


NOBODY = """
import asyncio, sys
from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering import SteeringFacts, make_steering

async def main():
    steering = make_steering("local", SteeringFacts())
    await steering.start()
    await steering.apply({Frontend(ip, 8080, Protocol.TCP): 8080 for ip in sys.argv[1:]})
    print(await steering.render())
    print(*steering.unsteered.values(), sep="\\n", file=sys.stderr, end="")
    await steering.clean_up()
    await steering.close()

asyncio.run(main())
"""


def as_nobody(*ips: str) -> subprocess.CompletedProcess[str]:
    """Run a program without any right that steers to these addresses."""
    nobody = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable)
    return subprocess.run([*nobody, "-c", NOBODY, *ips], capture_output=True, text=True)


@as_another_user
def test_loopback_addresses_need_no_privileged_user(node):
    with readable_runtime() as (prefix, python, environment):
        done = subprocess.run(
            [*prefix, python, "-c", NOBODY, "127.0.0.9"],
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
        )
    assert (done.stderr, done.stdout) == ("", "TCP 127.0.0.9:8080 -> :8080\n")


def test_loopback_addresses_and_the_nodes_own_need_no_right(node):
    done = as_nobody("127.0.0.9", nodes.NODE_IP)
    assert done.stderr == ""
    assert done.stdout == "TCP 10.1.0.1:8080 -> :8080\nTCP 127.0.0.9:8080 -> :8080\n"


def test_other_addresses_need_a_right_that_is_named_and_spoil_nothing_else(node):
    done = as_nobody(WEB.ip, "127.0.0.9")
    assert done.stdout == "TCP 127.0.0.9:8080 -> :8080\n"
    assert done.stderr == (
        "cannot route 10.96.7.1/32 to this node: NET_ADMIN is missing "
        "(run as root or grant NET_ADMIN; loopback addresses need nothing)"
    )
