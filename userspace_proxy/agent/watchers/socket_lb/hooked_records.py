"""Creates records of connections that the connect() hooks have translated, for observers.

    hooks ──the end of a connection── Records ──ConnectionFacts──▶ RecordRing ──▶ observers
                                                      └──────────▶ connection log

Rule 1: the time of the first byte is missing, because only a relay sees it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from ....causes.endpoints import DIAL_CODES
from ....dataplane import Tuning
from ....dataplane.connection_log import ConnectionLog
from ....facts.connection import (
    ConnectionEvent,
    ConnectionFacts,
    ConnectionFilter,
    FailedDialFacts,
    port_fields,
)
from ....model import Failure
from ....model.connection_ends import EndedBy, EndReason
from ....plane.messages import Observed
from ....plane.record_ring import RecordRing
from ....steering.socket_lb.socket_maps import Result

if TYPE_CHECKING:
    from ....steering.socket_lb.hooks import SocketEvent

# The states in net/tcp_states.h: the last one before the close shows which side sent a FIN first.
_FIN_WAIT1, _FIN_WAIT2, _TIME_WAIT, _CLOSE_WAIT, _LAST_ACK, _CLOSING = 4, 5, 6, 8, 9, 11
_BY_CLIENT = frozenset({_FIN_WAIT1, _FIN_WAIT2, _TIME_WAIT, _CLOSING})
_BY_ENDPOINT = frozenset({_CLOSE_WAIT, _LAST_ACK})
_COMPLETE = frozenset({_FIN_WAIT2, _TIME_WAIT, _CLOSING, _LAST_ACK})
_DIALS = {
    Result.REFUSED: (Failure.REFUSED, EndReason.REFUSED),
    Result.UNANSWERED: (Failure.SILENT, EndReason.TIMED_OUT),
}


class Records:
    """Creates records of the connections that one proxy's hooks have translated.

    Args:
        tuning: The tuning, with the share of connections that are logged.
    """

    def __init__(self, tuning: Tuning) -> None:
        self.tuning = tuning
        share = tuning.connection_log
        self.are_logged = share > 0
        """Whether records are created even if nothing observes them."""
        self.connection_log = ConnectionLog(share) if share else None
        self._ring = RecordRing(self)

    def observe(self, filters: Sequence[ConnectionFilter]) -> Observed:
        """Return the observations since the last call, and apply new filters."""
        return self._ring.observe(filters)

    def note(self, event: SocketEvent) -> None:
        """Log or observe a closed connection, or a failed or abandoned dial, if requested."""
        log, port, seen = self.connection_log, event.name.name, event.seen
        # The hooks can't detect whether the answer was complete, so any answer suffices.
        is_plain = seen.result is Result.SERVED and seen.received > 0
        if log is not None and log.takes_next(port.prefixes, seen.client.ip, is_plain=is_plain):
            log.write(_facts(event), lambda: seen.frontend)

    def leave_out(self, prefixes: Collection[str], count: int) -> None:
        """Count closed connections whose events didn't fit into the BPF programs' ring."""
        self._ring.leave_out(prefixes, count)


def _facts(event: SocketEvent) -> ConnectionFacts:
    seen = event.seen
    one = ConnectionFacts(
        **port_fields(event.name),
        client=str(seen.client),
        source="client",
        dials=1,
        waited_s=seen.waited_ns / 1e9,
        duration_s=seen.ns / 1e9,
    )
    endpoint = str(event.endpoint)
    if seen.result is Result.SERVED:
        one.endpoint = endpoint
        one.received_bytes, one.sent_bytes = seen.sent, seen.received
        one.ended_by = _ended_by(seen.tcp_state)
        one.cause = EndReason.COMPLETE if seen.tcp_state in _COMPLETE else EndReason.RESET
    elif seen.result in _DIALS:
        failure, one.cause = _DIALS[seen.result]
        code = DIAL_CODES[failure]
        one.event, one.ended_by = ConnectionEvent.REFUSED, EndedBy.ENDPOINT
        one.failed, one.code = (FailedDialFacts(endpoint, code),), code
    else:
        one.ended_by, one.cause = EndedBy.CLIENT, EndReason.LEFT
    return one


def _ended_by(state: int) -> EndedBy:
    """Return the side that sent its FIN first; a reset without a FIN may be from either side."""
    if state in _BY_CLIENT:
        return EndedBy.CLIENT
    return EndedBy.ENDPOINT if state in _BY_ENDPOINT else EndedBy.NONE
