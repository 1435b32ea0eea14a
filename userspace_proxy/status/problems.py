"""Lists problems in plain words, the worst first.

    of the node   ── source, steering, rounds, descriptors ──┐
    of Services   ── refused, not served, not answering ─────┴─▶ Problem …

Rule 1: trouble means that this proxy, or something below it, doesn't work as it should.
Rule 2: attention means that the cluster asks for something without effect: a Service without a
ready endpoint is refused on purpose, and many clusters always have one.
Rule 3: it is OK that ``externalTrafficPolicy: Local`` drops clients from outside on nodes without
an endpoint: that is its purpose, and load balancers probe the node first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..facts import Level, Problem, StatusFacts, SteeringState
from ..facts.units import capitalised, count_in_words, plural, seconds_in_words
from ..model import CauseCode
from ..policy.mistake_causes import HEALTH_CHECK_FAILS
from .health import late_s

# From here on a busy node should get a higher limit before accepting has to pause.
_DESCRIPTORS_SHORT = 0.9
# From here on new connections may soon be dropped, as in `check`.
_TRACKING_SHORT = 0.9
# Once is a firewall that was started anew.
_AGAIN = 3
_CHANGED_BY = {
    "nftables": "`nft monitor` shows the process with each change: have it leave the tables of "
    "userspace-proxy, instead of a flush of all rules",
    "iptables": "Find the program that flushes chains (`iptables-legacy -F`), as a firewall does "
    "at its start, and have it leave those of userspace-proxy",
    "local": "Find the program that removes routes or rules of this node, and have it leave those "
    "of userspace-proxy",
}
# A disk that is full for a moment needs nothing from an operator.
_NOT_KEPT_S = 60.0


@dataclass(frozen=True, slots=True)
class Summary:
    """A view in one sentence and a list."""

    level: Level
    verdict: str
    problems: tuple[Problem, ...]
    """Trouble first; within a level the node's first, then Service ports by name."""


def summarise(view: StatusFacts, now: float) -> Summary:
    """Return the state of everything, and all problems."""
    node = problems_of_node(view, now)
    ports = [
        Problem(
            port.state.level,
            port.state.sentence,
            port.state.way_out,
            port.name,
            port.family,
            port.side,
            port.state.code,
        )
        for port in view.ports
        if port.state.level is not Level.OK
    ]
    ports.sort(key=lambda problem: (problem.port, problem.family, problem.side))
    problems = _worst_first([*node, *ports])
    return Summary(
        level=problems[0].level if problems else Level.OK,
        verdict=_verdict(view, on_node=len(node), on_ports=len(ports)),
        problems=tuple(problems),
    )


