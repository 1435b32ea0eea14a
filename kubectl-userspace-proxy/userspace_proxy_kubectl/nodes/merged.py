"""Merges all nodes' facts about each Service port into one verdict.

    answers ──by Service port──▶ MergedPort ── groups of nodes with equal facts, served, missing
                                     └────────▶ MergedEndpoint: nodes that tried it, and by cause
            ──by cause─────────▶ MergedIncident

Rule 1: only nodes with a current answer count; the other nodes are named in findings. If no agent
can be asked because the API server is unreachable, the last answers count.
Rule 2: a summary omits served Service ports, so the ports that it omits are served there.
Rule 3: which nodes tried an endpoint decides whether the endpoint fails, or the path to it.
Rule 4: each Service port in an answer is visited a fixed number of times.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from userspace_proxy.causes.cause import Cause
from userspace_proxy.diagnosis.rules import is_silent
from userspace_proxy.facts import (
    WORST_FIRST,
    IgnoredFacts,
    Level,
    PodRuleFacts,
    PortFacts,
    PortState,
    StateFacts,
    worst,
)
from userspace_proxy.facts.units import plural
from userspace_proxy.status.incident_words import time_of_day

from .agent_answer import AgentAnswer, AgentRun, AllNodes
from .agent_causes import no_api_server
from .endpoints import MergedEndpoint, by_cause, endpoints_of, same_cause
from .findings import NodeFinding, findings_of, other_settings_of
from .incidents import MergedIncident, incidents_of
from .rows import NodeRow, rows_of
from .sums import Sums, added, of_port
from .unanswered import with_unanswered

# The maximum number of Services to ask for: each adds about a kilobyte to the answer of every asked
# node.
ASKED_MAX = 50
# If at least one node in this many is silent, it is unknown whether Services are served.
_SILENT_PART = 10
LATE_HINT = "First see in the agent's log, or `status`, why its changes aren't applied"
"""The remedy of failures on nodes with an old plan of a Service."""
# The longest name that Kubernetes allows.
_NAME_MAX = 253


class MergedKey(NamedTuple):
    """Identifies a Service port on all nodes, including family and side."""

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
    """Nodes on which a Service port has the same fault."""

    level: Level
    state: PortState
    causes: tuple[Cause, ...]
    """The causes that the sentences mention, with the counts of all nodes added; empty without
    causes."""
    sentence: str
    """The first node's sentence, without the capital letter."""
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class MergedPort:
    """A Service port on all nodes."""

    key: MergedKey
    members: Mapping[str, PortFacts]
    """The port's facts by node, from the answers that contain it."""
    level: Level
    groups: tuple[NodeGroup, ...]
    """The nodes on which the port isn't ok: the worst group first, then the largest."""
    served: int
    neutral: tuple[tuple[str, int], ...]
    """Why nodes that serve the port have no evidence of an answered client, with node counts."""
    left_out: int
    """The number of nodes that serve the port, but whose summaries omit it."""
    missing: tuple[str, ...]
    is_partly_known: bool
    """Whether a tenth of the cluster's nodes or more don't answer."""

    @property
    def first(self) -> PortFacts:
        """The facts of an arbitrary node."""
        return next(iter(self.members.values()))

    @property
    def addresses(self) -> Sequence[tuple[str, str]]:
        """The addresses that clients dial, each with its kind; most clients dial the first."""
        return tuple(dict.fromkeys((one.of_any_node, one.kind) for one in self.first.frontends))

    @property
    def address(self) -> str:
        """The address that most clients dial; empty without an address."""
        return self.addresses[0][0] if self.addresses else ""

    @property
    def unhealthy(self) -> int:
        return sum(len(group.nodes) for group in self.groups)

    @property
    def proven(self) -> int:
        """The number of nodes that serve the port and have evidence of an answered client."""
        return self.served - sum(count for _, count in self.neutral)

    @property
    def served_before(self) -> int:
        """The number of nodes that served clients only before the last minute; 0 if none fails."""
        is_ok = (one.mark is Level.OK and one.is_quiet for one in self.members.values())
        return sum(is_ok) if self.groups else 0

    @property
    def mark(self) -> Level | None:
        """The level for all readers, or None for a neutral mark.

        Besides :attr:`known_mark`, it is neutral if a node lacks the port, or many nodes don't
        answer: in a large cluster, some node never does.
        """
        is_unknown = self.level is Level.OK and (self.missing or self.is_partly_known)
        return None if is_unknown else self.known_mark

    @property
    def known_mark(self) -> Level | None:
        """The level on the nodes that answer and have the port, or None for a neutral mark.

        It is neutral if no clients are known to be answered, or some are known not to be.
        """
        is_proven = self.level is not Level.OK or (self.proven and not self.unserved)
        return self.level if is_proven else None

    @cached_property
    def unserved(self) -> Mapping[str, PortFacts]:
        """The facts of nodes with a neutral mark whose clients got no answer.

        Clients without a failure count only if nothing has come back on any node.
        """
        return {
            node: port
            for node, port in self.members.items()
            if port.is_unserved or (is_silent(port) and port.mark is None and not self.proven)
        }

    @property
    def is_doubted(self) -> bool:
        """Whether it is ok, but other programs' chains may take clients' packets on a node."""
        is_ok = self.level is Level.OK
        return is_ok and any(one.doubt is not None for one in self.unserved.values())

    @property
    def rank(self) -> tuple[int, bool, int]:
        """The sort key by state, the worst first."""
        return WORST_FIRST.index(self.level), not self.is_doubted, -self.unhealthy

    @property
    def hint(self) -> str:
        """The remedy if clients fail without a cause; empty if none fail, or there is no remedy."""
        nodes = self.groups[0].nodes if self.groups else self.unserved
        has_cause = any(group.causes for group in self.groups)
        return "" if has_cause else next((self.members[one].state.hint for one in nodes), "")

    @cached_property
    def sums(self) -> Sums:
        """The sum of the figures on all nodes whose answers contain the port."""
        return added(map(of_port, self.members.values()))

    @cached_property
    def endpoints(self) -> tuple[MergedEndpoint, ...]:
        """The endpoints, in the order of ``endpoints_of``."""
        return endpoints_of(self.members, self.left_out)

    @property
    def causes_of_endpoints(self) -> Mapping[object, Cause]:
        """The causes of the port's endpoints on all nodes, by the keys of ``same_cause``."""
        return {same_cause(cause): cause for one in self.endpoints for cause, _ in one.failing}


