"""Declares the clauses that are reported about a Service port, in addition to causes.

    row, declared once ──called with typed parameters──▶ Clause ──sentence_of──▶ "Served by …; …"

    served · by the kernel, unseen · nothing has come back · clients fail, failed, get no answer ·
    some endpoints fail · clients wait · clients of the last minute

Rule 1: a rule decides which clauses are reported, and in which order; their rows contain the text.
No code inspects the text.
Rule 2: details that change with time alone (ages, counts) are appended to the clause when it is
shown.
Rule 3: "served", and the present tense, require that clients were answered in the last minute.
Rule 4: the absence of answers is only an observation: some programs only receive, and some Services
have no clients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, NamedTuple, ParamSpec

from ..causes.cause import Cause, Parameters
from ..causes.endpoints import NO_DATAGRAM_HINT, UNANSWERED_FLOW_S
from ..causes.say import EXPECTS_NO_HEADER, Form, say, say_before
from ..facts import PortState
from ..facts.units import capitalised, format_seconds, plural
from ..model.quoting import shell_word
from ..model.reading import LABEL_SERVICE_NAME

P = ParamSpec("P")

FEW = 2
"""The number of connections up to which silence proves nothing: they may be new, or probes."""


class Clause(NamedTuple):
    """One clause of the sentence about a Service port; equal facts give equal clauses."""

    row: ClauseRow[...]
    values: tuple[object, ...] = ()
    """The values of the row's parameters, in order."""

    @property
    def params(self) -> Mapping[str, object]:
        return dict(zip(self.row.names, self.values, strict=True))

    @property
    def causes(self) -> tuple[Cause, ...]:
        """The causes that the clause states with all details."""
        found: list[Cause] = []
        for value in self.values if self.row.states else ():
            if isinstance(value, Cause):
                found.append(value)
            elif isinstance(value, Clause):
                found += value.causes
        return tuple(found)

    @property
    def text(self) -> str:
        """The text, without the capital letter of a sentence."""
        return self.row.words(*self.values)

    @property
    def planned(self) -> str:
        """The text about future clients."""
        return (self.row.planned or self.row.words)(*self.values)

    @property
    def hint(self) -> str:
        """The remedy; empty if unknown."""
        hint = self.row.hint
        own = hint if isinstance(hint, str) else hint(**self.params)
        parts = (value.hint for value in self.values if isinstance(value, Clause))
        return own or next(filter(None, parts), "")


@dataclass(frozen=True, eq=False)
class ClauseRow(Generic[P]):
    """The declaration of one clause; calling it with parameters returns a :class:`Clause`."""

    words: Callable[..., str]
    """Returns the text."""
    hint: str | Callable[..., str] = ""
    """The remedy, unless a cause determines it."""
    planned: Callable[..., str] | None = None
    """Returns the text for a plan; None if the text is the same."""
    is_dated: bool = False
    """Whether the clause is about a moment whose age is shown."""
    states: bool = True
    """Whether the clause states its cause, if any, with all details."""

    @cached_property
    def _parameters(self) -> Parameters:
        return Parameters(self.words)

    @property
    def names(self) -> Sequence[str]:
        """The names of the parameters; ``words`` also accepts them by position."""
        return self._parameters.names

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Clause:
        return Clause(self, self._parameters.bound(args, kwargs))

    def __repr__(self) -> str:
        return self.words.__name__


def clause(**columns: Any) -> Callable[[Callable[P, str]], ClauseRow[P]]:
    """Return a decorator that turns a function into a clause's row; see :class:`ClauseRow`."""

    def make(words: Callable[P, str]) -> ClauseRow[P]:
        return ClauseRow[P](words, **columns)

    return make


def fixed(name: str, text: str, hint: str = "") -> ClauseRow[[]]:
    """Return the row of a clause that has no parameters."""

    def words() -> str:
        return text

    words.__name__ = name
    return ClauseRow(words, hint=hint)


