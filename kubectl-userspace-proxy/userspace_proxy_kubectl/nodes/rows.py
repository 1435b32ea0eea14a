"""The table of nodes: a row each, the worst first.

Rule 1: nodes without an answer have a row, too, and what was last known of them isn't shown.
Rule 2: what most nodes see isn't their fault: a node is as bad as what is said of it, and what
fails for it and not for most others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from userspace_proxy.facts import WORST_FIRST, Level, StatusFacts

from ..port_forward import ForwardTarget
from .answer import AgentAnswer, AgentRun, AllNodes
from .endpoints import Extent
from .incidents import MergedIncident
from .remarks import OtherSetting, OtherSettings, Remark
from .sums import NOTHING, Sums, of_port

# More cores no node has.
_CPU_MAX = 10_000.0


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node."""

    node: str
    level: Level
    """The worst of its remarks and incidents."""
    remarks: tuple[Remark, ...]
    """Those that are about it, the worst first; also why it has no answer."""
    incidents: tuple[MergedIncident, ...]
    """What it sees, and most other nodes don't, the worst first."""
    has_answer: bool
    agents: tuple[ForwardTarget, ...] = ()
    version: str = ""
    commit: str = ""
    settings: Mapping[str, OtherSetting] = field(default_factory=dict)
    """Those that most nodes have otherwise, by name."""
    steering: str = ""
    path: str = ""
    """How bytes travel where a Service doesn't ask for another path."""
    plan_age_s: float | None = None
    """Seconds since everything was last in force; None: it never was."""
    revision: int = 0
    """Of what is in force, as the agent counts it."""
    behind: tuple[str, ...] | None = None
    """Services that aren't as the API server has them; None: unknown."""
    ports: int = 0
    """Its Service ports."""
    ill: int = 0
    """Of these, those that aren't ok."""
    sums: Sums = NOTHING
    """Its figures, of former Service ports, too."""
    cpu: float | None = None
    """Cores that the agent takes, in the last seconds or since its start; None: unknown."""
    memory_bytes: int = 0
    """That it takes; 0: unknown."""


def rows_of(
    all_nodes: AllNodes,
    remarks: Sequence[Remark],
    incidents: Sequence[MergedIncident],
    settings: OtherSettings,
    before: AllNodes | None = None,
) -> tuple[NodeRow, ...]:
    """Return a row for each node: the worst first, then by name.

    Args:
        remarks: As ``remarks_of`` returns them.
        incidents: As ``incidents_of`` returns them.
        settings: As ``other_settings_of`` returns them.
        before: The same some seconds ago, for what is measured in between; None: it isn't known.
    """
    said: dict[str, list[Remark]] = {}
    for remark in remarks:
        for node in remark.nodes:
            said.setdefault(node, []).append(remark)
    answered = sum(one.status is not None and one.problem is None for one in all_nodes.answers)
    seen: dict[str, list[MergedIncident]] = {}
    for incident in incidents:
        if is_of_nodes(incident, answered):
            for node in incident.nodes:
                seen.setdefault(node, []).append(incident)
    earlier = {one.node: one for one in before.answers} if before is not None else {}
    rows = [
        _row(
            one,
            earlier.get(one.node),
            tuple(said.get(one.node, ())),
            tuple(seen.get(one.node, ())),
            settings.get(one.node, {}),
            has_digests=all_nodes.digests is not None,
        )
        for one in all_nodes.answers
    ]
    rows.sort(key=lambda row: (WORST_FIRST.index(row.level), row.has_answer))
    return tuple(rows)


def is_of_nodes(incident: MergedIncident, answered: int) -> bool:
    """Return whether an incident is of the nodes that see it: others don't, although they could.

    Args:
        answered: How many nodes have an answer.
    """
    if incident.extent is Extent.PATH:
        return len(incident.nodes) <= incident.answered
    is_rare = 2 * len(incident.nodes) <= answered
    return is_rare and incident.extent is Extent.NONE


def _row(
    answer: AgentAnswer,
    before: AgentAnswer | None,
    remarks: tuple[Remark, ...],
    incidents: tuple[MergedIncident, ...],
    settings: Mapping[str, OtherSetting],
    *,
    has_digests: bool,
) -> NodeRow:
    levels = [*(one.level for one in remarks), *(one.incident.level for one in incidents)]
    level = min(levels, key=WORST_FIRST.index, default=Level.OK)
    status = answer.status
    if status is None or answer.problem is not None:
        return NodeRow(answer.node, level, remarks, incidents, False, answer.agents)
    ill = sum(port.state.level is not Level.OK for port in status.ports)
    fine = len(status.ports) - ill
    is_known = has_digests and bool(status.plan.digest)
    return NodeRow(
        node=answer.node,
        level=level,
        remarks=remarks,
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
        ports=(max(fine, status.served) if answer.is_summary else fine) + ill,
        ill=ill,
        sums=of_port(status.totals),
        cpu=_cpu(status, before.status if before is not None else None),
        memory_bytes=max(0, status.process.memory_bytes),
    )


def _age(status: StatusFacts) -> float | None:
    age = status.now - status.sync.last_done
    return max(0.0, age) if status.sync.last_done and math.isfinite(age) else None


def _cpu(status: StatusFacts, before: StatusFacts | None) -> float | None:
    cpu_s, run = status.process.cpu_s, AgentRun(status.started, status.now)
    passed = run.now - run.started
    if before is not None:
        is_same, since_s = run.since(AgentRun(before.started, before.now))
        if is_same and since_s > 0:
            cpu_s, passed = cpu_s - before.process.cpu_s, since_s
    if not status.process.cpu_s or not passed > 0:
        return None
    cpu = cpu_s / passed
    return cpu if 0 <= cpu <= _CPU_MAX else None
