"""Lists the problems of a view as sentences, the worst first.

    of the node   ── source, steering, rounds, descriptors ──┐
    of Services   ── refused, not served, not answering ─────┴─▶ Problem …

Rule 1: the levels trouble, attention and OK mean the same as for Service ports (``rules``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ..causes.cause import CauseCode
from ..causes.say import remedy, say
from ..causes.services import HEALTH_CHECK_FAILS
from ..facts import (
    IgnoredFacts,
    Level,
    PortState,
    Problem,
    StatusFacts,
    SteeringState,
    SyncFacts,
)
from ..facts.units import capitalised, format_count, format_seconds, plural
from .paths import problems_of_kernel

# If this share of descriptors is in use, a warning is shown, so that an operator can raise the
# limit before accepting has to pause.
_DESCRIPTORS_SHORT = 0.9
# The minimum number of repairs in a minute to report as a problem; a single repair usually follows
# a firewall restart.
_AGAIN = 3
_CHANGED_BY = {
    "nftables": "`nft monitor` shows the process with each change: have it leave the tables of "
    "userspace-proxy, instead of a flush of all rules",
    "iptables": "Find the program that flushes chains (`iptables-legacy -F`), as a firewall does "
    "at its start, and have it leave those of userspace-proxy",
    "local": "Find the program that removes routes or rules of this node, and have it leave those "
    "of userspace-proxy",
}
# Up to this many problems of one kind are listed; if there are more, all are merged into one.
_ALIKE = 3
# How long saving must fail to be reported: a disk that is full only briefly needs no action.
_NOT_KEPT_S = 60.0


# A change that has waited for this time is late. This is kube-proxy's healthzTimeout: twice the
# default iptables sync period of 30 s.
LATE_S = 60.0
STARTING = "starting"
"""The kind of problem that a starting proxy reports."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The summary of a view: a sentence and a list of problems."""

    level: Level
    verdict: str
    problems: tuple[Problem, ...]
    """Trouble first; within a level, problems of the node, then of Service ports, by name."""


def summarise(view: StatusFacts, now: float) -> Summary:
    """Return the overall state, and all problems."""
    of_node = summarise_node(view, now)
    ports = [
        Problem(
            port.state.level,
            port.state.sentence,
            port.state.hint,
            port.name,
            port.family,
            port.side,
            port.state.code,
        )
        for port in view.ports
        if port.state.level is not Level.OK
    ]
    ports.sort(key=lambda problem: (problem.port, problem.family, problem.side))
    problems = _worst_first([*of_node.problems, *ports])
    return Summary(of_node.level, of_node.verdict, tuple(problems))


def summarise_node(view: StatusFacts, now: float) -> Summary:
    """Return the summary with only the node's problems; the page shows other problems in rows."""
    node = problems_of_node(view, now)
    levels = [port.state.level for port in view.ports]
    on_ports = len(levels) - levels.count(Level.OK)
    if Level.TROUBLE in levels or any(one.level is Level.TROUBLE for one in node):
        level = Level.TROUBLE
    else:
        level = Level.ATTENTION if node or on_ports else Level.OK
    return Summary(level, _verdict(view, on_node=len(node), on_ports=on_ports), tuple(node))


def problems_of_node(view: StatusFacts, now: float) -> list[Problem]:
    """Return the problems that don't concern a single Service port, worst first."""
    found = [
        *_starting(view),
        *_source(view),
        *_last_state(view, now),
        *_workers(view),
        *_steering(view),
        *problems_of_kernel(view),
        *_firewalls(view),
        *problems_of_routes(view),
        *_sync(view, now),
        *_unserved(view),
        *_conflicts(view),
        *_health_checks(view),
        *_node(view),
    ]
    return _worst_first(found)


def problems_of_clients(view: StatusFacts, now: float) -> Iterator[Problem]:
    """Yield a problem if the proxy isn't ready, and trouble of workers, kernel, rounds and node."""
    yield from _starting(view)
    waits = () if view.sync.problem else _sync(view, now)
    others = (*_workers(view), *problems_of_kernel(view), *waits, *_node(view))
    yield from (one for one in others if one.level is Level.TROUBLE)


NODE_CODES = (
    CauseCode.FIREWALL_DROPS,
    CauseCode.NOT_LISTENING,
    CauseCode.NOT_LOCAL,
    CauseCode.SOURCE_AWAY,
)
"""The codes that :func:`codes_of_node` may return."""


def codes_of_node(view: StatusFacts) -> frozenset[CauseCode]:
    """Return the codes of the node's problems, which don't concern single Services."""
    found = (
        *_source(view),
        *_last_state(view, view.last_state.served_at),
        *_firewalls(view),
        *problems_of_routes(view),
        *_node(view),
    )
    return frozenset(problem.code for problem in found if problem.code)