def before_cause(name: str, text: str) -> ClauseRow[[Cause]]:
    """Return the row of a clause that ends with a cause."""

    def words(cause: Cause) -> str:
        return f"{text}{say(cause)}"

    words.__name__ = name
    return ClauseRow(words)


def joined(texts: Iterable[str]) -> str:
    """Join texts of clauses, and return them as a sentence without a full stop."""
    return capitalised("; ".join(texts))


@clause()
def stated(cause: Cause) -> str:
    """State a cause with all details."""
    return say(cause)


@clause(states=False)
def stated_in_short(cause: Cause) -> str:
    """State a cause without its suspected reasons, after a cause with all details."""
    return say(cause, Form.SHORT)


def sentence_of(clauses: Sequence[Clause], lead: Clause | None = None) -> str:
    """Return clauses as a sentence; with a lead, it begins with the lead and a colon."""
    return joined(texts_of(clauses, lead))


def planned_of(clauses: Sequence[Clause]) -> str:
    """Return clauses in the form for future clients, as the end of a sentence."""
    return "; ".join(one.planned for one in clauses)


def texts_of(clauses: Sequence[Clause], lead: Clause | None = None) -> list[str]:
    """Return the text of each clause; with a lead, the first text begins with it."""
    texts = [one.text for one in clauses]
    return texts if lead is None else [f"{lead.text}: {texts[0]}", *texts[1:]]


def noun_of(protocol: str) -> str:
    """Return the singular noun for clients' connections of a protocol."""
    return "flow" if protocol == "UDP" else "connection"


def by_endpoints(serving: int, standby: int) -> str:
    """Return the numbers of serving and standby endpoints: ``3 endpoints, 1 on standby``."""
    return f"{plural(serving, 'endpoint')}{and_standby(standby)}"


def and_standby(standby: int) -> str:
    """Return the number of standby endpoints as the end of a clause; empty if there are none."""
    return f", {standby:,} on standby" if standby else ""


def waiting_clients(waiting: int, longest_s: float, protocol: str) -> str:
    """Return the waiting connections (flows) as ``3 connections, the longest for 2 s``."""
    what = plural(waiting, noun_of(protocol))
    return f"{what}, the longest for {format_seconds(longest_s)}"


def _counted(ended: int, total: int, noun: str) -> str:
    """Return which connections (flows) are meant: "the last 3 flows", or "7 of 7 flows"."""
    if ended < total:
        return f"the last {noun if ended == 1 else plural(ended, noun)}"
    return f"{ended:,} of {plural(total, noun)}"


@clause()
def not_served(state: PortState, place: str, cause: Cause) -> str:
    """State that clients aren't served, or not at ``place``; empty if the cause names it."""
    where = f", not at {place}" if place else ""
    return f"{state.capitalize()}{where}: {say(cause)}"


other_cause = before_cause("other_cause", "besides, ")
"""States why clients would fail even if they reached the addresses of the Service."""


@clause(planned=lambda cause: f"clients would be dropped: {say(cause)}")
def dropped(cause: Cause) -> str:
    """State that all clients are dropped."""
    return f"clients are dropped: {say(cause)}"


dropped_from_outside = before_cause(
    "dropped_from_outside", "clients from outside are dropped here: "
)
"""States that only clients from outside are dropped, by design."""


def _refused(verb: str, cause: Cause | None) -> str:
    why = "no endpoint is usable" if cause is None else say(cause)
    return f"clients {verb} refused: {why}"


@clause(planned=lambda cause: _refused("would be", cause))
def refused(cause: Cause | None) -> str:
    """State that clients are refused, and why; without a cause, because no endpoint is usable."""
    return _refused("are", cause)


@clause()
def not_looked_up(name: str) -> str:
    """State that a plan doesn't resolve the names of endpoints, but a running proxy does."""
    return f"clients would be served once {name} is looked up"


