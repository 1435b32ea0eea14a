"""Dials at clients' own addresses, whose replies come to sockets of the data plane."""

import contextlib
import errno
import socket

import pytest
import steering_nodes as nodes
from steering_replies import CLIENTS, PODS, PORT, TCP, UDP, Catching, bound, dial, peer_of

from tests.node.processes import run_without_capabilities
from userspace_proxy.dataplane.client_address import ClientAddressDialer, NoClientAddress
from userspace_proxy.dataplane.client_ports import ClientPorts
from userspace_proxy.model import SocketAddress
from userspace_proxy.policy.locality import FIRST_PORT, LAST_PORT

pytestmark = pytest.mark.netns
# linux/in.h, linux/in6.h.
TRANSPARENT = {4: (socket.IPPROTO_IP, 19), 6: (socket.IPPROTO_IPV6, 75)}


@pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    "setting",
    [
        pytest.param("rp_filter=0", id="as-it-is", marks=pytest.mark.kernel),
        pytest.param("rp_filter=1", id="strict-reverse-path"),
        pytest.param("src_valid_mark=1", id="marks-count-on-the-way-back"),
    ],
)
def test_an_endpoint_sees_the_client_and_its_reply_reaches_the_socket(
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
def test_a_reverse_path_rule_that_uses_the_mark_admits_replies(cluster, kind, version):
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
def test_a_transparent_listener_on_all_addresses_gets_no_forwarded_packets(cluster, kind, version):
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


@pytest.mark.kernel
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.usefixtures("catching")
def test_a_refusal_by_icmp_reaches_the_socket(cluster, version):
    dialling, _ = dial(cluster, UDP, version, port=9)
    with socket.socket(fileno=dialling.detach()) as dialling:
        dialling.settimeout(nodes.DEADLINE_S)
        dialling.send(b"anybody there?")
        with pytest.raises(ConnectionRefusedError):
            dialling.recv(100)


@pytest.mark.kernel
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.usefixtures("catching")
def test_a_fragmented_reply_is_reassembled_without_connection_tracking(cluster, version):
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
def test_no_port_of_the_clients_own_range_is_used(cluster, kind):
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
def test_one_port_serves_flows_to_all_endpoints_and_no_two_flows_are_equal(cluster, version):
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
    sockets = []
    for port in ports:
        sock = socket.socket(type=kind)
        sock.bind(("", port))
        if kind == TCP:
            sock.listen()
        sockets.append(sock)
    return sockets


def test_a_process_without_the_capability_gets_an_error(cluster):
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
        said = run_without_capabilities(script)
    assert said == "told\n"
