"""A proxy in front of a real API server; during a fault, it answers instead of the server.

    agent ──TLS, in the node's namespace──▶ ApiProxy ──TLS──▶ kube-apiserver

It has the API server's certificate, because without TLS the agent, like kubectl, would send no
token. Each connection carries one request. A fault is a function of the request; its result
replaces or truncates the server's response. Otherwise, the server's bytes pass unchanged."""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.cluster.control_plane import ControlPlane
from tests.node.clients import Sockets

_HEAD_MAX = 64 << 10
# The interval of checks whether the client or the proxy has closed the connection.
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Request:
    """One request of the agent."""

    at_s: float
    """Monotonic time in seconds."""
    method: str
    path: str
    """The path with its query."""

    @property
    def is_watch(self) -> bool:
        return "watch=1" in self.path or "watch=true" in self.path

    @property
    def resource(self) -> str:
        """The resource in the path, such as ``services``."""
        return self.path.partition("?")[0].rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Answer:
    """A response that replaces or truncates the server's response.

    Args:
        head: The bytes to send first; empty to forward the server's response.
        passed: The number of bytes of the server's response to forward; None for all.
        is_silent: Whether the connection then stays open without further bytes.
    """

    head: bytes = b""
    passed: int | None = 0
    is_silent: bool = False


Fault = Callable[[Request], Answer | None]
"""Returns the response that the agent gets, or None for the server's response."""


class ApiProxy:
    """Accepts connections in a namespace, and forwards requests to a control plane.

    Args:
        sockets: Sockets of the agent's namespace.
        control_plane: The API server, in this process's namespace.
    """

    def __init__(self, sockets: Sockets, control_plane: ControlPlane) -> None:
        self.requests: list[Request] = []
        self._fault: Fault = lambda _request: None
        self._is_silent = False
        self._context = ssl.create_default_context(cafile=control_plane.ca_file)
        self._own_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._own_context.load_cert_chain(
            control_plane.ca_file, control_plane.ca_file.with_suffix(".key")
        )
        self._upstream = urlsplit(control_plane.server)
        self._open: set[socket.socket] = set()
        self._is_closed = threading.Event()
        self._listener = sockets.tcp()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self._listener.settimeout(None)
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def be(self, fault: Fault, *, breaks: bool = True) -> None:
        """Begin a fault; with ``breaks``, reset open connections, so that it affects them."""
        self._fault = fault
        if breaks:
            self.break_off()

    def repair(self) -> None:
        """End the fault, and reset its connections."""
        self.be(lambda _request: None)
        self._is_silent = False

    def stalled(self) -> None:
        """Stop forwarding data on open and new connections, but don't close them."""
        self._is_silent = True

    def break_off(self) -> None:
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                sock.shutdown(socket.SHUT_RDWR)

    def since(self, began_s: float) -> list[Request]:
        """Return the requests since this monotonic time."""
        return [request for request in self.requests if request.at_s >= began_s]

    def close(self) -> None:
        self._is_closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.break_off()

    def _accept(self) -> None:
        while not self._is_closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, accepted: socket.socket) -> None:
        with accepted, contextlib.suppress(OSError):
            accepted.settimeout(30)
            self._answer(self._own_context.wrap_socket(accepted, server_side=True))

    def _answer(self, client: ssl.SSLSocket) -> None:
        self._open.add(client)
        with client, contextlib.suppress(OSError, ValueError):
            head, rest = _read_head(client)
            method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            request = Request(time.monotonic(), method, path)
            self.requests.append(request)
            answer = self._fault(request) or Answer(passed=None)
            client.sendall(answer.head)
            if not answer.head and answer.passed != 0:
                self._pass(client, head, rest, answer.passed)
            while answer.is_silent and not self._is_over(client):
                self._is_closed.wait(_LOOK_S)
        self._open.discard(client)

    def _pass(self, client: socket.socket, head: bytes, body: bytes, most: int | None) -> None:
        """Forward a request, and pass on at most this many bytes of the response (None: all)."""
        address = (self._upstream.hostname or "", self._upstream.port or 443)
        with socket.create_connection(address, 30) as plain:
            server = self._context.wrap_socket(plain, server_hostname=address[0])
            with server:
                server.sendall(_closing(head) + body)
                server.settimeout(_LOOK_S)
                while most is None or most > 0:
                    try:
                        data = server.recv(1 << 16)
                    except TimeoutError:
                        if self._is_over(client):
                            return
                        continue
                    if not data:
                        return
                    while self._is_silent and not self._is_over(client):
                        self._is_closed.wait(_LOOK_S)
                    client.sendall(data[:most])
                    most = None if most is None else most - len(data)

    def _is_over(self, client: socket.socket) -> bool:
        """Return whether the agent or this proxy has closed the connection."""
        if self._is_closed.is_set():
            return True
        # A client sends a TLS alert before its FIN, so unread bytes don't prove that it is open.
        poll = select.poll()
        poll.register(client, select.POLLRDHUP)
        return bool(poll.poll(0))


def respond(code: int, body: object, **headers: str) -> Answer:
    """Return a whole response; bytes are sent unchanged, and other bodies as JSON."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"Content-Type": "application/json", "Content-Length": str(len(text)), **headers}
    named = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    reason = http.client.responses[code]
    head = f"HTTP/1.1 {code} {reason}\r\nConnection: close\r\n{named}\r\n"
    return Answer(head.encode() + text)


def status(code: int, reason: str, message: str) -> dict[str, object]:
    """Return a Status object like the API server's."""
    body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason}
    return {**body, "message": message}


def _closing(head: bytes) -> bytes:
    """Return a request's head that makes the server close the connection after the response."""
    lines = head.rstrip(b"\r\n").split(b"\r\n")
    kept = [line for line in lines if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([*kept, b"Connection: close", b"", b""])


def _read_head(client: socket.socket) -> tuple[bytes, bytes]:
    """Return a request's head up to the empty line, and the part of its body received so far."""
    received = b""
    while b"\r\n\r\n" not in received and len(received) < _HEAD_MAX:
        if not (data := client.recv(1 << 14)):
            raise ValueError("the agent closed the connection")
        received += data
    head, separator, rest = received.partition(b"\r\n\r\n")
    missing = _content_length(head.split(b"\r\n")) - len(rest)
    while missing > 0 and (data := client.recv(missing)):
        rest += data
        missing -= len(data)
    return head + separator, rest


def _content_length(lines: Iterable[bytes]) -> int:
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0
