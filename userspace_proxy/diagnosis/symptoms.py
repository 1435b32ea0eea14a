"""Finds clients without a timely answer in the last minute although others get answers.

    counts ──▶ Symptom: which clients fail, the share that is reported, with which endpoint
                  └──▶ "12 of 20 connections failed in the last minute: 10.244.0.9:8080 refused …"

Rule 1: a few failures aren't reported; many failures are, regardless of the current state.
Rule 2: a report ends only once the share of failures has halved.
Rule 3: the cause is of the most frequent kind, and of the endpoint with most of these failures.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter

from ..causes.cause import Cause, CauseCode, When
from ..causes.endpoints import answers_flows_late, denies, excludes, owes_answers
from ..facts import LAST_MINUTE_S, EndpointCounters, LastMinuteFacts, PortFacts, Streak
from ..facts.last_minute import MinuteCounts
from ..facts.streak import Exclusions
from ..model import Failure, SocketAddress
from ..model.failures import LEFT, NO_ANSWER
from ..policy import EndpointVerdict
from . import clauses as said
from .clauses import Clause
from .failures import DENIALS_S, Clock, cut_cause, dial_cause, end_cause, has_excluded, host_of

LEAST = 3
"""The minimum number of clients to report, unless they are a large share of few clients."""
_FEW, _FEW_SHARE = 2, 0.25
SHARE = 0.05
"""The minimum share of all clients to report: a busy Service always has some failures."""
SILENT_SHARE = 0.1
"""The minimum share of flows to report, or of connections that clients leave or that break off: DNS
servers answer some names late, and clients leave for their own reasons."""
_ENDED = 10
"""The number of ended connections that shows how connections usually end."""
_USUAL_SHARE = 0.5
"""If more than this share of connections end alike, this is the usual end."""
_MANY_DENIALS = 10
"""The number of consecutive failed dials of clients that proves a denial if this node's dials
succeed: if half of all packets are lost, this many fail by chance once in a thousand times."""

Endpoints = Iterable[tuple[EndpointVerdict, EndpointCounters]]
_Failures = Iterator[tuple[Streak, EndpointVerdict]]


@dataclass(frozen=True, slots=True)
class Symptom:
    """A kind of failure, counted by a counter of the last minute (:class:`.MinuteCounts`)."""

    name: str
    """The counter's name."""
    how: str = ""
    """How such connections failed, in brackets after a sum; empty if they didn't fail."""
    share: float = SILENT_SHARE
    """The minimum share of all connections to report; ``SHARE`` if the reason can only be an
    endpoint, or the lack of an endpoint. Flows without an answer count like connections that
    clients leave."""
    find: Callable[[Endpoints], _Failures] | None = None
    """Yields the last such failure of each endpoint; None if no endpoint is to blame."""
    cause: Callable[[EndpointVerdict, Streak], Cause] | None = None
    """Returns the cause of such a failure."""


def _dials_before(endpoints: Endpoints) -> _Failures:
    """Yield failed dials that were followed by a success, of a client or of this node."""
    for verdict, counters in endpoints:
        if counters.dials.part.failures and not counters.dials.is_on:
            yield counters.dials, verdict
        if counters.denials.part.failures:
            yield counters.denials, verdict


def _ended(endpoints: Endpoints) -> _Failures:
    """Yield connections that endpoints closed without a byte, and flows without an answer.

    The last connection is included, even if the endpoint hasn't answered since.
    """
    for verdict, counters in endpoints:
        if has_excluded(counters.exclusions):
            # Yield exclusions before ``ends``, which counts the same connections, because the
            # first of equally frequent failures is reported.
            yield counters.exclusions, verdict
        if counters.ends.part.failures and counters.ends.part.failure not in LEFT:
            yield counters.ends, verdict


def _left(endpoints: Endpoints) -> _Failures:
    """Yield connections that clients left before an answer, or because packets were lost."""
    for verdict, counters in endpoints:
        if counters.ends.part.failures and counters.ends.part.failure in LEFT:
            yield counters.ends, verdict


