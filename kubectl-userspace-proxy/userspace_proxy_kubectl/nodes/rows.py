"""Builds the table of nodes: one row each, the worst first.

Rule 1: nodes without an answer also have a row, which doesn't show their last facts.
Rule 2: a node's level is the worst of its findings, and of incidents that are its fault: it has
the rule or the route, only few nodes see the failure, or several fail to reach its endpoints.
Rule 3: if only a path between two nodes is known to fail, both have a neutral mark.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from userspace_proxy.facts import WORST_FIRST, Level, StatusFacts

from ..port_forward import ForwardTarget
from .agent_answer import AgentAnswer, AgentRun, AllNodes
from .endpoints import Extent
from .findings import NodeFinding, OtherSetting, OtherSettings
from .incidents import MergedIncident
from .sums import NOTHING, Sums, of_port


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node's row."""

    node: str
    level: Level
    findings: tuple[NodeFinding, ...]
    """The findings about the node, the worst first, including the reason for a missing answer."""
    incidents: tuple[MergedIncident, ...]
    """The incidents that may be this node's fault: the worst first, those that are its fault
    before others."""
    has_answer: bool
    agents: tuple[ForwardTarget, ...] = ()
    version: str = ""
    commit: str = ""
    settings: Mapping[str, OtherSetting] = field(default_factory=dict)
    """The settings that differ from most nodes, by name."""
    steering: str = ""
    path: str = ""
    """The data path for Services that don't select a path."""
    plan_age_s: float | None = None
    """Seconds since the whole plan was last applied; None if it never was."""
    revision: int = 0
    """The applied revision, as counted by the agent."""
    behind: tuple[str, ...] | None = None
    """Services that lag behind the API server; None if unknown."""
    ports: int = 0
    unhealthy: int = 0
    unserved: int = 0
    """The number of other Service ports with clients that got no answer."""
    sums: Sums = NOTHING
    """The node's figures, including former Service ports."""
    cpu: float | None = None
    """Cores used by the agent, in the last seconds or since its start; None if unknown."""
    memory_bytes: int = 0
    """Memory used by the agent; 0 if unknown."""

    @property
    def mark(self) -> Level | None:
        """The level for all readers.

        None if the node hasn't answered yet, or is healthy but clients of some Services aren't
        known to be answered, or an incident may be its fault.
        """
        is_doubtful = self.unhealthy or self.unserved or self.incidents
        is_proven = self.has_answer and not is_doubtful
        return None if self.level is Level.OK and not is_proven else self.level


def rows_of(
    all_nodes: AllNodes,
    findings: Sequence[NodeFinding],
    incidents: Sequence[MergedIncident],
    settings: OtherSettings,
    before: AllNodes | None = None,
) -> tuple[NodeRow, ...]:
    """Return a row for each node, sorted by level, the worst first.

    Within a level, nodes without an answer come first, then those with a neutral mark; equal nodes
    are sorted by name.

    Args:
        findings: The result of ``findings_of``.
        incidents: The result of ``incidents_of``.
        settings: The result of ``other_settings_of``.
        before: All nodes a few seconds ago, from which rates are computed; None if unknown.
    """
    said: dict[str, list[NodeFinding]] = {}
    for finding in findings:
        for node in finding.nodes:
            said.setdefault(node, []).append(finding)
    answered = sum(one.status is not None and one.problem is None for one in all_nodes.answers)
    guilty: dict[str, list[MergedIncident]] = {}
    doubtful: dict[str, list[MergedIncident]] = {}
    for incident in incidents:
        at_fault, others = _at_fault(incident, answered)
        for node in at_fault:
            guilty.setdefault(node, []).append(incident)
        for node in others:
            doubtful.setdefault(node, []).append(incident)
    earlier = {one.node: one for one in before.answers} if before is not None else {}
    rows = [
        _row(
            one,
            earlier.get(one.node),
            tuple(said.get(one.node, ())),
            tuple(guilty.get(one.node, ())),
            tuple(doubtful.get(one.node, ())),
            settings.get(one.node, {}),
            has_digests=all_nodes.digests is not None,
        )
        for one in all_nodes.answers
    ]
    rows.sort(key=lambda row: (WORST_FIRST.index(row.level), row.has_answer, row.mark is not None))
    return tuple(rows)


def _at_fault(incident: MergedIncident, answered: int) -> tuple[Collection[str], Collection[str]]:
    """Return the nodes at fault for an incident; if unknown, none, and those that may be.

    Args:
        answered: The number of nodes with an answer.
    """
    nodes, places, extent = incident.nodes, incident.places, incident.extent
    if incident.is_of_nodes:
        return nodes, ()
    if extent not in (Extent.PATH, Extent.SOME) or incident.away or not places:
        is_rare = 2 * len(nodes) <= answered and extent is Extent.NONE
        if extent is Extent.PATH:
            is_rare = len(nodes) <= (incident.away or incident.answered)
        return (nodes if is_rare else ()), ()
    # The endpoints are known to answer only their own nodes.
    if extent is Extent.PATH and len(nodes) > incident.answered:
        return places, ()
    return (), {*places, *(nodes if extent is Extent.PATH else ())}


def _row(
    answer: AgentAnswer,
    before: AgentAnswer | None,
    findings: tuple[NodeFinding, ...],
    incidents: tuple[MergedIncident, ...],
    doubtful: tuple[MergedIncident, ...],
    settings: Mapping[str, OtherSetting],
    *,
    has_digests: bool,
) -> NodeRow:
    levels = [*(one.level for one in findings), *(one.incident.level for one in incidents)]
    level = min(levels, key=WORST_FIRST.index, default=Level.OK)
    incidents += doubtful
    status = answer.status
    if status is None or answer.problem is not None:
        return NodeRow(answer.node, level, findings, incidents, False, answer.agents)
    unhealthy = sum(port.state.level is not Level.OK for port in status.ports)
    fine = len(status.ports) - unhealthy
    is_known = has_digests and bool(status.plan.digest)
    return NodeRow(
        node=answer.node,
        level=level,
        findings=findings,
        incidents=incidents,
        has_answer=True,
        agents=answer.agents,
        version=status.version,
        commit=status.commit,
        settings=settings,
        steering=status.steering.name,
        path=str(status.settings.get("path", "userspace")),
        plan_age_s=_age(status),
        revision=status.revision,
        behind=answer.behind if is_known or answer.behind else None,
        ports=(max(fine, status.served) if answer.is_summary else fine) + unhealthy,
        unhealthy=unhealthy,
        unserved=sum(port.is_unserved for port in status.ports),
        sums=of_port(status.totals),
        cpu=_cpu(status, before.status if before is not None else None),
        memory_bytes=max(0, status.process.memory_bytes),
    )


def _age(status: StatusFacts) -> float | None:
    age = status.now - status.sync.last_done
    return max(0.0, age) if status.sync.last_done else None


def _cpu(status: StatusFacts, before: StatusFacts | None) -> float | None:
    cpu_s, run = status.process.cpu_s, AgentRun(status.started, status.now)
    passed = run.now - run.started
    if before is not None:
        is_same, since_s = run.since(AgentRun(before.started, before.now))
        if is_same and since_s > 0:
            cpu_s, passed = cpu_s - before.process.cpu_s, since_s
    if not status.process.cpu_s or not passed > 0:
        return None
    return cpu_s / passed if cpu_s >= 0 else None