@clause()
def would_wait(hold_s: float, cause: Cause) -> str:
    """State how long clients would wait for an endpoint, and why there is none."""
    return f"clients would wait for an endpoint for {format_seconds(hold_s)}: {say(cause)}"


@clause()
def waited_in_vain(count: int) -> str:
    """State that no waiting client got an endpoint."""
    return f"{plural(count, 'client')} waited, and none was served"


@clause()
def holding(waiting: int, longest_s: float, protocol: str) -> str:
    """State that clients wait; the reason follows."""
    return f"holding {waiting_clients(waiting, longest_s, protocol)}"


@clause()
def not_woken(problem: str) -> str:
    """State why the workload that clients wait for wasn't scaled."""
    return problem


def _silent_hint(protocol: str, connections: int, has_received: bool, has_header: bool) -> str:
    if connections <= FEW:
        return ""
    if protocol == "UDP":
        return NO_DATAGRAM_HINT
    hint = (
        "Read the log of the program: it may expect another protocol, or take the end of a "
        "client's request for an abort; programs that only receive (syslog, graphite) send nothing"
        if has_received
        else "Client and server may each wait for the other to begin: compare the protocol, and "
        "the port, that both speak; health checks that only connect send nothing, too"
    )
    return f"{EXPECTS_NO_HEADER if has_header else ''}{hint}"


_MORE_ROOM = "Raise userspace-proxy.io/max-connections, or add endpoints"


def _room_hint(*, is_silent: bool, **_: object) -> str:
    return "" if is_silent else _MORE_ROOM


@clause(hint=_room_hint)
def at_limit(
    waiting: int, longest_s: float, protocol: str, limit: int, is_pinned: bool, is_silent: bool
) -> str:
    """State that clients wait for endpoints at their limit, or for their affinity's endpoint."""
    held = waiting_clients(waiting, longest_s, protocol)
    limit_words = plural(limit, noun_of(protocol))
    if is_pinned:
        # Other endpoints may have fewer connections than the limit, so mention only the client's
        # endpoint.
        keeps = "the endpoint that a client keeps to (sessionAffinity)"
        return f"holding {held}: {keeps} has {limit_words}, its limit on this node"
    return f"holding {held}: endpoints have {limit_words} each, which is their limit on this node"


@clause(hint=_silent_hint)
def nothing_back(protocol: str, connections: int, has_received: bool, has_header: bool) -> str:
    """State that the endpoints have accepted connections but sent nothing."""
    return "no byte has come back"


fail = fixed("fail", "clients fail")
"""States that no endpoint answers now."""


failed_before = fixed("failed_before", "clients failed before")
"""States that no endpoint answered a while ago, and that none has been dialled since."""


@clause()
def get_no_answer(are_some: bool = False) -> str:
    """State that some or all clients get no answer."""
    return f"{'some clients' if are_some else 'clients'} get no answer"


@clause()
def got_no_answer(ended: int, total: int, protocol: str) -> str:
    """State that ``ended`` of all earlier connections, or the last connections, got no answer."""
    return f"{_counted(ended, total, noun_of(protocol))} got no answer"


@clause()
def closed(count: int) -> str:
    """State that endpoints closed ``count`` connections, and never sent a byte."""
    return f"no byte has come back in {plural(count, 'connection')}"


only_one_fails = fixed("only_one_fails", "its only usable endpoint doesn't answer")
"""States that the only endpoint fails without a known cause."""


one_fails = fixed("one_fails", "1 endpoint doesn't answer")
"""States that one of several endpoints fails without a known cause."""


@clause()
def none_answers(count: int, is_past: bool) -> str:
    """State that none of several endpoints answers, or answered when last tried."""
    return f"none of its {count:,} endpoints {'answered when last tried' if is_past else 'answers'}"


