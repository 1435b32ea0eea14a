"""Dials from clients' own addresses, whose replies arrive at the data plane's sockets."""

import errno
import socket

import pytest
import steering_nodes as nodes
from steering_replies import CLIENTS, PODS, PORT, TCP, UDP, Catching, bound, dial, peer_of

from userspace_proxy.policy.locality import FIRST_PORT, LAST_PORT

pytestmark = pytest.mark.netns
# Source: linux/in.h, linux/in6.h.
TRANSPARENT = {4: (socket.IPPROTO_IP, 19), 6: (socket.IPPROTO_IPV6, 75)}


@pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    "setting",
    [
        pytest.param("rp_filter=0", id="no-reverse-path", marks=pytest.mark.kernel),
        pytest.param("rp_filter=1", id="strict-reverse-path"),
        pytest.param("src_valid_mark=1", id="mark-in-reverse-path"),
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
def test_a_reverse_path_filter_using_the_mark_admits_replies(cluster, kind, version):
    """The filter is like firewalld's, and is evaluated after the proxy's rule."""
    check = "fib saddr . mark . iif oif missing drop"
    cluster.node.run("nft add table inet firewalld")
    hook = "type filter hook prerouting priority filter"
    cluster.node.run(f"nft add chain inet firewalld rpf '{{ {hook}; }}'")
    # Neighbour discovery is link-local; firewalld accepts it, too.
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
    """The listener belongs to another program, such as a transparent proxy."""
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
def test_an_icmp_refusal_reaches_the_socket(cluster, version):
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
