"""Replies to clients' own addresses: caught by the kernel, for sockets of the data plane."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import subprocess
import sys
from textwrap import dedent

import pytest
import steering_nodes as nodes

from userspace_proxy.dataplane.client_address import ClientAddressDialer, NoClientAddress
from userspace_proxy.dataplane.client_ports import ClientPorts
from userspace_proxy.kernel.nf_tables import writer
from userspace_proxy.model import SocketAddress
from userspace_proxy.policy.locality import FIRST_PORT, LAST_PORT
from userspace_proxy.steering import REPLY_TABLES, ReplyRouting

pytestmark = pytest.mark.netns

TCP = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
UDP = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
PORT = 8080
# Nobody has it: only the proxy says that it is a client's.
CLIENTS = {4: "10.9.9.9", 6: "fd00:9::9"}
PODS = {4: nodes.POD_IP, 6: nodes.POD_IP6}
# linux/in.h, linux/in6.h.
TRANSPARENT = {4: (socket.IPPROTO_IP, 19), 6: (socket.IPPROTO_IPV6, 75)}
# The kernel adds link-local addresses once nobody else has answered for them.
SHOW = (
    "nft list tables; ip rule; ip -6 rule; ip -4 route show table all; "
    "ip -6 route show table all | grep -v 'proto kernel'"
)


@pytest.fixture(scope="module", autouse=True)
def _namespaces():
    nodes.need_namespaces()


@pytest.fixture
def cluster():
    cluster = nodes.Cluster()
    yield cluster
    cluster.close()


class Catching:
    """Replies that are caught on the node, as by a process that has begun it.

    Args:
        cluster: Its node is meant.
        name: The proxy's.
    """

    def __init__(self, cluster, name=""):
        self._node = cluster.node
        self._runner = asyncio.Runner()
        self._answers = ReplyRouting(name)

    def do(self, verb):
        """Call a method of the answers; return what it returns."""
        with self._node:
            return self._runner.run(getattr(self._answers, verb)())

    @property
    def without_ipv6(self):
        return self._answers.without_ipv6

    def __enter__(self):
        assert self.do("start") == ""
        return self

    def __exit__(self, *_exc):
        self.do("close")
        self._runner.close()


@pytest.fixture
def catching(cluster):
    with Catching(cluster) as catching:
        yield catching


def dial(cluster, kind, version, port=PORT):
    with cluster.node:
        return ClientAddressDialer().dial(
            kind, CLIENTS[version], SocketAddress(PODS[version], port)
        )


def peer_of(server, kind, dialling):
    """Have both sides talk; return whom the server sees."""
    dialling.settimeout(nodes.DEADLINE_S)
    if kind == TCP:
        accepted, peer = server.accept()
        with accepted:
            accepted.sendall(b"answer")
            assert dialling.recv(100) == b"answer"
        return peer[:2]
    dialling.send(b"question")
    _, peer = server.recvfrom(100)
    server.sendto(b"answer", peer)
    assert dialling.recv(100) == b"answer"
    return peer[:2]


@pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    "setting",
    [
        pytest.param("rp_filter=0", id="as-it-is"),
        pytest.param("rp_filter=1", id="strict-reverse-path"),
        pytest.param("src_valid_mark=1", id="marks-count-on-the-way-back"),
    ],
)
def test_an_endpoint_sees_the_client_and_its_answer_comes_to_the_socket(
    cluster, kind, version, setting
):
    cluster.node.run(f"sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.all.{setting}")
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with Catching(cluster), bound(cluster.pod, kind, family) as server:
        dialling, number = dial(cluster, kind, version)
        with socket.socket(fileno=dialling.detach()) as dialling:
            assert number in (0, errno.EINPROGRESS)
            ip, port = peer_of(server, kind, dialling)
    assert (ip, FIRST_PORT <= port <= LAST_PORT) == (CLIENTS[version], True)


@pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.usefixtures("catching")
def test_a_reverse_path_rule_that_uses_the_mark_lets_answers_pass(cluster, kind, version):
    """As firewalld writes it, where it runs behind our rule."""
    check = "fib saddr . mark . iif oif missing drop"
    cluster.node.run("nft add table inet firewalld")
    hook = "type filter hook prerouting priority filter"
    cluster.node.run(f"nft add chain inet firewalld rpf '{{ {hook}; }}'")
    # Neighbour discovery is link-local, and firewalld lets it pass, too.
    cluster.node.run(f"nft add rule inet firewalld rpf meta l4proto '{{ 6, 17 }}' {check}")
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with bound(cluster.pod, kind, family) as server:
        dialling, _ = dial(cluster, kind, version)
        with socket.socket(fileno=dialling.detach()) as dialling:
            assert peer_of(server, kind, dialling)[0] == CLIENTS[version]


@pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.usefixtures("catching")
def test_a_transparent_listener_of_all_addresses_gets_nothing_that_is_passing(
    cluster, kind, version
):
    """Another program's, as whoever redirects with TPROXY has it."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    client = cluster.add_bare_pod()
    cluster.node.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
    cluster.node.run("ip address add fd00:8::1/64 dev cali0 nodad")
    client.run("ip address add fd00:8::2/64 dev eth0 nodad; ip route add default via fd00:8::1")
    listener = (cluster.node.tcp if kind == TCP else cluster.node.udp)(family)
    dialling = (client.tcp if kind == TCP else client.udp)(family)
    with listener, dialling, bound(cluster.pod, kind, family) as server:
        listener.setsockopt(*TRANSPARENT[version], 1)
        listener.bind(("", PORT))
        if kind == TCP:
            listener.listen()
        dialling.connect((PODS[version], PORT))
        peer_of(server, kind, dialling)


