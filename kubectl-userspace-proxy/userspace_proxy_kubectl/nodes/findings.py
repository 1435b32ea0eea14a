"""Finds the problems of nodes that are reported even if the user didn't ask about nodes.

    answers ──each alone──▶ no answer, no API server, problems of its own ──┐ the same of several
            ──compared────▶ behind, versions, settings, clocks            ──┴▶ nodes: one finding

Rule 1: a finding is a cause with the nodes to which it applies.
Rule 2: a value is usual if most nodes have it. Without a majority, no value is unusual: names and
addresses differ by design.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, TypeVar

import msgspec

from userspace_proxy.causes.cause import Cause, CauseCode, as_read
from userspace_proxy.causes.nodes import (
    behind,
    beside_kube_proxy,
    clock_off,
    other_settings,
    other_version,
    own_clock_off,
    several_agents,
    source_fails,
)
from userspace_proxy.diagnosis.problems import problems_of_node
from userspace_proxy.facts import WORST_FIRST, LastStateFacts, Level, StatusFacts
from userspace_proxy.model.quoting import shown
from userspace_proxy.version import format_version

from .agent_answer import AgentAnswer, AllNodes
from .agent_causes import agent_ended

CLOCK_OFF_S = 2.0
"""If the clocks of two nodes differ by more than this, in seconds, their times can't be
compared."""
# The maximum number of problems taken from one answer, which may contain any number.
_PROBLEMS_MAX = 5
_NAMED = 3
# Settings that naturally differ between nodes: their own names, addresses and files.
_OWN_SETTINGS = frozenset(("hostname_override", "bind_address", "kubeconfig", "config_file"))

Value = TypeVar("Value", bound=Hashable)


@dataclass(frozen=True, slots=True)
class NodeFinding:
    """A finding about some nodes."""

    level: Level
    cause: Cause
    nodes: tuple[str, ...] = ()
    """The affected nodes, by name; empty for this tool's machine."""
    services: tuple[str, ...] = ()
    """The affected Services, by name; empty if none."""
    family: str = ""
    """The family of the affected Services; empty for both."""


class OtherSetting(NamedTuple):
    """A setting that differs from most nodes; values are strings or JSON, empty for the default."""

    here: str
    usual: str


OtherSettings = Mapping[str, Mapping[str, OtherSetting]]
"""Settings by node, then by name."""


def findings_of(all_nodes: AllNodes, settings: OtherSettings) -> tuple[NodeFinding, ...]:
    """Return all findings: the worst first, then by number of nodes.

    Args:
        settings: The result of :func:`other_settings_of`.
    """
    known = [answer for answer in all_nodes.answers if _answers(answer)]
    findings = [
        *_together((one.node, said) for one in all_nodes.answers for said in _alone(one)),
        *_behind(known),
        *_together((*_versions(known), *_settings(settings))),
        *_clocks(known),
        # Within a level, problems that agents report themselves come last.
        *_together((one.node, said) for one in known for said in _problems(one)),
    ]
    findings.sort(key=lambda one: (WORST_FIRST.index(one.level), -len(one.nodes)))
    return tuple(findings)


def _answers(answer: AgentAnswer) -> bool:
    """Return whether a node's agent answers now; its last answer may be old."""
    return answer.status is not None and answer.problem is None


def usual(values: Iterable[Value]) -> Value | None:
    """Return the value that more than half of the nodes have; None without a majority."""
    counts = Counter(values)
    for value, count in counts.most_common(1):
        return value if 2 * count > counts.total() else None
    return None


def runs(status: StatusFacts) -> str:
    """Return the running version with its commit."""
    return format_version(shown(status.version) or "unknown", shown(status.commit))


def other_settings_of(answers: Iterable[AgentAnswer]) -> OtherSettings:
    """Return the settings that differ from most nodes, by node and name."""
    given = {
        answer.node: {
            name: _as_json(one)
            for name, one in answer.status.settings.items()
            if name not in _OWN_SETTINGS
        }
        for answer in answers
        if answer.status is not None and _answers(answer)
    }
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for settings in given.values():
        for name, value in settings.items():
            counts[name][value] += 1
    usual_of: dict[str, str] = {}
    for name, counted in counts.items():
        counted[""] = len(given) - counted.total()
        ((value, count),) = counted.most_common(1)
        if 2 * count > len(given):
            usual_of[name] = value
    # Most settings have their default, so compare only settings that the node or most nodes set.
    common = [name for name, value in usual_of.items() if value]
    found: dict[str, dict[str, OtherSetting]] = {}
    for node, settings in given.items():
        names = [name for name in {*settings, *common} if name in usual_of]
        others = {
            name: OtherSetting(settings.get(name, ""), usual_of[name])
            for name in sorted(names)
            if settings.get(name, "") != usual_of[name]
        }
        if others:
            found[node] = others
    return found


def _reads_badly(status: StatusFacts) -> bool:
    """Return whether an agent can't read everything that it needs from its API server."""
    return bool(_of_source(status)) and status.source.kind == "kubernetes"


def clock_of(answer: AgentAnswer) -> tuple[float, float] | None:
    """Return how far a node's clock is ahead of this machine's clock, and the uncertainty.

    Both are in seconds. Returns None if the node's clock is unknown.
    """
    status = answer.status
    if status is None or not answer.asked_at or not status.now:
        return None
    middle = (answer.asked_at + answer.answered_at) / 2
    return status.now - middle, (answer.answered_at - answer.asked_at) / 2


class _Said(NamedTuple):
    """A finding about one node."""

    same: object
    """A key by which equal findings about several nodes are merged."""
    level: Level
    cause: Cause
    family: str = ""


