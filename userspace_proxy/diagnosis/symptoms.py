"""Clients of the last minute that got no answer, or a late one, though endpoints answer others.

    counts ──▶ Symptom: which of them fails, from which share on it is news, at which endpoint
                  └──▶ "12 of 20 connections failed in the last minute: 10.244.0.9:8080 refused …"

Rule 1: a few failures are no news; many are, whatever is so at this moment.
Rule 2: what was news stays so until it is half as many.
Rule 3: the cause is that of most of them, at the endpoint at which most of these failed.
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
from .failures import DENIALS_S, Clock, cut_cause, dial_cause, end_cause, has_excluded

LEAST = 3
"""Clients: fewer are no news, unless they are a large share of few."""
_FEW, _FEW_SHARE = 2, 0.25
SHARE = 0.05
"""Of all clients: a busy Service always has some that fail."""
SILENT_SHARE = 0.1
"""Of all flows, or connections that clients leave or that end in the middle: an answer may take
longer, as those of DNS servers to some names, and clients leave for reasons of their own."""
_ENDED = 10
"""Connections that show how they usually end."""
_MANY_DENIALS = 10
"""Failed dials of clients in a row, while this node was answered: half of all packets would have to
be lost for that to happen by chance once in a thousand times."""

Endpoints = Iterable[tuple[EndpointVerdict, EndpointCounters]]
_Failures = Iterator[tuple[Streak, EndpointVerdict]]


@dataclass(frozen=True, slots=True)
class Symptom:
    """One count of the last minute (:class:`.MinuteCounts`)."""

    name: str
    """Its field."""
    how: str = ""
    """How such connections failed, in brackets behind a sum; empty: they aren't failed ones."""
    share: float = SILENT_SHARE
    """From which share of all connections on they are news. ``SHARE``: nothing but an endpoint, or
    the lack of one, can be the reason. Flows without an answer are as those that clients leave."""
    find: Callable[[Endpoints], _Failures] | None = None
    """Yields the last such failure of each endpoint; None: no endpoint is to blame."""
    cause: Callable[[EndpointVerdict, Streak], Cause] | None = None
    """Returns the cause of one."""


def _dials_before(endpoints: Endpoints) -> _Failures:
    """Yield failed dials that a later one has succeeded after, of a client or of this node."""
    for verdict, counters in endpoints:
        if counters.dials.part.failures and not counters.dials.is_on:
            yield counters.dials, verdict
        if counters.denials.part.failures:
            yield counters.denials, verdict


def _ended(endpoints: Endpoints) -> _Failures:
    """Yield connections (flows) without a byte that endpoints have ended.

    The last one is included, though the endpoint may have answered none since.
    """
    for verdict, counters in endpoints:
        if has_excluded(counters.exclusions):
            # Before the same connection in ``ends``.
            yield counters.exclusions, verdict
        if counters.ends.part.failures and counters.ends.part.failure not in LEFT:
            yield counters.ends, verdict


def _left(endpoints: Endpoints) -> _Failures:
    """Yield those that clients have left."""
    for verdict, counters in endpoints:
        if counters.ends.part.failures and counters.ends.part.failure in LEFT:
            yield counters.ends, verdict


def _cuts(endpoints: Endpoints) -> _Failures:
    """Yield connections that were cut off after a byte, the last one included."""
    for verdict, counters in endpoints:
        if counters.cuts.part.failures:
            yield counters.cuts, verdict


def _late(endpoints: Endpoints) -> _Failures:
    """Yield flows that were answered after two seconds, and what delayed connections."""
    for verdict, counters in endpoints:
        if counters.late and counters.ends.part.failure is Failure.NO_DATAGRAM:
            yield counters.ends, verdict
        if counters.dials.part.failures and counters.dials.part.failure in NO_ANSWER:
            yield counters.dials, verdict


def _at_times(cause: Cause, verdict: EndpointVerdict, *, answers_others: bool = True) -> Cause:
    return cause.replace(when=When.LAST_MINUTE, answers_others=answers_others, host=verdict.host)