def bound(net, kind, family):
    if kind == TCP:
        return nodes.tcp_server(net, PORT, family)
    server = net.udp(family)
    server.bind(("", PORT))
    return server


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.usefixtures("catching")
def test_a_refusal_by_icmp_comes_to_the_socket(cluster, version):
    dialling, _ = dial(cluster, UDP, version, port=9)
    with socket.socket(fileno=dialling.detach()) as dialling:
        dialling.settimeout(nodes.DEADLINE_S)
        dialling.send(b"anybody there?")
        with pytest.raises(ConnectionRefusedError):
            dialling.recv(100)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.usefixtures("catching")
def test_an_answer_in_fragments_is_put_together_though_nobody_tracks_connections(cluster, version):
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with bound(cluster.pod, UDP, family) as server:
        dialling, _ = dial(cluster, UDP, version)
        with socket.socket(fileno=dialling.detach()) as dialling:
            dialling.settimeout(nodes.DEADLINE_S)
            dialling.send(b"question")
            _, peer = server.recvfrom(100)
            server.sendto(bytes(20_000), peer)
            assert len(dialling.recv(65535)) == 20_000


@pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])
@pytest.mark.usefixtures("catching")
def test_no_port_is_taken_that_the_clients_own_kernel_takes(cluster, kind):
    with cluster.node:
        at = SocketAddress(nodes.POD_IP, PORT)
        busy = taken(kind, range(FIRST_PORT, LAST_PORT + 1))
        sock, number = ClientAddressDialer().dial(kind, CLIENTS[4], at)
        assert number == errno.EADDRNOTAVAIL
        for one in (*busy, sock):
            one.close()


