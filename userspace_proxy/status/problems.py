"""Lists problems in plain words, the worst first.

    of the node   ── source, steering, rounds, descriptors ──┐
    of Services   ── refused, not served, not answering ─────┴─▶ Problem …

Rule 1: trouble is what this proxy, or something under it, doesn't do as it should.
Rule 2: attention is what the cluster asks for without effect: a Service without a ready
endpoint is refused on purpose, and on many clusters somewhere always.
Rule 3: all is well where ``externalTrafficPolicy: Local`` drops clients from outside: on
nodes without an endpoint that is what it is for, and load balancers ask before they send.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from ..plan import PortPlan
from .health import late_s
from .units import count_in_words, plural, seconds_in_words
from .view import ServicePortView, StatusView

# From here on a busy node should get a higher limit before it has to pause accepting.
_DESCRIPTORS_SHORT = 0.9
# From here on new connections may soon be dropped, as in `check`.
_TRACKING_SHORT = 0.9


class Level(enum.StrEnum):
    """How well something goes."""

    OK = "ok"
    ATTENTION = "attention"
    TROUBLE = "trouble"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    level: Level
    what: str
    """One sentence without a full stop."""
    way_out: str = ""
    """What to do about it; empty where the sentence says it all."""
    port: str = ""
    """The Service port that it is about; empty for the node."""
    family: str = ""
    side: str = ""
    """As in :class:`ServicePortView`."""


@dataclass(frozen=True, slots=True)
class Summary:
    """All of a view in a sentence and a list."""

    level: Level
    verdict: str
    problems: tuple[Problem, ...]
    """Trouble first; of one level the node's first, then Service ports by name."""


# Words for what deserves attention though clients are served.
_SERVED = ("partly answering", "out of client ports")


@dataclass(frozen=True, slots=True)
class PortState:
    """How one Service port is served."""

    level: Level
    word: str
    """``served``, ``partly served``, ``not served``, ``refused``, ``dropped``,
    ``not answering``, ``partly answering``, ``out of ports``, ``out of client ports``."""
    sentence: str
    way_out: str = ""
    """As in :class:`Problem`."""

    @property
    def is_problem(self) -> bool:
        """Whether clients aren't served that should be, by this proxy or by the cluster."""
        return self.level is not Level.OK and self.word not in _SERVED


def summarise(view: StatusView, now: float) -> Summary:
    """Return how everything goes, and what is wrong.

    Args:
        view: The state at this moment.
        now: Unix time.
    """
    node = [
        *_starting(view),
        *_source(view),
        *_workers(view),
        *_steering(view),
        *_client_address(view),
        *_tracking(view),
        *_firewalls(view),
        *_sync(view, now),
        *_unserved(view),
        *_conflicts(view),
        *_health_checks(view),
        *_node(view),
    ]
    ports = [
        Problem(
            state.level, state.sentence, state.way_out, str(key.name), str(key.family), key.side
        )
        for key, state in ((port.plan.key, judge(port)) for port in view.ports)
        if state.level is not Level.OK
    ]
    ports.sort(key=lambda problem: (problem.port, problem.family, problem.side))
    problems = sorted([*node, *ports], key=lambda problem: problem.level is not Level.TROUBLE)
    return Summary(
        level=problems[0].level if problems else Level.OK,
        verdict=_verdict(view, on_node=len(node), on_ports=len(ports)),
        problems=tuple(problems),
    )


