"""Sets TCP keep-alive on long-lived connections, and resets idle connections.

    joined ──▶ first check: keep-alive on both sockets ──▶ nothing moved for idle_s ──▶ reset
                                                     └───▶ half-closed, for half_closed_s ──▶ reset

Rule 1: a connection that ends before its first check costs nothing, not even a system call.
Rule 2: connections are checked every LOOK_S; timeouts count from the last check with new bytes.
Rule 3: checks are done in slices, so that thousands of connections don't block the loop.
Rule 4: a connection without new bytes returns its pipes: pipes are few, and copying needs none.
Rule 5: a reader that is alive may stall for idle_s; only a dead reader is reset earlier.
Rule 6: if the client sent the last bytes, the kernel is asked whether the endpoint acknowledges
them: retransmissions to a vanished endpoint continue for a quarter of an hour.
Rule 7: a client that waited and then sent its FIN may still read, until its kernel drops the socket
after a minute. An endpoint that neither sends nor ends until the next check has hung, or its answer
is lost.
Rule 8: a connection whose endpoint sees a container's address is reset within 20 s of the
container's deletion.
"""

from __future__ import annotations

import _socket
import asyncio
import contextlib
import errno
from collections.abc import Collection, Iterable, Iterator

from ..kernel.tcp_state import is_lost_to, tcp_info
from ..model import SocketAddress
from ..model.connection_ends import EndReason
from .engine import Engine
from .relay import Direction, Seen
from .tcp import TcpConnection
from .tcp_accounts import has_waited

LOOK_S = 4.5
# The maximum number of connections checked per iteration of the loop: about 0.3 ms.
_SLICE = 1024

# The value from linux/tcp.h, which Python's socket module lacks.
TCP_RTO_MAX_MS = 44

# Keep-alive: the kernel probes a peer after 30 s of silence, and gives up on it 90 s later. While
# sent bytes are unacknowledged, it gives up after tcp_retries2 unanswered retransmissions or window
# probes instead. TCP_USER_TIMEOUT isn't set, because it also counts window probes that a stalled
# reader answers (source: tcp_probe_timer() in net/ipv4/tcp_timer.c). Go, and so kube-proxy, probes
# every 15 s. Probes also keep address translations alive: load balancers drop them after minutes
# without packets, and conntrack drops a half-closed connection after 60 s
# (nf_conntrack_tcp_timeout_close_wait, kernel documentation, nf_conntrack-sysctl), so that a second
# probe is in time if the first is lost.
_KEEPALIVE = (
    (_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1),
    (_socket.IPPROTO_TCP, _socket.TCP_KEEPIDLE, 30),
    (_socket.IPPROTO_TCP, _socket.TCP_KEEPINTVL, 15),
    (_socket.IPPROTO_TCP, _socket.TCP_KEEPCNT, 6),
)

# Keep-alive for a client on this node whose own address the endpoint sees. Once the client's
# container is deleted, the endpoint can't reach it, and only this proxy can end the connection. The
# client's kernel is this node's, which answers at once while the container has a link. The link may
# be down for up to 12 s, so the proxy gives up after 14 unanswered probes, one a second.
_LOCAL_CLIENT = (
    (_socket.IPPROTO_TCP, _socket.TCP_KEEPIDLE, 4),
    (_socket.IPPROTO_TCP, _socket.TCP_KEEPINTVL, 1),
    (_socket.IPPROTO_TCP, _socket.TCP_KEEPCNT, 14),
    # The longest pause between retransmissions or window probes: 2 s instead of the default of up
    # to two minutes. This option is set last, because kernels before 6.15 reject it.
    (_socket.IPPROTO_TCP, TCP_RTO_MAX_MS, 2000),
)
# The age up to which each check of a connection looks up whether its client is on this node: a
# container may dial up to a second before its route is listed, so the first check may find no
# route.
_NEW_S = 2 * LOOK_S
# How long retransmissions or window probes must stay unanswered to prove that a client is gone
# while data is unacknowledged: the kernel then sends no keep-alive. A reader that has only stalled
# answers the first probe after an outage, which is sent at 12.6 s; the third check follows at 13.5
# s. The value is a bit less than three intervals, because timers may be early.
_GONE_S = 13.0


