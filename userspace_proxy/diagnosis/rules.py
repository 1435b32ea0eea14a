"""Judges how clients of a Service port are served: the first rule that matches decides.

    listeners ──▶ usable endpoints ──▶ answering endpoints ──▶ the last minute ──▶ notes

Rule 1: trouble means that this proxy, its node, or all endpoints of a Service port fail.
Rule 2: attention covers all other problems. A Service without a ready endpoint is no trouble: its
clients are refused on purpose, and many clusters always have such Services.
Rule 3: it is OK that ``externalTrafficPolicy: Local`` drops clients from outside on nodes without
an endpoint: that is its purpose, and load balancers probe the node first.
Rule 4: "served" requires that clients get an answer. If the kernel sends clients straight to
endpoints, or no byte has come back, answers aren't visible: the state is "unknown".
Rule 5: an endpoint that answers intermittently isn't healthy: clients of the last minute that got
no answer are reported if they are many.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ..causes.cause import Cause, CauseCode, When
from ..causes.endpoints import out_of_client_ports, out_of_ports
from ..causes.services import not_listening, source_denied
from ..causes.slices import about_to_vanish
from ..facts import EndpointFacts, FrontendFacts, Level, PortFacts, PortState
from ..model import FrontendKind, ip_of, is_loopback, port_of
from ..policy.usable import EndpointState
from . import clauses as said
from .clauses import Clause, stated, stated_in_short
from .symptoms import (
    many_failed,
    many_flaps,
    many_idle,
    many_saved_late,
    many_unanswered,
    many_unanswered_requests,
)

_REASONS_SHOWN = 3
# An endpoint with at most this many resets per clean close counts as only closing connections:
# closing a socket with unread data sends an RST, and whether data is unread depends on timing.
_RESETS_PER_CLOSE = 2
# The shortest wait at a limit that is reported: if a limit makes clients wait for less time, it
# works as intended.
_LONG_S = 1
# The minimum number of earlier UDP flows of an endpoint to decide whether answers are expected.
_MANY_FLOWS = 10
# The minimum number of seconds between an endpoint's last failure and a later answer of another
# endpoint for the failure to be only mentioned.
_LONG_AGO_S = 300
# The maximum number of addresses named for a node port.
_ADDRESSES = 2


class PortVerdict(NamedTuple):
    """How a Service port's clients are served, as decided by the first rule that matches."""

    level: Level
    state: PortState
    clauses: Sequence[Clause]
    """The clauses that are reported, at least one."""
    causes: Sequence[Cause] = ()
    """The causes that decide; the facts may contain others."""
    lead: Clause | None = None
    """A clause that precedes the others, with a colon after it; None for no such clause."""


class Case:
    """One Service port, with the values that several rules need.

    Args:
        port: The Service port, without a state.
    """

    def __init__(self, port: PortFacts) -> None:
        self.port = port
        self.is_flows = port.protocol == "UDP"
        self.usable = [endpoint for endpoint in port.endpoints if endpoint.is_usable]
        self.failing = [
            e for e in self.usable if e.ejected_for_s is not None or e.cause is not None
        ]
        self.all_fail = len(self.failing) == len(self.usable)
        """Whether every usable endpoint is ejected or has a cause."""
        self.is_calm = not (port.stalled or any(port.last_minute.counts()[1:]))
        """Whether all clients of the last minute were answered in time."""
        # Cost: computed once, because nearly all rules for failing endpoints read these values.
        self.causes = [e.cause for e in self.failing if e.cause is not None]
        """The causes of failing endpoints, in the endpoints' order."""
        codes = {e.cause.code if e.cause is not None else None for e in self.failing}
        self.only_code = next(iter(codes)) if len(codes) == 1 else None
        """The code that all failing endpoints share; None if the codes differ, or are unknown."""
        self.are_silent = all(code and code.traits.is_unanswered for code in codes)
        """Whether all failing endpoints are silent, which is only an observation unless other
        clients are answered."""
        self.are_past = all(e.is_past for e in self.failing)
        """Whether the causes of all failing endpoints are past (``EndpointFacts.is_past``)."""

    @property
    def ended(self) -> int:
        """How many connections (flows) failed, as counted by the causes."""
        return sum(cause.count for cause in self.causes)

    @property
    def connections(self) -> int:
        return sum(endpoint.connections for endpoint in self.failing)

    @property
    def only_close(self) -> bool:
        """Whether all failing endpoints close connections, and reset at most a few of them."""
        return self.only_code is CauseCode.ENDPOINT_RESETS and all(map(_only_closes, self.failing))

    @property
    def what_fails(self) -> Sequence[Clause]:
        """The clauses about how all usable endpoints fail, and why other endpoints aren't used."""
        return [*_all_fail(self.failing), *_unused(self.port)]


