"""Sends requests to an API server, with the credentials that kubernetes-asyncio loads.

Rule 1: a missing or incomplete response raises TransportError. Except for WebSockets, callers never
see aiohttp, which is imported when a client is opened.
Rule 2: a path is sent unchanged: nothing resolves or requotes it (``api_paths``).
Rule 3: the time to connect, the time until a response starts, and each silence within it are
limited. A watch may be silent; its reader decides for how long.
Rule 4: large lists and watches are streams, which are read in parts. Other responses are read as a
whole, up to RESPONSE_BYTES_MAX.
Rule 5: redirects aren't followed: another server would receive the client's certificate, its
impersonation headers, and a request not meant for it.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from ...clocks import Clocks
from ...errors import SourceError, UserspaceProxyError
from ...version import __version__
from .api_paths import check
from .credentials import Credentials
from .kubeconfig_files import Fingerprint
from .network_errors import describe
from .proxies import WebProxy
from .responses import Response, TransportError

if TYPE_CHECKING:
    from types import SimpleNamespace

    from aiohttp import (
        AddrInfoType,
        ClientResponse,
        ClientSession,
        ClientWebSocketResponse,
        TraceRequestRedirectParams,
    )
    from yarl import URL

CONNECT_S = 15.0
"""The maximum seconds for TCP and TLS; client-go allows 30 s for each dial."""
RESPONSE_S = 75.0
"""The maximum seconds until a response starts, and between two of its parts. The server's own
timeout is 60 s (--request-timeout)."""
WATCHES_ANEW_S = 10.0
"""The minimum interval in seconds between restarts of all watches, so that they count as healthy in
between."""
RESPONSE_BYTES_MAX = 16 << 20
"""The maximum size of a response that is read as a whole, or of a WebSocket message; etcd stores
up to 1.5 MiB."""

# How long to wait for the server's close frame at the end of a WebSocket.
_GOODBYE_S = 1.0
# The maximum number of event loop iterations until a socket is closed; asyncio needs about five.
_TURNS_TO_CLOSE = 50
# The size of aiohttp's buffer. In one step, aiohttp reads twice this size, decompresses this size,
# or processes a chunk per 16 bytes of this size: 4,096 chunks of one byte take 10 ms.
_BUFFER_BYTES = 64 << 10
# Socket options that detect within a minute that the peer of a silent connection is gone. While
# sent bytes are unacknowledged, the kernel sends no probes; requests have their own timeouts.
_KEEPALIVE = tuple(
    (level, getattr(socket, name), value)
    for level, name, value in (
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 30),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 10),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
    )
    # macOS doesn't have TCP_KEEPIDLE. Only watches are silent for so long, and only proxies, which
    # need Linux, use watches.
    if hasattr(socket, name)
)


class Stream:
    """A response, read as it arrives; valid in the ``with`` block of :meth:`ApiClient.stream`."""

    def __init__(
        self, response: ClientResponse, errors: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._response = response
        self._transport_errors = errors
        self.code = response.status

    async def read(self, *, silence_s: float) -> bytes:
        """Return data as soon as some has arrived; empty at EOF.

        Raises:
            TimeoutError: Nothing arrived for ``silence_s`` seconds.
            TransportError: The response was interrupted.
        """
        async with asyncio.timeout(silence_s):
            with self._transport_errors():
                return await self._response.content.readany()

    async def rest(self) -> Response:
        """Read an error response to its end, and return it."""
        with self._transport_errors():
            return await _read(self._response)


class ApiClient:
    """A client of one API server; usable after :meth:`open`."""

    def __init__(
        self, credentials: Credentials, *, clock: Callable[[], float] = Clocks.monotonic
    ) -> None:
        self.credentials = credentials
        self._clock = clock
        self._session: ClientSession | None = None
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._proxy_in_use: WebProxy | None = None
        """The proxy that ``_session`` uses."""
        self._tls: ssl.SSLContext
        self._tls_files: Fingerprint | None = ()
        """The certificate files of ``_tls``; None if they must be loaded again."""
        self._watches: set[ClientResponse] = set()
        self._watches_anew_at = -WATCHES_ANEW_S
        self._is_refused = False
        self._refreshing = asyncio.Lock()

    @property
    def url(self) -> str:
        return self.credentials.location

    async def open(self) -> None:
        """Load the credentials and open a session, without a request; this may run a plugin.

        Raises:
            SourceError: The credentials can't be used.
        """
        await self.credentials.load(self._clock())
        try:
            self._load_certificates()
        except OSError as exc:
            raise SourceError(
                f"cannot use {self.credentials.description}: {describe(exc)}",
                hint="check the certificate files that it names",
            ) from exc
        self._open_session()

    async def close(self) -> None:
        """Close all sockets, and forget certificates and keys; idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        await self._close_sockets()
        self.credentials.close()

    async def _close_sockets(self) -> None:
        """Close sockets that cancelled requests left open.

        aiohttp loses track of their connections. TLS waits for the server's close_notify, and
        asyncio loses track of a dial that is cancelled before its handshake, so a loop that stops
        leaves them open.
        """
        for opened in self._sockets:
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
        for _ in range(_TURNS_TO_CLOSE):
            if all(opened.fileno() < 0 for opened in self._sockets):
                return
            await asyncio.sleep(0)  # noqa: TID251 - yields once

    def _open_socket(self, address: AddrInfoType) -> socket.socket:
        """Open a socket with TCP keep-alive; :meth:`close` closes it if aiohttp doesn't."""
        family, kind, protocol, _, _ = address
        opened = socket.socket(family, kind, protocol)
        self._sockets.add(opened)
        for level, option, value in _KEEPALIVE:
            opened.setsockopt(level, option, value)
        return opened

    def _open_session(self) -> None:
        from aiohttp import ClientSession, DummyCookieJar, TCPConnector, TraceConfig

        proxy = self._proxy_in_use = self.credentials.proxy
        # The number of connections isn't limited: each port-forward requires its own connection.
        options: dict[str, Any] = {"socket_factory": self._open_socket, "limit": 0}
        if proxy is not None and proxy.is_socks:
            from .socks import SocksConnector

            connector: TCPConnector = SocksConnector(proxy, **options)
        else:
            connector = TCPConnector(**options)
        trace = TraceConfig()
        trace.on_request_redirect.append(_refuse_redirect)
        # With trust_env, aiohttp would also read passwords from .netrc. A stored cookie might
        # belong to a session of an earlier kubeconfig's user, so store none.
        self._session = ClientSession(
            connector=connector,
            trust_env=False,
            cookie_jar=DummyCookieJar(),
            trace_configs=[trace],
            read_bufsize=_BUFFER_BYTES,
        )

    async def _reopen(self) -> None:
        """Reconnect through the current proxy; this interrupts open streams, such as watches."""
        before = self._session
        self._open_session()
        if before is not None:
            await before.close()

    async def get(self, path: str, query: Mapping[str, str]) -> Response:
        """Return a complete response, with any status code."""
        with self._transport_errors():
            request = self._request("GET", path, query, silence_s=RESPONSE_S)
            async with await request as response:
                return await _read(response)

    async def send(
        self, method: str, path: str, body: Mapping[str, Any], *, content_type: str
    ) -> Response:
        """Send an object as JSON, and return the complete response, with any status code."""
        with self._transport_errors():
            request = self._request(
                method, path, body=body, content_type=content_type, silence_s=RESPONSE_S
            )
            async with await request as response:
                return await _read(response)

    @asynccontextmanager
    async def stream(self, path: str, query: Mapping[str, str]) -> AsyncIterator[Stream]:
        """Yield a streaming response, with any status code, and close it at the end."""
        with self._transport_errors():
            options = await self._options()
            async with asyncio.timeout(RESPONSE_S):
                response = await self._request("GET", path, query, silence_s=None, options=options)
        if "watch" in query:
            self._watches.add(response)
        try:
            yield Stream(response, self._transport_errors)
        finally:
            # TLS would wait for the server's close_notify, and aiohttp doesn't wait for TLS: if the
            # loop stopped in between, the socket would stay open.
            _abort(response)
            response.close()
            self._watches.discard(response)

    def doubt_watches(self) -> None:
        """Interrupt all watches, because a response contradicts one; at most every WATCHES_ANEW_S.

        Watches may be silent because their connections are dead, for instance after a laptop was
        suspended. For this reason, pooled connections aren't reused.
        """
        now = self._clock()
        if now - self._watches_anew_at >= WATCHES_ANEW_S:
            self._watches_anew_at = now
            # A new TLS context prevents the reuse of pooled connections.
            self._tls_files = None
            for response in self._watches:
                _abort(response)

    async def websocket(
        self, path: str, query: Mapping[str, str], protocol: str
    ) -> ClientWebSocketResponse[bool] | Response:
        """Open a WebSocket; the caller also handles pings and pongs, and closes it.

        Returns:
            The open WebSocket, or the server's response if it refuses the upgrade. aiohttp discards
            that response's body, so the body is that of a plain GET of the same path; it is empty
            if that GET returns another status.
        """
        from aiohttp import ClientWSTimeout, WSServerHandshakeError

        assert self._session is not None
        with self._transport_errors():
            options = await self._options()
            try:
                async with asyncio.timeout(RESPONSE_S):
                    opened: ClientWebSocketResponse[bool] = await self._session.ws_connect(
                        self._url_of(path),
                        params=query,
                        protocols=(protocol,),
                        autoping=False,
                        max_msg_size=RESPONSE_BYTES_MAX,
                        timeout=ClientWSTimeout(ws_close=_GOODBYE_S),
                        **options,
                    )
                    return opened
            except WSServerHandshakeError as exc:
                code = exc.status
        plain = await self.get(path, query)
        return plain if plain.code == code else Response(code, b"")

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        silence_s: float | None,
        options: dict[str, Any] | None = None,
    ) -> ClientResponse:
        from aiohttp import ClientTimeout

        options = options or await self._options()
        assert self._session is not None
        options["headers"].update({"Accept": "application/json", "Content-Type": content_type})
        response = await self._session.request(
            method,
            self._url_of(path),
            params=query,
            data=None if body is None else json.dumps(body),
            timeout=ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=silence_s),
            **options,
        )
        if response.status == 401:
            self._is_refused = True
        return response

    def _url_of(self, path: str) -> URL:
        from yarl import URL

        check(path)
        try:
            server = str(URL(self.url)).rstrip("/")
        except ValueError as exc:
            raise TransportError(f"{self.url} is not a URL") from exc
        return URL(f"{server}{path}", encoded=True)

    async def _options(self) -> dict[str, Any]:
        """Refresh the credentials if due; return a request's options: headers, TLS, proxy."""
        async with self._refreshing:
            await self.credentials.refresh(self._clock(), is_refused=self._is_refused)
            self._is_refused = False
            if self.credentials.tls_files() != self._tls_files:
                self._load_certificates()
            if self.credentials.proxy != self._proxy_in_use:
                await self._reopen()
        from multidict import CIMultiDict

        headers = CIMultiDict({"User-Agent": f"userspace-proxy/{__version__}"})
        headers.update(await self.credentials.header())
        headers.extend(self.credentials.impersonation)
        if self.credentials.is_uncompressed:
            headers["Accept-Encoding"] = "identity"
        proxy = self._proxy_in_use
        configuration = self.credentials.configuration
        # Connections are pooled by their TLS context: new certificates cause new connections, while
        # open watches keep their connections.
        return {
            "headers": headers,
            "ssl": self._tls,
            "server_hostname": configuration.tls_server_name,
            "proxy": None if proxy is None or proxy.is_socks else proxy.url,
        }

    @contextmanager
    def _transport_errors(self) -> Iterator[None]:
        """Convert errors of aiohttp, the network and TLS to TransportError."""
        from aiohttp import ClientError

        try:
            yield
        except (ClientError, OSError, UnicodeError) as exc:
            # TimeoutError is an OSError, and so are all TLS errors. A name that is invalid in DNS
            # is a UnicodeError.
            way = f" (through {self._proxy_in_use})" if self._proxy_in_use else ""
            raise TransportError(f"{describe(exc)}{way}") from exc

    def _load_certificates(self) -> None:
        files = self.credentials.tls_files()
        self._tls = _tls_context(self.credentials.configuration)
        self._tls_files = files