@dataclass(frozen=True)
class Merged:
    """All nodes at one moment, merged."""

    now: float
    """This machine's Unix time of the last answer; 0 without one."""
    nodes: tuple[str, ...]
    answered: tuple[str, ...]
    has_nodes: bool
    """Whether nodes without an agent are known."""
    excluded: tuple[str, ...]
    """See :class:`AllNodes`."""
    ports: tuple[MergedPort, ...]
    """The ports: the worst first, then doubtful ports, then by number of unhealthy nodes, then by
    name. Summaries contribute only ports that aren't ok somewhere."""
    healthy: int
    """The number of other Service ports, which are ok on all nodes that have them."""
    incidents: tuple[MergedIncident, ...]
    """The incidents by level, the worst first, then by number of nodes."""
    findings: tuple[NodeFinding, ...]
    rows: tuple[NodeRow, ...]
    level: Level
    runs: Mapping[str, AgentRun]
    """The runs of agents that answered, by node."""
    pod_rules: Mapping[tuple[str, str], PodRuleFacts]
    """The rules that may drop packets of pods, by node and by the pods' address or network."""
    ignored: tuple[IgnoredFacts, ...] = ()
    """The Services and ports that nodes ignore by design, sorted by name; summaries omit them."""
    namespace: str = ""
    """The selected namespace; empty if all namespaces or individual Services are selected."""
    sums: Sums | None = None
    """The sum over these Service ports; if all are selected, also former ones. None if unknown."""
    unhealthy_elsewhere: int = 0
    """The number of other namespaces' Services that need attention."""
    unmatched: str = ""
    """The sentence for a search that finds nothing; empty otherwise."""

    @property
    def mark(self) -> Level | None:
        """The level for all readers; None if a node is silent, or if :func:`mark_of` is None."""
        if self.level is not Level.OK or not (self.ports or self.silent):
            return self.level
        return None if self.silent else mark_of(self.ports, more=self.healthy)

    @property
    def silent(self) -> frozenset[str]:
        """The nodes without an answer."""
        return frozenset(self.nodes).difference(self.answered)

    @property
    def unhealthy(self) -> int:
        """The number of Service ports that aren't ok on some node."""
        return sum(port.level is not Level.OK for port in self.ports)

    @property
    def unhealthy_services(self) -> frozenset[str]:
        """The Services that aren't ok on some node, by name."""
        return frozenset(port.key.of_service for port in self.ports if port.level is not Level.OK)

    @property
    def counted(self) -> str:
        """The number of all Service ports, as ``12 Service ports``."""
        return plural(len(self.ports) + self.healthy, "Service port")

    def are_late(self, service: str, nodes: Iterable[str]) -> bool:
        """Return whether all of these nodes lag behind the API server with a Service."""
        late = {row.node for row in self.rows if service in (row.behind or ())}
        return late.issuperset(nodes)

    def of_service(self, service: str) -> Merged:
        """Return the part about a Service, one of its ports (by name or number), or a namespace.

        Findings that affect only the other family aren't part of a Service.
        """
        findings = self.findings
        if "/" in service:
            ports = [port for port in self.ports if service in port.first.names]
            families = {"", *(port.key.family for port in ports)}
            findings = tuple(one for one in findings if one.family in families)
        else:
            ports = [port for port in self.ports if port.key.namespace == service]
        name = service.partition(":")[0]
        own = (item for item in self.ignored if name in (item.service, item.key.namespace))
        return replace(self.part(ports, own), findings=findings)

    def part(self, ports: Collection[MergedPort], ignored: Iterable[IgnoredFacts]) -> Merged:
        """Return the part with these Service ports and ignored Services."""
        affected = {port.key.of_service for port in ports}
        incidents = (
            one for one in self.incidents if not affected.isdisjoint(one.incident.services)
        )
        return replace(
            self,
            ports=tuple(ports),
            incidents=tuple(incidents),
            sums=None if self.healthy else added(port.sums for port in ports),
            healthy=0,
            level=worst(port.level for port in ports),
            ignored=tuple(ignored),
        )