Rule = Callable[[Case], PortVerdict | None]


def not_served(case: Case) -> PortVerdict | None:
    """Report that clients can't reach some or all of the addresses."""
    port = case.port
    if not port.problem:
        return None
    missed = [frontend for frontend in port.frontends if not frontend.is_reached]
    is_partly = 0 < len(missed) < len(port.frontends)
    state = PortState.PARTLY_SERVED if is_partly else PortState.NOT_SERVED
    # Don't add the address to the problem of a listener, which already names it.
    place = _place(missed) if is_partly and port.is_unsteered else ""
    cause = not_listening(port.problem, port.hint, port.taken_by)
    other = other_cause(port)
    more = (said.other_cause(other),) if other is not None else ()
    return PortVerdict(
        Level.TROUBLE, state, (said.not_served(state, place, cause), *more), (cause,)
    )


def _place(frontends: Sequence[FrontendFacts]) -> str:
    """Return the first address and how many others there are, or only the node port."""
    first = frontends[0]
    if first.kind != FrontendKind.NODE_PORT:
        more = f" and {len(frontends) - 1:,} more" if len(frontends) > 1 else ""
        return f"{first.address}{more}"
    return f"node port {port_of(first.address)}"


def other_cause(port: PortFacts) -> Cause | None:
    """Return why clients would fail even if they reached the addresses; None if they wouldn't.

    If clients would wait, or are dropped by design, the Service port works as intended.
    """
    is_by_design = port.is_holding or (port.is_dropping and port.admits != ())
    return None if not port.problem or is_by_design else port.cause


def dropped_from_outside(case: Case) -> PortVerdict | None:
    """Report that only other nodes have endpoints for clients from outside."""
    port = case.port
    if not port.is_dropping or port.cause is None or port.admits == ():
        return None
    return PortVerdict(Level.OK, PortState.DROPPED, (said.dropped_from_outside(port.cause),))


def dropped(case: Case) -> PortVerdict | None:
    """Report that all clients' packets are dropped, because only other nodes have endpoints."""
    port = case.port
    if not port.is_dropping or port.cause is None:
        return None
    return PortVerdict(Level.ATTENTION, PortState.DROPPED, (said.dropped(port.cause),))


def held_without_endpoint(case: Case) -> PortVerdict | None:
    """Report that clients wait, or would wait, because there is no endpoint."""
    port, waits = case.port, case.port.waits
    if not port.is_holding or port.hold_s is None or port.cause is None:
        return None
    if waits.waiting:
        return _held(port, [stated(port.cause)], [])
    clauses = [said.would_wait(port.hold_s, port.cause)]
    if waits.total and waits.timeouts + waits.overflows + waits.client_aborts == waits.total:
        clauses.append(said.waited_in_vain(waits.total))
        return PortVerdict(Level.ATTENTION, PortState.HOLDING, clauses)
    # This is intended: a workload that is scaled to zero has no endpoint most of the time.
    return PortVerdict(Level.OK, PortState.HOLDING, clauses)


def _held(port: PortFacts, why: Sequence[Clause], known: Sequence[Cause]) -> PortVerdict:
    """Return the verdict that clients wait for an endpoint that answers.

    Args:
        why: The clauses with the reason.
        known: The causes in these clauses.
    """
    waits, codes = port.waits, [cause.code for cause in known]
    woken = (said.not_woken(waits.problem),) if waits.problem else ()
    many = _some(many_failed(port, but=codes))
    lead = said.holding(waits.waiting, waits.longest_s, port.protocol)
    return PortVerdict(Level.ATTENTION, PortState.HOLDING, (*why, *woken, *many), lead=lead)


def refused(case: Case) -> PortVerdict | None:
    """Report that clients are refused, because no endpoint may be used."""
    port = case.port
    if port.cause is None and case.usable:
        return None
    clauses = (said.refused(port.cause), *_some(many_flaps(port)))
    return PortVerdict(Level.ATTENTION, PortState.REFUSED, clauses)