def _cuts(endpoints: Endpoints) -> _Failures:
    """Yield connections that broke off after a byte, including the last connection."""
    for verdict, counters in endpoints:
        if counters.cuts.part.failures:
            yield counters.cuts, verdict


def _late(endpoints: Endpoints) -> _Failures:
    """Yield flows answered after two seconds, and failed dials that delayed connections."""
    for verdict, counters in endpoints:
        if counters.late and counters.ends.part.failure is Failure.NO_DATAGRAM:
            yield counters.ends, verdict
        if counters.dials.part.failures and counters.dials.part.failure in NO_ANSWER:
            yield counters.dials, verdict


def _at_times(cause: Cause, verdict: EndpointVerdict, *, answers_others: bool = True) -> Cause:
    return cause.replace(
        when=When.LAST_MINUTE, answers_others=answers_others, host=host_of(verdict)
    )


def _of_dial(verdict: EndpointVerdict, dials: Streak) -> Cause:
    is_denied = bool(dials.part.client) and dials.part.failures >= _MANY_DENIALS
    if is_denied and dials.part.last_at - dials.part.first_at >= DENIALS_S:
        return _at_times(denies(verdict.address, dials.part.client), verdict)
    return _at_times(dial_cause(verdict.address, dials), verdict)


def _of_end(verdict: EndpointVerdict, ends: Streak) -> Cause:
    if isinstance(ends, Exclusions):
        return _at_times(excludes(verdict.address, ends.part.client), verdict)
    # An endpoint that has never answered doesn't answer other clients.
    has_answered = ends.succeeded_at >= 0
    cause = end_cause(verdict.address, ends.part.failure)
    return _at_times(cause, verdict, answers_others=has_answered)


def _of_cut(verdict: EndpointVerdict, cuts: Streak) -> Cause:
    return _at_times(cut_cause(verdict.address, cuts), verdict)


def _of_late(verdict: EndpointVerdict, streak: Streak) -> Cause:
    if streak.part.failure is Failure.NO_DATAGRAM:
        return answers_flows_late(verdict.address)
    return _of_dial(verdict, streak)


SYMPTOMS = (
    Symptom("refused", "not connected", SHARE, _dials_before, _of_dial),
    Symptom("unanswered", "ended without an answer", SHARE, _ended, _of_end),
    Symptom("client_aborts", "left before an answer", find=_left, cause=_of_end),
    Symptom("endpoint_aborts", "cut off after an answer began", find=_cuts, cause=_of_cut),
    Symptom("queued", "had waited for an endpoint", SHARE),
    Symptom("removed", "reset as their endpoint had left: on-endpoint-removal"),
    Symptom("late", find=_late, cause=_of_late),
    Symptom("idle"),
    Symptom("unanswered_requests"),
    Symptom("flaps"),
)
_FAILURES = tuple(symptom for symptom in SYMPTOMS if symptom.how)
_BY_NAME: Mapping[str, Symptom] = {symptom.name: symptom for symptom in SYMPTOMS}


def _most(minute: MinuteCounts) -> int:
    """Return the number of clients with the most frequent symptom that is a failure."""
    return max(int(getattr(minute, symptom.name)) for symptom in _FAILURES)


def _nothing_known(_endpoint: SocketAddress, _now: float) -> MinuteCounts:
    return MinuteCounts()