def _together(said: Iterable[tuple[str, _Said]]) -> Iterator[NodeFinding]:
    """Yield findings; equal findings about several nodes are merged."""
    found: dict[object, list[tuple[str, _Said]]] = {}
    for node, one in said:
        found.setdefault((one.same, one.level), []).append((node, one))
    for same in found.values():
        # If agents were restarted, report the latest restart.
        first = max((one for _, one in same), key=lambda one: one.cause.last_at)
        nodes = tuple(node for node, _ in same)
        yield NodeFinding(first.level, first.cause, nodes, family=first.family)


def _alone(answer: AgentAnswer) -> Iterator[_Said]:
    """Yield the findings that a node's answer, or the lack of one, shows by itself."""
    if (cause := answer.problem) is not None:
        # An agent that has never run may be starting, as during an update.
        has_run = bool(answer.agents) or cause.row is agent_ended
        # The pods of nodes with the same problem have different names.
        same = cause.row.key, *(one for one in cause.params if one[0] != "agent")
        yield _Said(same, Level.TROUBLE if has_run else Level.ATTENTION, cause)
    elif (cause := answer.restarts) is not None:
        level = Level.TROUBLE if cause.get("is_repeated") else Level.ATTENTION
        yield _Said(cause.fact, level, cause)
    if len(answer.agents) > 1:
        cause = several_agents(tuple(f"{one.namespace}/{one.pod}" for one in answer.agents))
        yield _Said(cause.fact, Level.ATTENTION, cause)
    status = answer.status
    if status is None or answer.problem is not None:
        return
    if _reads_badly(status):
        cause = source_fails(_of_source(status)[0])
        yield _Said(cause.row.key, Level.TROUBLE, cause)
    if status.kube_proxy:
        cause = beside_kube_proxy(tuple(map(shown, status.kube_proxy[:_NAMED])))
        yield _Said(cause.row.key, Level.ATTENTION, cause)


def _problems(answer: AgentAnswer) -> Iterator[_Said]:
    """Yield the first _PROBLEMS_MAX problems that the agent reports for its node."""
    status = answer.status
    if status is None:
        return
    for problem in islice(problems_of_node(_without_source(status), status.now), _PROBLEMS_MAX):
        cause = as_read(problem.code or CauseCode(""), problem.what, "", problem.hint)
        same = problem.kind, problem.family
        yield _Said(same, problem.level, cause, problem.family)


def _of_source(status: StatusFacts) -> Sequence[str]:
    """Return the problems of the source as a whole."""
    of_objects = {item.line for item in status.source.rejected}
    return [line for line in status.source.problems if line not in of_objects]


def _without_source(status: StatusFacts) -> StatusFacts:
    """Return the facts; if the source as a whole fails, without its problems and Services."""
    if not _reads_badly(status):
        return status
    of_objects = [item.line for item in status.source.rejected]
    source = msgspec.structs.replace(status.source, problems=of_objects)
    return msgspec.structs.replace(status, source=source, last_state=LastStateFacts(), ports=())


def _versions(known: Sequence[AgentAnswer]) -> Iterator[tuple[str, _Said]]:
    """Yield findings about versions other than the majority's; without a majority, about all."""
    found = {one.node: runs(one.status) for one in known if one.status is not None}
    if len({*found.values()}) < 2:
        return
    most = usual(found.values())
    for node, version in found.items():
        if version != most:
            cause = other_version(version, most or "")
            yield node, _Said(cause.fact, Level.ATTENTION, cause)


def _settings(settings: OtherSettings) -> Iterator[tuple[str, _Said]]:
    for node, others in settings.items():
        values = [
            (shown(k), one.here or "default", one.usual or "default") for k, one in others.items()
        ]
        cause = other_settings(tuple(f"{k}={here} ({most})" for k, here, most in values))
        yield node, _Said(cause.fact, Level.ATTENTION, cause)


def _behind(known: Sequence[AgentAnswer]) -> Iterator[NodeFinding]:
    late = [answer for answer in known if answer.behind]
    if late:
        services = sorted({service for answer in late for service in answer.behind})
        named = tuple(map(shown, services[:_NAMED]))
        cause = behind(named, len(services))
        nodes = tuple(answer.node for answer in late)
        yield NodeFinding(Level.TROUBLE, cause, nodes, tuple(services))


def _clocks(known: Sequence[AgentAnswer]) -> Iterator[NodeFinding]:
    """Yield findings on clocks: this machine's, if most of several nodes' err in one direction."""
    off = {answer.node: one for answer in known if (one := clock_of(answer)) is not None}
    shift = 0.0
    for sign in (1, -1):
        if sum(_is_off(sign * ahead, around) for ahead, around in off.values()) * 2 > len(off) > 1:
            shift = statistics.median(ahead for ahead, _ in off.values())
            cause = own_clock_off(round(abs(shift)), sign < 0)
            yield NodeFinding(Level.ATTENTION, cause)
    for sign in (1, -1):
        nodes = {
            node: abs(ahead - shift)
            for node, (ahead, around) in off.items()
            if _is_off(sign * (ahead - shift), around)
        }
        if nodes:
            most = round(max(nodes.values()))
            cause = clock_off(most, sign > 0, len(nodes) > 1)
            yield NodeFinding(Level.ATTENTION, cause, tuple(nodes))


def _is_off(ahead: float, around: float) -> bool:
    return ahead > around + CLOCK_OFF_S


def _as_json(value: object) -> str:
    if isinstance(value, str):
        return shown(value)
    try:
        return shown(json.dumps(value, sort_keys=True))
    except RecursionError:
        return "…"