def fault_on_purpose(case: Case) -> PortVerdict | None:
    """Report injected faults."""
    causes = [endpoint.cause for endpoint in case.usable if endpoint.cause is not None]
    asked = [cause for cause in causes if cause.code is CauseCode.FAULT_ON_PURPOSE]
    if not asked:
        return None
    real = [cause for cause in causes if cause.code is not CauseCode.FAULT_ON_PURPOSE]
    more = (said.more_faults(len(asked) - 1),) if len(asked) > 1 else ()
    clauses = (stated(asked[0]), *more, *map(stated, real[:1]))
    return PortVerdict(Level.ATTENTION, PortState.FAULT_ON_PURPOSE, clauses)


def late_at_limit(case: Case) -> PortVerdict | None:
    """Report that answers are late because clients wait for endpoints at their limit."""
    port = case.port
    is_limited = port.waits.waiting and port.max_connections is not None
    if not (case.all_fail and is_limited and case.only_code is CauseCode.ENDPOINT_ANSWERS_LATE):
        return None
    return PortVerdict(Level.ATTENTION, PortState.AT_LIMIT, at_limit_clauses(port))


def held_while_all_fail(case: Case) -> PortVerdict | None:
    """Report that clients wait for an endpoint that answers, because all endpoints fail."""
    if not (case.all_fail and case.port.waits.waiting):
        return None
    return _held(case.port, case.what_fails, case.causes)


def some_are_denied(case: Case) -> PortVerdict | None:
    """Report an endpoint that ignores some clients, but answers this node or other clients."""
    if not case.all_fail:
        return None
    denials = [
        e.cause
        for e in case.failing
        if not e.is_past and e.cause and e.cause.code is CauseCode.ENDPOINT_DENIES
    ]
    if not denials:
        return None
    # If there are connections, the endpoint answers other clients, so only some clients get no
    # answer.
    minute = case.port.last_minute
    are_some = bool(minute.connections if minute.refused else case.port.connections)
    state = PortState.PARTLY_ANSWERING if are_some else PortState.NOT_ANSWERING
    clauses, lead = tuple(_why(case.failing, denials[0])), said.get_no_answer(are_some)
    return PortVerdict(Level.ATTENTION, state, clauses, (denials[0],), lead)


def silent_to_some(case: Case) -> PortVerdict | None:
    """Report that failing endpoints answered some clients between the last minute's failures."""
    if not case.all_fail:
        return None
    if case.causes and all(cause.when is When.LAST_MINUTE for cause in case.causes):
        return _failed_lately(case.port, *case.what_fails, *_some(many_failed(case.port)))
    if not case.are_silent:
        return None
    if case.is_flows:
        many = many_unanswered(case.port, case.ended)
    else:
        many = many_failed(case.port) if case.port.last_minute.client_aborts > case.ended else None
    return None if many is None else _failed_lately(case.port, many)


def never_answered(case: Case) -> PortVerdict | None:
    """Report that no endpoint has sent a byte: the protocol may have no answers (syslog)."""
    if not (case.all_fail and case.port.is_without_answer):
        return None
    if case.is_flows and case.are_silent:
        clauses = _no_datagram(case)
        return PortVerdict(Level.ATTENTION, PortState.UNANSWERED, clauses)
    if not case.only_close:
        return None
    is_quiet = case.is_flows or case.are_past
    state = PortState.UNANSWERED if is_quiet else PortState.NOT_ANSWERING
    return PortVerdict(Level.ATTENTION, state, case.what_fails, lead=said.closed(case.ended))


def flows_are_late(case: Case) -> PortVerdict | None:
    """Report that answers to flows arrive late, when their clients may have left."""
    is_late = case.only_code is CauseCode.ENDPOINT_ANSWERS_LATE
    if not (case.all_fail and case.is_flows and is_late):
        return None
    verdict = Level.ATTENTION, PortState.UNANSWERED
    if case.are_past:
        verdict = Level.OK, PortState.UNKNOWN
    counted = said.no_byte_in_time(case.ended, case.connections, case.port.protocol)
    return PortVerdict(*verdict, (counted, *_why(case.failing)))


