"""Reads the PROXY header of connections from trusted peers before an endpoint is dialled.

    accepted ──▶ from a trusted peer? ──▶ header ──▶ client and frontend are taken from it
                        │ no                └── malformed, or too late ──▶ RST
                        └────────────────▶ dialled like any other connection

Rule 1: only the header is read from the socket; the bytes after it wait in the kernel, as usual.
Rule 2: a trusted peer must send a header: otherwise a client's own bytes could pass for a header.
Rule 3: a connection that ends without a byte counts as a load balancer's port check.
"""

from __future__ import annotations

import _socket

from ..facts import ClientMistake
from ..kernel.tcp_state import CLOSE_WAIT, tcp_info
from ..log_fields import FieldLogger
from ..log_limit import LogLimit
from ..model import SocketAddress, contains
from ..model.connection_ends import EndedBy, EndReason
from ..model.proxy_protocol import HEADER_BYTES, Header, MalformedHeader, read_header
from .engine import Engine
from .reactor import Callback, Timeouts
from .tcp import READ_EVENTS, TcpConnection
from .tcp_accounts import Announced

_log = FieldLogger("userspace_proxy.dataplane")

# The time limit for a PROXY header. The specification asks for at least 3 s, so that a lost packet
# can be resent.
HEADER_S = 5.0
# The maximum number of cached peers: far more than a load balancer has addresses.
_MAX_KNOWN = 4096


class AcceptedHeaders:
    """Awaits the PROXY headers of one data plane's connections; a valid header starts a dial."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[str, bool] = {}
        """Whether each recent peer is trusted, by IP address."""
        self.deadlines = Timeouts(
            engine.reactor,
            HEADER_S,
            lambda connection: self._refuse(connection, f"none within {HEADER_S:g} s"),
        )
        self._log_limit = LogLimit()

    def expects_one_from(self, ip: str) -> bool:
        """Return whether connections from an address must begin with a PROXY header."""
        is_trusted = self._known.get(ip)
        if is_trusted is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            is_trusted = self._known[ip] = contains(self._engine.tuning.proxy_protocol_from, ip)
        return is_trusted

    def await_one(self, connection: TcpConnection) -> None:
        """Dial for a connection after its PROXY header; reset it without a valid header in time."""
        if self._read(connection):
            return
        handler = Callback(lambda _events: self._read(connection))
        if self._engine.reactor.watch(connection.client_fd, READ_EVENTS, handler) < 0:
            connection.group.counters.shortages += 1
            connection.group.counters.refused += 1
            connection.finish(EndReason.UNANSWERED, as_reset=True)
            return
        self.deadlines.start(connection, self._engine.reactor.now)

    def _read(self, connection: TcpConnection) -> bool:
        """Dial for a connection, or end it; return False while its header is incomplete."""
        sock = connection.client
        try:
            data = sock.recv(HEADER_BYTES, _socket.MSG_PEEK)
            header = read_header(data) if data else None
            if header is not None:
                sock.recv(header.length)
        except BlockingIOError:
            return False
        except OSError:
            connection.finish(EndReason.RESET, as_reset=True, by=EndedBy.CLIENT)
            return True
        except MalformedHeader as exc:
            self._refuse(connection, exc.message)
            return True
        if header is not None:
            self._take(connection, header)
            return True
        if not data:
            # Rule 3: this is a load balancer's port check, which isn't an error.
            connection.finish(EndReason.COMPLETE, as_reset=True, by=EndedBy.CLIENT)
            return True
        if tcp_info(sock).state == CLOSE_WAIT:
            self._refuse(connection, "the connection ended before the header was complete")
            return True
        return False

    def _take(self, connection: TcpConnection, header: Header) -> None:
        self.deadlines.stop(connection)
        self._engine.reactor.unwatch(connection.client_fd)
        if header.source is not None and header.destination is not None:
            via = SocketAddress(connection.address[0], connection.address[1])
            connection.announced = Announced(via, header.destination)
            connection.address = header.source
            # Replies to the announced address may bypass this node, so endpoints must not see it.
            connection.may_preserve = False
        connection.begin()

    def _refuse(self, connection: TcpConnection, cause: str) -> None:
        group = connection.group
        group.counters.bad_headers += 1
        now = self._engine.reactor.clock()
        group.note_mistake(ClientMistake.NO_PROXY_HEADER, connection.client_ip, now)
        if self._log_limit.take(now):
            _log.warning(
                "%(service)s: reset a connection from %(client)s without a valid PROXY header: "
                "%(cause)s",
                extra={
                    "service": group.label,
                    "client": connection.client_ip,
                    "cause": cause,
                    "remedy": "send the header, or remove the client from --accept-proxy-protocol",
                },
            )
        connection.finish(EndReason.NO_HEADER, as_reset=True)
