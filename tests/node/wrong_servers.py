"""The servers, filters and links of ``wrong_services``, which define each port's response.

Mistake ──target──▶ port of "pod" ──▶ hangs, is filtered
"""

from __future__ import annotations

import contextlib
import socket
import struct

from tests.node.clients import Sockets
from tests.node.testbed import Testbed

SERVING, CLOSED, HANGING, LOCAL_ONLY = 80, 8080, 9100, 9103
BLOCKED_HERE = 9114
"""Ports of the pod "pod"."""
LINK, ABSENT = "eth9", "10.99.0.77"
"""A link of the node without hosts, and an address in its network."""
UNROUTED, BLACKHOLED = "10.98.0.5", "10.98.0.6"
RESET = struct.pack("ii", True, 0)
"""The value of SO_LINGER with which closing a socket sends a RST."""


class WrongServers:
    """Servers and rules of the pod "pod" and the node that the sandbox doesn't provide."""

    def __init__(self, testbed: Testbed) -> None:
        pod = testbed.pod("pod")
        self._ip = str(pod.ip)
        self._stack = contextlib.ExitStack()
        self._sockets = Sockets(pod)
        self._stack.callback(self._sockets.close)
        # The kernel accepts clients, up to the backlog, and no program reads.
        self._listen(HANGING)
        self._listen(LOCAL_ONLY, "127.0.0.1")
        testbed.shell(_NODE)

    def close(self) -> None:
        self._stack.close()

    def _listen(self, port: int, ip: str = "") -> socket.socket:
        server = self._stack.enter_context(self._sockets.tcp())
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((ip or self._ip, port))
        server.listen(64)
        return server


_NODE = (
    f"ip link add {LINK} type veth peer name far9; ip link set {LINK} up; ip link set far9 up; "
    f"sysctl -qw net.ipv4.conf.far9.arp_ignore=8; ip address add 10.99.0.1/24 dev {LINK}; "
    # This route takes precedence over the default route.
    f"ip route add throw {UNROUTED}; ip route add blackhole {BLACKHOLED}; "
    "nft add table ip hardening; "
    "nft add chain ip hardening out '{ type filter hook output priority 0; }'; "
    f"nft add rule ip hardening out udp dport {BLOCKED_HERE} drop"
)