def failed_last_minute(
    minute: MinuteCounts,
    endpoints: Endpoints,
    clock: Clock,
    *,
    failed_at: Callable[[SocketAddress, float], MinuteCounts] = _nothing_known,
    has_header: bool = False,
    was_many: bool = False,
    are_pinned: bool = False,
) -> LastMinuteFacts:
    """Return the counts of the last minute, and the cause of the most frequent symptom.

    Args:
        endpoints: The usable endpoints.
        failed_at: Returns the counts of an endpoint's failed clients up to a moment; ``refused``
            counts its failed dials.
        has_header: Whether the endpoints receive a PROXY header.
        was_many: See :class:`.LastMinuteFacts`.
        are_pinned: Whether a client's address decides which endpoint it gets.
    """
    counts = minute.counts()
    if not any(counts[1:]):
        return LastMinuteFacts()
    endpoints = tuple(endpoints)
    are_flows = any(counters.ends.part.failure is Failure.NO_DATAGRAM for _, counters in endpoints)
    symptom = _main_symptom(minute, are_flows=are_flows)
    name, most = symptom.name, getattr(minute, symptom.name)
    if name == "unanswered_requests":
        counted = [counters for _, counters in endpoints]
        seldom = _owe_seldom(minute, counted, are_pinned=are_pinned)
        owed = [
            (failed_at(one.address, clock.now).unanswered_requests, one.address)
            for one, _ in endpoints
        ]
        count, address = max(owed, key=itemgetter(0), default=(0, None))
        cause = owes_answers(address).replace(count=count) if address else None
        return LastMinuteFacts(*counts, cause=cause, was_many=was_many, is_unusual=seldom)
    if symptom.find is None or symptom.cause is None:
        return LastMinuteFacts(*counts, was_many=was_many)
    # A late connection failed with an endpoint other than the endpoint that counts it, so look at
    # the endpoints' failed dials.
    field = "refused" if name == "late" and not are_flows else name
    failures = [
        (getattr(failed_at(one.address, clock.now), field), streak.part.last_at, streak, one)
        for streak, one in symptom.find(endpoints)
        if clock.now - streak.part.last_at < LAST_MINUTE_S
    ]
    if not failures:
        # Refused clients don't show that their endpoints have left: clients are also refused while
        # there is no endpoint.
        have_left = name != "refused" and not any(_has_failed(one, name) for _, one in endpoints)
        return LastMinuteFacts(*counts, was_many=was_many, have_left=have_left)
    count, last_at, streak, verdict = max(failures, key=itemgetter(0, 1))
    cause = symptom.cause(verdict, streak).replace(
        count=min(count or most, most),
        last_at=clock.unix(last_at),
        has_header=has_header,
        is_terminating=verdict.is_last,
    )
    return LastMinuteFacts(*counts, cause=cause, was_many=was_many)


def _owe_seldom(
    minute: MinuteCounts, endpoints: Iterable[EndpointCounters], *, are_pinned: bool
) -> bool:
    """Return whether connections that end while an answer is due are failures.

    They are if few earlier connections ended like this.

    If clients send last, most connections end like this, and their endpoint ends its side at once.
    For a new Service, or if endpoints left most of these connections open, few means at most half.
    If connections to one endpoint usually end like this, and connections to another seldom do, the
    endpoint is at fault, unless ``are_pinned``.

    Args:
        are_pinned: Whether endpoints have different clients, which may differ in what they send.
    """
    endpoints = tuple(endpoints)
    if not are_pinned and _differ(endpoints):
        return True
    owed, ended = (
        sum(e.unanswered_requests for e in endpoints),
        sum(map(_count_ended, endpoints)),
    )
    are_left_open = 2 * sum(e.left_open for e in endpoints) > owed
    owed_before, before = owed - minute.unanswered_requests, ended - minute.connections
    if before < _ENDED:
        return 2 * owed <= ended
    return owed_before < (_USUAL_SHARE if are_left_open else SILENT_SHARE) * before


def _count_ended(endpoint: EndpointCounters) -> int:
    """Return how many connections ended; if more clients left without an answer, their number."""
    return max(endpoint.connections - endpoint.active, endpoint.unanswered_requests)


def _differ(endpoints: Iterable[EndpointCounters]) -> bool:
    """Return whether connections usually end unanswered at some endpoints, and seldom at others."""
    shares = [
        e.unanswered_requests / ended for e in endpoints if (ended := _count_ended(e)) >= _ENDED
    ]
    return len(shares) > 1 and min(shares) < SILENT_SHARE and max(shares) > _USUAL_SHARE