def _of_dial(verdict: EndpointVerdict, dials: Streak) -> Cause:
    is_denied = bool(dials.part.client) and dials.part.failures >= _MANY_DENIALS
    if is_denied and dials.part.last_at - dials.part.first_at >= DENIALS_S:
        return _at_times(denies(verdict.address, dials.part.client), verdict)
    return _at_times(dial_cause(verdict.address, dials), verdict)


def _of_end(verdict: EndpointVerdict, ends: Streak) -> Cause:
    if isinstance(ends, Exclusions):
        return _at_times(excludes(verdict.address, ends.part.client), verdict)
    # One that has never answered answers no others either.
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
    """Return the clients of the kind of which most failed, not counting late ones."""
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
) -> LastMinuteFacts:
    """Return the clients of the last minute, and at which endpoint most of them failed.

    Args:
        endpoints: Those that may serve.
        failed_at: Returns the clients that failed at one until a moment; ``refused`` are its failed
            dials.
        has_header: They get a PROXY header.
        was_many: As in the result.
    """
    counts = minute.counts()
    if not any(counts[1:]):
        return LastMinuteFacts()
    endpoints = tuple(endpoints)
    are_flows = any(counters.ends.part.failure is Failure.NO_DATAGRAM for _, counters in endpoints)
    symptom = _main_symptom(minute, are_flows=are_flows)
    name, most = symptom.name, getattr(minute, symptom.name)
    if name == "unanswered_requests":
        seldom = _owe_seldom(minute, [counters for _, counters in endpoints])
        owed = [
            (failed_at(one.address, clock.now).unanswered_requests, one.address)
            for one, _ in endpoints
        ]
        count, address = max(owed, key=itemgetter(0), default=(0, None))
        cause = owes_answers(address).replace(count=count) if address else None
        return LastMinuteFacts(*counts, cause=cause, was_many=was_many, is_unusual=seldom)
    if symptom.find is None or symptom.cause is None:
        return LastMinuteFacts(*counts, was_many=was_many)
    # Connections that were late failed at another endpoint than that which counts them.
    field = "refused" if name == "late" and not are_flows else name
    failures = [
        (getattr(failed_at(one.address, clock.now), field), streak.part.last_at, streak, one)
        for streak, one in symptom.find(endpoints)
        if clock.now - streak.part.last_at < LAST_MINUTE_S
    ]
    if not failures:
        # A client that finds no endpoint is refused, too.
        have_left = name != "refused" and not any(_has_failed(one, name) for _, one in endpoints)
        return LastMinuteFacts(*counts, was_many=was_many, have_left=have_left)
    count, last_at, streak, verdict = max(failures, key=itemgetter(0, 1))
    cause = symptom.cause(verdict, streak).replace(
        count=min(count or most, most), last_at=clock.unix(last_at), has_header=has_header
    )
    return LastMinuteFacts(*counts, cause=cause, was_many=was_many)


def _owe_seldom(minute: MinuteCounts, endpoints: Iterable[EndpointCounters]) -> bool:
    """Return whether few connections before the last minute ended so: it's no habit of theirs.

    Where clients have the last word, most do. Of a new Service, half of all is few.
    """
    endpoints = tuple(endpoints)
    owed, ended = (
        sum(e.unanswered_requests for e in endpoints),
        sum(e.connections - e.active for e in endpoints),
    )
    owed_before, before = owed - minute.unanswered_requests, ended - minute.connections
    if before < _ENDED:
        return 2 * owed <= ended
    return owed_before < SILENT_SHARE * before


def _has_failed(counters: EndpointCounters, name: str) -> bool:
    """Return whether an endpoint may be the one that clients of a symptom have failed at."""
    if name == "late":
        is_flow = counters.ends.part.failure is Failure.NO_DATAGRAM
        # Another endpoint has saved a connection.
        return counters.late > 0 if is_flow else counters.dials.part.failures > 0
    return bool(getattr(counters, name) > 0)