@clause()
def some_answer_not(now: int, past: int, total: int, are_all: bool = False) -> str:
    """State that some endpoints don't answer now, and others didn't when last tried."""
    of = f"its {total:,} endpoints" if are_all else plural(total, "endpoint")
    if not now:
        return f"{past:,} of {of} didn't answer when last tried"
    answer = "doesn't answer" if now == 1 else "don't answer"
    before = f", and {past:,} didn't when last tried" if past else ""
    return f"{now:,} of {of} {answer}{before}"


@clause()
def further_causes(count: int) -> str:
    """State the number of causes that no other clause states."""
    return plural(count, "further cause")


@clause()
def others_unused(left: int, reasons: tuple[tuple[int, str], ...], has_more: bool) -> str:
    """State why other endpoints aren't used: each reason with its number of endpoints."""
    others = "the other one isn't" if left == 1 else f"the other {left:,} aren't"
    if len(reasons) == 1 and not has_more:
        return f"{others} used: {reasons[0][1]}"
    shown = [f"{count:,} {why}" for count, why in reasons]
    return f"{others} used: {', '.join([*shown, *(['…'] if has_more else [])])}"


@clause()
def no_byte_in_time(ended: int, total: int, protocol: str = "TCP") -> str:
    """State that ``ended`` of all connections got no byte in time."""
    return f"{_counted(ended, total, noun_of(protocol))} got no byte in time"


@clause()
def no_datagram_in(ended: int, total: int) -> str:
    """State that ``ended`` of all flows got no datagram."""
    return f"no datagram has come back in {_counted(ended, total, 'flow')}"


@clause(states=False)
def failed_otherwise_before(cause: Cause) -> str:
    """State how the endpoint failed before it became silent."""
    return say_before(cause)


@clause()
def were_reset(ended: int, total: int) -> str:
    """State that endpoints reset ``ended`` of all connections."""
    were = "was" if ended == 1 else "were"
    counted = _counted(ended, total, "connection")
    return f"{counted} {were} reset by the endpoint while or after it answered"


@clause()
def more_faults(count: int) -> str:
    """State the number of further endpoints with injected faults."""
    return f"{plural(count, 'more endpoint')} with faults on purpose"


@clause()
def others_serve(count: int, always: bool = True, is_pinned: bool = False) -> str:
    """State that the other endpoints serve: always or not, and all clients or pinned clients."""
    one = count == 1
    what = "the other one serves" if one else f"the other {count:,} serve"
    if is_pinned:
        what += f" clients that keep to {'it' if one else 'them'} (sessionAffinity)"
    return what if always else f"{what}, but not always"


@clause()
def others_untried(count: int) -> str:
    """State that no client has dialled the other endpoints."""
    what = "the other one has" if count == 1 else f"the other {count:,} have"
    return f"{what} not been tried"


@clause()
def others_answered(count: int) -> str:
    """State that the other endpoints last answered before the failures, or over a minute ago."""
    what = "the other one" if count == 1 else f"the other {count:,}"
    return f"{what} answered before"


may_fail = before_cause("may_fail", "clients may fail: ")
"""States which resource this node lacks for new connections."""


not_all_served = before_cause("not_all_served", "not all clients are served: ")
"""States that some clients are rejected because of what they send."""


none_served = before_cause("none_served", "no client has been served: ")
"""States that all clients are rejected because of what they send."""


none_admitted = before_cause("none_admitted", "no client has been admitted: ")
"""States that all clients are outside the admitted networks."""


partly_served = before_cause("partly_served", "partly served: ")
"""States that some addresses aren't served."""


def _would_be_served(serving: int, standby: int, is_now: bool) -> str:
    return f"clients would be served by {by_endpoints(serving, standby)}"


@clause(planned=_would_be_served)
def served_by(serving: int, standby: int, is_now: bool = False) -> str:
    """State that clients were answered in the last minute; earlier clients may not have been."""
    return f"served by {by_endpoints(serving, standby)}{' now' if is_now else ''}"


