"""A pod's servers that count how clients behave, as MySQL and a systemd socket do.

    a client ──SYN──▶ kernel of the pod ──accept──▶ greeting ──▶ the client's half, or an abort

MySQL counts each connection that ends before the client's half of the handshake, and at 100 of them
(``max_connect_errors``) it refuses that host. A socket unit with Accept=yes starts a process for
each accepted connection. Both begin with ``accept``.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading

from tests.node.clients import Sockets
from userspace_proxy_testing.sandbox import Pod

GREETING, LOGIN, WELCOME = b"8.0.0-greeting\n", b"login\n", b"ok\n"
_SERVED_WITHIN_S = 60.0


class CountingServer:
    """Listens on one port of both addresses of a pod until :meth:`close`."""

    def __init__(self, pod: Pod, port: int) -> None:
        self.pod = pod
        self.accepted: list[str] = []
        """The address of each accepted client, in order."""
        self.aborted: list[str] = []
        """The addresses of clients that closed before sending their half of the handshake."""
        self._stack = contextlib.ExitStack()
        ours, self._stop = socket.socketpair()
        self._stack.callback(ours.close)
        with contextlib.closing(Sockets(pod)) as sockets:
            servers = [self._listen(sockets, ip, port) for ip in (self.ip(4), self.ip(6))]
        thread = threading.Thread(target=self._serve, args=(servers, ours))
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(self._stop.close)

    def ip(self, version: int) -> str:
        """Return the pod's address of a family."""
        return str(self.pod.ip if version == 4 else self.pod.ip6)

    def close(self) -> None:
        """Close the server after the connection that it is serving."""
        self._stack.close()

    def _listen(self, sockets: Sockets, ip: str, port: int) -> socket.socket:
        server = self._stack.enter_context(sockets.tcp(ip))
        server.bind((ip, port))
        server.listen(128)
        return server

    def _serve(self, servers: list[socket.socket], stop: socket.socket) -> None:
        while stop not in (ready := select.select([*servers, stop], [], [])[0]):
            for server in ready:
                accepted, (client, *_) = server.accept()
                self.accepted.append(client)
                with accepted:
                    accepted.settimeout(_SERVED_WITHIN_S)
                    if not _shakes_hands(accepted):
                        self.aborted.append(client)


def _shakes_hands(accepted: socket.socket) -> bool:
    """Greet a client; return whether it has sent its half of the handshake."""
    with contextlib.suppress(OSError):
        accepted.sendall(GREETING)
        if accepted.recv(100):
            accepted.sendall(WELCOME)
            return True
    return False