def failed_before(case: Case) -> PortVerdict | None:
    """Report failed endpoints that haven't been dialled since, and may have recovered."""
    if not (case.all_fail and case.are_past):
        return None
    if case.are_silent:
        lead = said.got_no_answer(case.ended, case.connections, case.port.protocol)
        return PortVerdict(Level.ATTENTION, PortState.UNANSWERED, case.what_fails, lead=lead)
    lead = said.failed_before()
    return PortVerdict(Level.ATTENTION, PortState.FAILED_BEFORE, case.what_fails, lead=lead)


def cut_off(case: Case) -> PortVerdict | None:
    """Report that endpoints answer and then reset the connections."""
    if not (case.all_fail and case.only_code is CauseCode.ENDPOINT_CUTS_OFF):
        return None
    clauses = (said.were_reset(case.ended, case.connections),)
    return PortVerdict(Level.ATTENTION, PortState.PARTLY_ANSWERING, clauses)


def unanswered(case: Case) -> PortVerdict | None:
    """Report that clients leave without a byte, which is normal for some protocols.

    It isn't if UDP endpoints that answered most flows before answer none now.
    """
    if not (case.all_fail and case.are_silent):
        return None
    clauses = [said.no_byte_in_time(case.ended, case.connections), *case.what_fails]
    if case.is_flows:
        clauses = _no_datagram(case)
    is_certain = case.is_flows and all(map(_answered_before, case.failing))
    level, lead = Level.TROUBLE if is_certain else Level.ATTENTION, said.get_no_answer()
    return PortVerdict(level, PortState.UNANSWERED, clauses, lead=lead)


def _answered_before(endpoint: EndpointFacts) -> bool:
    """Return whether an endpoint answered most flows before it stopped answering."""
    count = endpoint.cause.count if endpoint.cause is not None else 0
    before, unanswered = endpoint.connections - count, endpoint.unanswered_flows - count
    return before >= _MANY_FLOWS and unanswered * 2 < before


def closed(case: Case) -> PortVerdict | None:
    """Report that endpoints close connections, as a log collector closes idle connections."""
    if not (case.all_fail and case.only_close):
        return None
    lead = said.get_no_answer()
    return PortVerdict(Level.ATTENTION, PortState.NOT_ANSWERING, case.what_fails, lead=lead)


def all_fail(case: Case) -> PortVerdict | None:
    """Report that no endpoint answers."""
    if not case.all_fail:
        return None
    many = many_failed(case.port, but=[cause.code for cause in case.causes])
    clauses = (*case.what_fails, *_some(many))
    return PortVerdict(Level.TROUBLE, PortState.NOT_ANSWERING, clauses, lead=said.fail())


def _no_datagram(case: Case) -> list[Clause]:
    """Return clauses: how many flows got no answer, and how an endpoint failed before that."""
    now = [cause for cause in case.causes if cause.when is When.NOW]
    before = [cause.before for cause in now if cause.before is not None]
    counted = said.no_datagram_in(case.ended, case.connections)
    return [counted, *map(said.failed_otherwise_before, before[:1])]


def _only_closes(endpoint: EndpointFacts) -> bool:
    """Return whether an endpoint isn't ejected, and has few resets (``_RESETS_PER_CLOSE``)."""
    resets = endpoint.resets + endpoint.failures_by_cause.get(CauseCode.ENDPOINT_RESETS, 0)
    is_seldom = resets <= _RESETS_PER_CLOSE * endpoint.empty
    return endpoint.ejected_for_s is None and is_seldom


def unanswered_in_kernel(case: Case) -> PortVerdict | None:
    """Report that clients on the kernel path get no answer, from all endpoints or from some."""
    cause = case.port.unanswered
    if cause is None:
        return None
    if count := case.port.silent_endpoints:
        many = (said.some_answer_not(count, 0, len(case.usable), False),) if count > 1 else ()
        clauses = (*many, stated(cause))
        return PortVerdict(Level.ATTENTION, PortState.PARTLY_ANSWERING, clauses, (cause,))
    return PortVerdict(Level.TROUBLE, PortState.NOT_ANSWERING, (stated(cause),), (cause,))


def lacks_ports(case: Case) -> PortVerdict | None:
    """Report that this node had no source port left in the last minute."""
    if not case.port.is_out_of_ports:
        return None
    cause = out_of_ports()
    return PortVerdict(Level.TROUBLE, PortState.OUT_OF_PORTS, (said.may_fail(cause),), (cause,))


