"""One verdict over all nodes: what each says of a Service port, merged as values.

    answers ──by Service port──▶ MergedPort ── groups of nodes that say the same, served, missing
                                     └────────▶ MergedEndpoint: nodes that tried it, and by cause
            ──by cause─────────▶ MergedIncident

Rule 1: only nodes with an answer now count; others are named by remarks.
Rule 2: a summary leaves out what is served, so what it doesn't have is served there.
Rule 3: whether an endpoint fails, or the way to it, depends on which nodes have tried it.
Rule 4: each Service port of an answer is looked at a fixed number of times.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from userspace_proxy.causes.cause import Cause
from userspace_proxy.facts import (
    WORST_FIRST,
    FrontendFacts,
    Level,
    PortFacts,
    PortState,
    StateFacts,
    worst,
)

from .answer import AgentAnswer, AgentRun, AllNodes
from .endpoints import MergedEndpoint, endpoints_of, same_cause, seen_together
from .incidents import MergedIncident, incidents_of
from .remarks import Remark, other_settings_of, remarks_of
from .rows import NodeRow, rows_of
from .sums import Sums, added, of_port

# Each costs about a kilobyte of every node that is asked for it.
ASKED_MAX = 50
# No name of Kubernetes is longer.
_NAME_MAX = 253


class MergedKey(NamedTuple):
    """What tells a Service port from others on all nodes: its family and side included."""

    namespace: str
    service: str
    port: str
    family: str
    side: str

    @property
    def of_service(self) -> str:
        return f"{self.namespace}/{self.service}"

    @property
    def name(self) -> str:
        return f"{self.of_service}:{self.port}" if self.port else self.of_service

    def __str__(self) -> str:
        others = [self.family] if self.family not in ("", "IPv4") else []
        others += [self.side] if self.side else []
        return f"{self.name} ({', '.join(others)})" if others else self.name


@dataclass(frozen=True, slots=True)
class NodeGroup:
    """Nodes on which the same is wrong with a Service port."""

    level: Level
    state: PortState
    causes: tuple[Cause, ...]
    """That their sentences state, with what all of them counted; empty if they have none."""
    sentence: str
    """That of the first node, without a capital letter that only a sentence has."""
    nodes: tuple[str, ...]
    """By name."""


@dataclass(frozen=True)
class MergedPort:
    """One Service port on all nodes."""

    key: MergedKey
    members: Mapping[str, PortFacts]
    """By node, of the answers that have it."""
    level: Level
    """The worst."""
    groups: tuple[NodeGroup, ...]
    """Where it isn't ok: the worst, and then the largest first."""
    served: int
    """Nodes on which it is ok."""
    neutral: tuple[tuple[str, int], ...]
    """Of these, those that show no client that is answered: why, and how many."""
    left_out: int
    """Of these, those whose summaries leave it out."""
    missing: tuple[str, ...]
    """Nodes that don't know it."""

    @property
    def first(self) -> PortFacts:
        """The facts of one node, where it doesn't matter which."""
        return next(iter(self.members.values()))

    @property
    def frontends(self) -> Sequence[FrontendFacts]:
        return self.first.frontends

    @property
    def address(self) -> str:
        """The address that most clients dial; empty if there is none."""
        return self.frontends[0].address if self.frontends else ""

    @property
    def ill(self) -> int:
        return sum(len(group.nodes) for group in self.groups)

    @property
    def mark(self) -> Level | None:
        """Its level, for all observers; None for a neutral mark."""
        is_neutral = self.served == sum(count for _, count in self.neutral)
        return None if self.level is Level.OK and is_neutral else self.level

    @cached_property
    def sums(self) -> Sums:
        """Its figures on all nodes whose answers have it."""
        return added(map(of_port, self.members.values()))

    @cached_property
    def endpoints(self) -> tuple[MergedEndpoint, ...]:
        """Its endpoints: those that fail first, then by address."""
        return endpoints_of(self.members, self.left_out)

    @property
    def causes_of_endpoints(self) -> frozenset[object]:
        """What is wrong with its endpoints, as ``same_cause`` has it."""
        return frozenset(same_cause(cause) for one in self.endpoints for cause, _ in one.failing)


