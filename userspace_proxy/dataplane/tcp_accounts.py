"""Updates a Service port's counters and log from events of its TCP connections.

    TcpConnection ──answered, first_byte, ended──▶ TcpAccounts ──▶ counters, calls, log,
                                                     waiting room

    client ──request──▶ proxy ──▶ endpoint: not a byte      client ──FIN or RST, 1 s later──▶ proxy
                                            └─ later: a byte ──▶ client: is it acknowledged?

Rule 1: no method here is called for each read, so the cost of these methods matters little.
Rule 2: the facts for ``facts.connection_outcome`` are read from sockets. The kernel is asked last,
and only if its answer may matter: each question is a system call.
Rule 3: a client that still reads after its FIN acknowledges a late byte; if it has closed its
socket, its kernel answers with a RST, and acknowledges nothing.
"""

from __future__ import annotations

import _socket
import errno
from typing import Any, NamedTuple

from ..causes.cause import CauseCode
from ..facts.connection import ConnectionEvent, ConnectionFacts, ending, failed_dials, port_fields
from ..facts.connection_outcome import (
    LATE,
    OWED_AFTER_S,
    PATIENCE_S,
    ConnectionOutcome,
    EndFacts,
    has_given_up,
)
from ..kernel.listening_sockets import dialled_at
from ..kernel.tcp_state import (
    LOSS_S,
    endpoint_loss,
    is_connected,
    loss,
    silence,
    since_sent_s,
    unacknowledged_bytes,
)
from ..model import SocketAddress
from ..model.connection_ends import UNSERVED, EndedBy, EndReason
from .endpoint_group import EndpointGroup
from .engine import Engine
from .probes import Probes
from .relay import Direction, Relayed

LEFT_OPEN_S = 10.0
"""How long an endpoint must be silent to count as hung after its client left: longer than programs
take for their last bytes, and shorter than kernels keep a closed socket (tcp_fin_timeout, 60 s)."""
# Before Python 3.12, accessing an enum member costs a function call: too much per connection.
_BY_CLIENT, _BY_ENDPOINT = EndedBy.CLIENT, EndedBy.ENDPOINT
_COMPLETE = EndReason.COMPLETE


class Announced(NamedTuple):
    """The sender of a PROXY header, and its contents besides the client's address."""

    via: SocketAddress
    """The peer that sent the header."""
    frontend: SocketAddress
    """The address that the client dialled at the peer."""


class Accounted(Relayed):
    """The part of one client's connection that ``TcpAccounts`` uses; base of ``TcpConnection``."""

    __slots__ = (
        "_offset", "address", "announced", "began_at", "down", "endpoint", "exchange", "group",
        "is_preserved", "started", "tried",
    )  # fmt: skip

    group: EndpointGroup
    address: Any
    """The client's address as ``accept`` returns it, or from a PROXY header: IP and port first."""
    started: float
    """When the client was accepted, in monotonic seconds."""
    announced: Announced | None
    """The contents of the PROXY header that the address comes from; None without a header."""
    endpoint: SocketAddress | None
    """The endpoint that was dialled last; None before a dial, in a wait, and once refused."""
    _offset: int
    """The distance of the dialled port from the Service port."""
    tried: dict[SocketAddress, CauseCode] | None
    """Endpoints that failed, and why; None or empty without failures."""
    began_at: float | None
    """When the last dial began, in monotonic seconds; None before the first, and in a wait."""
    is_preserved: bool
    """Whether the endpoint sees the client's own address."""
    exchange: ConnectionOutcome | None
    """The facts by which the connection's end is judged; None before an endpoint answers."""
    down: Direction | None
    """From the endpoint to the client; like ``up``, None before an answer and after the end."""

    @property
    def client_ip(self) -> str:
        return str(self.address[0])

    @property
    def client(self) -> _socket.socket:
        """The client's socket object, for infrequent calls."""
        return self.reactor.calls.socket(self.client_fd)

    @property
    def at(self) -> SocketAddress | None:
        """The endpoint's address, as :meth:`dialled` returns it; None without an endpoint."""
        return None if self.endpoint is None else self.dialled(self.endpoint)

    def dialled(self, endpoint: SocketAddress) -> SocketAddress:
        """Return an endpoint's address, with the port that corresponds to the dialled port."""
        offset = self._offset
        return SocketAddress(endpoint.ip, endpoint.port + offset) if offset else endpoint

    def frontend(self) -> SocketAddress | None:
        """Return the address that the client dialled; None if the kernel doesn't report it."""
        return dialled_at(self.client) if self.announced is None else self.announced.frontend