@clause()
def ready(serving: int, standby: int, are_leaving: bool = False) -> str:
    """State only how many endpoints are usable; terminating endpoints aren't called ready."""
    return f"{'usable' if are_leaving else 'ready'}: {by_endpoints(serving, standby)}"


@clause(is_dated=True)
def none_answered_lately(has_kernel_path: bool = False) -> str:
    """State that no client was answered lately; the kernel may send other clients to endpoints."""
    where = "on the userspace path " if has_kernel_path else ""
    return f"{where}no client has been answered in the last minute"


@clause()
def no_client_yet(has_failed: bool = False) -> str:
    """State that no client has connected yet or, if ``has_failed``, that none was served."""
    return f"no client has {'been served' if has_failed else 'connected'} yet"


@clause()
def node_port_at(addresses: tuple[str, ...]) -> str:
    """State that only these addresses serve the node port: dials to other addresses aren't seen."""
    return f"node port at {' and '.join(addresses)}"


@clause(hint=_silent_hint)
def never_answered(protocol: str, connections: int, has_received: bool, has_header: bool) -> str:
    """State that no connection (flow) has received an answer since the proxy started."""
    unit = "datagram" if protocol == "UDP" else "byte"
    made = f"({plural(connections, noun_of(protocol))})"
    if connections <= FEW:
        return f"no {unit} has come back yet {made}"
    if has_received or protocol == "UDP":
        return f"no {unit} has come back {made}"
    return f"no byte has passed in either direction {made}"


def _unseen_hint(serving: int, standby: int, service: str, protocol: str, shown: str) -> str:
    # Don't suggest a probe for UDP: a successful dial proves nothing.
    if shown or protocol != "TCP":
        return ""
    dial = f"`userspace-proxy explain {shell_word(service)} --probe`"
    return f"{dial} on this node shows which of them accept connections now"


@clause(hint=_unseen_hint)
def led_by_kernel(serving: int, standby: int, service: str, protocol: str, shown: str) -> str:
    """State that the kernel steers clients straight to endpoints, bypassing this proxy.

    Args:
        service: ``shop/web``.
        shown: The evidence that endpoints accept connections; empty if there is none.
    """
    only = f": {shown} show only that connections are accepted" if shown else ""
    led = f"clients go through the kernel to {by_endpoints(serving, standby)}"
    return f"{led}; whether they are answered isn't known on this path{only}"


because = before_cause("because", ": ")
"""States a reason: the behaviour of an endpoint."""


@clause(
    hint="Most likely pods ended while they served: a preStop hook that waits, and then a longer "
    "terminationGracePeriodSeconds, lets them finish"
)
def at_former_endpoints(where: str) -> str:
    """State that the clients' endpoints are gone or not ready; ``where`` is ``at`` or ``from``."""
    return f", {where} endpoints that aren't used any more"


def _flaps_hint(count: int, namespace: str, service: str) -> str:
    slices = f"-n {shell_word(namespace)} -l {LABEL_SERVICE_NAME}={shell_word(service)}"
    return (
        "Most likely a readiness probe fails at times: kubectl describe pods -n "
        f"{shell_word(namespace)}; to see each change: kubectl get endpointslices {slices} -w"
    )


@clause(hint=_flaps_hint)
def because_of_flaps(count: int, namespace: str, service: str) -> str:
    """Give, as the reason, that the Service port repeatedly had no endpoint."""
    return f": {_flaps(count)}"


none_in_time = fixed("none_in_time", ": no endpoint took them in time")
"""States that clients waited, and got no endpoint in time."""


were_at_limit = fixed(
    "were_at_limit", ": endpoints were at their limit on this node (max-connections)", _MORE_ROOM
)
"""States that clients waited for an endpoint below its limit, which may differ now."""


def _text(why: object) -> str:
    return getattr(why, "text", "")


def _flaps(count: int) -> str:
    return f"it had no endpoint {count:,} times in the last minute"


