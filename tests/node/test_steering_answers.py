"""Answers to clients' own addresses: caught by the kernel, for sockets of the data plane."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys

import pytest
import steering_nodes as nodes

from userspace_proxy.dataplane.preserving import FIRST_PORT, LAST_PORT, NoClientAddress, Preserving
from userspace_proxy.model import SocketAddress
from userspace_proxy.steering import Answers, answers, answers_labels
from userspace_proxy.steering.answers import write_table

pytestmark = pytest.mark.netns

TCP = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
UDP = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
PORT = 8080
# Nobody has it: only the proxy says that it is a client's.
CLIENTS = {4: "10.9.9.9", 6: "fd00:9::9"}
PODS = {4: nodes.POD_IP, 6: nodes.POD_IP6}
# The kernel adds link-local addresses once nobody else has answered for them.
SHOW = (
    "nft list tables; ip rule; ip -6 rule; ip route show table all; "
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
    """Answers that are caught on the node, as by a process that has begun it.

    Args:
        cluster: Its node is meant.
        name: The proxy's.
    """

    def __init__(self, cluster, name=""):
        self._node = cluster.node
        self._runner = asyncio.Runner()
        self._answers = Answers(name)

    def do(self, verb):
        """Call a method of the answers; return what it returns."""
        with self._node:
            return self._runner.run(getattr(self._answers, verb)())

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
        return Preserving().dial(kind, CLIENTS[version], SocketAddress(PODS[version], port))


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


@pytest.mark.usefixtures("catching")
def test_when_all_ports_of_ours_are_taken_the_kernel_chooses_another(cluster):
    cluster.node.run("sysctl -qw net.ipv4.ip_local_port_range='40000 40003'")
    with nodes.tcp_server(cluster.pod, PORT), cluster.node:
        at = SocketAddress(nodes.POD_IP, PORT)
        preserving = Preserving()
        busy = taken(range(FIRST_PORT, LAST_PORT + 1))
        dialled = [preserving.dial(TCP, CLIENTS[4], at) for _ in range(5)]
        ports = {sock.getsockname()[1] for sock, number in dialled if number == errno.EINPROGRESS}
        # And then it has none: no address of the node's in its stead.
        assert ports == {40000, 40001, 40002, 40003}
        assert [number for _, number in dialled][4] == errno.EADDRNOTAVAIL
        for sock in (*busy, *(sock for sock, _ in dialled)):
            sock.close()


def taken(ports):
    """Return listeners that have some ports of all addresses."""
    listeners = []
    for port in ports:
        listener = socket.socket()
        listener.bind(("", port))
        listener.listen()
        listeners.append(listener)
    return listeners


def test_what_is_there_is_as_told_and_all_of_it_goes_again(cluster):
    before = cluster.node.run(SHOW)
    with Catching(cluster) as catching:
        running = cluster.node.run(SHOW)
        assert "table inet userspace-proxy/answers\n" in running
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
    cluster.node.run("nft add table inet userspace-proxy/answers '{ chain prerouting { }; }'")
    with Catching(cluster):
        table = cluster.node.run("nft list table inet userspace-proxy/answers")
    assert "flags owner" in table
    assert "socket transparent 1" in table


def test_two_proxies_share_the_routes_and_the_last_one_takes_them_away(cluster):
    before = cluster.node.run(SHOW)
    with Catching(cluster) as one, Catching(cluster, "canary") as other:
        with cluster.node:
            assert answers_labels() == ["", "canary"]
        other.do("clean_up")
        assert "lookup 11800" in cluster.node.run(SHOW)
        one.do("clean_up")
        assert cluster.node.run(SHOW) == before


@pytest.mark.parametrize(
    ("harm", "parts"),
    [
        pytest.param("ip rule del pref 119; ip -6 rule del pref 119", 2, id="rules"),
        pytest.param("ip rule del pref 118; ip rule del pref 120", 2, id="way-back"),
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
        pytest.param("nft delete table inet userspace-proxy/answers || true", id="table"),
        pytest.param("nft flush chain inet userspace-proxy/answers prerouting || true", id="chain"),
    ],
)
def test_nobody_else_can_undo_the_table(cluster, catching, harm):
    before = cluster.node.run("nft list ruleset")
    cluster.node.run(harm)
    assert cluster.node.run("nft list ruleset") == before
    assert catching.do("repair") == 0


def test_on_a_kernel_without_owners_the_table_is_put_right(cluster, monkeypatch):
    """An owner's table is refused as such a kernel refuses it: by what the commands say."""
    monkeypatch.setattr(answers, "OWNED", "\n\tflags owner, nobody-knows-this-one")
    with Catching(cluster) as catching:
        before = cluster.node.run("nft list ruleset")
        assert "flags owner" not in before
        for harm in ("flush ruleset", "flush chain inet userspace-proxy/answers prerouting"):
            cluster.node.run(f"nft {harm}")
            assert [catching.do("repair") for _ in range(2)] == [1, 0]
            assert cluster.node.run("nft list ruleset") == before
        catching.do("clean_up")
        assert cluster.node.run("nft list tables") == ""


@pytest.mark.usefixtures("catching")
def test_the_table_reads_as_it_was_written(cluster):
    listed = cluster.node.run("nft list table inet userspace-proxy/answers").split()
    for word in write_table("userspace-proxy/answers").split():
        if word.isalpha() and word not in ("add", "delete", "filter"):
            assert word in listed


def test_without_the_right_the_reason_is_told(cluster):
    """As a user without any, in a process of its own."""
    script = (
        "import asyncio; from userspace_proxy.steering import Answers\n"
        "async def main():\n"
        "    answers = Answers(); print(await answers.start()); await answers.close()\n"
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
        "from userspace_proxy.dataplane.preserving import *\n"
        "from userspace_proxy.model import SocketAddress\n"
        "try:\n"
        f"    Preserving().dial({int(TCP)}, '10.9.9.9', SocketAddress('{nodes.POD_IP}', 80))\n"
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