def _abort(response: ClientResponse) -> None:
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()


async def _refuse_redirect(
    _session: ClientSession, _context: SimpleNamespace, redirect: TraceRequestRedirectParams
) -> None:
    from yarl import URL

    response = redirect.response
    location = response.headers.get("Location", "")
    response.close()
    try:
        # Omit the query, which may contain login secrets.
        target = f"to {response.url.join(URL(location)).origin()}"
    except ValueError:
        target = "to an invalid URL"
    raise TransportError(f"it redirects {target}, which is not followed")


def _tls_context(configuration: Any) -> ssl.SSLContext:
    """Return a context with the current certificates of a configuration."""
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if configuration.cert_file:
        context.load_cert_chain(
            configuration.cert_file, configuration.key_file, password=_refuse_encrypted
        )
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    # Like client-go, don't require key identifiers in certificates; Python 3.13 does by default.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _refuse_encrypted() -> str:
    # Otherwise OpenSSL would prompt on the terminal, and block.
    raise OSError("the client's key is encrypted, and kubeconfigs have no passphrases")


async def _read(response: ClientResponse) -> Response:
    parts = []
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > RESPONSE_BYTES_MAX:
            raise TransportError(f"a response is larger than {RESPONSE_BYTES_MAX >> 20} MiB")
        parts.append(part)
    return Response(response.status, b"".join(parts), _seconds(response.headers.get("Retry-After")))