class Ageing:
    """The periodic checks of one data plane's open connections."""

    def __init__(self, engine: Engine, connections: Collection[TcpConnection]) -> None:
        self._engine = engine
        self._loop = engine.loop
        self._connections = connections
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._rest: Iterator[TcpConnection] = iter(())

    def start(self) -> None:
        """Start checking connections. Idempotent."""
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK_S, self._begin)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look_at(self, connection: TcpConnection, now: float) -> None:
        """Check a joined connection; reset it if it was idle for too long or its client is gone."""
        up, down = connection.up, connection.down
        if up is None or down is None:
            return
        moved = up.bytes_moved + down.bytes_moved
        is_first = up.seen is None
        if is_first:
            keep_alive((up.source, up.sink))
        seen = up.seen = up.seen or Seen(moved, now)
        was_known = connection.shows_local_client
        if not was_known and now - connection.started < _NEW_S:
            attaches = self._engine.client_dialer.locality.attaches
            connection.shows_local_client = connection.is_preserved and attaches(
                connection.client_ip
            )
        if connection.shows_local_client and (is_first or not was_known):
            keep_alive((up.source,), _LOCAL_CLIENT)
        # Check this before byte counts: an endpoint that keeps sending fills the socket buffer of a
        # gone client, which looks like progress.
        if connection.shows_local_client and _has_gone(up.source, seen, now):
            connection.abort(errno.ETIMEDOUT)
            return
        if up.is_stalled or connection.speaker is up:
            _note_stalled(connection, up, connection.endpoint)
        if not is_first and moved == seen.moved:
            up.give_up_pipe()
            down.give_up_pipe()
            if up.is_ended and down.bytes_moved and not down.is_ended:
                _note_left_open(connection, up, seen)
            is_half_closed = up.is_ended or down.is_ended or up.is_broken or down.is_broken
            tuning = self._engine.tuning
            limit_s = tuning.tcp_half_closed_s if is_half_closed else tuning.tcp_idle_s
            if now - seen.moving_at >= limit_s:
                connection.group.counters.ended_idle += not is_half_closed
                connection.finish(EndReason.IDLE, as_reset=True)
            return
        seen.moved, seen.moving_at, seen.had_waited = moved, now, None

    def _begin(self) -> None:
        self._rest = iter(list(self._connections))
        self._continue()

    def _continue(self) -> None:
        now = self._engine.clock()
        for _ in range(_SLICE):
            connection = next(self._rest, None)
            if connection is None:
                self._timer = None
                if self._connections:
                    self.start()
                return
            self.look_at(connection, now)
        self._timer = self._loop.call_soon(self._continue)


def keep_alive(
    socks: Iterable[_socket.socket], options: Iterable[tuple[int, int, int]] = _KEEPALIVE
) -> None:
    """Set options on each socket, in order; skip a socket's other options if one is rejected."""
    for sock in socks:
        with contextlib.suppress(OSError):
            for level, option, value in options:
                sock.setsockopt(level, option, value)


def unanswered(sock: _socket.socket) -> int:
    """Return how many consecutive retransmissions and probes the peer has left unanswered."""
    found = tcp_info(sock)
    return found.sent_again + found.probed


def _note_stalled(connection: TcpConnection, up: Direction, endpoint: SocketAddress | None) -> None:
    """Record whether the endpoint acknowledges no data, although the client hasn't sent its FIN."""
    is_stalled = not up.is_ended and is_lost_to(up.sink)
    if endpoint is not None:
        connection.group.counters_of(endpoint).stalled += is_stalled - up.is_stalled
        up.is_stalled = is_stalled


def _note_left_open(connection: TcpConnection, up: Direction, seen: Seen) -> None:
    """Count an endpoint that two checks found silent after its client waited and sent its FIN."""
    if seen.had_waited is None:
        seen.had_waited = has_waited(up)
    elif seen.had_waited and connection.exchange is not None:
        connection.exchange.note_left_open()


def _has_gone(client: _socket.socket, seen: Seen, now: float) -> bool:
    """Record a client's silence; return whether it proves that its container was deleted."""
    if not unanswered(client):
        seen.unanswered_since = None
        return False
    if seen.unanswered_since is None:
        seen.unanswered_since = now
    return now - seen.unanswered_since >= _GONE_S