class TcpAccounts:
    """The accounts of one engine's connections."""

    def __init__(self, engine: Engine, probes: Probes) -> None:
        self._probes = probes
        # Keep the engine and not its log, which is replaced while connections are watched.
        self._engine = engine

    def answered(self, connection: Accounted) -> None:
        """Count the endpoint's answer, and set the facts by which the end is judged."""
        group, client, now = connection.group, connection.address[0], connection.reactor.now
        endpoint, started = connection.endpoint, connection.started
        assert endpoint is not None, "a dial that was answered has an endpoint"
        group.connect_times.add(now - started)
        counters = group.answered(endpoint, now)
        waits = group.waiting_room is not None
        abort_counters = (
            group.abort_counters_of(counters, started, connection.began_at) if waits else counters
        )
        connection.exchange = ConnectionOutcome(counters, abort_counters, client, now)
        counters.connections += 1
        counters.active += 1
        if connection.is_preserved:
            counters.preserved += 1
            self._engine.client_dialer.open_connections.add(client, connection.dialled(endpoint))
            if counters.denials.part.failures or self._probes.pairs.until:
                self._probes.admitted(counters, client, endpoint, now)
        if connection.tried:
            group.note_saved(counters, connection.tried.values())
            self.note(connection, ConnectionEvent.SAVED)

    def first_byte(self, connection: Accounted) -> None:
        """Record the endpoint's first byte if it has arrived."""
        up, down, exchange = connection.up, connection.down, connection.exchange
        if up is None or down is None or exchange is None:
            return
        if down.bytes_moved or down.waiting_bytes:
            end = end_of_client(up) if up.is_ended else None
            waited_s = exchange.note_first_byte(connection.reactor.now, end)
            connection.group.first_byte_times.add(waited_s)

    def settle(self, connection: Accounted) -> None:
        """Count the bytes moved since the last call; record an answer, or that a client gave up."""
        up, down, exchange = connection.up, connection.down, connection.exchange
        if up is None or down is None or exchange is None:
            return
        counters = exchange.counters
        counters.received_bytes += up.bytes_moved - up.bytes_counted
        counters.sent_bytes += down.bytes_moved - down.bytes_counted
        up.bytes_counted, down.bytes_counted = up.bytes_moved, down.bytes_moved
        if exchange.first_byte_s is None:
            self.first_byte(connection)
        if exchange.first_byte_s is None:
            # ``reactor.now`` may be too old: there may have been no dispatch since the client left.
            now = connection.reactor.clock()
            if exchange.code is None and (end := end_if_given_up(up, exchange, now)):
                exchange.note_end(end, now)
        elif exchange.code is LATE and has_arrived(down):
            exchange.note_arrived(connection.reactor.now)

    def ended(self, connection: Accounted, cause: EndReason, by: EndedBy) -> None:
        """Count and log the end, before the sockets are closed."""
        self.settle(connection)
        exchange, group, client = connection.exchange, connection.group, connection.address[0]
        if cause in UNSERVED if exchange is None else exchange.is_failed:
            self._engine.calls.fail(group, client)
        log = self._engine.connection_log
        if log is not None:
            has_byte = exchange is not None and exchange.first_byte_s is not None
            is_plain = has_byte and not connection.tried and cause is _COMPLETE
            if log.takes_next(group.prefixes, client, is_plain=is_plain):
                event = ending(by, is_served=connection.up is not None)
                log.write(_facts(connection, event, cause, by), connection.frontend)
        up, down, endpoint = connection.up, connection.down, connection.endpoint
        if up is None or exchange is None or endpoint is None:
            return
        has_left = up.is_ended and down is not None and not down.is_ended and down.bytes_moved
        if has_left and is_left_open(up):
            exchange.note_left_open()
        exchange.note_ended(up.is_stalled)
        if group.waiting_room is not None:
            group.waiting_room.connection_ended()
        if connection.is_preserved:
            dialer, at = self._engine.client_dialer, connection.dialled(endpoint)
            dialer.open_connections.remove(client, at)
            dialer.ended_connections.note(client, at, connection.reactor.now)

    def note(self, connection: Accounted, event: ConnectionEvent) -> None:
        """Record an event that precedes the connection's end, if connections are watched."""
        log = self._engine.connection_log
        if log is not None and log.is_watched(connection.group.prefixes, connection.address[0]):
            log.write(_facts(connection, event, None, EndedBy.NONE), connection.frontend)


