"""Reads from the admin address of a running proxy, over plain HTTP.

Rule 1: this client uses a plain socket, because aiohttp, which API server clients use, takes ten
times as long to import.
Rule 2: an error about the connection is one line with the address and, if known, the remedy.
Rule 3: any process may listen there, so the size of an answer is limited, and at an address that
``--server`` doesn't name, only a process of root or of this user is trusted.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from ..config.settings import Settings
from ..config.values import InheritedSocket
from ..errors import ConfigError, UserspaceProxyError
from ..linux import is_linux
from ..model import SocketAddress
from ..status.http_answer import (
    LEVEL_HEADER,
    PIECE_BYTES,
    Bounds,
    HttpAnswer,
    TooLarge,
    Unreadable,
    request_for,
)
from .command import PROGRAM, Given
from .service_argument import NoSuchService

# The timeout of each step. JSON for 10,000 Services takes about a second, more on a busy node.
_TIMEOUT_S = 20.0


# The maximum size of an answer, to limit memory; JSON for 10,000 Services takes 20 MB and more.
_MAX_BYTES = 512 * 1024 * 1024
# The maximum number of bytes of a server's error message that are shown.
_MAX_SAID = 300


@dataclass(frozen=True, slots=True)
class AdminAnswer:
    """One answer of a proxy."""

    body: bytes
    level: str
    """``ok``, ``attention`` or ``trouble``; empty if the answer has no level."""

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")


class NotAnswered(UserspaceProxyError):
    """No proxy answers on the address."""


class AdminAddress:
    """The address of a proxy's status server, with a timeout for each step of a request."""

    def __init__(
        self, host: str, port: int, *, timeout_s: float = _TIMEOUT_S, is_named: bool = True
    ) -> None:
        self.host = host
        self._is_named = is_named
        self.port = port
        self._timeout_s = timeout_s

    def __str__(self) -> str:
        return str(SocketAddress(self.host, self.port))

    def get(self, path: str, *, accept: str, **query: str) -> AdminAnswer:
        """Request one path, and return the answer.

        Args:
            accept: The media type to request; other types are rejected.
            query: The values of the query string; empty values are omitted.

        Raises:
            NotAnswered: No proxy answers there, or the answer is too large.
            ConfigError: The proxy rejects the search as invalid.
            NoSuchService: The proxy has no such Service or namespace.
            UserspaceProxyError: The proxy refuses to answer, or has another version.
        """
        bounds, body = Bounds(_MAX_BYTES, _MAX_BYTES), bytearray()
        try:
            with self.asked(path, accept, query, bounds, self._timeout_s) as (answer, pieces):
                while not answer.code:
                    body += next(pieces)
                self._believe(answer)
                body += b"".join(pieces)
        except (OSError, Unreadable) as exc:
            cause = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
            raise NotAnswered(
                f"no {PROGRAM} answers at {self}: {cause}",
                hint="start one, or name the address of its status page: --server=ADDRESS",
            ) from exc
        except TooLarge as exc:
            raise NotAnswered(
                f"the answer of {self} has more than {exc.bytes_max:,} bytes"
            ) from exc
        if answer.code == http.client.NOT_FOUND and query.get("service"):
            raise NoSuchService(said_in(body))
        if answer.code == http.client.BAD_REQUEST and query.get("q"):
            raise ConfigError(f"--search: {said_in(body)}")
        if (status := answer.code) != http.client.OK:
            # Remove the status code, with which the web server's own errors begin, unlike the
            # proxy's errors.
            said = said_in(body).removeprefix(f"{status}").lstrip(": ")
            if status == http.client.INTERNAL_SERVER_ERROR:
                said = f"{http.client.responses[status]}; see the proxy's log"
            raise UserspaceProxyError(f"cannot read {path} at {self}: {status} {said}")
        if answer.headers.get("Content-Type", "").partition(";")[0] != accept:
            raise UserspaceProxyError(f"the proxy at {self} is of another version: it has no text")
        return AdminAnswer(bytes(body), answer.headers.get(LEVEL_HEADER, ""))

    @contextlib.contextmanager
    def asked(
        self, path: str, accept: str, query: Mapping[str, str], bounds: Bounds, timeout_s: float
    ) -> Iterator[tuple[HttpAnswer, Iterator[bytes]]]:
        """Request a path; yield the answer, and its body in pieces, which may be empty.

        Args:
            timeout_s: The timeout of each step of an answer.

        Raises:
            OSError: The server can't be reached; for pieces, also Unreadable and TooLarge.
        """
        wanted = urlencode({name: text for name, text in query.items() if text})
        path, answer = f"{path}?{wanted}" if wanted else path, HttpAnswer(bounds)
        with socket.create_connection((self.host, self.port), timeout_s) as sock:
            sock.sendall(request_for(path, str(self), accept=accept, takes_gzip=False))

            def pieces() -> Iterator[bytes]:
                while not answer.is_complete:
                    yield from answer.feed(sock.recv(PIECE_BYTES))
                    yield b""

            yield answer, pieces()

    def _believe(self, answer: HttpAnswer) -> None:
        """Raise NotAnswered unless a trusted proxy answers; named addresses are trusted."""
        if not answer.is_of_proxy:
            raise NotAnswered(
                f"no {PROGRAM} answers at {self}: another program does",
                hint="kube-proxy uses the same port; name the proxy's own: --server=ADDRESS",
            )
        user = None if self._is_named else _user_of_listener(self.host, self.port)
        if user is not None and user not in (0, os.geteuid()):
            raise NotAnswered(
                f"no {PROGRAM} of root answers at {self}: a process of user {user} does",
                hint=f"to believe it anyway: --server={self}",
            )