@clause(hint=_flaps_hint)
def flaps(count: int, namespace: str, service: str) -> str:
    """State that the Service port repeatedly had no endpoint."""
    uncounted = "if by the kernel, they aren't counted as failed"
    return f"{_flaps(count)}; clients that came then were turned away ({uncounted})"


@clause()
def flows_failed(failed: int, total: int, at_once: int, unanswered: int, why: object = None) -> str:
    """State that UDP flows failed: some were refused, others got no answer."""
    each = f" ({at_once:,} at once, {unanswered:,} without an answer)" if unanswered else ""
    return f"{failed:,} of {plural(total, 'flow')} failed in the last minute{each}{_text(why)}"


@clause()
def connections_failed(
    failed: int, total: int, parts: tuple[tuple[int, str], ...], why: object = None
) -> str:
    """State that TCP connections failed; ``parts`` are the counts for each kind of failure."""
    each = f" ({', '.join(f'{count:,} {how}' for count, how in parts)})" if parts else ""
    what = f"{failed:,} of {plural(total, 'connection')} failed in the last minute"
    return f"{what}{each}{_text(why)}"


@clause()
def clients_left(count: int, total: int, why: object = None) -> str:
    """State that clients left. This may be intended: some abandon requests that they don't need."""
    what = f"{count:,} of {plural(total, 'client')} left before an answer"
    return f"{what} in the last minute{_text(why)}"


@clause()
def flows_unanswered(count: int, total: int, why: object = None) -> str:
    """State that some UDP flows got no answer in time."""
    what = f"got no answer within {UNANSWERED_FLOW_S} s in the last minute"
    return f"{count:,} of {plural(total, 'flow')} {what}{_text(why)}"


@clause()
def flows_answered_late(count: int, total: int, why: object = None) -> str:
    """State that some UDP flows got their first answer too late."""
    what = f"were answered only after more than {UNANSWERED_FLOW_S} s in the last minute"
    return f"{count:,} of {plural(total, 'flow')} {what}{_text(why)}"


@clause()
def saved_late(count: int, total: int, why: object = None) -> str:
    """State that TCP connections were late because a silent endpoint was dialled first."""
    what = "were saved late in the last minute"
    return f"{count:,} of {plural(total, 'connection')} {what}{_text(why)}"


@clause(
    hint="Raise --conntrack-tcp-timeout-established above the longest pause of the clients, or let "
    "them send keep-alives of their protocol more often"
)
def ended_idle(count: int, total: int) -> str:
    """State that this proxy closed idle connections."""
    how = "in the last minute, idle for as long as --conntrack-tcp-timeout-established allows"
    return f"this proxy ended {count:,} of {plural(total, 'connection')} {how}"


@clause()
def ended_unanswered(count: int, total: int, why: object = None) -> str:
    """State that connections got answers, but not to the last request before the end."""
    what = "ended without an answer to the client's last words in the last minute"
    return f"{count:,} of {plural(total, 'connection')} {what}{_text(why)}"


@clause(
    hint="Read the log of the program: it may hang, or have been restarted and not know these "
    "clients, who have to connect again; or its host has gone, or a firewall, NAT or route drops "
    "packets since, such as those of connections that paused"
)
def stalled(
    count: int, total: int, protocol: str, address: str, endpoints: int, has_former: bool
) -> str:
    """State that open connections (flows) no longer get an answer.

    Args:
        total: The number of open connections (flows).
        address: The endpoint's address, if there is only one endpoint.
        endpoints: The number of these connections' endpoints that are still used.
        has_former: Whether some of these connections are to endpoints that are no longer used.
    """
    by = address or plural(endpoints, "endpoint")
    if has_former:
        by = f"{by} and former ones" if endpoints else "endpoints that aren't used any more"
    verb = "gets" if count == 1 else "get"
    noun = f"open {noun_of(protocol)}"
    return f"{count:,} of {plural(total, noun)} {verb} no answer any more from {by}"