def _facts(
    connection: Accounted, event: ConnectionEvent, cause: EndReason | None, by: EndedBy
) -> ConnectionFacts:
    up, down, is_preserved = connection.up, connection.down, connection.is_preserved
    exchange, started, now = connection.exchange, connection.started, connection.reactor.clock()
    group = connection.group
    endpoint = None if up is None else connection.at
    last, failed = connection.endpoint, connection.tried or {}
    tried = {connection.dialled(one): code for one, code in failed.items()}
    is_clean = cause is _COMPLETE and up and down and up.is_ended and down.is_ended
    if is_clean and up and down and not down.bytes_moved and unacknowledged_bytes(up.sink):
        # The endpoint ended the connection: it sent its FIN before it received the client's.
        by = _BY_ENDPOINT
    return ConnectionFacts(
        event=event,
        **port_fields(group.key),
        in_range=bool(group.serving.ranges or group.left_ranges),
        client=str(SocketAddress(connection.address[0], connection.address[1])),
        via="" if connection.announced is None else str(connection.announced.via),
        endpoint="" if endpoint is None else str(endpoint),
        source="client" if is_preserved else "node",
        dials=len(failed) + (last is not None and last not in failed),
        failed=failed_dials(tried),
        waited_s=(exchange.answered_at if exchange else now) - started,
        first_byte_s=exchange.first_byte_s if exchange else None,
        received_bytes=up.bytes_moved if up else 0,
        sent_bytes=down.bytes_moved if down else 0,
        duration_s=now - started,
        ended_by=by,
        cause=cause or "",
        code=exchange.code if exchange else None,
    )


def end_of_client(up: Direction, **known: Any) -> EndFacts:
    """Return the facts of a client that has sent its FIN and may still read, or that has left."""
    silent_s, unheard_s = silence(up.source)
    left_s = unheard_s if up.is_ended else 0.0
    return EndFacts(_BY_CLIENT, silent_s=silent_s, left_s=left_s, **known)


def end_if_given_up(up: Direction, exchange: ConnectionOutcome, now: float) -> EndFacts | None:
    """Return the facts if a client waited for the first byte and left without it, else None."""
    asked_s = now - exchange.asked_at
    if asked_s < PATIENCE_S or not up.bytes_moved:
        return None
    if not up.is_ended and is_connected(up.source):
        return None
    answers_others = exchange.counters.ends.succeeded_at >= 0
    end = end_of_client(up, asked_s=asked_s, answers_others=answers_others)
    return end._replace(lost=endpoint_loss(up.sink)) if has_given_up(end) else None


def end_if_lost(
    up: Direction,
    down: Direction,
    exchange: ConnectionOutcome,
    now: float,
    number: int | None = None,
) -> EndFacts | None:
    """Return the facts if a client left after the first byte because packets were lost, else None.

    Args:
        number: The errno with which the client's socket failed; None without a failure.
    """
    lasted_s = now - exchange.answered_at
    if not down.bytes_moved or exchange.code or lasted_s < LOSS_S:
        return None
    found = loss(up.source, up.sink, lasted_s, number)
    return EndFacts(_BY_CLIENT, has_answer=True, lost=found) if found else None


def end_if_reset(
    up: Direction,
    down: Direction,
    exchange: ConnectionOutcome,
    now: float,
    number: int | None,
    had_end: bool,
) -> EndFacts | None:
    """Return the facts of an unexplained end by the endpoint's RST or by packet loss, else None.

    Args:
        number: The errno, if it is known.
        had_end: Whether the endpoint had sent its FIN before.
    """
    if exchange.code:
        return None
    if not is_connected(up.source):
        return end_if_lost(up, down, exchange, now, number or errno.ETIMEDOUT)
    if up.is_ended or is_connected(up.sink):
        return None
    return EndFacts(
        _BY_ENDPOINT,
        is_reset=True,
        had_end=had_end,
        has_answer=bool(down.bytes_moved or down.waiting_bytes),
        asked_s=now - exchange.asked_at,
        is_full=up.is_stuck,
    )


def owes_answer(up: Direction, lasted_s: float, *, is_left: bool) -> bool:
    """Return whether the endpoint has owed an answer for too long when one side ends.

    Args:
        up: The direction from the client, which sent the connection's last bytes.
        lasted_s: Seconds since the endpoint answered the dial.
        is_left: Whether the client ends the connection. If the endpoint resets it instead, the
            result is False.
    """
    least_s = OWED_AFTER_S[is_left]
    if lasted_s < least_s or not (is_left or is_connected(up.sink)):
        return False
    return since_sent_s(up.sink) >= least_s


def has_waited(up: Direction) -> bool:
    """Return whether both sides were silent for a while before the client's FIN.

    Call this within 30 s: the answers to keep-alive probes hide the time of the FIN.
    """
    silent_s, left_s = silence(up.source)
    return min(silent_s, silence(up.sink)[0]) - left_s >= OWED_AFTER_S[True]


def is_left_open(up: Direction) -> bool:
    """Return whether the client has left, and the endpoint was silent for the last LEFT_OPEN_S.

    The kernel of a client that closed its socket drops it after a minute. An endpoint that works
    has ended the connection by then, or is still sending if its answer is lost on the way.
    """
    return not is_connected(up.source) and silence(up.sink)[0] >= LEFT_OPEN_S


def has_arrived(down: Direction) -> bool:
    """Return whether the client's kernel has acknowledged a byte of the answer."""
    return unacknowledged_bytes(down.sink) < down.bytes_moved
