"""A client in a pod of a network; it dials, or runs programs in the pod."""

from __future__ import annotations

import argparse
import socket
import subprocess
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from userspace_proxy.embedding.arguments import is_address
from userspace_proxy.model.addresses import is_ip

from .node_process import NodeProcess
from .places import family_of
from .sandbox.client import fetch, split
from .services import ProxiedService

if TYPE_CHECKING:
    from .sandbox import Pod

Dialled = ProxiedService | str | tuple[str, int]
"""A Service, ``host:port``, or a tuple of both; the host is an IP address or a name."""

_TIMEOUT_S = 5.0
_RUN_TIMEOUT_S = 30.0
_EXPECTED = "expected a Service, host:port, or a tuple of both"
_TYPES = {"TCP": socket.SOCK_STREAM, "UDP": socket.SOCK_DGRAM}


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A web server's response."""

    status: int
    headers: Mapping[str, str]
    """Header values, keyed by lower-case name."""
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode(errors="replace")


class NetworkClient:
    """A client in a pod.

    Args:
        namespace: The Kubernetes namespace for short names.
        files: The resolver's configuration files for the client's programs, by path.
    """

    def __init__(
        self,
        name: str,
        pod: Pod,
        process: NodeProcess,
        *,
        namespace: str,
        files: Mapping[str, Path],
    ) -> None:
        self.name = name
        self.namespace = namespace
        self.pod = pod
        """The client's network namespace, which a test may configure."""
        self._process = process
        self._files = files
        self._open: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def __repr__(self) -> str:
        return f"<NetworkClient {self.name} at {self.pod.ip}, namespace {self.namespace}>"

    @property
    def ip(self) -> str:
        """The IPv4 address."""
        return str(self.pod.ip)

    def get(
        self, url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float = _TIMEOUT_S
    ) -> HttpResponse:
        """GET a web server's URL over a new connection; any status is an answer.

        Args:
            url: The URL, such as ``web.url`` or ``http://web.shop/cart``.

        Raises:
            ValueError: The URL isn't ``http://``.
            OSError, HTTPException: The connection failed, ended early, or got no HTTP answer.
        """
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            hint = "run a program, such as curl, by client.run()"
            raise ValueError(f"cannot get {url!r}: expected http://HOST; {hint} for anything else")
        sock = self.connect((parts.hostname, parts.port or 80), timeout_s=timeout_s)
        answer, body = fetch(url, sock, headers)
        received = {name.lower(): value for name, value in answer.getheaders()}
        return HttpResponse(answer.status, received, body)

    def connect(
        self, to: Dialled, *, protocol: str | None = None, timeout_s: float = _TIMEOUT_S
    ) -> socket.socket:
        """Return a connected socket of the pod; the network closes the socket if the test doesn't.

        Coroutines can use it with ``asyncio.open_connection(sock=…)``.

        Args:
            protocol: ``TCP`` or ``UDP``; None for a Service's own protocol, or else TCP.
            timeout_s: The timeout for the dial, and for each later call on the socket.

        Raises:
            OSError: The kernel's error; ``socket.gaierror`` if a name is unknown.
            TypeError, ValueError: The address or the protocol is invalid.
        """
        if protocol is None:
            protocol = to.protocol if isinstance(to, ProxiedService) else "TCP"
        if protocol not in _TYPES:
            raise ValueError(f"protocol: {protocol!r} is not TCP or UDP")
        type_ = _TYPES[protocol]
        failed: OSError | None = None
        for host, port in self._addresses(to, type_):
            sock = self._process.open_socket(self.pod, family_of(host), type_)
            try:
                sock.settimeout(timeout_s)
                sock.connect((host, port))
            except OSError as exc:
                sock.close()
                failed = exc
            else:
                self._open.add(sock)
                return sock
        assert failed is not None, "a name has at least one address"
        raise failed

    def run(
        self,
        argv: Sequence[str],
        *,
        input: str | None = None,  # noqa: A002 - as in subprocess.run
        check: bool = True,
        timeout_s: float = _RUN_TIMEOUT_S,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the pod, where Services' names resolve.

        Returns:
            The exit status and the output as text.

        Raises:
            SandboxError: The command took too long, or with ``check`` failed (the message contains
                its last output line).
        """
        return self.pod.run(
            argv, input=input, check=check, timeout=timeout_s, env=env, files=self._files
        )

    def close(self) -> None:
        """Close the client's sockets, which would keep the pod's namespace alive. Idempotent."""
        for sock in self._open:
            sock.close()

    def _addresses(self, to: Dialled, type_: socket.SocketKind) -> list[tuple[str, int]]:
        if isinstance(to, ProxiedService):
            return [to.address]
        if isinstance(to, str):
            try:
                to = split(to)
            except argparse.ArgumentTypeError:
                raise ValueError(f"cannot connect to {to!r}: {_EXPECTED}") from None
        if not is_address(to):
            raise TypeError(f"cannot connect to {to!r}: {_EXPECTED}")
        host, port = to[:2]
        if is_ip(host):
            return [(host, port)]
        try:
            infos = self._process.look_up(host, port, type_, self.namespace)
        except socket.gaierror as exc:
            what = f"cannot look up {host!r} in namespace {self.namespace}: {exc.strerror}"
            raise socket.gaierror(exc.errno, what) from None
        return [(info[4][0], info[4][1]) for info in infos]