def mark_of(
    ports: Collection[MergedPort], *, more: int = 0, only_known: bool = False
) -> Level | None:
    """Return the worst level of some Service ports, or None for a neutral mark.

    It is neutral if no port is known to be healthy, or a neutral port has failing clients.

    Args:
        more: The number of other ports, which are healthy.
        only_known: Whether to judge only the nodes that answer and have the ports.
    """
    level = worst(port.level for port in ports)
    unknown = [one for one in ports if (one.known_mark if only_known else one.mark) is None]
    is_neutral = len(unknown) == len(ports) + more or any(port.unserved for port in unknown)
    return None if level is Level.OK and is_neutral else level


def merge(all_nodes: AllNodes, before: AllNodes | None = None) -> Merged:
    """Merge all nodes.

    Args:
        before: All nodes a few seconds ago, from which rates are computed; None if unknown.
    """
    lost, answers = _without_server(all_nodes.answers)
    all_nodes = replace(all_nodes, answers=tuple(with_unanswered(answers)))
    known = [one for one in all_nodes.answers if one.status is not None and one.problem is None]
    by_port = _by_port(all_nodes, known)
    total = len(all_nodes.answers)
    is_partly_known = total <= _SILENT_PART * (total - len(known))
    ports = [_merged(key, members, known, is_partly_known) for key, members in by_port.items()]
    ports.sort(key=lambda one: (*one.rank, one.key))
    settings = other_settings_of(known)
    findings = (*lost, *findings_of(all_nodes, settings))
    firewalls = [fw for one in known if one.status is not None for fw in one.status.firewalls]
    incidents = incidents_of(by_port.values(), _summaries(known), firewalls)
    levels = (*(port.level for port in ports), *(finding.level for finding in findings))
    ignored = {
        (item.service, item.port): item
        for one in known
        if one.status is not None
        for item in one.status.ignored
        if not item.is_conflict
    }
    rows = rows_of(all_nodes, findings, incidents, settings, before)
    return Merged(
        now=max((one.answered_at for one in known), default=0.0),
        nodes=tuple(one.node for one in all_nodes.answers),
        answered=tuple(one.node for one in known),
        has_nodes=all_nodes.has_nodes,
        excluded=all_nodes.excluded,
        ports=tuple(ports),
        healthy=max(0, _usual_count(known) - len(ports)) if _summaries(known) else 0,
        incidents=incidents,
        findings=findings,
        rows=rows,
        sums=added(row.sums for row in rows),
        level=worst(levels),
        runs={one.node: AgentRun(s.started, s.now) for one in known if (s := one.status)},
        pod_rules={
            (one.node, rule.ip): rule
            for one in known
            if one.status is not None
            for rule in one.status.pod_rules
        },
        ignored=tuple(ignored[key] for key in sorted(ignored)),
    )


