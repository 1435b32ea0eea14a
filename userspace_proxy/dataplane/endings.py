"""Reads from sockets the facts that ``facts.connection_outcome`` judges a connection's end by.

    client ──request──▶ proxy ──▶ endpoint: not a byte      client ──FIN or RST, 1 s later──▶ proxy
                                            └─ later: a byte ──▶ client: is it acknowledged?

Rule 1: the kernel is asked last, and only if it may matter: each question is a system call.
Rule 2: a client that still reads after its FIN acknowledges a late byte; if it has closed its
socket, its kernel answers with a RST, and acknowledges nothing.
"""

from __future__ import annotations

import errno
from typing import Any

from ..facts.connection_outcome import (
    OWED_AFTER_S,
    PATIENCE_S,
    ConnectionOutcome,
    EndFacts,
    has_given_up,
)
from ..kernel.tcp_state import (
    LOSS_S,
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
    """Return the facts of a client that has sent its FIN, and may still read, or has left."""
    silent_s, unheard_s = silence(up.source)
    left_s = unheard_s if up.is_ended else 0.0
    return EndFacts(_BY_CLIENT, silent_s=silent_s, left_s=left_s, **known)


def end_if_given_up(up: Direction, exchange: ConnectionOutcome, now: float) -> EndFacts | None:
    """Return the facts of a client that waited for the first byte and left without it."""
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
    """Return the facts of a client that left after a byte because packets were lost.

    Args:
        number: The errno with which the client's socket failed.
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
    """Return the facts of a RST that no earlier event explains, or that the client sent.

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
    """Return whether the endpoint owes an answer when a side ends after the client sent last.

    Args:
        lasted_s: Seconds since the endpoint answered the dial.
        is_left: The client ends the connection, not the endpoint; a reset isn't an answer.
    """
    least_s = OWED_AFTER_S[is_left]
    if lasted_s < least_s or not (is_left or is_connected(up.sink)):
        return False
    return since_sent_s(up.sink) >= least_s


def has_arrived(down: Direction) -> bool:
    """Return whether the client's kernel has acknowledged a byte of the answer."""
    return unacknowledged_bytes(down.sink) < down.bytes_moved