@pytest.mark.usefixtures("catching")
def test_a_free_port_among_many_that_are_in_use_is_found(cluster):
    """Whatever the turn is: eight of ten connections to one endpoint stay open."""
    with nodes.tcp_server(cluster.pod, PORT), cluster.node:
        client_dialer = ClientAddressDialer(ClientPorts(61000, 61009))
        at = SocketAddress(nodes.POD_IP, PORT)
        dialled = [client_dialer.dial(TCP, CLIENTS[4], at) for _ in range(8)]
        assert [number for _, number in dialled] == [errno.EINPROGRESS] * 8
        assert len({sock.getsockname()[1] for sock, _ in dialled}) == 8
        for sock, _ in dialled:
            sock.close()


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.usefixtures("catching")
def test_one_port_serves_flows_to_all_endpoints_and_no_two_flows_are_alike(cluster, version):
    """The kernel would let two be alike, and give one of them all answers."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    # As two worker processes have it, each of which knows of its own flows only.
    first, second = (ClientAddressDialer(ClientPorts(61000, 61002)) for _ in range(2))
    dialled = []
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(cluster.pod.udp(family)) for _ in range(3)]
        for server in servers:
            server.bind((PODS[version], 0))
            at = SocketAddress(*server.getsockname()[:2])
            for client_dialer, expected in [
                *[(first, 0)] * 3,
                *[(second, errno.EADDRNOTAVAIL)] * 3,
            ]:
                with cluster.node:
                    sock, number = client_dialer.dial(UDP, CLIENTS[version], at)
                dialling = stack.enter_context(socket.socket(fileno=sock.detach()))
                assert number == expected
                if not number:
                    dialled.append((dialling.getsockname()[1], at))
                    assert peer_of(server, UDP, dialling) == (CLIENTS[version], dialled[-1][0])
    assert len(set(dialled)) == len(dialled) == 9
    ports = [port for port, _ in dialled]
    assert sorted(ports) == [61000] * 3 + [61001] * 3 + [61002] * 3


@pytest.mark.usefixtures("catching")
def test_a_released_port_is_used_again(cluster):
    at = SocketAddress(nodes.POD_IP, PORT)
    client_dialer = ClientAddressDialer(ClientPorts(61000, 61000))
    for _ in range(2):
        with cluster.node:
            sock, _ = client_dialer.dial(UDP, CLIENTS[4], at)
        assert sock.getsockname() == (CLIENTS[4], 61000)
        client_dialer.release(sock, CLIENTS[4], at)
        sock.close()


def taken(kind, ports):
    """Return sockets that have some ports of all addresses."""
    sockets = []
    for port in ports:
        sock = socket.socket(type=kind)
        sock.bind(("", port))
        if kind == TCP:
            sock.listen()
        sockets.append(sock)
    return sockets


def test_without_ipv6_answers_of_ipv4_are_caught_and_those_of_ipv6_once_it_is_there(cluster):
    setting = "sysctl -qw net.ipv6.conf.all.disable_ipv6"
    cluster.node.run(f"{setting}=1")
    with Catching(cluster) as catching:
        assert "rejects IPv6 routes" in catching.without_ipv6
        assert "lookup 11800" in cluster.node.run("ip rule")
        assert "11800" not in cluster.node.run("ip -6 rule")
        assert catching.do("repair") == 0
        with bound(cluster.pod, UDP, socket.AF_INET) as server:
            dialling, _ = dial(cluster, UDP, 4)
            with socket.socket(fileno=dialling.detach()) as dialling:
                assert peer_of(server, UDP, dialling)[0] == CLIENTS[4]
        cluster.node.run(f"{setting}=0")
        assert catching.do("repair") == 4
        assert catching.without_ipv6 == ""
        assert "lookup 11800" in cluster.node.run("ip -6 rule")
        cluster.node.run(f"{setting}=1")
        catching.do("repair")
        assert catching.without_ipv6 != ""


def test_what_is_there_is_as_told_and_all_of_it_goes_again(cluster):
    before = cluster.node.run(SHOW)
    with Catching(cluster) as catching:
        running = cluster.node.run(SHOW)
        assert "table inet userspace-proxy/replies\n" in running
        assert running.count("lookup 11800") == 2
        assert "118:\tfrom all fwmark 0x1000/0x1000 iif lo goto 120 proto 118" in running
        catching.do("start")
        assert cluster.node.run(SHOW) == running
        catching.do("clean_up")
        assert cluster.node.run(SHOW) == before
        catching.do("clean_up")


def test_the_table_goes_with_its_process_and_the_routes_are_taken_over(cluster):
    before = cluster.node.run(SHOW)
    with Catching(cluster):
        running = cluster.node.run(SHOW)
    left = cluster.node.run(SHOW)
    assert "userspace-proxy" not in left
    assert left.count("lookup 11800") == 2
    with Catching(cluster) as catching:
        assert cluster.node.run(SHOW) == running
        catching.do("close")
        catching.do("clean_up")
        assert cluster.node.run(SHOW) == before


def test_a_table_that_an_older_version_left_is_made_anew(cluster):
    cluster.node.run("nft add table inet userspace-proxy/replies '{ chain prerouting { }; }'")
    with Catching(cluster):
        table = cluster.node.run("nft list table inet userspace-proxy/replies")
    assert "flags owner" in table
    assert "socket transparent 1" in table


def test_two_proxies_share_the_routes_and_the_last_one_takes_them_away(cluster):
    before = cluster.node.run(SHOW)
    with Catching(cluster) as one, Catching(cluster, "canary") as other:
        with cluster.node:
            assert REPLY_TABLES.labels_here() == ["", "canary"]
        other.do("clean_up")
        assert "lookup 11800" in cluster.node.run(SHOW)
        one.do("clean_up")
        assert cluster.node.run(SHOW) == before


@pytest.mark.parametrize(
    ("harm", "parts"),
    [
        pytest.param("ip rule del pref 119; ip -6 rule del pref 119", 2, id="rules"),
        pytest.param("ip rule del pref 118; ip rule del pref 120", 2, id="way-back"),
        pytest.param("ip -6 rule del pref 118; ip -6 rule del pref 120", 2, id="way-back-ipv6"),
        pytest.param("ip route flush table 11800", 1, id="route"),
        pytest.param("ip route add 10.9.0.0/24 dev pod0; nft add table ip others", 0, id="others"),
    ],
)
def test_what_others_undo_is_put_right(cluster, catching, harm, parts):
    before = cluster.node.run("nft list ruleset; " + SHOW)
    cluster.node.run(harm)
    assert [catching.do("repair") for _ in range(2)] == [parts, 0]
    assert cluster.node.run("nft list ruleset; " + SHOW) == before or not parts


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param("nft flush ruleset", id="flush-of-everything"),
        pytest.param("nft delete table inet userspace-proxy/replies || true", id="table"),
        pytest.param("nft flush chain inet userspace-proxy/replies prerouting || true", id="chain"),
    ],
)
def test_nobody_else_can_undo_the_table(cluster, catching, harm):
    before = cluster.node.run("nft list ruleset")
    cluster.node.run(harm)
    assert cluster.node.run("nft list ruleset") == before
    assert catching.do("repair") == 0


def test_on_a_kernel_without_owners_the_table_is_put_right(cluster, monkeypatch):
    """An owner's table is refused as such a kernel refuses it: as one with a flag that it lacks."""
    monkeypatch.setattr(writer, "TABLE_OWNED", 1 << 31)
    with Catching(cluster) as catching:
        before = cluster.node.run("nft list ruleset")
        assert "flags owner" not in before
        for harm in ("flush ruleset", "flush chain inet userspace-proxy/replies prerouting"):
            cluster.node.run(f"nft {harm}")
            assert [catching.do("repair") for _ in range(2)] == [1, 0]
            assert cluster.node.run("nft list ruleset") == before
        catching.do("clean_up")
        assert cluster.node.run("nft list tables") == ""


