"""The servers, filters and links behind ``wrong_services``: a pod's behaviour on each port.

Mistake ──target──▶ port of "pod" ──▶ hangs, resets, ends, filters, answers from elsewhere
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

SERVING, CLOSED, HANGING, LATE_CLOSING = 80, 8080, 9100, 9102
LOCAL_ONLY, OTHER_SOURCE, ONE_WAY = 9103, 9106, 9108
RESETTING_SOME, ANSWERING_SOME, HANGING_SOME, CUTTING_SOME = 9109, 9111, 9112, 9113
BLOCKED_HERE, ANSWERING_EMPTY, ANSWERING_LATE = range(9114, 9117)
"""Ports of the pod "pod"."""
LINK, ABSENT = "eth9", "10.99.0.77"
"""A link of the node without hosts, and an address in its network."""
UNROUTED = "10.98.0.5"
RESET = struct.pack("ii", True, 0)
"""A value of SO_LINGER: the close sends a RST."""
_TURN_S = 0.2
_LATE_S = 4.0


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
        self._serve(self._listen(LATE_CLOSING), _read_to_the_end)
        self._serve(self._listen(ONE_WAY), _read_to_the_end)
        self._serve(self._listen(RESETTING_SOME), _answer_every_other(_reset))
        self._serve(self._listen(HANGING_SOME), _answer_every_other(_read_to_the_end))
        self._serve(self._listen(CUTTING_SOME), _answer_every_other(_begin_and_reset))
        lossy = self._udp(ANSWERING_SOME)
        self._repeat(lossy, _answer_every_fourth(lossy))
        late = self._udp(ANSWERING_LATE)
        self._repeat(late, lambda: self._answer_late(late))
        empty = self._udp(ANSWERING_EMPTY)
        self._repeat(empty, lambda: empty.sendto(b"", empty.recvfrom(4096)[1]))
        asked = self._udp(OTHER_SOURCE)
        other = self._udp(OTHER_SOURCE + 100)
        self._repeat(asked, lambda: other.sendto(*asked.recvfrom(4096)))
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

    def _answer_late(self, server: socket.socket) -> None:
        timer = threading.Timer(_LATE_S, server.sendto, server.recvfrom(4096))
        # The timer's thread has ended before the socket is closed.
        self._stack.callback(timer.join)
        timer.start()

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


def _reset(accepted: socket.socket) -> None:
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def _begin_and_reset(accepted: socket.socket) -> None:
    accepted.sendall(b"HTTP/1.0 200 OK\r\nContent-Le")
    _reset(accepted)


def _read_to_the_end(accepted: socket.socket) -> None:
    while accepted.recv(4096):
        pass


def _answer_every_fourth(server: socket.socket) -> Callable[[], None]:
    turns = itertools.cycle((False, False, False, True))

    def answer() -> None:
        data, client = server.recvfrom(4096)
        if next(turns):
            server.sendto(data, client)

    return answer


def _answer_every_other(
    instead: Callable[[socket.socket], None],
) -> Callable[[socket.socket], None]:
    turns = itertools.cycle((False, True))

    def handle(accepted: socket.socket) -> None:
        accepted.recv(4096)
        if next(turns):
            accepted.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
        else:
            instead(accepted)

    return handle