def clients_are_mistaken(case: Case) -> PortVerdict | None:
    """Report that clients are rejected because of what they send."""
    port = case.port
    if not port.client_mistakes:
        return None
    first = port.client_mistakes[0]
    if port.connections:
        state, clause = PortState.PARTLY_SERVED, said.not_all_served(first)
    else:
        is_dropped = first.code is CauseCode.HOP_LIMIT
        state = PortState.DROPPED if is_dropped else PortState.REFUSED
        clause = said.none_served(first)
    return PortVerdict(Level.ATTENTION, state, (clause,), port.client_mistakes)


def some_fail(case: Case) -> PortVerdict | None:
    """Report that some endpoints fail, unless their failures are over (:func:`_is_over`).

    If no endpoint has ever answered and the others are untried, clients count as unanswered.
    """
    port, failing = case.port, case.failing
    if all(_is_over(one, port) for one in failing):
        return None
    state = PortState.FAILED_BEFORE if case.are_past else PortState.PARTLY_ANSWERING
    others = [endpoint for endpoint in case.usable if endpoint not in failing]
    lost: Sequence[Clause] = ()
    answered_at = max((max(one.answered_at, one.sent_at) for one in others), default=0.0)
    # An older answer doesn't show that the others serve the clients that fail now.
    is_older = answered_at < min((cause.first_at for cause in case.causes), default=0.0)
    if not any(endpoint.answered_at for endpoint in others):
        do = said.others_untried(len(others))
        if port.is_without_answer and not case.are_past:
            state = PortState.UNANSWERED
    elif port.is_quiet or is_older:
        do = said.others_answered(len(others))
    else:
        lost = _others_fail(port, failing)
        # Affinity doesn't keep a client at an endpoint that can't be dialled.
        is_accepted = all(cause.code.traits.accepts for cause in case.causes)
        is_pinned = port.affinity_timeout_s is not None and is_accepted
        do = said.others_serve(len(others), not lost, is_pinned)
    if len(failing) > 1:
        clauses = [_how_many_fail(failing, len(case.usable)), do, *_why(failing)]
    else:
        cause = failing[0].cause
        clauses = [stated(cause) if cause is not None else said.one_fails(), do]
    return PortVerdict(Level.ATTENTION, state, [*clauses, *lost])


def _is_over(endpoint: EndpointFacts, port: PortFacts) -> bool:
    """Return whether an endpoint denied a client a while ago, or failed long ago.

    With ClientIP affinity, the other endpoints keep serving clients, so this endpoint may not be
    dialled for hours.
    """
    cause = endpoint.cause
    if cause is None or not endpoint.is_past:
        return False
    answered_at = max(max(one.answered_at, one.sent_at) for one in port.endpoints)
    is_long_ago = 0 < cause.last_at <= answered_at - _LONG_AGO_S
    return cause.code is CauseCode.ENDPOINT_DENIES or is_long_ago


def _others_fail(port: PortFacts, failing: Sequence[EndpointFacts]) -> Sequence[Clause]:
    """Return clauses about clients that fail or wait for other reasons; empty if there are few."""
    if port.max_connections is not None and port.waits.longest_s >= _LONG_S:
        return at_limit_clauses(port)
    cause = port.last_minute.cause
    is_other = cause is not None and all(cause.get("at") != one.address for one in failing)
    return _some(many_unanswered(port) or many_failed(port)) if is_other else ()


def at_limit(case: Case) -> PortVerdict | None:
    """Report that clients wait for a long time for endpoints at their limit."""
    port = case.port
    if port.max_connections is None or port.waits.longest_s < _LONG_S:
        return None
    return PortVerdict(Level.ATTENTION, PortState.AT_LIMIT, at_limit_clauses(port))


def at_limit_clauses(port: PortFacts) -> Sequence[Clause]:
    """Return clauses: that clients wait and, if endpoints are silent, that no byte came back."""
    waits = port.waits
    held = said.at_limit(
        waits.waiting,
        waits.longest_s,
        port.protocol,
        port.max_connections or 0,
        is_pinned=port.affinity_timeout_s is not None,
        is_silent=is_silent(port),
    )
    return (held, said.nothing_back(*_of_silence(port))) if is_silent(port) else (held,)


def is_silent(port: PortFacts) -> bool:
    """Return whether the endpoints have accepted connections but sent nothing."""
    return port.is_without_answer and port.connections > 0