def _has_failed(counters: EndpointCounters, name: str) -> bool:
    """Return whether clients with a symptom may have failed with this endpoint."""
    if name == "late":
        is_flow = counters.ends.part.failure is Failure.NO_DATAGRAM
        # A late TCP connection was saved by another endpoint, so this endpoint is at fault only if
        # dials to it failed.
        return counters.late > 0 if is_flow else counters.dials.part.failures > 0
    return bool(getattr(counters, name) > 0)


def _main_symptom(minute: MinuteCounts, *, are_flows: bool) -> Symptom:
    """Return the most frequent symptom, which the cause explains.

    Args:
        are_flows: Whether the clients are flows, whose port may be closed without an ICMP error.
    """
    most = max(_FAILURES, key=lambda symptom: getattr(minute, symptom.name))
    if are_flows and most.name == "unanswered" and _are_refused_or_unanswered(minute):
        return _BY_NAME["refused"]
    if _are_mostly_late(minute):
        return _BY_NAME["late"]
    if minute.unanswered_requests > _most(minute):
        return _BY_NAME["unanswered_requests"]
    return most if _most(minute) else _BY_NAME["flaps"]


def _are_mostly_late(minute: MinuteCounts) -> bool:
    """Return whether late clients are the most frequent kind, so that the cause is about them."""
    return minute.late > _most(minute)


def _are_refused_or_unanswered(minute: MinuteCounts) -> bool:
    """Return whether flows were refused while others got no answer for an unknown reason.

    Not every datagram to a closed port gets an ICMP error, because ICMP errors are rate-limited.
    """
    return minute.refused >= LEAST and minute.unanswered > 0


def are_many(minute: LastMinuteFacts, count: int, total: int, share: float = SILENT_SHARE) -> bool:
    """Return whether ``count`` of ``total`` clients should be reported.

    Args:
        share: The minimum share.
    """
    is_large_share = count >= _FEW and count >= _FEW_SHARE * total
    # Without hysteresis, a share near the threshold would be reported intermittently.
    least, share = (_FEW, share / 2) if minute.was_many else (LEAST, share)
    return is_large_share or count >= max(least, share * total)


def many_failed(port: PortFacts, *, but: Collection[CauseCode] = ()) -> Clause | None:
    """Return the clause about clients that failed, with the cause; None if there are few.

    Args:
        but: Reported codes; if any, also return None if the cause has one of them, or is unknown.
    """
    minute, why = port.last_minute, _why(port)
    if but and (minute.cause is None or minute.cause.code in but):
        return None
    if _are_mostly_late(minute):
        # Don't state the cause, because it is about late clients, not about failed clients.
        why = None
    elif minute.queued and minute.queued == _most(minute):
        is_limited = port.max_connections is not None and port.usable
        why = said.were_at_limit() if is_limited else said.none_in_time()
    if port.protocol == "UDP":
        return _flows_failed(port, why)
    counts = {symptom: getattr(minute, symptom.name) for symptom in _FAILURES}
    # The total isn't below the count: a connection that was closed may have begun more than a
    # minute ago.
    failed = sum(counts.values())
    total = max(minute.connections + minute.refused + minute.queued, failed)
    sure = sum(count for symptom, count in counts.items() if symptom.share == SHARE)
    if not (are_many(minute, sure, total, SHARE) or are_many(minute, failed, total)):
        return None
    is_lost = minute.cause is not None and minute.cause.code is CauseCode.PACKETS_LOST
    if minute.client_aborts == failed and not is_lost:
        return said.clients_left(failed, total, why)
    parts = tuple((count, symptom.how) for symptom, count in counts.items() if count >= LEAST)
    is_removal = minute.removed and minute.removed == max(counts.values())
    shown = parts if len(parts) > 1 or is_removal else ()
    return said.connections_failed(failed, total, shown, why)