def _main_symptom(minute: MinuteCounts, *, are_flows: bool) -> Symptom:
    """Return the symptom that the cause is about: that of most clients.

    Args:
        are_flows: They are flows, for which a port may be closed without an ICMP error.
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
    """Return whether the cause is about late clients: they are more than those of any kind."""
    return minute.late > _most(minute)


def _are_refused_or_unanswered(minute: MinuteCounts) -> bool:
    """Return whether flows were refused, and others, of which that isn't known, got no answer.

    Not every datagram to a closed port is answered: ICMP errors are limited.
    """
    return minute.refused >= LEAST and minute.unanswered > 0


def are_many(minute: LastMinuteFacts, count: int, total: int, share: float = SILENT_SHARE) -> bool:
    """Return whether so many of all clients are news.

    Args:
        share: The least that is.
    """
    is_large_share = count >= _FEW and count >= _FEW_SHARE * total
    # A share about as large as that would be news and no news in turns.
    least, share = (_FEW, share / 2) if minute.was_many else (LEAST, share)
    return is_large_share or count >= max(least, share * total)


def many_failed(port: PortFacts, *, but: Collection[CauseCode] = ()) -> Clause | None:
    """Return how many clients failed, and why; None if they are few.

    Args:
        but: Causes that are known already: None for these, and without a cause.
    """
    minute, why = port.last_minute, _why(port)
    if but and (minute.cause is None or minute.cause.code in but):
        return None
    if _are_mostly_late(minute):
        # The cause is that of late clients.
        why = None
    elif minute.queued and minute.queued == _most(minute):
        is_limited = port.max_connections is not None and port.usable
        why = said.were_at_limit() if is_limited else said.none_in_time()
    if port.protocol == "UDP":
        return _flows_failed(port, why)
    counts = {symptom: getattr(minute, symptom.name) for symptom in _FAILURES}
    # A connection that has ended may have begun more than a minute ago.
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
    # A flow has its endpoint before that shows whether it answers.
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
    """Return why most of them failed; None if that isn't known.

    Args:
        where: They failed there, if their endpoints aren't used any more.
    """
    minute = port.last_minute
    if minute.have_left:
        return said.at_former_endpoints(where)
    if minute.cause is None and minute.flaps >= LEAST:
        return said.because_of_flaps(minute.flaps, port.namespace, port.service)
    return said.because(minute.cause) if minute.cause is not None else None


def many_unanswered(port: PortFacts, in_a_row: int = 0) -> Clause | None:
    """Return how many UDP flows got no answer, or a late one, where others did; None if few.

    So are open connections (flows) that get no answer any more.

    Args:
        in_a_row: Flows that its failing endpoints haven't answered since the last answer. If these
            are all, it doesn't answer now.
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
    """Return how many connections were saved after a wait, and why; None if they are few."""
    count = port.last_minute.late
    if port.protocol == "UDP" or (total := _total_of(port, count)) is None:
        return None
    why = _why(port, "from") if _are_mostly_late(port.last_minute) else None
    return said.saved_late(count, total, why)


def many_idle(port: PortFacts) -> Clause | None:
    """Return how many connections this proxy ended as they were idle; None if they are few."""
    count = port.last_minute.idle
    total = _total_of(port, count)
    return None if total is None else said.ended_idle(count, total)


def many_unanswered_requests(port: PortFacts) -> Clause | None:
    """Return how many connections ended after an answer, without one to the client's last words.

    None if they are few.
    """
    minute = port.last_minute
    total = _total_of(port, minute.unanswered_requests)
    why = _why(port) if minute.unanswered_requests > _most(minute) else None
    return None if total is None else said.ended_unanswered(minute.unanswered_requests, total, why)


def many_flaps(port: PortFacts) -> Clause | None:
    """Return how often it had no endpoint; None if that was seldom, as in a rollout."""
    if port.last_minute.flaps < LEAST:
        return None
    return said.flaps(port.last_minute.flaps, port.namespace, port.service)


def _total_of(port: PortFacts, count: int) -> int | None:
    """Return of how many connections of the last minute those are; None if they are few."""
    # One that has ended may have begun more than a minute ago.
    total = max(port.last_minute.connections, count)
    return total if are_many(port.last_minute, count, total) else None