def lacks_client_ports(case: Case) -> PortVerdict | None:
    """Report that a client's address had no source port left in the last minute."""
    if not case.port.is_out_of_client_ports:
        return None
    cause = out_of_client_ports()
    return PortVerdict(Level.ATTENTION, PortState.OUT_OF_CLIENT_PORTS, (stated(cause),), (cause,))


def answers_are_missed(case: Case) -> PortVerdict | None:
    """Report that many UDP clients, or clients of open connections, got no answer recently."""
    lost = many_unanswered(case.port)
    return None if lost is None else _failed_lately(case.port, lost)


def clients_failed(case: Case) -> PortVerdict | None:
    """Report that many clients failed in the last minute."""
    many = many_failed(case.port)
    return None if many is None else _failed_lately(case.port, *_now(case.port), many)


def comes_and_goes(case: Case) -> PortVerdict | None:
    """Report that the Service port repeatedly had no endpoint in the last minute."""
    flaps = many_flaps(case.port)
    return None if flaps is None else _failed_lately(case.port, *served_clauses(case.port), flaps)


def answers_are_late(case: Case) -> PortVerdict | None:
    """Report connections that were saved only after a wait, or that this proxy closed when idle."""
    late = many_saved_late(case.port) or many_idle(case.port)
    return None if late is None else _failed_lately(case.port, *_now(case.port), late)


def last_words_unanswered(case: Case) -> PortVerdict | None:
    """Report connections that ended without an answer to the client's last bytes."""
    port, many = case.port, many_unanswered_requests(case.port)
    if many is None:
        return None
    if port.last_minute.is_unusual:
        return _failed_lately(port, *_now(port), many)
    # Perhaps clients send last by design, but nothing proves that they are served, so the state is
    # unknown.
    return PortVerdict(Level.OK, PortState.UNKNOWN, (many,), _some_causes(port.last_minute.cause))


def _failed_lately(port: PortFacts, *clauses: Clause) -> PortVerdict:
    causes = _some_causes(port.last_minute.cause)
    return PortVerdict(Level.ATTENTION, PortState.PARTLY_ANSWERING, clauses, causes)


def _some_causes(cause: Cause | None) -> Sequence[Cause]:
    return () if cause is None else (cause,)


def _some(clause: Clause | None) -> Sequence[Clause]:
    return () if clause is None else (clause,)


def _now(port: PortFacts) -> Sequence[Clause]:
    """Return the clause that other clients are served now; empty if this isn't known."""
    if _state_of(port) is not PortState.SERVED or port.is_quiet:
        return ()
    return (said.served_by(*_serving(port), is_now=True),)


def none_admitted(case: Case) -> PortVerdict | None:
    """Report that all packets were dropped, because no client was in the admitted networks."""
    port = case.port
    is_counted = not port.is_unseen or port.kernel_connections is not None
    if port.admits is None or not is_counted or port.connections or port.kernel_connections:
        return None
    now = source_denied(tuple(port.admits)).fact
    causes = [cause for cause in denied(port) if cause.fact == now]
    if not causes:
        return None
    return PortVerdict(
        Level.ATTENTION, PortState.NONE_ADMITTED, (said.none_admitted(causes[0]),), causes
    )


def lacks_addresses(case: Case) -> PortVerdict | None:
    """Report that some addresses of the Service aren't served: they are taken, or not allowed."""
    lost = [note for note in case.port.notes if note.code.traits.is_of_address]
    if not lost:
        return None
    return PortVerdict(
        Level.ATTENTION, PortState.PARTLY_SERVED, (said.partly_served(lost[0]),), lost
    )


def others_fail_inside(case: Case) -> PortVerdict | None:
    """Report failing endpoints of other nodes, which are only for clients inside the cluster."""
    failing = [
        e
        for e in case.port.endpoints
        if e.code is CauseCode.NOT_LOCAL and e.cause is not None and not e.is_past
    ]
    if not failing:
        return None
    clauses = (*served_clauses(case.port), *_why(failing))
    return PortVerdict(Level.ATTENTION, PortState.PARTLY_ANSWERING, clauses)


def has_notes(case: Case) -> PortVerdict | None:
    """Report that a user's setting has no effect."""
    port = case.port
    notes = [note for note in port.notes if not note.code.traits.is_by_design]
    if not notes:
        return None
    clauses = (*served_clauses(port), stated(notes[0]))
    return PortVerdict(Level.ATTENTION, _state_of(port), clauses, (notes[0],))


