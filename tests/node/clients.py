"""Creates clients' sockets in the namespaces of a sandbox, and dials with them.

A socket belongs to the namespace in which it was created, so a small process in each namespace
creates sockets and passes them to the test, which uses them like its own. All waits have deadlines.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
import threading
from collections.abc import Callable, Iterator

from userspace_proxy_testing.sandbox import Host, Namespace, Pod

DEADLINE_S = 120.0
_MAX_DATAGRAM = 65535
_CREATOR = """\
import socket, sys
peer = socket.socket(fileno=int(sys.argv[1]))
while asked := peer.recv(2):
    with socket.socket(*asked) as created:
        socket.send_fds(peer, [b"."], [created.fileno()])
"""


class Sockets:
    """Creates sockets in another process's namespace."""

    def __init__(self, namespace: Namespace) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-IS", "-c", _CREATOR, str(theirs.fileno())]
            namespace.popen(command, pass_fds=[theirs.fileno()])
        ours.settimeout(DEADLINE_S)
        self._peer = ours
        # Several threads may request sockets at once, and each must get its own.
        self._lock = threading.Lock()

    def tcp(self, ip: str = "") -> socket.socket:
        """Return a TCP socket of that namespace; its family is the address's, by default IPv4."""
        return self._create(socket.SOCK_STREAM, family_of(ip))

    def udp(self, ip: str = "") -> socket.socket:
        """Return a UDP socket of that namespace; its family is the address's, by default IPv4."""
        return self._create(socket.SOCK_DGRAM, family_of(ip))

    def unix(self) -> socket.socket:
        """Return a Unix socket, which can connect to abstract names of that namespace."""
        return self._create(socket.SOCK_STREAM, socket.AF_UNIX)

    def close(self) -> None:
        self._peer.close()

    def _create(self, kind: int, family: int = socket.AF_INET) -> socket.socket:
        with self._lock:
            self._peer.send(bytes([family, kind]))
            _, descriptors, _, _ = socket.recv_fds(self._peer, 1, 1)
        created = socket.socket(fileno=descriptors[0])
        created.settimeout(DEADLINE_S)
        return created


class Client:
    """A host that dials: a pod, the node, or a machine outside."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.name = host.name
        self._sockets = Sockets(host)
        self._open: list[socket.socket] = []

    def dial(self, address: tuple[str, int], *, port: int = 0) -> socket.socket:
        """Return a TCP connection, which is closed with the client; OSError if the dial fails.

        Args:
            port: The source port; 0 for any.
        """
        sock = self._keep(self._dialler(address[0], port))
        sock.connect(address)
        return sock

    def dial_without_answer(self, address: tuple[str, int], *, port: int) -> None:
        """Send a SYN to an address that doesn't answer, and close the socket."""
        with self._dialler(address[0], port) as sock:
            sock.setblocking(False)
            assert sock.connect_ex(address) == errno.EINPROGRESS

    def udp(self, address: tuple[str, int]) -> socket.socket:
        """Return a connected UDP socket with its own source port; closed with the client."""
        sock = self._keep(self._sockets.udp(address[0]))
        sock.connect(address)
        return sock

    def get(self, address: tuple[str, int], *, port: int = 0) -> str:
        """Return a web server's answer to one request on a new connection.

        Args:
            port: The source port; 0 for any.
        """
        sock = self._dialler(address[0], port) if port else self.tcp(address[0])
        return http_get(sock, address, "/")[1].strip()

    def tcp(self, ip: str = "") -> socket.socket:
        """Return a new TCP socket, of the family of an address; the caller closes it."""
        return self._sockets.tcp(ip)

    def new_udp(self, ip: str = "") -> socket.socket:
        """Return a new unconnected UDP socket; the caller closes it."""
        return self._sockets.udp(ip)

    def asks(self, address: tuple[str, int], text: bytes = b"hello") -> str:
        """Return a UDP server's answer to one datagram from a new source port."""
        with self._sockets.udp(address[0]) as sock:
            sock.connect(address)
            return ask(sock, text).decode()

    def tcp_refusal(self, address: tuple[str, int], *, port: int = 0) -> str:
        """Return the result of a dial: ``refused``, ``accepted``, or the kernel's error text."""
        with self._dialler(address[0], port) if port else self.tcp(address[0]) as sock:
            try:
                sock.connect(address)
            except ConnectionRefusedError:
                return "refused"
            except OSError as exc:
                return str(exc)
            return "accepted"

    def udp_refusal(self, address: tuple[str, int]) -> str:
        """Return the result of a query: ``refused``, ``answered``, or the kernel's error text."""
        with self._sockets.udp(address[0]) as sock:
            sock.connect(address)
            return refusal(sock)

    def hang_up(self) -> None:
        """Close all open connections."""
        for sock in self._open:
            sock.close()
        self._open.clear()

    def close(self) -> None:
        self.hang_up()
        self._sockets.close()

    def _dialler(self, ip: str, port: int) -> socket.socket:
        sock = self._sockets.tcp(ip)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("", port))
        return sock

    def _keep(self, sock: socket.socket) -> socket.socket:
        self._open.append(sock)
        return sock


def family_of(ip: str) -> int:
    """Return the family of an address; an empty address counts as IPv4."""
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


def ask(sock: socket.socket, text: bytes = b"hello") -> bytes:
    """Send a datagram on a connected socket and return the answer."""
    sock.send(text)
    return sock.recv(_MAX_DATAGRAM)


def echoes(sock: socket.socket) -> bool:
    """Return whether a connection to an echo server returns the sent bytes."""
    sock.sendall(b"hello")
    return sock.recv(100) == b"hello"


def refusal(sock: socket.socket) -> str:
    """Return the result of a datagram on a connected socket, like :meth:`Client.udp_refusal`."""
    try:
        ask(sock)
    except ConnectionRefusedError:
        return "refused"
    except OSError as exc:
        return str(exc)
    return "answered"


def http_get(sock: socket.socket, address: tuple[str, int], path: str) -> tuple[int, str]:
    """Send one request on a new socket; return status and body, and close the socket."""
    with sock:
        sock.connect(address)
        sock.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        head, _, body = read_all(sock).partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


def read_all(sock: socket.socket) -> bytes:
    """Read until the peer's FIN; return the data."""
    chunks = []
    while chunk := sock.recv(1 << 20):
        chunks.append(chunk)
    return b"".join(chunks)


@contextlib.contextmanager
def repeated(act: Callable[[], str], *, pause_s: float = 0.0) -> Iterator[list[str]]:
    """Call a function repeatedly in a thread; yield the growing list of results and OSErrors."""
    seen: list[str] = []
    is_over = threading.Event()

    def run() -> None:
        while not is_over.wait(pause_s):
            try:
                seen.append(act())
            except OSError as exc:
                seen.append(str(exc))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        thread.join(DEADLINE_S)


def listen(pod: Pod, port: int) -> socket.socket:
    sockets = Sockets(pod)
    server = sockets.tcp()
    sockets.close()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((str(pod.ip), port))
    server.listen()
    return server
