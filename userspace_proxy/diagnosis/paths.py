"""Describes the path that new connections take, and problems in the kernel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from ..causes.cause import Cause
from ..facts import Level, PortFacts, ProbesFacts, Problem, StatusFacts
from ..facts.units import format_seconds, plural
from ..model import DataPath, Frontend
from ..policy import PathDecision

UNKNOWN = "bytes and failures aren't known on this path"
_IN_KERNEL = "the kernel leads its connections straight to endpoints, past this proxy"
_BY_RULES = "rules lead them past this proxy; those of this node's programs are seen at their end"
# If this share of entries is in use, a warning is shown, because new connections may soon be
# dropped; `check` uses the same share.
_TRACKING_SHORT = 0.9


class PathView(NamedTuple):
    """The data path of a Service port."""

    now: DataPath = DataPath.USERSPACE
    """The path that new connections take now."""
    since: float = 0.0
    """Monotonic seconds at which this path took effect; 0 if unknown."""
    why: str = ""
    """The reason, as a clause; empty for the default."""
    kernel_connections: int | None = None
    """Connections (UDP: flows) that rules sent straight to endpoints since startup; None if that
    was never possible, or if they aren't counted."""
    socket_connections: int | None = None
    """Connections that were translated at connect() since startup; None if that was never
    possible."""
    not_offloaded: Mapping[Frontend, str] = MappingProxyType({})
    """Frontends that aren't translated at connect(), each with the reason."""
    unanswered: Cause | None = None
    """Why clients on the kernel path get no answer; None if none is known to fail."""
    silent_endpoints: int = 0
    """The number of endpoints that answer no client while others do; 0 if all clients fail."""

    def follow(self, chosen: PathDecision, at: float) -> PathView:
        """Return the view after a path took effect; the same path keeps its time and findings."""
        is_same = chosen.path is self.now
        since = self.since if is_same and self.since else at
        unanswered = self.unanswered if is_same else None
        return self._replace(now=chosen.path, since=since, why=chosen.why, unanswered=unanswered)

    def show(self, facts: PortFacts, since: float) -> None:
        """Fill in the facts about this path; ``since`` is a Unix time, or 0 if unknown."""
        facts.path, facts.path_since, facts.path_reason = self.now, since, self.why
        facts.kernel_connections = self.kernel_connections
        facts.socket_connections, facts.unanswered = self.socket_connections, self.unanswered
        facts.silent_endpoints = self.silent_endpoints


DEFAULT = PathView()


def format_probes(probes: ProbesFacts) -> str:
    """Return ``3 endpoints probed, at most 10 probes a second``; empty if none is probed."""
    if not probes.endpoints:
        return ""
    count = plural(probes.endpoints, "endpoint")
    budget = f"at most {probes.per_second:,} probes a second"
    every = f"every {probes.interval_s:.3g} s while they answer, " if probes.interval_s else ""
    return f"{count} probed, {every}{budget}"


def format_path(path: str, why: str, since: float, now: float) -> str:
    """Return a path with its age and reason, if known: ``kernel for 5 s: why``."""
    age = f" for {format_seconds(max(1, round(now - since)))}" if since else ""
    return f"{path}{age}{f': {why}' if why else ''}"


def format_target(path: PathView, frontend: Frontend) -> str:
    """Return in words how the kernel sends a frontend's clients to endpoints."""
    led = "the kernel, straight to endpoints"
    if why := path.not_offloaded.get(frontend):
        return f"{led}: by rules, as {why}"
    if path.socket_connections is None:
        return led
    return f"{led}: programs of this node at connect(), others by rules"


def unseen_reason(port: PortFacts) -> str:
    """Return why connections of a Service port aren't seen; empty on the userspace path."""
    if port.path is not DataPath.KERNEL:
        return ""
    return _IN_KERNEL if port.socket_connections is None else _BY_RULES


def format_counted(port: PortFacts) -> str:
    """Return clauses about the connections that the kernel sent to endpoints; empty if none."""
    by_rules, at_connect = port.kernel_connections, port.socket_connections
    is_in_kernel = port.path == DataPath.KERNEL
    noun = "flow" if port.protocol == "UDP" else "connection"
    if not is_in_kernel:
        taken = port.past_workers or 0
        return f"{plural(taken, noun)} took the kernel path since the start" if taken else ""
    if at_connect is None:
        if by_rules is None:
            return f"this kernel doesn't count connections there; {UNKNOWN}"
        return f"{plural(by_rules, noun)} since the start; {UNKNOWN}"
    translated = f"{plural(at_connect, noun)} at connect() since the start"
    if by_rules is None:
        return f"{translated}; this kernel doesn't count those by rules"
    return f"{translated}, and {by_rules:,} by rules, whose bytes and failures aren't known"


def problems_of_kernel(view: StatusFacts) -> Iterator[Problem]:
    """Yield problems in the kernel: hooks, client addresses, connection tracking."""
    if why := view.socket_lb.problem:
        yield Problem(
            Level.ATTENTION,
            f"connect() of this node's programs is not translated everywhere: {why}",
            "Rules lead these clients to endpoints; it is retried every second",
            kind="socket-lb",
        )
    yield from _client_address(view)
    yield from _tracking(view)


def _client_address(view: StatusFacts) -> Iterator[Problem]:
    if view.client_address.problem:
        yield Problem(
            Level.TROUBLE,
            f"Client addresses: {view.client_address.problem}",
            "New connections have this node's address; it is retried every second",
            kind="client addresses",
        )
    if view.client_address.is_on:
        for bridge in view.client_address.bridges:
            yield Problem(
                Level.ATTENTION,
                f"Endpoints on bridge {bridge.name} see this node's address instead of that of "
                f"{bridge.family} clients on the same bridge: {bridge.cause}",
                bridge.hint,
                kind=f"bridge {bridge.name} {bridge.family}",
            )


def _tracking(view: StatusFacts) -> Iterator[Problem]:
    table = view.tracking
    figures = f"{table.entries:,} of {table.limit:,} entries in use"
    more = f"Raise the limit: sysctl -w net.netfilter.nf_conntrack_max={2 * table.limit}"
    if table.is_full:
        is_sure = table.is_dropping or table.entries >= table.limit
        what = f"the conntrack table is full{'' if is_sure else ', or nearly'}, {figures}"
        may = "fail" if table.is_dropping else "may fail"
        what = f"New connections {may} on this node: {what}"
        yield Problem(Level.TROUBLE, what, more, kind="tracking full")
    elif table.limit and table.entries >= table.limit * _TRACKING_SHORT:
        what = f"The conntrack table is nearly full: {figures}"
        yield Problem(Level.ATTENTION, what, more, kind="tracking nearly full")