def _seconds(text: str | None) -> float:
    """Return the seconds in Retry-After; 0 if it is absent or isn't a number, such as a date."""
    return float(text) if text and text.isascii() and text.isdigit() else 0.0


LINE_BYTES_MAX = 16 << 20
"""The maximum length of a line; objects in etcd are up to 1.5 MiB, or more with raised limits."""


class LineTooLong(UserspaceProxyError):
    """A line is longer than the limit; the rest of the stream is unusable."""


class LineSplitter:
    """Splits the chunks of one stream into lines, and keeps the start of an incomplete line."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._waiting_bytes = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that a chunk completes, without line ends; empty lines are omitted.

        The cost is proportional to the bytes, not to the number of chunks in a line.

        Raises:
            LineTooLong: A line, even an incomplete one, is longer than the limit.
        """
        *complete, rest = chunk.split(b"\n")
        lines = []
        for part in complete:
            self._keep(part)
            line = b"".join(self._parts)
            self._parts.clear()
            self._waiting_bytes = 0
            if line := line.removesuffix(b"\r"):
                lines.append(line)
        self._keep(rest)
        return lines

    def _keep(self, part: bytes) -> None:
        self._waiting_bytes += len(part)
        if self._waiting_bytes > LINE_BYTES_MAX:
            raise LineTooLong(f"a line is longer than {LINE_BYTES_MAX} bytes")
        if part:
            self._parts.append(part)