def _user_of_listener(ip: str, port: int) -> int | None:
    """Return the user of the listening process; None if none listens here, or this isn't Linux."""
    if not is_linux():
        return None
    from ..kernel.netlink.socket_users import user_of

    # For a query without a peer, the kernel returns the listener.
    return user_of(SocketAddress(ip, port), SocketAddress("::" if ":" in ip else "0.0.0.0", 0))


def said_in(body: bytes | bytearray) -> str:
    """Return the beginning of the error message in a response."""
    text = body[:_MAX_SAID].decode("utf-8", "replace").strip()
    return f"{text}…" if len(body) > _MAX_SAID else text


def find_admin(given: Given) -> AdminAddress:
    """Return the address from ``--server``, or else from the settings.

    Raises:
        ConfigError: The address is invalid or disabled.
    """
    if text := given.values.get("server"):
        return parse_server(text)
    words = [*given.settings]
    if path := given.values.get("config"):
        words.append(f"--config={path}")
    if not words:
        return address_of(Settings())

    from ..config.load import load_settings

    return address_of(load_settings(words).settings)


def address_of(settings: Settings) -> AdminAddress:
    """Return the status address of a proxy with these settings, as seen from its own node.

    Raises:
        ConfigError: The proxy has no such address.
    """
    bound = settings.metrics_bind_address
    if bound is None:
        raise ConfigError("the proxy has no status page: --metrics-bind-address is disabled")
    if isinstance(bound, InheritedSocket):
        raise ConfigError(f"the status page is on {bound}", hint="name its address with --server")
    unspecified = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    return AdminAddress(unspecified.get(bound.ip, bound.ip), bound.port, is_named=False)


def parse_server(text: str) -> AdminAddress:
    """Parse ``127.0.0.1:10249``, ``[::1]:10249``, ``localhost``, ``:8080`` or ``http://…``.

    Raises:
        ConfigError: The text doesn't have any of these forms.
    """
    default = AdminAddress("127.0.0.1", 10249)
    with contextlib.suppress(ValueError):
        url = urlsplit(text if "://" in text else f"http://{text}")
        host, port = url.hostname or default.host, url.port
        if url.scheme == "http" and url.path in ("", "/") and not url.query:
            return AdminAddress(host, default.port if port is None else port)
    raise ConfigError(
        f"--server: {text!r} is not the address of a status page", hint="write HOST:PORT"
    )
