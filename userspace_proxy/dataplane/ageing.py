"""Sets keep-alive on long connections, and resets idle ones.

    joined ──▶ first check: keep-alive on both sockets ──▶ nothing moved for idle_s ──▶ reset
                                                     └───▶ half-closed, for half_closed_s ──▶ reset

Rule 1: a connection that ends before its first check costs nothing, not even a system call.
Rule 2: a check is at most LOOK_S late; timeouts count from the first check that found no new bytes.
Rule 3: checks are done in slices, so that thousands of connections don't block the loop.
Rule 4: a stalled connection keeps no pipe: pipes are few, and connections without one must copy.
Rule 5: a live reader may stall for idle_s; only a dead one is given up earlier.
Rule 6: if the client sent the last bytes, the kernel is asked whether the endpoint acknowledges
them: retransmissions to a vanished endpoint go on for a quarter of an hour.
Rule 7: a connection whose endpoint sees the address of a deleted container is reset within 20 s.
"""

from __future__ import annotations

import _socket
import asyncio
import contextlib
import errno
from collections.abc import Callable, Collection, Iterable, Iterator

from ..kernel.tcp_state import is_lost_to, tcp_info
from ..model import SocketAddress
from ..model.connection_ends import EndReason
from .client_address import ClientAddressDialer
from .relay import Direction, Seen
from .tcp import TcpConnection
from .tuning import Tuning

LOOK_S = 4.5
# The maximum number of connections checked at once, which takes about 0.3 ms.
_SLICE = 1024

# A socket option that Python's socket module lacks; linux/tcp.h.
TCP_RTO_MAX_MS = 44

# The keep-alive options: a peer is probed after half a minute of silence, and given up 90 s later.
# While bytes wait for the peer, the kernel gives up instead, after tcp_retries2 unanswered
# retransmissions or window probes. TCP_USER_TIMEOUT isn't set: it also counts window probes that a
# stalled reader answers (source: tcp_probe_timer() in net/ipv4/tcp_timer.c). Go, and so kube-proxy,
# probes every 15 s. Load balancers forget a connection after minutes, and conntrack forgets a
# half-closed one and its translation after one (kernel documentation, nf_conntrack-sysctl:
# nf_conntrack_tcp_timeout_close_wait is 60 s): a probe, and another one if it is lost, must come
# before.
_KEEPALIVE = (
    (_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1),
    (_socket.IPPROTO_TCP, _socket.TCP_KEEPIDLE, 30),
    (_socket.IPPROTO_TCP, _socket.TCP_KEEPINTVL, 15),
    (_socket.IPPROTO_TCP, _socket.TCP_KEEPCNT, 6),
)

# The options for a local client whose address the endpoint sees. Once the client's container is
# deleted, the endpoint can't reach it any more, and only this proxy can end the connection. The
# client's kernel is this node's, and answers at once while the container has a link. A link may be
# down for 12 s: the client is given up after 14 unanswered probes, one a second.
_LOCAL_CLIENT = (
    (_socket.IPPROTO_TCP, _socket.TCP_KEEPIDLE, 4),
    (_socket.IPPROTO_TCP, _socket.TCP_KEEPINTVL, 1),
    (_socket.IPPROTO_TCP, _socket.TCP_KEEPCNT, 14),
    # This limits the pause between retransmissions or window probes to 2 s; it is last because it
    # needs Linux 6.15. Without it a client that stopped reading long ago is probed only every
    # two minutes.
    (_socket.IPPROTO_TCP, TCP_RTO_MAX_MS, 2000),
)
# How long a connection is new, so that its client's location is checked again. A container may dial
# up to a second before its route is listed, and the first check may come earlier, so the next two
# repeat it.
_NEW_S = 2 * LOOK_S
# How long retransmissions or window probes must stay unanswered to prove that a peer is gone; the
# kernel sends no keep-alive while data is unacknowledged. The first probe after an outage is sent
# at 12.6 s, and the third check follows after 13.5 s; a reader that is only stalled answers. This
# is a little less than three checks take, because timers may be early.
_GONE_S = 13.0


class Ageing:
    """Checks the open connections of one data plane."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        tuning: Tuning,
        connections: Collection[TcpConnection],
        client_dialer: ClientAddressDialer,
    ) -> None:
        self._client_dialer = client_dialer
        self._loop = loop
        self._clock = clock
        self._idle_s = tuning.tcp_idle_s
        self._half_closed_s = tuning.tcp_half_closed_s
        self._connections = connections
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._rest: Iterator[TcpConnection] = iter(())

    def start(self) -> None:
        """Begin to check connections. Idempotent."""
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK_S, self._begin)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look_at(self, connection: TcpConnection, now: float) -> None:
        """Check one connection, and maybe close it."""
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
            attaches = self._client_dialer.locality.attaches
            connection.shows_local_client = connection.is_preserved and attaches(
                connection.client_ip
            )
        if connection.shows_local_client and (is_first or not was_known):
            keep_alive((up.source,), _LOCAL_CLIENT)
        # Check this before comparing byte counts: an endpoint that keeps sending still fills the
        # client's socket buffer, which looks like progress.
        if connection.shows_local_client and _has_gone(up.source, seen, now):
            connection.abort(errno.ETIMEDOUT)
            return
        if up.is_stalled or connection.speaker is up:
            _note_stalled(connection, up, connection.endpoint)
        if not is_first and moved == seen.moved:
            up.give_up_pipe()
            down.give_up_pipe()
            is_half_closed = up.is_ended or down.is_ended or up.is_broken or down.is_broken
            limit_s = self._half_closed_s if is_half_closed else self._idle_s
            if now - seen.moving_at >= limit_s:
                connection.group.counters.ended_idle += not is_half_closed
                connection.finish(EndReason.IDLE, as_reset=True)
            return
        seen.moved, seen.moving_at = moved, now

    def _begin(self) -> None:
        self._rest = iter(list(self._connections))
        self._continue()

    def _continue(self) -> None:
        now = self._clock()
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
    """Set the options; a socket whose peer has just gone takes none."""
    for sock in socks:
        with contextlib.suppress(OSError):
            for level, option, value in options:
                sock.setsockopt(level, option, value)


def unanswered(sock: _socket.socket) -> int:
    """Return the number of consecutive segments or probes that the peer left unanswered."""
    found = tcp_info(sock)
    return found.sent_again + found.probed


def _note_stalled(connection: TcpConnection, up: Direction, endpoint: SocketAddress | None) -> None:
    """Record whether the endpoint has stopped acknowledging data while the client waits."""
    is_stalled = not up.is_ended and is_lost_to(up.sink)
    if endpoint is not None:
        connection.group.counters_of(endpoint).stalled += is_stalled - up.is_stalled
        up.is_stalled = is_stalled


def _has_gone(client: _socket.socket, seen: Seen, now: float) -> bool:
    """Return whether a client's silence proves that its container was deleted."""
    if not unanswered(client):
        seen.unanswered_since = None
        return False
    if seen.unanswered_since is None:
        seen.unanswered_since = now
    return now - seen.unanswered_since >= _GONE_S
