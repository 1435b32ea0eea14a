"""A node and its pods for the steering tests: network namespaces that a thread can enter.

A socket belongs to the namespace in which it was created, so a test opens it inside ``with pod:``
and uses it anywhere. Every wait has a deadline of :data:`DEADLINE_S`.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.waiting import wait_for
from tests.netns import DEADLINE_S, Net
from tests.node.testbed import as_older_nft_prints, with_sorted_elements
from userspace_proxy.kernel.nf_tables import ruleset as transactions
from userspace_proxy.kernel.socket_options import IP_TRANSPARENT, IPV6_TRANSPARENT

# Python's socket module has this constant only from 3.14 on.
IP_PKTINFO = 8
NODE_IP, POD_IP = "10.1.0.1", "10.1.0.2"
NODE_IP6, POD_IP6 = "fd00:1::1", "fd00:1::2"
BARE_POD_IP = "10.2.0.2"
# Calico's MAC, which makes proxy ARP, and so forwarding, unnecessary here.
BARE_LINK_MAC = "ee:ee:ee:ee:ee:ee"


def need_namespaces() -> None:
    """Skip if namespaces can't be created."""
    try:
        Net("probe").close()
    except OSError as exc:
        pytest.skip(f"no network namespace: {exc.strerror}")


class Cluster:
    """A node, a pod on a numbered interface, and optionally a pod on an unnumbered interface."""

    def __init__(self) -> None:
        self.node, self.pod = Net("node"), Net("pod")
        self.nets = [self.node, self.pod]
        self._link("pod0", self.pod)
        self.node.run(f"""
            ip address add {NODE_IP}/24 dev pod0
            ip address add {NODE_IP6}/64 dev pod0 nodad
            ip link set pod0 up
            ip route add default via {POD_IP}
            ip route add default via {POD_IP6}""")
        self.pod.run(f"""
            ip address add {POD_IP}/24 dev eth0
            ip address add {POD_IP6}/64 dev eth0 nodad
            ip link set eth0 up
            ip route add default via {NODE_IP}
            ip route add default via {NODE_IP6}""")
        # The kernel adds the route after it has detected that the other end of the link is up.
        own = f"local {NODE_IP6} dev pod0"
        wait_for(own, lambda: own in self.node.run("ip -6 route show table local"))

    def add_bare_pod(self) -> Net:
        """Add a pod like Calico's: the node's end of its link has no address."""
        pod = Net("bare-pod")
        self.nets.append(pod)
        self._link("cali0", pod)
        self.node.run(f"""
            ip link set cali0 address {BARE_LINK_MAC} up
            ip route add {BARE_POD_IP} dev cali0 scope link""")
        pod.run(f"""
            ip address add {BARE_POD_IP}/32 dev eth0
            ip link set eth0 up
            ip route add 169.254.1.1 dev eth0 scope link
            ip neighbour add 169.254.1.1 lladdr {BARE_LINK_MAC} dev eth0
            ip route add default via 169.254.1.1 dev eth0""")
        return pod

    def close(self) -> None:
        for net in self.nets:
            net.close()

    def _link(self, name: str, pod: Net) -> None:
        # nsenter passes the other namespace's descriptor to the shell under the same number.
        with self.node:
            command = f"ip link add {name} type veth peer name eth0 netns /proc/self/fd/{pod.fd}"
            subprocess.run(command.split(), pass_fds=[pod.fd], check=True, timeout=DEADLINE_S)


def tcp_server(net: Net, port: int, family: int = socket.AF_INET) -> socket.socket:
    """Return a listener on all addresses."""
    server = net.tcp(family)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("", port))
    server.listen()
    return server


def proxy_listener(net: Net, port: int, family: int = socket.AF_INET) -> socket.socket:
    """Return a listener on all addresses with IP_TRANSPARENT, like the proxy's."""
    server = tcp_server(net, port, family)
    make_transparent(server)
    return server


def make_transparent(sock: socket.socket) -> None:
    """Set IP_TRANSPARENT or IPV6_TRANSPARENT, like on the proxy's own sockets."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)


def can_dial(net: Net, ip: str, port: int) -> bool:
    """Return whether a TCP connection is accepted; False if it is refused."""
    with net.tcp(socket.AF_INET6 if ":" in ip else socket.AF_INET) as client:
        try:
            client.connect((ip, port))
        except ConnectionRefusedError:
            return False
    return True


class UdpServer:
    """A UDP socket on all addresses that replies from the queried address."""

    def __init__(self, net: Net, port: int, family: int = socket.AF_INET) -> None:
        self._socket = net.udp(family)
        if family == socket.AF_INET6:
            self._level, self._info = socket.IPPROTO_IPV6, socket.IPV6_PKTINFO
            self._socket.setsockopt(self._level, socket.IPV6_RECVPKTINFO, 1)
        else:
            self._level, self._info = socket.IPPROTO_IP, IP_PKTINFO
            self._socket.setsockopt(self._level, IP_PKTINFO, 1)
        make_transparent(self._socket)
        self._socket.bind(("", port))

    def answer(self, data: bytes) -> bytes:
        """Wait for a datagram, send data back, and return the received data."""
        asked, ancillary, _flags, client = self._socket.recvmsg(2048, 256)
        packed = ancillary[0][2]
        if self._level == socket.IPPROTO_IPV6:
            info = packed[:16] + struct.pack("=I", 0)
        else:
            # in_pktinfo: ifindex 0, then the local address as the source of the reply.
            info = struct.pack("=I", 0) + packed[4:8] + bytes(4)
        self._socket.sendmsg([data], [(self._level, self._info, info)], 0, client)
        return asked

    def close(self) -> None:
        self._socket.close()


def exchange(client: socket.socket, server: UdpServer) -> bool:
    """Return whether a query of a connected client reaches a server and is answered."""
    client.send(b"question")
    return server.answer(b"answer") == b"question" and client.recv(2048) == b"answer"


def is_refused(client: socket.socket) -> bool:
    """Return whether a connected client's datagram is answered with port unreachable."""
    client.send(b"question")
    try:
        client.recv(2048)
    except ConnectionRefusedError:
        return True
    return False


def tables(net: Net) -> str:
    """Return all legacy rules as text, without counters, comments and empty built-in tables."""
    text = net.run(
        "for save in iptables-legacy-save ip6tables-legacy-save; do $save; done"
        r" | sed -e '/^#/d' -e 's/ \[[0-9:]*\]$//'"
    )
    return "".join(
        f"*{table}"
        for table in text.split("*")[1:]
        if any(line.startswith("-A") or " - " in f"{line} " for line in table.splitlines())
        or "DROP" in table
    )


def ruleset(net: Net) -> str:
    """Return all tables of nftables as text, without counters."""
    return as_older_nft_prints(with_sorted_elements(net.run("nft -s list ruleset")))


def own_name() -> str:
    """Return this process's name in the kernel."""
    return Path("/proc/self/comm").read_text(encoding="utf-8").strip()


def wait_until_dead(pid: int) -> None:
    """Wait until a child has died, without reaping it."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


@contextmanager
def unusable_lock(path: Path) -> Iterator[None]:
    """Within the block, make the xtables lock unusable, which the helper opens for each change."""
    path.unlink()
    path.mkdir()
    yield
    path.rmdir()


@contextmanager
def refused_transactions() -> Iterator[None]:
    """Make the kernel refuse each nftables transaction of this process."""
    no_such_subsystem = bytes([0, 0, 0, 255])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transactions, "_FRAME", no_such_subsystem)
        yield