def _flows_failed(port: PortFacts, why: Clause | None) -> Clause | None:
    minute = port.last_minute
    # A flow has an endpoint before it is known whether the endpoint answers, so ``connections``
    # includes unanswered flows.
    failed = minute.refused + minute.queued
    total, unanswered = max(minute.connections, failed), 0
    if not are_many(minute, failed, total, SHARE):
        return None
    if _are_refused_or_unanswered(minute) and not port.is_without_answer:
        unanswered = minute.unanswered
        failed += unanswered
        total = max(total, failed)
    return said.flows_failed(failed, total, minute.refused, unanswered, why)


def _why(port: PortFacts, where: str = "at") -> Clause | None:
    """Return the clause with the reason why most clients failed; None if unknown.

    Args:
        where: The preposition for endpoints that are no longer used.
    """
    minute = port.last_minute
    if minute.have_left:
        return said.at_former_endpoints(where)
    if minute.cause is None and minute.flaps >= LEAST:
        return said.because_of_flaps(minute.flaps, port.namespace, port.service)
    return said.because(minute.cause) if minute.cause is not None else None


def many_unanswered(port: PortFacts, in_a_row: int = 0) -> Clause | None:
    """Return the clause about UDP flows without a timely answer; None if few, or without answers.

    If many open connections (flows) no longer get an answer, these are reported instead.

    Args:
        in_a_row: The number of flows without an answer since the failing endpoints' last answer. If
            there are no others, the Service port doesn't answer now.
    """
    minute, open_ = port.last_minute, port.active
    if port.stalled > in_a_row and (port.stalled == open_ or are_many(minute, port.stalled, open_)):
        return _stalled(port)
    is_late = minute.late > minute.unanswered
    count = minute.late if is_late else minute.unanswered
    if port.protocol != "UDP" or port.is_without_answer or count <= in_a_row:
        return None
    if not is_late and _are_refused_or_unanswered(minute) and (failed := many_failed(port)):
        return failed
    total = max(minute.connections, count)
    row = said.flows_answered_late if is_late else said.flows_unanswered
    return row(count, total, _why(port)) if are_many(minute, count, total) else None


def _stalled(port: PortFacts) -> Clause:
    at = [endpoint for endpoint in port.endpoints if endpoint.stalled]
    return said.stalled(
        port.stalled,
        port.active,
        port.protocol,
        at[0].address if len(at) == 1 else "",
        len(at),
        has_former=port.stalled > sum(endpoint.stalled for endpoint in at),
    )


def many_saved_late(port: PortFacts) -> Clause | None:
    """Return the clause about connections saved late, with the cause; None if there are few."""
    count = port.last_minute.late
    if port.protocol == "UDP" or (total := _total_of(port, count)) is None:
        return None
    why = _why(port, "from") if _are_mostly_late(port.last_minute) else None
    return said.saved_late(count, total, why)


def many_idle(port: PortFacts) -> Clause | None:
    """Return the clause about idle connections that this proxy closed; None if there are few."""
    count = port.last_minute.idle
    total = _total_of(port, count)
    return None if total is None else said.ended_idle(count, total)


def many_unanswered_requests(port: PortFacts) -> Clause | None:
    """Return the clause about connections that ended with unanswered bytes; None if few."""
    minute = port.last_minute
    total = _total_of(port, minute.unanswered_requests)
    why = _why(port) if minute.unanswered_requests > _most(minute) else None
    return None if total is None else said.ended_unanswered(minute.unanswered_requests, total, why)


def many_flaps(port: PortFacts) -> Clause | None:
    """Return the clause about times without an endpoint; None if few, as in a rollout."""
    if port.last_minute.flaps < LEAST:
        return None
    return said.flaps(port.last_minute.flaps, port.namespace, port.service)


def _total_of(port: PortFacts, count: int) -> int | None:
    """Return the number of clients that ``count`` is a part of; None if ``count`` is small."""
    # The total isn't below the count: a connection that was closed may have begun more than a
    # minute ago.
    total = max(port.last_minute.connections, count)
    return total if are_many(port.last_minute, count, total) else None
