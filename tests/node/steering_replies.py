"""Catches replies to clients' own addresses on a node, and dials from such addresses."""

import asyncio
import os
import socket

import steering_nodes as nodes

from userspace_proxy.dataplane.calls import SystemCalls
from userspace_proxy.dataplane.client_address import ClientAddressDialer
from userspace_proxy.model import SocketAddress
from userspace_proxy.steering import ReplyRouting

KERNEL = SystemCalls(1)
TCP = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
UDP = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
PORT = 8080
# No interface has these addresses: only the proxy uses them, as client addresses.
CLIENTS = {4: "10.9.9.9", 6: "fd00:9::9"}
PODS = {4: nodes.POD_IP, 6: nodes.POD_IP6}
# The kernel adds link-local routes only after duplicate address detection, and clears linkdown only
# some time after the fixture, so the dump omits both.
SHOW = (
    "nft list tables; ip rule; ip -6 rule; ip -4 route show table all | sed 's/ linkdown//'; "
    "ip -6 route show table all | grep -v 'proto kernel' | sed 's/ linkdown//'"
)


class Catching:
    """Reply routing on the node, as configured by one process.

    Args:
        cluster: The cluster of the node.
        name: The proxy's name.
    """

    def __init__(self, cluster, name=""):
        self._node = cluster.node
        self._runner = asyncio.Runner()
        self._answers = ReplyRouting(name)

    def do(self, verb):
        """Call a method of the reply routing, and return the result."""
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


def dial(cluster, kind, version, port=PORT):
    with cluster.node:
        dialer, at = ClientAddressDialer(KERNEL), SocketAddress(PODS[version], port)
        client = CLIENTS[version]
        fd = dialer.dial_flow(client, at) if kind == UDP else dialer.dial(client, at, False)
        assert fd >= 0, os.strerror(-fd)
        sock = KERNEL.socket(fd)
        KERNEL.disown(fd)
        return sock, 0


def peer_of(server, kind, dialling):
    """Exchange data in both directions; return the peer address that the server sees."""
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


def bound(net, kind, family):
    if kind == TCP:
        return nodes.tcp_server(net, PORT, family)
    server = net.udp(family)
    server.bind(("", PORT))
    return server