def judge(port: ServicePortView) -> PortState:
    """Return how one Service port is served, and why not."""
    if port.problem:
        reached = sum(frontend.is_reached for frontend in port.frontends)
        is_partly = 0 < reached < len(port.frontends)
        word = "partly served" if is_partly else "not served"
        sentence = f"{word.capitalize()}: {port.problem.removesuffix(f' ({port.way_out})')}"
        return PortState(Level.TROUBLE, word, sentence, port.way_out)
    if port.plan.is_dropping:
        return _dropped(port.plan)
    usable = [endpoint for endpoint in port.endpoints if endpoint.verdict.is_usable]
    if port.plan.reason or not usable:
        reason = port.plan.reason or "no endpoint is usable"
        return PortState(Level.ATTENTION, "refused", f"Clients are refused: {reason}")
    ejected = sum(endpoint.ejected_for_s is not None for endpoint in usable)
    if ejected == len(usable):
        which = "its only endpoint" if ejected == 1 else f"none of its {ejected} endpoints"
        end = "doesn't answer" if ejected == 1 else "answers"
        return PortState(Level.TROUBLE, "not answering", f"Clients wait or fail: {which} {end}")
    if port.is_out_of_ports:
        return PortState(
            Level.TROUBLE,
            "out of ports",
            "Clients are reset: no source port was left for connections to an endpoint; set the "
            "sysctl net.ipv4.tcp_tw_reuse=1, or widen net.ipv4.ip_local_port_range",
        )
    if ejected:
        return PortState(
            Level.ATTENTION,
            "partly answering",
            f"{ejected} of {plural(len(usable), 'endpoint')} did not answer; "
            + ("the other serves" if len(usable) - ejected == 1 else "the others serve"),
        )
    if port.is_out_of_client_ports:
        return PortState(
            Level.ATTENTION,
            "out of client ports",
            "All ports 61000-65535 of a client's address towards an endpoint are in use: the "
            "endpoint sees this node's address, or the client is refused if the endpoint has not "
            "answered it; set the sysctl net.ipv4.tcp_timestamps=1 on this node and in the "
            "endpoint, or have the client keep fewer connections open",
        )
    return PortState(Level.OK, "served", f"Served by {plural(len(usable), 'endpoint')}")


def _dropped(plan: PortPlan) -> PortState:
    """Return the state of a Service port that drops some of its clients on purpose."""
    if plan.admits == ():
        return PortState(Level.ATTENTION, "dropped", f"Clients are dropped: {plan.reason}")
    return PortState(Level.OK, "dropped", f"Clients from outside are dropped here: {plan.reason}")


def _verdict(view: StatusView, *, on_node: int, on_ports: int) -> str:
    all_ports = plural(len(view.ports), "Service port")
    parts = []
    if not view.is_ready and not _lacks_workers(view):
        # To start and to end is no problem, though it is the first in their list.
        parts.append("Shutting down." if view.is_draining else "Starting.")
        on_node -= 1
    if on_node:
        parts.append(f"{plural(on_node, 'problem')} on this node.")
    if on_ports:
        needs = "needs" if on_ports == 1 else "need"
        parts.append(f"{on_ports:,} of {all_ports} {needs} attention.")
    if not parts:
        dropped = sum(port.plan.is_dropping for port in view.ports)
        but = f", {dropped:,} of them not for outside clients" if dropped else ""
        parts = ["No problems.", f"{all_ports} served{but}." if view.ports else "No Services yet."]
    return " ".join(parts)


def _lacks_workers(view: StatusView) -> bool:
    """Tell whether the first plan was in force, and nothing carries connections any more."""
    was_ready = view.source.is_synced and bool(view.sync.last_done)
    return was_ready and not view.is_ready and not view.is_draining


def _starting(view: StatusView) -> Iterator[Problem]:
    """Say in one problem why this proxy isn't ready, if it isn't."""
    if view.is_ready:
        return
    way_out = ""
    if view.is_draining:
        what = "Shutting down: open connections may finish"
    elif _lacks_workers(view):
        yield Problem(
            Level.TROUBLE,
            "No worker process runs: new connections wait",
            "Workers are being restarted; the log has their last lines",
        )
        return
    elif view.source.is_synced:
        what = "Starting: the first plan is not in force yet"
    else:
        what = f"Starting: Services have not been read yet from {view.source.location}"
        way_out = "" if view.source.problems else "This should take a few seconds"
    yield Problem(Level.ATTENTION, what, way_out)


def _source(view: StatusView) -> Iterator[Problem]:
    # Of a Service that claims what another one has, only that is left out.
    kept = (
        "Objects that can't be read keep their last state; everything else is in force"
        if view.source.is_synced
        else ""
    )
    for line in view.source.problems:
        yield Problem(Level.TROUBLE, f"Source: {line}", kept)


def _workers(view: StatusView) -> Iterator[Problem]:
    for line in view.worker_problems:
        yield Problem(
            Level.TROUBLE,
            line[:1].upper() + line[1:],
            "New connections wait for its restart; its open connections were reset",
        )


