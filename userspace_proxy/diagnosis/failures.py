"""Determines why an endpoint fails: the last failure, its count, and whether it is current.

consecutive failed dials ──▶ consecutive connections without a byte ──▶ denied clients
    ──▶ consecutive reset connections, or lost packets ──▶ a while ago? ──▶ Cause
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

from ..causes.cause import Cause, CauseCode, When
from ..causes.endpoints import (
    UNANSWERED_S,
    absent,
    answers_at_end,
    answers_flows_late,
    answers_late,
    cuts_off,
    denies,
    dial_failed,
    dropped_here,
    end_code,
    excludes,
    fault_on_purpose,
    loses,
    no_datagram,
    refuses,
    resets,
    sends_nothing,
)
from ..facts import LAST_MINUTE_S, EndpointCounters, EndpointFacts, PortFacts, Streak
from ..model import DataPath, Failure, SocketAddress, ip_of
from ..model.failures import LOSSES
from ..model.node_network import DroppedBy, Obstacle
from ..policy import EndpointVerdict

MANY_ENDS = 3
"""The number of consecutive connections without a byte after which an endpoint counts as failing:
fewer are normal, unless there were no other connections."""
_ENDS_AT_TIMES = 20
"""The same number for an endpoint that answers sometimes: an endpoint that closes half of its
connections at random often closes three in a row, but twenty only once in a million."""
DENIALS = 3
DENIALS_S = 5.0
"""How many dials of a client must fail in a row, over how many seconds, while this node's dials
succeed, to prove a denial. Fewer fail by chance, or while a program starts."""
_EXCLUSIONS = MANY_ENDS - 1
"""How many closed connections of one client, after the first one, prove an exclusion."""
DENIED_PAST_S = 32.0
"""A denial counts as past after this many seconds without another denial.