@dataclass(frozen=True)
class Merged:
    """All nodes at one moment, as one."""

    now: float
    """Unix time of this machine at which the last answer came; 0 without one."""
    nodes: tuple[str, ...]
    """All that are known."""
    answered: tuple[str, ...]
    """Those with an answer now."""
    has_nodes: bool
    """Whether nodes without an agent are known."""
    ports: tuple[MergedPort, ...]
    """The worst first, then by name; of summaries only those that aren't ok on some node."""
    healthy: int
    """Further Service ports, which are ok wherever they are known."""
    incidents: tuple[MergedIncident, ...]
    """The worst first, then those of the most nodes."""
    remarks: tuple[Remark, ...]
    rows: tuple[NodeRow, ...]
    level: Level
    """The worst of all."""
    runs: Mapping[str, AgentRun]
    """Of the agents that have answered, by node."""
    namespace: str = ""
    """Only its Services are meant; empty: all, or what else was chosen."""
    ill_elsewhere: int = 0
    """How many Services of other namespaces need attention."""

    @property
    def mark(self) -> Level | None:
        """Its level, for all observers; None: nothing is wrong, nor known to be well."""
        if self.level is not Level.OK or not self.ports:
            return self.level
        return mark_of(self.ports, more=self.healthy)

    @property
    def ill(self) -> int:
        """How many Service ports aren't ok on some node."""
        return sum(port.level is not Level.OK for port in self.ports)

    @property
    def ill_services(self) -> frozenset[str]:
        """Those that aren't ok on some node, by name."""
        return frozenset(port.key.of_service for port in self.ports if port.level is not Level.OK)

    def of_service(self, service: str) -> Merged:
        """Return the part about a Service, one port of it (by name or number), or a namespace."""
        if "/" in service:
            ports = [port for port in self.ports if service in port.first.names]
        else:
            ports = [port for port in self.ports if port.key.namespace == service]
        touched = {port.key.of_service for port in ports}
        incidents = [one for one in self.incidents if not touched.isdisjoint(one.incident.services)]
        level = worst(port.level for port in ports)
        return replace(self, ports=tuple(ports), incidents=tuple(incidents), healthy=0, level=level)


def mark_of(ports: Collection[MergedPort], *, more: int = 0) -> Level | None:
    """Return the worst level of some Service ports, or None for a neutral mark.

    That is for ports of which none is known to be well, or one that isn't has clients that fail.

    Args:
        more: How many others are well.
    """
    level = worst(port.level for port in ports)
    unknown = [port for port in ports if port.mark is None]
    is_neutral = len(unknown) == len(ports) + more or any(port.sums.failed for port in unknown)
    return None if level is Level.OK and is_neutral else level


def merge(all_nodes: AllNodes, before: AllNodes | None = None) -> Merged:
    """Return all nodes as one.

    Args:
        before: The same some seconds ago, for what is measured in between; None: it isn't known.
    """
    known = [one for one in all_nodes.answers if one.status is not None and one.problem is None]
    by_port = _by_port(all_nodes, known)
    ports = [_merged(key, members, known) for key, members in by_port.items()]
    ports.sort(key=lambda one: (WORST_FIRST.index(one.level), -one.ill, one.key))
    settings = other_settings_of(known)
    remarks = remarks_of(all_nodes, settings)
    incidents = incidents_of(by_port.values(), _summaries(known))
    levels = (*(port.level for port in ports), *(remark.level for remark in remarks))
    return Merged(
        now=max((one.answered_at for one in known), default=0.0),
        nodes=tuple(one.node for one in all_nodes.answers),
        answered=tuple(one.node for one in known),
        has_nodes=all_nodes.has_nodes,
        ports=tuple(ports),
        healthy=max(0, _usual_count(known) - len(ports)) if _summaries(known) else 0,
        incidents=incidents,
        remarks=remarks,
        rows=rows_of(all_nodes, remarks, incidents, settings, before),
        level=worst(levels),
        runs={one.node: AgentRun(s.started, s.now) for one in known if (s := one.status)},
    )


