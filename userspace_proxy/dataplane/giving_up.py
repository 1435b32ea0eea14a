"""Recognizes clients that have left without an answer after they had waited for one.

    client ──request──▶ proxy ──▶ endpoint: not a byte      client ──FIN or RST, 1 s later──▶ proxy
                                            └─ later: a byte ──▶ client: does it acknowledge it?

Rule 1: the client has sent something, and nothing more for a second, or for less if the endpoint
has answered others: one that sends and leaves at once wants no answer (syslog, graphite), nor does
one that sends again without an answer.
Rule 2: of a connection on which the endpoint has sent a byte in time, only the end shows something:
the last words were the client's, and it had waited, or the endpoint ended it without an answer.
Rule 3: a FIN doesn't show whether the client still reads. One that does acknowledges a late byte;
the kernel of one that has closed its socket answers with a RST, and acknowledges nothing.
"""

from __future__ import annotations

import _socket

from ..causes.endpoints import UNANSWERED_S
from ..facts import Blamed, EndpointCounters
from ..facts.late_bytes import note_late
from ..kernel.tcp_state import is_connected, said_s, silent_s, unacknowledged_bytes, unheard_s
from .relay import Direction

_WAITED_S = 0.9
"""Clients that wait for a second have begun to count before the endpoint answered."""
_PATIENCE_S = 0.3
"""Before a client leaves that has waited for an endpoint that has answered others."""
_AWAITED_S = 0.1
"""Where a byte comes after all, it was wanted, unless the client left as soon as it had sent."""


def has_given_up(up: Direction, counters: EndpointCounters, asked_s: float) -> bool:
    """Return whether a client has left that had waited for the endpoint's first byte.

    Args:
        up: From the client, whose endpoint has sent nothing.
        counters: Of the endpoint: if it has answered others, the protocol has answers.
        asked_s: Seconds since the client's first byte, or since the endpoint answered after that.
    """
    if asked_s < _PATIENCE_S or not up.bytes_moved:
        return False
    # It costs a system call, so it comes last.
    if not up.is_ended and is_connected(up.source):
        return False
    silence_s = silent_s(up.source)
    if asked_s - silence_s >= _WAITED_S:
        return False
    silence_s, has_answered = min(silence_s, asked_s), counters.ends.succeeded_at >= 0
    return silence_s >= _WAITED_S or (has_answered and silence_s - left_s(up) >= _PATIENCE_S)


def came_late(
    up: Direction, counters: Blamed, now: float, waited_s: float, *, is_counted: bool
) -> bool:
    """Note a first byte as late, and return that, if its client has ended its side, and had waited.

    Args:
        counters: What counts it.
        waited_s: How long the byte took.
        is_counted: The connection has been noted as one without an answer.
    """
    left = left_s(up)
    # One that was counted may have ended its side at once, and wait: its end will show.
    is_late = up.is_ended and (is_counted or silent_s(up.source) - left >= _AWAITED_S)
    if is_late:
        note_late(counters, now, waited_s, left, is_counted=is_counted)
    return is_late


def ends_unanswered(up: Direction, joined_s: float) -> bool:
    """Return whether an endpoint that has sent nothing owes the client an answer when it ends.

    Later it ends what idles: clients connect beforehand, and may send nothing.
    """
    return bool(up.bytes_moved) or joined_s < UNANSWERED_S


def owes_answer(endpoint: _socket.socket, lasted_s: float, *, is_left: bool) -> bool:
    """Return whether an endpoint to which the client spoke last owes an answer as a side ends.

    Args:
        lasted_s: Seconds since it answered the dial.
        is_left: The client ends, not the endpoint, of which a reset is none.
    """
    least_s = _WAITED_S if is_left else _AWAITED_S
    if lasted_s < least_s or not (is_left or is_connected(endpoint)):
        return False
    return said_s(endpoint) >= least_s


def left_s(up: Direction) -> float:
    """Return for how long a client that has given up has been away."""
    return unheard_s(up.source) if up.is_ended else 0.0


def has_arrived(down: Direction) -> bool:
    """Return whether the client's kernel has acknowledged a byte of the answer."""
    return unacknowledged_bytes(down.sink) < down.bytes_moved