def _steering(view: StatusView) -> Iterator[Problem]:
    if view.steering.has_drifted:
        yield Problem(
            Level.TROUBLE,
            f"Rules of {view.steering.name} steering may differ from the plan and can't be "
            f"repaired: {view.steering.problem}",
            "Clients may not be served until this is repaired; it is retried every second",
        )
    elif view.steering.problem:
        yield Problem(
            Level.TROUBLE,
            f"Steering by {view.steering.name}: {view.steering.problem}",
            "The previous rules stay in force; it is retried every second",
        )
    if view.steering.unguarded:
        yield Problem(
            Level.ATTENTION,
            "After a crash of the proxy, any process on this node can take its ports and receive "
            f"its clients' traffic: {view.steering.unguarded}",
            "Load nft_socket (with iptables steering xt_socket) and start the proxy again",
        )


def _client_address(view: StatusView) -> Iterator[Problem]:
    if view.client_address.problem:
        yield Problem(
            Level.TROUBLE,
            f"Client addresses: {view.client_address.problem}",
            "New connections have this node's address; it is retried every second",
        )
    if view.client_address.is_on:
        for bridge in view.client_address.bridges:
            yield Problem(
                Level.ATTENTION,
                f"Endpoints on bridge {bridge.bridge} see this node's address instead of that of "
                f"IPv{bridge.version} clients on the same bridge: {bridge.cause}",
                bridge.hint,
            )


def _tracking(view: StatusView) -> Iterator[Problem]:
    table = view.tracking
    figures = f"{table.entries:,} of {table.limit:,} entries in use"
    more = f"Raise the limit: sysctl -w net.netfilter.nf_conntrack_max={2 * table.limit}"
    if table.is_full:
        what = f"New connections fail on this node: connection tracking is full, {figures}"
        yield Problem(Level.TROUBLE, what, more)
    elif table.limit and table.entries >= table.limit * _TRACKING_SHORT:
        yield Problem(Level.ATTENTION, f"Connection tracking is nearly full: {figures}", more)


def _firewalls(view: StatusView) -> Iterator[Problem]:
    for firewall in view.firewalls:
        yield Problem(
            Level.TROUBLE,
            f"Chain {firewall.chain} may drop packets to Services on their way in: {firewall.why}",
            firewall.way_out,
        )


def _sync(view: StatusView, now: float) -> Iterator[Problem]:
    waited_s = late_s(view.sync, now)
    if waited_s:
        what = f"A change has waited {seconds_in_words(waited_s)} and is not in force"
        cause = f": {view.sync.problem}" if view.sync.problem else ""
        yield Problem(Level.TROUBLE, what + cause, "The last plan that worked is in force")
    elif view.sync.problem:
        what = f"The last round failed: {view.sync.problem}"
        yield Problem(Level.TROUBLE, what, "It is retried")


def _unserved(view: StatusView) -> Iterator[Problem]:
    for error in view.unserved:
        what = error.message[:1].upper() + error.message[1:]
        way_out = error.hint[:1].upper() + error.hint[1:]
        yield Problem(Level.TROUBLE, what, f"{way_out}; it is retried every 5 s")


def _conflicts(view: StatusView) -> Iterator[Problem]:
    for item in view.ignored:
        if item.is_conflict:
            yield Problem(
                Level.TROUBLE,
                f"{item.service} is not served: {item.reason}",
                "Give one of them another address",
            )


def _health_checks(view: StatusView) -> Iterator[Problem]:
    for health in view.health_checks:
        if health.problem:
            yield Problem(
                Level.TROUBLE,
                f"{health.check.service}: {health.problem}",
                "Load balancers may treat this node as one without endpoints; it is retried every "
                "second",
            )


def _node(view: StatusView) -> Iterator[Problem]:
    used, limit = view.descriptors, view.descriptor_limit
    figures = f"{count_in_words(used)} of {count_in_words(limit)} descriptors in use"
    more = "Raise the limit of open files (RLIMIT_NOFILE, systemd: LimitNOFILE=)"
    if limit and not view.is_accepting:
        yield Problem(Level.TROUBLE, f"New connections wait: {figures}", more)
    elif limit and used >= limit * _DESCRIPTORS_SHORT:
        yield Problem(Level.ATTENTION, f"Descriptors run short: {figures}", more)
    if not view.node_is_eligible:
        yield Problem(
            Level.ATTENTION,
            "This node is to be deleted: /healthz answers 503, so that load balancers avoid it",
        )