@pytest.mark.usefixtures("catching")
def test_the_table_reads_as_it_was_written(cluster):
    listed = cluster.node.run("nft list table inet userspace-proxy/replies")
    # The first line names the owner's process.
    assert listed.expandtabs(4).partition("\n")[2] == dedent("""\
            flags owner

            chain defragment {
                meta l4proto udp tproxy to :1
            }

            chain prerouting {
                type filter hook prerouting priority dstnat + 1; policy accept;
                meta l4proto { tcp, udp } th dport 61000-65535 socket transparent 1 socket wildcard 0 meta mark set meta mark | 0x00001000
                meta l4proto { icmp, ipv6-icmp } socket transparent 1 socket wildcard 0 meta mark set meta mark | 0x00001000
            }
        }
    """)  # noqa: E501


def test_without_the_right_the_reason_is_told(cluster):
    """As a user without any, in a process of its own."""
    script = (
        "import asyncio; from userspace_proxy.steering import ReplyRouting\n"
        "async def main():\n"
        "    answers = ReplyRouting(); print(await answers.start()); await answers.close()\n"
        "asyncio.run(main())"
    )
    with cluster.node:
        said = subprocess.run(
            ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", script],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
            check=True,
        )
    assert "Operation not permitted" in said.stdout


def test_a_process_without_the_capability_is_told_so(cluster):
    script = (
        "from userspace_proxy.dataplane.client_address import *\n"
        "from userspace_proxy.model import SocketAddress\n"
        "try:\n"
        f"    at = SocketAddress('{nodes.POD_IP}', 80)\n"
        f"    ClientAddressDialer().dial({int(TCP)}, '10.9.9.9', at)\n"
        "except NoClientAddress:\n"
        "    print('told')"
    )
    assert issubclass(NoClientAddress, Exception)
    with cluster.node:
        said = subprocess.run(
            ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", script],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
            check=True,
        )
    assert said.stdout == "told\n"