def others_dialled(case: Case) -> PortVerdict | None:
    """Report that all clients of the last minute dialled ports that the Service doesn't have."""
    port = case.port
    if port.other_ports is None or not (port.is_without_answer or port.is_quiet):
        return None
    clauses = (*served_clauses(port), stated(port.other_ports))
    return PortVerdict(Level.ATTENTION, PortState.REFUSED, clauses, (port.other_ports,))


def about_to_lose_all(case: Case) -> PortVerdict | None:
    """Report that all usable endpoints terminate."""
    port = case.port
    if not all(endpoint.state == EndpointState.TERMINATING for endpoint in case.usable):
        return None
    ending = about_to_vanish(port.namespace, len(case.usable))
    clauses = (*served_clauses(port, are_leaving=True), stated(ending))
    return PortVerdict(Level.ATTENTION, _state_of(port), clauses, (ending,))


def may_be_taken(case: Case) -> PortVerdict | None:
    """Report a rule of another program that names the Service, and may take clients' packets."""
    causes = chains_in_doubt(case.port)
    clauses = (*served_clauses(case.port), *map(stated, causes))
    return PortVerdict(Level.OK, PortState.UNKNOWN, clauses, causes) if causes else None


def chains_in_doubt(port: PortFacts) -> Sequence[Cause]:
    """Return the cause for a chain that may take clients' packets; empty if none is known."""
    taken = port.perhaps_taken
    return () if taken is None else (not_listening(taken.what, taken.hint, taken.chain),)


def served(case: Case) -> PortVerdict | None:
    """Report that nothing is wrong."""
    port = case.port
    # Denials aren't a problem: on a public address, scanners are dropped all day.
    past = [e.cause for e in port.endpoints if _is_over(e, port) and e.cause is not None]
    as_intended = map(stated, (*denied(port), *past, *port.notes))
    return PortVerdict(Level.OK, _state_of(port), (*served_clauses(port), *as_intended))


def denied(port: PortFacts) -> Sequence[Cause]:
    """Return why clients were dropped, or refused at other ports; without ``port.cause``."""
    policy = port.cause.code if port.cause is not None else None
    causes = [cause for cause in port.turned_away if cause.code is not policy]
    return causes if port.other_ports is None else [*causes, port.other_ports]


def _state_of(port: PortFacts) -> PortState:
    is_unknown = port.is_unseen or port.is_without_answer
    return PortState.UNKNOWN if is_unknown else PortState.SERVED


def _serving(port: PortFacts) -> tuple[int, int]:
    return port.serving, port.standby


def served_clauses(
    port: PortFacts, *, are_leaving: bool = False, shown: str = ""
) -> Sequence[Clause]:
    """Return the clauses about clients of working endpoints: what serves them, if that is known.

    Args:
        shown: The evidence, other than probes, that endpoints accept connections; or empty.
    """
    if port.is_without_answer:
        silence, at = _of_silence(port), tuple(_node_ports(port))
        if port.connections:
            return (said.never_answered(*silence),)
        failed = port.failed or port.failures or port.bad_headers or port.waits.total
        places = (said.node_port_at(at),) if 0 < len(at) <= _ADDRESSES else ()
        ready = said.ready(*_serving(port), are_leaving)
        return (ready, said.no_client_yet(bool(failed)), *places)
    if port.is_unseen:
        service = f"{port.namespace}/{port.service}"
        shown = "probes" if port.is_probed else shown
        return (said.led_by_kernel(*_serving(port), service, port.protocol, shown),)
    if port.is_quiet:
        quiet = said.none_answered_lately(bool(port.kernel_connections))
        return (said.ready(*_serving(port), are_leaving), quiet)
    return (said.served_by(*_serving(port)),)


def _of_silence(port: PortFacts) -> tuple[str, int, bool, bool]:
    has_received, has_header = bool(port.received_bytes), port.proxy_protocol is not None
    return port.protocol, port.connections, has_received, has_header


def _node_ports(port: PortFacts) -> Iterator[str]:
    """Yield the addresses that serve the node port, which flags may restrict."""
    for frontend in port.frontends:
        is_node_port = frontend.kind == FrontendKind.NODE_PORT
        if is_node_port and not is_loopback(ip_of(frontend.address)):
            yield frontend.address


