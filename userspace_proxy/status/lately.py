"""Words the clients of the last minute that got no answer, though endpoints answer others.

    12 of 20 connections failed in the last minute: 10.244.0.9:8080 refused connections

Rule 1: a few failures are no news; many are, whatever is so at this moment.
Rule 2: what was news stays so until it is half as many.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from operator import itemgetter

from ..facts import LATELY_S, EndpointCounters, LatelyFacts, PortFacts, Streak
from ..facts.exclusions import Exclusions
from ..facts.lately import FAILED_NAMES, Lately
from ..facts.units import plural
from ..model import Cause, CauseCode, Failure, SocketAddress
from ..model.failures import LEFT, NO_ANSWER
from ..model.reading import LABEL_SERVICE_NAME
from ..policy import EndpointVerdict
from ..policy.endpoint_causes import (
    answers_flows_late,
    at_times,
    denies,
    excludes,
    owes_answers,
    with_header,
)
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
_REMOVED = "reset as their endpoint had left: on-endpoint-removal"
_Endpoints = Iterable[tuple[EndpointVerdict, EndpointCounters]]
_Failures = Iterator[tuple[Streak, EndpointVerdict]]
_Find = Callable[[_Endpoints], _Failures]
_Why = Callable[[EndpointVerdict, Streak], Cause]


def _nothing_known(_endpoint: SocketAddress, _now: float) -> Lately:
    return Lately()


def failed_lately(
    lately: Lately,
    endpoints: _Endpoints,
    clock: Clock,
    *,
    failed_at: Callable[[SocketAddress, float], Lately] = _nothing_known,
    has_header: bool = False,
    was_many: bool = False,
) -> LatelyFacts:
    """Return the clients of the last minute, and at which endpoint most of them failed.

    Args:
        endpoints: Those that may serve.
        failed_at: Returns the clients that failed at one until a moment; ``refused`` are its failed
            dials.
        has_header: They get a PROXY header.
        was_many: As in the result.
    """
    counts = lately.counts()
    if not any(counts[1:]):
        return LatelyFacts()
    endpoints = tuple(endpoints)
    are_flows = any(counters.ends.failure is Failure.NO_DATAGRAM for _, counters in endpoints)
    kind = _kind(lately, are_flows=are_flows)
    most = getattr(lately, kind)
    if kind == "owed":
        seldom = _owe_seldom(lately, [counters for _, counters in endpoints])
        owed = [(failed_at(one.address, clock.now).owed, one.address) for one, _ in endpoints]
        count, address = max(owed, key=itemgetter(0), default=(0, None))
        cause = replace(owes_answers(address), count=count) if address else None
        return LatelyFacts(*counts, cause=cause, was_many=was_many, owes_seldom=seldom)
    if kind not in _FAILURES:
        return LatelyFacts(*counts, was_many=was_many)
    find, why = _FAILURES[kind]
    # Connections that were late failed at another endpoint than that which counts them.
    field = "refused" if kind == "late" and not are_flows else kind
    failures = [
        (getattr(failed_at(verdict.address, clock.now), field), streak.last_at, streak, verdict)
        for streak, verdict in find(endpoints)
        if clock.now - streak.last_at < LATELY_S
    ]
    if not failures:
        # A client that finds no endpoint is refused, too.
        have_left = kind != "refused" and not any(_has_failed(one, kind) for _, one in endpoints)
        return LatelyFacts(*counts, was_many=was_many, have_left=have_left)
    count, last_at, streak, verdict = max(failures, key=itemgetter(0, 1))
    cause = why(verdict, streak)
    if has_header:
        cause = with_header(cause)
    cause = replace(cause, count=min(count or most, most), last_at=clock.unix(last_at))
    return LatelyFacts(*counts, cause=cause, was_many=was_many)


def _owe_seldom(lately: Lately, endpoints: Iterable[EndpointCounters]) -> bool:
    """Return whether few connections before the last minute ended so: it's no habit of theirs.

    Where clients have the last word, most do. Of a new Service, half of all is few.
    """
    endpoints = tuple(endpoints)
    owed, ended = sum(e.owed for e in endpoints), sum(e.connections - e.active for e in endpoints)
    owed_before, before = owed - lately.owed, ended - lately.connections
    if before < _ENDED:
        return 2 * owed <= ended
    return owed_before < SILENT_SHARE * before


def _has_failed(counters: EndpointCounters, kind: str) -> bool:
    """Return whether an endpoint may be the one that clients of a kind have failed at."""
    if kind == "late":
        is_flow = counters.ends.failure is Failure.NO_DATAGRAM
        # Another endpoint has saved a connection.
        return counters.late > 0 if is_flow else counters.dials.failures > 0
    return bool(getattr(counters, kind) > 0)


def _kind(lately: Lately, *, are_flows: bool) -> str:
    """Return the kind of clients that the cause is about: that of most of them.

    Args:
        are_flows: They are flows, for which a port may be closed without an ICMP error.
    """
    kind = max(FAILED_NAMES, key=lambda name: getattr(lately, name))
    if are_flows and kind == "unanswered" and are_refused_or_unanswered(lately):
        return "refused"
    if are_mostly_late(lately):
        return "late"
    if lately.owed > lately.most:
        return "owed"
    return kind if lately.most else "gaps"


def _dials_before(endpoints: _Endpoints) -> _Failures:
    """Yield failed dials that a later one has succeeded after, of a client or of this node."""
    for verdict, counters in endpoints:
        if counters.dials.failures and not counters.dials.is_on:
            yield counters.dials, verdict
        if counters.denials.failures:
            yield counters.denials, verdict


def _ends(endpoints: _Endpoints, *, is_left: bool) -> _Failures:
    """Yield connections (flows) without a byte that clients have left, or all others.

    The last one is included, though the endpoint may have answered none since.
    """
    for verdict, counters in endpoints:
        if not is_left and has_excluded(counters.exclusions):
            # Before the same connection in ``ends``.
            yield counters.exclusions, verdict
        if counters.ends.failures and is_left == (counters.ends.failure in LEFT):
            yield counters.ends, verdict


def _cuts(endpoints: _Endpoints) -> _Failures:
    """Yield connections that were cut off after a byte, the last one included."""
    for verdict, counters in endpoints:
        if counters.cuts.failures:
            yield counters.cuts, verdict


def _late(endpoints: _Endpoints) -> _Failures:
    """Yield flows that were answered after two seconds, and what delayed connections."""
    for verdict, counters in endpoints:
        if counters.late and counters.ends.failure is Failure.NO_DATAGRAM:
            yield counters.ends, verdict
        if counters.dials.failures and counters.dials.failure in NO_ANSWER:
            yield counters.dials, verdict


def _dial_failed(verdict: EndpointVerdict, dials: Streak) -> Cause:
    is_denied = bool(dials.client) and dials.failures >= _MANY_DENIALS
    if is_denied and dials.last_at - dials.first_at >= DENIALS_S:
        return at_times(denies(verdict.address, dials.client), verdict.host)
    return at_times(dial_cause(verdict.address, dials), verdict.host)


def _ended(verdict: EndpointVerdict, ends: Streak) -> Cause:
    address, is_of_some = verdict.address, isinstance(ends, Exclusions)
    cause = excludes(address, ends.client) if is_of_some else end_cause(address, ends.failure)
    before = at_times(cause, verdict.host)
    # One that has never answered answers no others either.
    return before if is_of_some or ends.succeeded_at >= 0 else replace(before, hint=cause.hint)


def _was_cut(verdict: EndpointVerdict, cuts: Streak) -> Cause:
    return at_times(cut_cause(verdict.address, cuts), verdict.host)


def _came_late(verdict: EndpointVerdict, streak: Streak) -> Cause:
    if streak.failure is Failure.NO_DATAGRAM:
        return answers_flows_late(verdict.address)
    return _dial_failed(verdict, streak)


_FAILURES: Mapping[str, tuple[_Find, _Why]] = {
    "refused": (_dials_before, _dial_failed),
    "unanswered": (partial(_ends, is_left=False), _ended),
    "left": (partial(_ends, is_left=True), _ended),
    "cut": (_cuts, _was_cut),
    "late": (_late, _came_late),
}
"""By field of ``Lately``: where the last such failure is found, and its cause. For the other fields
no endpoint is to blame."""


def many_failed(port: PortFacts, *, but: Collection[CauseCode] = ()) -> str:
    """Return how many clients failed, and why; empty if they are few.

    Args:
        but: Causes that are known already: empty for these, and without a cause.
    """
    lately, why = port.lately, because_of(port.lately)
    if but and (lately.cause is None or lately.cause.code in but):
        return ""
    if are_mostly_late(lately):
        # The cause is that of late clients.
        why = ""
    elif lately.waited and lately.waited == lately.most:
        why = _limit(port)
    if port.protocol == "UDP":
        # A flow has its endpoint before that shows whether it answers.
        failed = lately.refused + lately.waited
        total, each = max(lately.connections, failed), ""
        if not are_many(lately, failed, total, SHARE):
            return ""
        if are_refused_or_unanswered(lately) and not port.is_without_answer:
            each = f" ({lately.refused:,} at once, {lately.unanswered:,} without an answer)"
            failed += lately.unanswered
            total = max(total, failed)
        return f"{failed:,} of {plural(total, 'flow')} failed in the last minute{each}{why}"
    counts = {
        "not connected": lately.refused,
        "ended without an answer": lately.unanswered,
        "left before an answer": lately.left,
        "cut off after an answer began": lately.cut,
        "had waited for an endpoint": lately.waited,
        _REMOVED: lately.removed,
    }
    # A connection that has ended may have begun more than a minute ago.
    failed = sum(counts.values())
    total = max(lately.connections + lately.refused + lately.waited, failed)
    is_share = are_many(lately, lately.failed, total, SHARE)
    if not (is_share or are_many(lately, failed, total, SILENT_SHARE)):
        return ""
    parts = [f"{count:,} {how}" for how, count in counts.items() if count >= LEAST]
    is_removal = lately.removed and lately.removed == max(counts.values())
    each = f" ({', '.join(parts)})" if len(parts) > 1 or is_removal else ""
    is_lost = lately.cause is not None and lately.cause.code is CauseCode.PACKETS_LOST
    if lately.left == failed and not is_lost:
        # Perhaps on purpose: some clients give up what they need no more.
        what = f"{failed:,} of {plural(total, 'client')} left before an answer"
        return f"{what} in the last minute{why}"
    return f"{failed:,} of {plural(total, 'connection')} failed in the last minute{each}{why}"


def are_mostly_late(lately: Lately) -> bool:
    """Return whether the cause is about late clients: they are more than those of any kind."""
    return lately.late > lately.most


def are_refused_or_unanswered(lately: Lately) -> bool:
    """Return whether flows were refused, and others, of which that isn't known, got no answer.

    Not every datagram to a closed port is answered: ICMP errors are limited.
    """
    return lately.refused >= LEAST and lately.unanswered > 0


def many_gaps(port: PortFacts) -> str:
    """Return how often it had no endpoint; empty if that was seldom, as in a rollout."""
    if port.lately.gaps < LEAST:
        return ""
    return f"{_gaps(port.lately)}; clients that came then were turned away"


def _gaps(lately: LatelyFacts) -> str:
    return f"it had no endpoint {lately.gaps:,} times in the last minute"


def remedy_for_gaps(port: PortFacts) -> str:
    """Return how to find what makes its endpoints leave and return; empty if that was seldom."""
    if not many_gaps(port):
        return ""
    slices = f"-n {port.namespace} -l {LABEL_SERVICE_NAME}={port.service}"
    return f"See what changes its slices: kubectl get endpointslices {slices} -w"


def are_many(lately: LatelyFacts, count: int, total: int, share: float) -> bool:
    """Return whether so many of all clients are news.

    Args:
        share: The least that is.
    """
    is_large_share = count >= _FEW and count >= _FEW_SHARE * total
    # A share about as large as that would be news and no news in turns.
    least, share = (_FEW, share / 2) if lately.was_many else (LEAST, share)
    return is_large_share or count >= max(least, share * total)


def _limit(port: PortFacts) -> str:
    if port.max_connections is None or not port.usable:
        return ": no endpoint took them in time"
    # The limit may have been another one then.
    return ": endpoints were at their limit on this node (max-connections)"


def because_of(lately: LatelyFacts, where: str = "at") -> str:
    """Return why most of them failed, as the end of a sentence; empty if that isn't known.

    Args:
        where: They failed there, if their endpoints aren't used any more.
    """
    if lately.have_left:
        return f", {where} endpoints that aren't used any more"
    if lately.cause is None and lately.gaps >= LEAST:
        return f": {_gaps(lately)}"
    return f": {lately.cause}" if lately.cause is not None else ""