def _without_server(
    answers: Sequence[AgentAnswer],
) -> tuple[Sequence[NodeFinding], Sequence[AgentAnswer]]:
    """Return a finding and the last answers if the API server is unreachable for all nodes."""
    causes = [one.problem for one in answers if one.problem is not None]
    at = max((one.answered_at for one in answers), default=0.0)
    if not at or len(causes) < len(answers) or any(c.row is not no_api_server for c in causes):
        return (), answers
    cause = no_api_server(str(causes[0].get("why")), as_of=time_of_day(at))
    last = [one if one.status is None else replace(one, problem=None) for one in answers]
    return [NodeFinding(Level.TROUBLE, cause)], last


def services_to_ask(all_nodes: AllNodes) -> tuple[str, ...]:
    """Return up to ASKED_MAX Services that aren't ok in summaries, on the most nodes first.

    Summaries omit Services on nodes that serve them, so they don't show whether endpoints answer.
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
    # Omit a Service that only one agent reports and the API server lacks: it affects only the
    # agent's row.
    return {
        key: members
        for key, members in found.items()
        if len(members) > 1 or key.of_service in all_nodes.digests or _has_files(known, members)
    }


def _merged(
    key: MergedKey,
    members: Mapping[str, PortFacts],
    known: Sequence[AgentAnswer],
    is_partly_known: bool,
) -> MergedPort:
    found: dict[object, list[_UnhealthyNode]] = {}
    served, left_out, neutral = 0, 0, Counter[str]()
    for node, port in members.items():
        if port.state.level is Level.OK:
            served += 1
            if why := port.neutral_reason:
                neutral[why] += 1
        else:
            state = port.state
            stated = state.stated or state.causes[:1]
            same = frozenset(map(same_cause, stated))
            one = _UnhealthyNode(node, state, stated)
            found.setdefault((state.level, state.word, same), []).append(one)
    missing: list[str] = []
    for answer in known if len(members) < len(known) else ():
        if answer.node in members:
            continue
        if not (answer.is_summary and answer.status is not None and answer.status.served):
            missing.append(answer.node)
        # A summary omits served ports, so count a missing port as served, unless the node's plan of
        # the Service is outdated and may lack the port.
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
        is_partly_known,
    )


class _UnhealthyNode(NamedTuple):
    """The fault of a Service port on a node."""

    node: str
    state: StateFacts
    stated: Sequence[Cause]


def _group(same: Sequence[_UnhealthyNode]) -> NodeGroup:
    state = same[0].state
    reported = by_cause((one.node, cause) for one in same for cause in one.stated)
    causes = tuple(cause for cause, _ in reported)
    nodes = tuple(one.node for one in same)
    sentence = "; ".join(clause.text for clause in state.clauses) or state.sentence
    return NodeGroup(state.level, state.word, causes, sentence, nodes)


def _has_files(known: Sequence[AgentAnswer], members: Mapping[str, PortFacts]) -> bool:
    """Return whether a node reads Services from another source than the API server."""
    return any(
        one.status is not None and one.node in members and one.status.source.kind != "kubernetes"
        for one in known
    )


def _summaries(known: Sequence[AgentAnswer]) -> frozenset[str]:
    return frozenset(one.node for one in known if one.is_summary)


def _usual_count(known: Sequence[AgentAnswer]) -> int:
    """Return the median of the numbers of Service ports in summaries; 0 without summaries."""
    counts = [
        one.status.served + sum(port.state.level is not Level.OK for port in one.status.ports)
        for one in known
        if one.status is not None and one.is_summary
    ]
    return int(statistics.median(counts)) if counts else 0
