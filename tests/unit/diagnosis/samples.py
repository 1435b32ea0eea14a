"""Builds endpoints, clocks and verdicts for several test modules."""

from __future__ import annotations

from userspace_proxy.agent.rounds.wall_clock import WallClock
from userspace_proxy.causes.cause import Cause, When
from userspace_proxy.diagnosis.clauses import Clause
from userspace_proxy.diagnosis.rules import RULES, Case, Rule, decide
from userspace_proxy.facts import EndpointCounters, EndpointFacts, PortFacts
from userspace_proxy.model import Failure, Protocol, SocketAddress
from userspace_proxy.policy import EndpointVerdict

from ..status.views import make_endpoint

Counted = tuple[EndpointVerdict, EndpointCounters]

POD = SocketAddress("192.0.2.1", 8080)
CLIENT = "10.244.3.7"
READY = make_endpoint("10.244.1.7:8080", answered_at=1.0)
UDP = {"protocol": Protocol.UDP}


def at(now: float) -> WallClock:
    """Return a stopped clock with this monotonic time; its Unix time is 1000 s ahead."""
    return WallClock(lambda: now, lambda: 1000.0 + now)


def failing(cause: Cause, **facts: object) -> EndpointFacts:
    """Return a usable but failing endpoint at the address in its cause."""
    return make_endpoint(str(cause.get("at")), cause=cause, **facts)


def told_of(port: PortFacts) -> tuple[Rule, list[Clause]]:
    """Return the deciding rule and the clauses, of which the leading clause is the first."""
    first = next(rule for rule in RULES if rule(Case(port)) is not None)
    rule, verdict = decide(port)
    assert rule is first
    return rule, [*([verdict.lead] if verdict.lead is not None else []), *verdict.clauses]


def lately_of(cause: Cause, count: int = 0, at: float = 0.0, *, others: bool = True) -> Cause:
    """Return a cause of the last minute; by default, its endpoint also answers other clients."""
    last_at = 1000.0 + at if at else 0.0
    return cause.replace(when=When.LAST_MINUTE, answers_others=others, count=count, last_at=last_at)


def counted(counters: EndpointCounters, address: SocketAddress = POD) -> Counted:
    """Return an endpoint with its counters."""
    return EndpointVerdict(address, True, "ready", pod="web-1"), counters


def returned(
    at: float, failure: Failure = Failure.REFUSED, address: SocketAddress = POD
) -> Counted:
    """Return an endpoint whose dials failed until this time and succeeded afterwards."""
    counters = EndpointCounters()
    counters.dials.failed(at, failure)
    counters.dials.succeeded_at = at + 0.1
    return counted(counters, address)


def ended(at: float, failure: Failure = Failure.RESET, address: SocketAddress = POD) -> Counted:
    """Return an endpoint that ended a connection without sending a byte."""
    counters = EndpointCounters()
    counters.ended_unanswered(at, failure)
    return counted(counters, address)


def cut(at: float, failure: Failure = Failure.RESET, address: SocketAddress = POD) -> Counted:
    """Return an endpoint that aborted a connection after its first byte."""
    counters = EndpointCounters()
    counters.was_cut(at, failure, CLIENT)
    return counted(counters, address)