def _worst_first(problems: list[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: problem.level is not Level.TROUBLE)


def _verdict(view: StatusFacts, *, on_node: int, on_ports: int) -> str:
    all_ports = plural(len(view.ports), "Service port")
    parts = []
    if not view.is_ready and not _lacks_workers(view):
        # Starting and stopping come first in the list, but don't count as problems.
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
        is_unknown = any(port.state.word is PortState.UNKNOWN for port in view.ports)
        ports = f"{all_ports}{'' if is_unknown else ' served'}{but}."
        parts = ["No problems.", ports if view.ports else "No Services yet."]
    return " ".join(parts)


def _lacks_workers(view: StatusFacts) -> bool:
    """Return whether all workers have exited after the first plan was applied."""
    was_ready = view.source.is_synced and bool(view.sync.last_done)
    return was_ready and not view.is_ready and not view.is_draining


def _starting(view: StatusFacts) -> Iterator[Problem]:
    """Yield a problem if this proxy isn't ready."""
    if view.is_ready:
        return
    hint = ""
    if view.is_draining:
        what = "Shutting down: open connections may finish"
    elif _lacks_workers(view):
        yield Problem(
            Level.TROUBLE,
            "No worker process runs: new connections wait",
            "Workers are being restarted; the log has their last lines",
            kind="no worker",
        )
        return
    elif view.source.is_synced:
        what = "Starting: the first plan is not applied yet"
    else:
        what = f"Starting: Services have not been read yet from {view.source.location}"
        hint = "" if view.source.problems else "This should take a few seconds"
    kind = "shutting down" if view.is_draining else STARTING
    yield Problem(Level.ATTENTION, what, hint, kind=kind)


def _source(view: StatusFacts) -> Iterator[Problem]:
    kept = "Objects that can't be read keep their last state; everything else is applied"
    for line in view.source.problems:
        hint = kept if view.source.is_synced else ""
        kind = f"source: {line}"
        yield Problem(Level.TROUBLE, f"Source: {line}", hint, code=CauseCode.SOURCE_AWAY, kind=kind)


def _last_state(view: StatusFacts, now: float) -> Iterator[Problem]:
    state = view.last_state
    if state.served_at:
        age = format_seconds(state.age_at(now) or 0.0)
        yield Problem(
            Level.ATTENTION,
            f"Serving the saved state, which is {age} old: Services "
            f"have not been read yet from {view.source.location}",
            "Changes since then are not applied; they will be once the source can be read",
            code=CauseCode.SOURCE_AWAY,
            kind="last state served",
        )
    if state.problem and now - state.failing_since >= _NOT_KEPT_S:
        yield Problem(
            Level.ATTENTION,
            f"The state is not saved to disk: {state.problem}",
            "After a restart, nothing is served before the source can be read",
            kind="last state not kept",
        )


def _workers(view: StatusFacts) -> Iterator[Problem]:
    for line in view.worker_problems:
        yield Problem(
            Level.TROUBLE,
            capitalised(line),
            "Its open connections were reset; new ones are served by other workers, or wait",
            kind=f"worker: {line}",
        )


def _steering(view: StatusFacts) -> Iterator[Problem]:
    if view.steering.has_drifted:
        yield Problem(
            Level.TROUBLE,
            f"Rules of {view.steering.name} steering may differ from the plan and can't be "
            f"repaired: {view.steering.problem}",
            "Clients may not be served until this is repaired; it is retried every second",
            kind="drift",
        )
    elif view.steering.problem:
        yield Problem(
            Level.TROUBLE,
            f"Steering by {view.steering.name}: {view.steering.problem}",
            "The previous rules stay in effect; it is retried every second",
            kind="steering",
        )
    if again := changed_again(view.steering):
        hint = changed_by_others(view.steering)
        yield Problem(Level.ATTENTION, again, hint, kind="rules changed")
    if view.steering.unguarded:
        yield Problem(
            Level.ATTENTION,
            "After a crash of the proxy, any process on this node can take its ports and receive "
            f"its clients' traffic: {view.steering.unguarded}",
            "Load nft_socket (with iptables steering xt_socket) and start the proxy again",
            kind="unguarded",
        )


def changed_again(steering: SteeringState) -> str:
    """Return a clause if another program repeatedly changes the rules; empty if none does."""
    times = steering.repaired_last_minute
    if times < _AGAIN:
        return ""
    what = "Another program keeps changing the proxy's rules"
    return f"{what}: put back {times:,} times in the last minute"


def changed_by_others(steering: SteeringState) -> str:
    """Return the remedy for rules that another program repeatedly changes."""
    return f"Clients may be lost in between. {_CHANGED_BY.get(steering.name, '')}".rstrip()


def _firewalls(view: StatusFacts) -> Iterator[Problem]:
    for firewall in view.firewalls:
        yield Problem(
            Level.TROUBLE,
            f"Chain {firewall.chain} drops packets of Services: {firewall.why}",
            firewall.hint,
            family=firewall.family,
            code=CauseCode.FIREWALL_DROPS,
            kind=f"chain {firewall.chain}",
        )


def problems_of_routes(
    view: StatusFacts, families: Collection[str] = ("IPv4", "IPv6")
) -> Iterator[Problem]:
    """Yield a problem for each cluster IP to which this node's programs have no route."""
    # Where connect() is translated, the kernel looks up the endpoint's route instead.
    for address, why in () if view.socket_lb.is_attached else view.unrouted.items():
        family, option = ("IPv6", "-6 ") if ":" in address else ("IPv4", "")
        if family in families:
            yield Problem(
                Level.ATTENTION,
                f"Programs on this node, except pods, can't dial Services ({address}): {why}",
                f"The kernel looks for a route before any rule applies (`ip route get {address}`): "
                "delete a blackhole route, or without a route add a default route, or "
                f"`ip {option}route add RANGE dev lo` with the range of cluster IPs",
                family=family,
                code=CauseCode.NOT_LISTENING,
                kind=f"no route {address}",
            )


def _sync(view: StatusFacts, now: float) -> Iterator[Problem]:
    waited_s = late_s(view.sync, now)
    if waited_s:
        what = f"A change has waited {format_seconds(waited_s)} and is not applied"
        cause = f": {view.sync.problem}" if view.sync.problem else ""
        hint = "The last plan that worked is in effect"
        yield Problem(Level.TROUBLE, what + cause, hint, kind="change waits")
    elif view.sync.problem:
        what = f"The last round failed: {view.sync.problem}"
        yield Problem(Level.TROUBLE, what, "It is retried", kind="round failed")


def _unserved(view: StatusFacts) -> Iterator[Problem]:
    for one in view.unserved:
        hint = f"{capitalised(one.hint)}; it is retried every 5 s"
        kind = f"unserved: {one.problem}"
        yield Problem(Level.TROUBLE, capitalised(one.problem), hint, kind=kind)


def _conflicts(view: StatusFacts) -> Iterator[Problem]:
    """Yield a problem per Service that can't be served, or a single problem for many alike."""
    alike: dict[str, list[IgnoredFacts]] = {}
    for item in view.ignored:
        if item.is_conflict:
            alike.setdefault(str(item.cause.row.key), []).append(item)
    for key, items in alike.items():
        for item in items if len(items) <= _ALIKE else ():
            cause, kind = item.cause, f"conflict {item.service} {item.port} {key}"
            what = f"{item.service} is not served: {say(cause)}"
            yield Problem(Level.TROUBLE, what, remedy(cause), code=cause.code, kind=kind)
        if len(items) > _ALIKE:
            names = list(dict.fromkeys(item.service for item in items))
            cause, verb = items[0].cause, "is" if len(names) == 1 else "are"
            more = len(names) - _ALIKE
            who = ", ".join(names[:_ALIKE]) + (f" and {plural(more, 'other')}" if more > 0 else "")
            what = f"{who} {verb} not served: {say(cause)}, and others alike"
            kind = f"conflicts {key}"
            yield Problem(Level.TROUBLE, what, remedy(cause), code=cause.code, kind=kind)


def _health_checks(view: StatusFacts) -> Iterator[Problem]:
    for health in view.health_checks:
        if health.problem:
            yield Problem(
                Level.TROUBLE,
                f"{health.service}: {health.problem}",
                HEALTH_CHECK_FAILS,
                kind=f"health check {health.service}",
            )


def _node(view: StatusFacts) -> Iterator[Problem]:
    used, limit = view.descriptors, view.descriptor_limit
    figures = f"{format_count(used)} of {format_count(limit)} descriptors in use"
    more = "Raise the limit of open files (RLIMIT_NOFILE, systemd: LimitNOFILE=)"
    if view.memory.was_short:
        yield _memory(view)
    elif limit and not view.is_accepting:
        what = f"New connections wait: {figures}"
        yield Problem(Level.TROUBLE, what, more, kind="no descriptors")
    elif limit and used >= limit * _DESCRIPTORS_SHORT:
        what = f"Descriptors run short: {figures}"
        yield Problem(Level.ATTENTION, what, more, kind="few descriptors")
    if view.no_node is not None:
        what, hint = capitalised(say(view.no_node)), remedy(view.no_node)
        yield Problem(Level.ATTENTION, what, hint, code=view.no_node.code, kind="node missing")
    if not view.node_is_eligible:
        yield Problem(
            Level.ATTENTION,
            "This node is to be deleted: /healthz answers 503, so that load balancers avoid it",
            kind="node deleted",
        )


def _memory(view: StatusFacts) -> Problem:
    memory = view.memory
    percent = 100 * memory.used_bytes // max(1, memory.limit_bytes)
    now = "new connections only replace others" if memory.is_short else "it was more a moment ago"
    return Problem(
        Level.TROUBLE,
        f"Memory: {percent} % of the limit of {memory.limit_bytes >> 20:,} MiB is used, {now}; "
        "the connections that hold the most are reset",
        "Raise the limit (resources.limits.memory of the pod, systemd: MemoryMax=)",
        kind="memory",
    )


def late_s(sync: SyncFacts, now: float) -> float:
    """Return for how many seconds a change has waited; 0 if that is less than ``LATE_S``."""
    # Don't compare ``last_queued`` with ``last_done``: if the clock is set back while a change is
    # being applied, the change seems newer than the round that applied it.
    since = sync.waiting_since
    waited_s = now - since if since else 0.0
    return waited_s if waited_s >= LATE_S else 0.0
