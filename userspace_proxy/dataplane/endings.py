"""Reads from the sockets of a relayed connection what its end is judged by (``facts.exchange``).

    client ──request──▶ proxy ──▶ endpoint: not a byte      client ──FIN or RST, 1 s later──▶ proxy
                                            └─ later: a byte ──▶ client: does it acknowledge it?

Rule 1: the kernel is asked last, and only about what may matter: each question is a system call.
Rule 2: a client that still reads after its FIN acknowledges a late byte; the kernel of one that has
closed its socket answers with a RST, and acknowledges nothing.
"""

from __future__ import annotations

import errno
from typing import Any

from ..facts.exchange import OWED_AFTER_S, PATIENCE_S, EndFacts, Exchange, has_given_up
from ..kernel.tcp_state import (
    endpoint_loss,
    is_connected,
    loss,
    silence,
    since_sent_s,
    unacknowledged_bytes,
)
from ..model.connection_ends import EndedBy
from .relay import Direction

# Before Python 3.12 an enum's member costs a call.
_BY_CLIENT, _BY_ENDPOINT = EndedBy.CLIENT, EndedBy.ENDPOINT


def end_of_client(up: Direction, **known: Any) -> EndFacts:
    """Return the facts of a client that has ended its side, and may still read, or has left."""
    silent_s, unheard_s = silence(up.source)
    left_s = unheard_s if up.is_ended else 0.0
    return EndFacts(_BY_CLIENT, silent_s=silent_s, left_s=left_s, **known)


def end_if_given_up(up: Direction, exchange: Exchange, now: float) -> EndFacts | None:
    """Return the facts of a client that has left before the first byte, and had waited for it."""
    asked_s = now - exchange.asked_at
    if asked_s < PATIENCE_S or not up.bytes_moved:
        return None
    if not up.is_ended and is_connected(up.source):
        return None
    answers_others = exchange.counters.ends.succeeded_at >= 0
    end = end_of_client(up, asked_s=asked_s, answers_others=answers_others)
    return end._replace(lost=endpoint_loss(up.sink)) if has_given_up(end) else None


def end_if_lost(
    up: Direction, down: Direction, exchange: Exchange, now: float, number: int | None = None
) -> EndFacts | None:
    """Return the facts of a client that has just left as packets were lost, after a byte.

    Args:
        number: The errno with which the client's socket failed.
    """
    if not down.bytes_moved or exchange.code:
        return None
    found = loss(up.source, up.sink, now - exchange.answered_at, number)
    return EndFacts(_BY_CLIENT, has_answer=True, lost=found) if found else None


def end_if_reset(
    up: Direction,
    down: Direction,
    exchange: Exchange,
    now: float,
    number: int | None,
    had_end: bool,
) -> EndFacts | None:
    """Return the facts of a RST that nothing noted before explains, or of a client it is from.

    Args:
        number: The errno, if it is known.
        had_end: The endpoint had sent its FIN before.
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
    """Return whether an endpoint to which the client spoke last owes an answer as a side ends.

    Args:
        lasted_s: Seconds since it answered the dial.
        is_left: The client ends, not the endpoint, of which a reset is none.
    """
    least_s = OWED_AFTER_S[is_left]
    if lasted_s < least_s or not (is_left or is_connected(up.sink)):
        return False
    return since_sent_s(up.sink) >= least_s


def has_arrived(down: Direction) -> bool:
    """Return whether the client's kernel has acknowledged a byte of the answer."""
    return unacknowledged_bytes(down.sink) < down.bytes_moved