Only the client itself can show that it is still denied, because probes don't use its address; most
health checks and scrapes dial at least every 30 s."""


class Clock(Protocol):
    """The two clocks of a node."""

    now: float
    """Monotonic seconds."""

    def unix(self, moment: float) -> float:
        """Return the Unix time of a monotonic time in seconds; 0 if that is negative."""


def failure_of(
    address: SocketAddress,
    counters: EndpointCounters,
    clock: Clock,
    obstacle: Obstacle | None = None,
) -> tuple[Cause | None, bool]:
    """Return why an endpoint fails (None if it doesn't), and whether it failed a while ago.

    Args:
        obstacle: The obstacle to this node's packets to the endpoint; None if no obstacle is known.
    """
    cause = _failure(address, counters, clock, obstacle)
    if cause is None and counters.stalled and isinstance(obstacle, DroppedBy):
        cause = dropped_here(address, obstacle.what)
    if cause is None and counters.denials.is_on and not counters.connections:
        # Report the denials as past: the endpoint answers this node but hasn't answered a client
        # yet.
        denied = seen(dial_cause(address, counters.denials), counters.denials, clock)
        return denied.replace(when=When.PAST), True
    if cause is None or not _is_past(cause, clock):
        return cause, False
    return cause.replace(when=When.PAST), True


def cause_of_endpoint(
    verdict: EndpointVerdict,
    counters: EndpointCounters,
    clock: Clock,
    *,
    obstacle: Obstacle | None = None,
    faults: Sequence[str] = (),
    has_header: bool = False,
) -> tuple[Cause | None, bool]:
    """Return the result of :func:`failure_of`, with the facts on which the remedy depends.

    Args:
        faults: Descriptions of injected faults, which must not look like failures.
        has_header: Whether the endpoint receives a PROXY header first.
    """
    if faults:
        return fault_on_purpose(verdict.address, tuple(faults)), False
    cause, is_past = failure_of(verdict.address, counters, clock, obstacle)
    if cause is not None and ((host := host_of(verdict)) or has_header or verdict.is_last):
        cause = cause.replace(host=host, has_header=has_header, is_terminating=verdict.is_last)
    return cause, is_past


def host_of(endpoint: EndpointVerdict | EndpointFacts) -> str:
    """Return the DNS name or IP of an endpoint that isn't known to be a pod; empty for a pod."""
    return endpoint.host or ("" if endpoint.pod else ip_of(str(endpoint.address)))


def becomes_past(view: PortFacts, clock: Clock) -> bool:
    """Return whether time alone has made a Service port quiet, or one of its causes past."""
    if not view.is_quiet and is_quiet(view, clock):
        return True
    return any(e.cause and not e.is_past and _is_past(e.cause, clock) for e in view.endpoints)


def is_quiet(view: PortFacts, clock: Clock) -> bool:
    """Return whether the last answer was over a minute ago; False if unknown (kernel path)."""
    is_known = view.sent_at > 0 and view.path is not DataPath.KERNEL
    return is_known and clock.unix(clock.now) - view.sent_at >= LAST_MINUTE_S


def _is_past(cause: Cause, clock: Clock) -> bool:
    after_s = DENIED_PAST_S if cause.code is CauseCode.ENDPOINT_DENIES else LAST_MINUTE_S
    return cause.last_at > 0 and clock.unix(clock.now) - cause.last_at >= after_s


def _failure(
    address: SocketAddress, counters: EndpointCounters, clock: Clock, obstacle: Obstacle | None
) -> Cause | None:
    dials, ends, denials = counters.dials, counters.ends, counters.denials
    end, excluded = ends.part, counters.exclusions
    failed = _dials_in_a_row(address, dials, clock, obstacle) if dials.is_on else None
    is_silent = end.failure is Failure.NO_DATAGRAM
    is_silent_since = is_silent and end.last_at > dials.part.last_at
    if failed and not (is_silent_since and _is_past(failed, clock)):
        return failed
    has_many_ends = ends.is_on and end.failures >= min(_many(ends, clock), counters.connections)
    if has_many_ends and is_silent and isinstance(obstacle, DroppedBy):
        return seen(dropped_here(address, obstacle.what), ends, clock)
    if has_many_ends and not _left_at_once(ends):
        if end.late and is_silent:
            return seen(answers_flows_late(address), ends, clock)
        if end.late and end.failure is Failure.UNANSWERED:
            row = answers_at_end if end.late.is_at_end else answers_late
            return seen(row(address, end.late.waited_s), ends, clock)
        cause = seen(end_cause(address, end.failure), ends, clock)
        if ends.succeeded_at >= 0 and clock.now - ends.succeeded_at < LAST_MINUTE_S:
            cause = cause.replace(answers_others=True)
        if has_excluded(excluded) and excluded.part.last_at >= end.last_at:
            cause = seen(excludes(address, excluded.part.client), ends, clock)
        return cause.replace(before=failed) if failed else cause
    if failed:
        return failed
    if denials.is_on and _is_denial(denials):
        denial = denials.part
        is_ended = denial.failure is Failure.RESET and ends.succeeded_at >= denial.first_at
        denied = excludes if is_ended else denies
        cause = seen(denied(address, denial.client), denials, clock)
        # Answers to other clients prove nothing about this client, which may have stopped trying.
        has_answered_since = dials.succeeded_at > denial.last_at
        if not (has_answered_since and _is_past(cause, clock)):
            return cause
    cuts = counters.cuts
    is_of_endpoint = cuts.is_on and cuts.part.failure is not Failure.NOT_TO_CLIENT
    if is_of_endpoint and cuts.part.failures >= min(MANY_ENDS, counters.connections):
        return seen(cut_cause(address, cuts), cuts, clock)
    return None


def _dials_in_a_row(
    address: SocketAddress, dials: Streak, clock: Clock, obstacle: Obstacle | None
) -> Cause:
    if isinstance(obstacle, DroppedBy):
        return seen(dropped_here(address, obstacle.what), dials, clock)
    if obstacle:
        return seen(absent(address, obstacle), dials, clock)
    cause = dial_cause(address, dials)
    if dials.part.failure is Failure.REFUSED and dials.succeeded_at >= 0:
        # A successful dial proves that the port was open, however the connection ended.
        cause = refuses(address, was_open=True)
    if _fails_again(dials, clock):
        cause = cause.replace(when=When.LAST_MINUTE, answers_others=True)
    return seen(cause, dials, clock)


def dial_cause(address: SocketAddress, dials: Streak) -> Cause:
    """Return the cause of failed dials, from the last failed dial."""
    return dial_failed(address, dials.part.failure, os.strerror(dials.part.number))


def end_cause(address: SocketAddress, failure: Failure) -> Cause:
    """Return the cause of connections (flows) without a byte, from the last recorded failure."""
    if failure is Failure.NO_DATAGRAM:
        return no_datagram(address)
    if failure in LOSSES:
        return loses(address, failure)
    is_reset = end_code(failure) is CauseCode.ENDPOINT_RESETS
    return resets(address) if is_reset else sends_nothing(address)


def cut_cause(address: SocketAddress, cuts: Streak) -> Cause:
    """Return the cause of connections that ended after a byte, from the last recorded failure."""
    if cuts.part.failure in LOSSES:
        return loses(address, cuts.part.failure, cuts.part.client, has_sent=True)
    return cuts_off(address)


def _is_denial(denials: Streak) -> bool:
    """Return whether dials fail from client addresses, and not just temporarily.

    If such clients were answered in between, the reason is packet loss, or a program that keeps
    restarting.
    """
    is_lasting = denials.part.last_at - denials.part.first_at >= DENIALS_S
    return denials.part.failures >= DENIALS and is_lasting and not _comes_and_goes(denials)


def has_excluded(exclusions: Streak) -> bool:
    """Return whether an endpoint closed connections of some clients by a rule, not by chance."""
    return exclusions.part.failures >= _EXCLUSIONS and not _comes_and_goes(exclusions)


def _comes_and_goes(streak: Streak) -> bool:
    """Return whether clients were answered less than a minute before the last failure."""
    answered_at = streak.succeeded_at
    return answered_at >= 0 and streak.part.last_at - answered_at < LAST_MINUTE_S


def _left_at_once(ends: Streak) -> bool:
    """Return whether all clients left within a second, though the endpoint has answered others.

    In this case, they left for one reason, such as the end of their program. Clients that come one
    after another each wait for 0.3 s or longer (``facts.connection_outcome``), so five of them
    leave over more than a second.
    """
    is_left = ends.part.failure is Failure.UNANSWERED and ends.succeeded_at >= 0
    return is_left and ends.part.last_at - ends.part.first_at < UNANSWERED_S


def _many(ends: Streak, clock: Clock) -> int:
    """Return after how many consecutive failed connections an endpoint counts as not answering."""
    is_counted_lately = end_code(ends.part.failure) is CauseCode.ENDPOINT_RESETS
    return _ENDS_AT_TIMES if is_counted_lately and _fails_again(ends, clock) else MANY_ENDS


def _fails_again(streak: Streak, clock: Clock) -> bool:
    """Return whether an endpoint has answered between two failures of the last minute."""
    return streak.before_at >= 0 and clock.now - streak.before_at < LAST_MINUTE_S


def without_silence(port: PortFacts) -> Sequence[EndpointFacts]:
    """Return the endpoints of a Service port; for UDP, without causes that state only silence.

    Until a datagram comes back, the protocol may be one without answers, as with TCP. If an
    endpoint fails, or failed before, in another way, all endpoints keep their causes.
    """
    causes = [endpoint.cause for endpoint in port.endpoints if endpoint.cause is not None]
    is_unheard = port.protocol == "UDP" and port.is_without_answer
    if not (causes and is_unheard and all(map(_is_silence, causes))):
        return port.endpoints
    return tuple(endpoint.without_cause() for endpoint in port.endpoints)


def _is_silence(cause: Cause) -> bool:
    # Ignore earlier failures of a cause in the past tense, which doesn't state them.
    is_first = cause.before is None or cause.when is When.PAST
    return cause.code is CauseCode.ENDPOINT_SENDS_NOTHING and is_first


def seen(cause: Cause, streak: Streak, clock: Clock) -> Cause:
    """Return a copy of a cause with the count and times of a streak."""
    part = streak.part
    began_at, last_at = max(part.first_at, part.turned_at), part.last_at
    return cause.replace(
        count=part.failures, first_at=clock.unix(began_at), last_at=clock.unix(last_at)
    )
