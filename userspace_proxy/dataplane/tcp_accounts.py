"""What Service ports learn of their TCP connections: the border between the relay and its Python.

    TcpConnection ──begun, answered, first_byte, ended, left──▶ TcpAccounts ──▶ counters, outcomes,
                                                                calls, log, waiting room

Rule 1: a connection calls each of these once, so what is behind them costs little.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..causes.cause import CauseCode
from ..facts.connection import ConnectionEvent, ConnectionFacts, ending, failed_dials, port_fields
from ..facts.connection_outcome import ConnectionOutcome, EndFacts
from ..kernel.tcp_state import unacknowledged_bytes
from ..model import SocketAddress
from ..model.connection_ends import UNSERVED, EndedBy, EndReason
from .endpoint_group import EndpointGroup
from .engine import Engine
from .frontends import Announced
from .probes import Probes
from .reactor import Reactor
from .relay import Direction

# Before Python 3.12 an enum's member costs a call.
_BY_ENDPOINT, _COMPLETE = EndedBy.ENDPOINT, EndReason.COMPLETE


class _Connection(Protocol):
    """The part of ``TcpConnection`` that is used here."""

    reactor: Reactor
    group: EndpointGroup
    address: Any
    started: float
    announced: Announced | None
    endpoint: SocketAddress | None
    tried: dict[SocketAddress, CauseCode] | None
    began_at: float | None
    is_preserved: bool
    exchange: ConnectionOutcome | None
    up: Direction | None
    down: Direction | None

    @property
    def at(self) -> SocketAddress | None: ...
    @property
    def count(self) -> int: ...
    @property
    def client_ip(self) -> str: ...
    @property
    def frontend(self) -> Callable[[], SocketAddress | None]: ...
    def has_ended(self) -> bool: ...


class TcpAccounts:
    """The accounts of one engine's connections."""

    def __init__(self, engine: Engine, probes: Probes) -> None:
        self._probes = probes
        # Its log is exchanged while connections are watched.
        self._engine = engine
        self._calls = engine.calls
        self._client_dialer = engine.client_dialer

    def begun(self, connection: _Connection) -> None:
        """Count a connection that is about to dial."""
        self._calls.add(connection.group, connection.address[0])

    def answered(self, connection: _Connection) -> None:
        """Count the endpoint's answer, and set the facts by which the end is judged."""
        group, client, now = connection.group, connection.address[0], connection.reactor.now
        endpoint, started = connection.endpoint, connection.started
        assert endpoint is not None, "a dial that was answered has an endpoint"
        group.connect_times.add(now - started)
        counters = group.outcomes.answered(endpoint, now)
        waits = group.waiting_room is not None
        abort_counters = (
            group.abort_counters_of(counters, started, connection.began_at) if waits else counters
        )
        connection.exchange = ConnectionOutcome(counters, abort_counters, client, now)
        counters.connections += 1
        counters.active += 1
        if connection.is_preserved:
            counters.preserved += 1
            self._client_dialer.connection_joined(client, endpoint)
            self._probes.admitted(counters, client, endpoint, now)
        if connection.tried:
            group.note_saved(counters, connection.tried.values())
            self.note(connection, ConnectionEvent.SAVED)

    def first_byte(self, connection: _Connection, end: EndFacts | None) -> None:
        """Note the endpoint's first byte; ``end`` is that of a client that has sent its FIN."""
        exchange = connection.exchange
        assert exchange is not None, "an endpoint has answered"
        waited_s = exchange.note_first_byte(connection.reactor.now, end)
        connection.group.first_byte_times.add(waited_s)

    def ended(self, connection: _Connection, cause: EndReason, by: EndedBy) -> None:
        """Count and log the end, before the sockets are closed."""
        exchange, group, client = connection.exchange, connection.group, connection.address[0]
        if cause in UNSERVED if exchange is None else exchange.is_failed:
            self._calls.fail(group, client)
        log = self._engine.connection_log
        if log and log.takes_next(group.prefixes, client, is_plain=_is_plain(connection, cause)):
            event = ending(by, is_served=connection.up is not None)
            log.write(_facts(connection, event, cause, by), connection.frontend)

    def left(self, connection: _Connection, *, is_stalled: bool) -> None:
        """Note that an endpoint has one connection less, after the sockets are closed."""
        exchange, group = connection.exchange, connection.group
        if exchange is not None:
            exchange.note_ended(is_stalled)
        if group.waiting_room is not None:
            group.waiting_room.connection_ended()
        if connection.is_preserved and connection.endpoint is not None:
            client, now = connection.address[0], connection.reactor.now
            self._client_dialer.connection_ended(client, connection.endpoint, now)

    def note(self, connection: _Connection, event: ConnectionEvent) -> None:
        """Record an event before the end, where connections are watched."""
        log = self._engine.connection_log
        if log is not None and log.is_watched(connection.group.prefixes, connection.address[0]):
            log.write(_facts(connection, event, None, EndedBy.NONE), connection.frontend)


def _is_plain(connection: _Connection, cause: EndReason) -> bool:
    exchange = connection.exchange
    has_byte = exchange is not None and exchange.first_byte_s is not None
    return has_byte and not connection.tried and cause is _COMPLETE


def _facts(
    connection: _Connection, event: ConnectionEvent, cause: EndReason | None, by: EndedBy
) -> ConnectionFacts:
    up, down, is_preserved = connection.up, connection.down, connection.is_preserved
    exchange, started, now = connection.exchange, connection.started, connection.reactor.clock()
    endpoint = None if up is None else connection.at
    is_clean = cause is _COMPLETE and connection.has_ended()
    if is_clean and up and down and not down.bytes_moved and unacknowledged_bytes(up.sink):
        # The endpoint sent its FIN before it had received the client's.
        by = _BY_ENDPOINT
    return ConnectionFacts(
        event=event,
        **port_fields(connection.group.key),
        client=str(SocketAddress(connection.address[0], connection.address[1])),
        via="" if connection.announced is None else str(connection.announced.via),
        endpoint="" if endpoint is None else str(endpoint),
        source="client" if is_preserved else "node",
        dials=connection.count,
        failed=failed_dials(connection.tried),
        waited_s=(exchange.answered_at if exchange else now) - started,
        first_byte_s=exchange.first_byte_s if exchange else None,
        received_bytes=up.bytes_moved if up else 0,
        sent_bytes=down.bytes_moved if down else 0,
        duration_s=now - started,
        ended_by=by,
        cause=cause or "",
        code=exchange.code if exchange else None,
    )