def services_to_ask(all_nodes: AllNodes) -> tuple[str, ...]:
    """Return the Services of which more than a summary is needed, those of the most nodes first.

    They aren't ok on some node: others show who has tried their endpoints, and is answered.
    """
    found = Counter(
        f"{port.namespace}/{port.service}"
        for answer in all_nodes.answers
        if answer.status is not None and answer.is_summary
        for port in answer.status.ports
        if port.state.level is not Level.OK
    )
    return tuple(service for service, _ in found.most_common(ASKED_MAX))


def _by_port(
    all_nodes: AllNodes, known: Sequence[AgentAnswer]
) -> Mapping[MergedKey, Mapping[str, PortFacts]]:
    found: dict[MergedKey, dict[str, PortFacts]] = {}
    for answer in known:
        assert answer.status is not None
        for port in answer.status.ports:
            if max(len(port.namespace), len(port.service), len(port.port)) > _NAME_MAX:
                continue
            key = MergedKey(port.namespace, port.service, port.port, port.family, port.side)
            found.setdefault(key, {})[answer.node] = port
    if not all_nodes.digests or len(known) < 2:
        return found
    # Services of one agent alone that the API server doesn't have cost its own row only.
    return {
        key: members
        for key, members in found.items()
        if len(members) > 1 or key.of_service in all_nodes.digests or _has_files(known, members)
    }


def _merged(
    key: MergedKey, members: Mapping[str, PortFacts], known: Sequence[AgentAnswer]
) -> MergedPort:
    found: dict[object, list[_Ill]] = {}
    served, left_out, neutral = 0, 0, Counter[str]()
    for node, port in members.items():
        if port.state.level is Level.OK:
            served += 1
            if why := port.why_neutral:
                neutral[why] += 1
        else:
            state = port.state
            stated = state.stated or state.causes[:1]
            same = frozenset(map(same_cause, stated))
            one = _Ill(node, state, stated)
            found.setdefault((state.level, state.word, same), []).append(one)
    missing: list[str] = []
    for answer in known if len(members) < len(known) else ():
        if answer.node in members:
            continue
        if not (answer.is_summary and answer.status is not None and answer.status.served):
            missing.append(answer.node)
        # Of a node that is behind in it, its summary doesn't tell whether it serves it.
        elif key.of_service not in answer.behind:
            left_out += 1
    groups = [_group(same) for same in found.values()]
    groups.sort(key=lambda one: (WORST_FIRST.index(one.level), -len(one.nodes), one.nodes))
    level = worst(group.level for group in groups)
    return MergedPort(
        key,
        members,
        level,
        tuple(groups),
        served + left_out,
        tuple(neutral.most_common()),
        left_out,
        tuple(missing),
    )


class _Ill(NamedTuple):
    """What is wrong with a Service port on a node."""

    node: str
    state: StateFacts
    stated: Sequence[Cause]


def _group(same: Sequence[_Ill]) -> NodeGroup:
    state = same[0].state
    by_cause: dict[object, list[Cause]] = {}
    for one in same:
        for cause in one.stated:
            by_cause.setdefault(same_cause(cause), []).append(cause)
    causes = tuple(map(seen_together, by_cause.values()))
    nodes = tuple(one.node for one in same)
    sentence = "; ".join(clause.text for clause in state.clauses) or state.sentence
    return NodeGroup(state.level, state.word, causes, sentence, nodes)


def _has_files(known: Sequence[AgentAnswer], members: Mapping[str, PortFacts]) -> bool:
    """Return whether what is served is from manifests, of which the API server knows nothing."""
    return any(
        one.status is not None and one.node in members and one.status.source.kind != "kubernetes"
        for one in known
    )


def _summaries(known: Sequence[AgentAnswer]) -> frozenset[str]:
    return frozenset(one.node for one in known if one.is_summary)


def _usual_count(known: Sequence[AgentAnswer]) -> int:
    """Return how many Service ports a node has; one that counts wrong doesn't matter."""
    counts = [
        one.status.served + sum(port.state.level is not Level.OK for port in one.status.ports)
        for one in known
        if one.status is not None and one.is_summary
    ]
    return int(statistics.median(counts)) if counts else 0