def _all_fail(failing: Sequence[EndpointFacts]) -> Iterator[Clause]:
    if len(failing) == 1:
        cause = failing[0].cause
        yield stated(cause) if cause is not None else said.only_one_fails()
        return
    past = sum(endpoint.is_past for endpoint in failing)
    if 0 < past < len(failing):
        yield _how_many_fail(failing, len(failing), are_all=True)
    else:
        yield said.none_answers(len(failing), is_past=bool(past))
    yield from _why(failing)


def _how_many_fail(
    failing: Sequence[EndpointFacts], total: int, *, are_all: bool = False
) -> Clause:
    past = sum(endpoint.is_past for endpoint in failing)
    return said.some_answer_not(len(failing) - past, past, total, are_all)


def _why(failing: Sequence[EndpointFacts], most: Cause | None = None) -> Iterator[Clause]:
    """Yield the most frequent cause in full, the next one in short form, and how many are left.

    Past causes count only if there are no others.

    Args:
        most: The cause to yield first; None for the most frequent cause.
    """
    kinds = {most.code: most} if most is not None else {}
    for endpoint in present_first([one for one in failing if not one.is_past] or failing):
        if endpoint.cause is not None:
            kinds.setdefault(endpoint.cause.code, endpoint.cause)
    causes = [*kinds.values()]
    yield from map(stated, causes[:1])
    yield from map(stated_in_short, causes[1:2])
    if more := causes[2:]:
        yield said.further_causes(len(more))


def _unused(port: PortFacts) -> Iterator[Clause]:
    """Yield why the other endpoints aren't used."""
    if states := [e.state for e in port.endpoints if not e.is_usable]:
        reasons = collections.Counter(states)
        shown = tuple((count, why) for why, count in reasons.most_common(_REASONS_SHOWN))
        yield said.others_unused(len(states), shown, has_more=len(reasons) > len(shown))


def present_first(endpoints: Sequence[EndpointFacts]) -> Sequence[EndpointFacts]:
    """Return endpoints with current causes before others; in each group, most failures first.

    Endpoints that fail fast are ejected, so clients most often see the slow failures.
    """
    return sorted(endpoints, key=lambda one: (one.is_past, -(one.cause.count if one.cause else 0)))


def _any(_case: Case) -> bool:
    return True


_OF_PLAN: Sequence[Rule] = (
    not_served,
    dropped_from_outside,
    dropped,
    held_without_endpoint,
    refused,
    fault_on_purpose,
)
_ALL_FAIL: Sequence[Rule] = (
    late_at_limit,
    held_while_all_fail,
    some_are_denied,
    silent_to_some,
    never_answered,
    flows_are_late,
    failed_before,
    cut_off,
    unanswered,
    closed,
    all_fail,
)
_SOME_FAIL: Sequence[Rule] = (
    unanswered_in_kernel,
    lacks_ports,
    clients_are_mistaken,
    some_fail,
    at_limit,
    lacks_client_ports,
)
_OF_LAST_MINUTE: Sequence[Rule] = (
    answers_are_missed,
    clients_failed,
    comes_and_goes,
    answers_are_late,
    last_words_unanswered,
)
_SERVED: Sequence[Rule] = (
    none_admitted,
    lacks_addresses,
    others_fail_inside,
    has_notes,
    others_dialled,
    about_to_lose_all,
    may_be_taken,
    served,
)
# Cost: the rules of a group are skipped if its condition shows that none can match.
_GROUPS: Sequence[tuple[Callable[[Case], bool], Sequence[Rule]]] = (
    (_any, _OF_PLAN),
    (lambda case: case.all_fail, _ALL_FAIL),
    (_any, _SOME_FAIL),
    (lambda case: not case.is_calm, _OF_LAST_MINUTE),
    (_any, _SERVED),
)
RULES = tuple(rule for _, rules in _GROUPS for rule in rules)
"""The rules in order: the first rule that returns a verdict decides; the last rule always does."""


def decide(port: PortFacts) -> tuple[Rule, PortVerdict]:
    """Return the rule that decides for a Service port, and its verdict."""
    return next(_that_fit(Case(port)))


def _that_fit(case: Case) -> Iterator[tuple[Rule, PortVerdict]]:
    for can_fit, rules in _GROUPS:
        if can_fit(case):
            for rule in rules:
                if (verdict := rule(case)) is not None:
                    yield rule, verdict
