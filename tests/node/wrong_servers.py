"""The servers, filters and links behind ``wrong_services``: a pod's behaviour on each port.

Mistake ──target──▶ port of "pod" ──▶ hangs, loses requests, filters
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
from collections.abc import Callable

from tests.node.clients import DEADLINE_S, Sockets
from tests.node.testbed import Testbed

SERVING, CLOSED, HANGING, LOCAL_ONLY = 80, 8080, 9100, 9103
ANSWERING_SOME, HANGING_SOME, BLOCKED_HERE = 9111, 9112, 9114
"""Ports of the pod "pod"."""
LINK, ABSENT = "eth9", "10.99.0.77"
"""A link of the node without hosts, and an address in its network."""
UNROUTED = "10.98.0.5"
RESET = struct.pack("ii", True, 0)
"""The value of SO_LINGER with which closing a socket sends a RST."""
_TURN_S = 0.2


class WrongServers:
    """The behaviour of the pod's ports that the sandbox's own backends don't have."""

    def __init__(self, testbed: Testbed) -> None:
        pod = testbed.pod("pod")
        self._ip = str(pod.ip)
        self._is_over = False
        self._stack = contextlib.ExitStack()
        self._sockets = Sockets(pod)
        self._stack.callback(self._sockets.close)
        # The kernel accepts clients, up to the backlog, and no program reads.
        self._listen(HANGING)
        self._listen(LOCAL_ONLY, "127.0.0.1")
        self._serve(self._listen(HANGING_SOME), _answer_every_other())
        lossy = self._udp(ANSWERING_SOME)
        self._repeat(lossy, _answer_every_fourth(lossy))
        testbed.shell(_NODE)

    def close(self) -> None:
        self._is_over = True
        self._stack.close()

    def _listen(self, port: int, ip: str = "") -> socket.socket:
        server = self._stack.enter_context(self._sockets.tcp())
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((ip or self._ip, port))
        server.listen(64)
        return server

    def _udp(self, port: int) -> socket.socket:
        server = self._stack.enter_context(self._sockets.udp())
        server.bind((self._ip, port))
        return server

    def _serve(self, server: socket.socket, handle: Callable[[socket.socket], None]) -> None:
        def accept() -> None:
            accepted, _ = server.accept()
            with accepted:
                accepted.settimeout(DEADLINE_S)
                handle(accepted)

        self._repeat(server, accept)

    def _repeat(self, server: socket.socket, step: Callable[[], object]) -> None:
        """Repeat a step that waits for a socket, in a thread that ends with this object."""
        server.settimeout(_TURN_S)

        def run() -> None:
            while not self._is_over:
                with contextlib.suppress(OSError):
                    step()

        thread = threading.Thread(target=run)
        self._stack.callback(thread.join)
        thread.start()


_NODE = (
    f"ip link add {LINK} type veth peer name far9; ip link set {LINK} up; ip link set far9 up; "
    f"sysctl -qw net.ipv4.conf.far9.arp_ignore=8; ip address add 10.99.0.1/24 dev {LINK}; "
    # This route takes precedence over the default route.
    f"ip route add throw {UNROUTED}; "
    "nft add table ip hardening; "
    "nft add chain ip hardening out '{ type filter hook output priority 0; }'; "
    f"nft add rule ip hardening out udp dport {BLOCKED_HERE} drop"
)


def _answer_every_fourth(server: socket.socket) -> Callable[[], None]:
    turns = itertools.cycle((False, False, False, True))

    def answer() -> None:
        data, client = server.recvfrom(4096)
        if next(turns):
            server.sendto(data, client)

    return answer


def _answer_every_other() -> Callable[[socket.socket], None]:
    turns = itertools.cycle((False, True))

    def handle(accepted: socket.socket) -> None:
        accepted.recv(4096)
        if next(turns):
            accepted.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
        else:
            while accepted.recv(4096):
                pass

    return handle