def problems_of_node(view: StatusFacts, now: float) -> list[Problem]:
    """Return the problems that concern no single Service port, the worst first."""
    found = [
        *_starting(view),
        *_source(view),
        *_last_state(view, now),
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
    return _worst_first(found)


def codes_of_node(view: StatusFacts) -> frozenset[CauseCode]:
    """Return the causes that concern the whole node."""
    found = (*_source(view), *_last_state(view, view.last_state.served_at), *_firewalls(view))
    return frozenset(problem.code for problem in found if problem.code)


def _worst_first(problems: list[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: problem.level is not Level.TROUBLE)


def _verdict(view: StatusFacts, *, on_node: int, on_ports: int) -> str:
    all_ports = plural(len(view.ports), "Service port")
    parts = []
    if not view.is_ready and not _lacks_workers(view):
        # Starting and shutting down are the first in the list, but aren't counted as problems.
        parts.append("Shutting down." if view.is_draining else "Starting.")
        on_node -= 1
    if on_node:
        parts.append(f"{plural(on_node, 'problem')} on this node.")
    if on_ports:
        needs = "needs" if on_ports == 1 else "need"
        parts.append(f"{on_ports:,} of {all_ports} {needs} attention.")
    if not parts:
        dropped = sum(port.is_dropping for port in view.ports)
        but = f", {dropped:,} of them not for outside clients" if dropped else ""
        parts = ["No problems.", f"{all_ports} served{but}." if view.ports else "No Services yet."]
    return " ".join(parts)


def _lacks_workers(view: StatusFacts) -> bool:
    """Return whether the first plan was in force, and no worker runs any more."""
    was_ready = view.source.is_synced and bool(view.sync.last_done)
    return was_ready and not view.is_ready and not view.is_draining


def _starting(view: StatusFacts) -> Iterator[Problem]:
    """Yield one problem if this proxy isn't ready."""
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


def _source(view: StatusFacts) -> Iterator[Problem]:
    kept = "Objects that can't be read keep their last state; everything else is in force"
    for line in view.source.problems:
        way_out = kept if view.source.is_synced else ""
        yield Problem(Level.TROUBLE, f"Source: {line}", way_out, code=CauseCode.SOURCE_AWAY)


def _last_state(view: StatusFacts, now: float) -> Iterator[Problem]:
    state = view.last_state
    if state.served_at:
        age = seconds_in_words(state.age_at(now) or 0.0)
        yield Problem(
            Level.ATTENTION,
            f"Serving the last state, which is {age} old: Services "
            f"have not been read yet from {view.source.location}",
            "Changes since then are not in force; they will be once the source can be read",
            code=CauseCode.SOURCE_AWAY,
        )
    if state.problem and now - state.failing_since >= _NOT_KEPT_S:
        yield Problem(
            Level.ATTENTION,
            f"The last state is not kept on disk: {state.problem}",
            "After a restart, nothing is served before the source can be read",
        )


def _workers(view: StatusFacts) -> Iterator[Problem]:
    for line in view.worker_problems:
        yield Problem(
            Level.TROUBLE,
            capitalised(line),
            "Its open connections were reset; new ones are served by other workers, or wait",
        )


def _steering(view: StatusFacts) -> Iterator[Problem]:
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
    if again := changed_again(view.steering):
        yield Problem(Level.ATTENTION, again, changed_by_others(view.steering))
    if view.steering.unguarded:
        yield Problem(
            Level.ATTENTION,
            "After a crash of the proxy, any process on this node can take its ports and receive "
            f"its clients' traffic: {view.steering.unguarded}",
            "Load nft_socket (with iptables steering xt_socket) and start the proxy again",
        )


def changed_again(steering: SteeringState) -> str:
    """Return that another program changes the rules again and again; empty if none does."""
    times = steering.repaired_lately
    if times < _AGAIN:
        return ""
    what = "Another program keeps changing the proxy's rules"
    return f"{what}: put back {times:,} times in the last minute"


def changed_by_others(steering: SteeringState) -> str:
    """Return what to do about that."""
    return f"Clients may be lost in between. {_CHANGED_BY.get(steering.name, '')}".rstrip()


def _client_address(view: StatusFacts) -> Iterator[Problem]:
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
                f"Endpoints on bridge {bridge.name} see this node's address instead of that of "
                f"{bridge.family} clients on the same bridge: {bridge.cause}",
                bridge.hint,
            )


def _tracking(view: StatusFacts) -> Iterator[Problem]:
    table = view.tracking
    figures = f"{table.entries:,} of {table.limit:,} entries in use"
    more = f"Raise the limit: sysctl -w net.netfilter.nf_conntrack_max={2 * table.limit}"
    if table.is_full:
        what = f"New connections fail on this node: connection tracking is full, {figures}"
        yield Problem(Level.TROUBLE, what, more)
    elif table.limit and table.entries >= table.limit * _TRACKING_SHORT:
        yield Problem(Level.ATTENTION, f"Connection tracking is nearly full: {figures}", more)


def _firewalls(view: StatusFacts) -> Iterator[Problem]:
    for firewall in view.firewalls:
        yield Problem(
            Level.TROUBLE,
            f"Chain {firewall.chain} may drop packets to Services on their way in: {firewall.why}",
            firewall.way_out,
            code=CauseCode.FIREWALL_DROPS,
        )


def _sync(view: StatusFacts, now: float) -> Iterator[Problem]:
    waited_s = late_s(view.sync, now)
    if waited_s:
        what = f"A change has waited {seconds_in_words(waited_s)} and is not in force"
        cause = f": {view.sync.problem}" if view.sync.problem else ""
        yield Problem(Level.TROUBLE, what + cause, "The last plan that worked is in force")
    elif view.sync.problem:
        yield Problem(Level.TROUBLE, f"The last round failed: {view.sync.problem}", "It is retried")


def _unserved(view: StatusFacts) -> Iterator[Problem]:
    for one in view.unserved:
        way_out = f"{capitalised(one.way_out)}; it is retried every 5 s"
        yield Problem(Level.TROUBLE, capitalised(one.problem), way_out)


def _conflicts(view: StatusFacts) -> Iterator[Problem]:
    for item in view.ignored:
        if item.is_conflict:
            what = f"{item.service} is not served: {item.cause}"
            yield Problem(Level.TROUBLE, what, item.cause.hint, code=item.cause.code)


def _health_checks(view: StatusFacts) -> Iterator[Problem]:
    for health in view.health_checks:
        if health.problem:
            yield Problem(
                Level.TROUBLE,
                f"{health.service}: {health.problem}",
                HEALTH_CHECK_FAILS,
            )


def _node(view: StatusFacts) -> Iterator[Problem]:
    used, limit = view.descriptors, view.descriptor_limit
    figures = f"{count_in_words(used)} of {count_in_words(limit)} descriptors in use"
    more = "Raise the limit of open files (RLIMIT_NOFILE, systemd: LimitNOFILE=)"
    if view.memory.was_short:
        yield _memory(view)
    elif limit and not view.is_accepting:
        yield Problem(Level.TROUBLE, f"New connections wait: {figures}", more)
    elif limit and used >= limit * _DESCRIPTORS_SHORT:
        yield Problem(Level.ATTENTION, f"Descriptors run short: {figures}", more)
    if not view.node_is_eligible:
        yield Problem(
            Level.ATTENTION,
            "This node is to be deleted: /healthz answers 503, so that load balancers avoid it",
        )


def _memory(view: StatusFacts) -> Problem:
    memory = view.memory
    percent = 100 * memory.used_bytes // max(1, memory.limit_bytes)
    now = "no more connections are accepted" if memory.is_short else "it was more a moment ago"
    return Problem(
        Level.TROUBLE,
        f"Memory: {percent} % of the limit of {memory.limit_bytes >> 20:,} MiB is used, {now}; "
        "the connections that hold the most are reset",
        "Raise the limit (resources.limits.memory of the pod, systemd: MemoryMax=)",
    )
