"""Adds the answers of all nodes' agents to ``explain``.

    agents ──about one Service──▶ merged ─▶ a part of the explanation
                └──one --node──▶ that node's facts, which are explained instead of the plan

Rule 1: if no agent can be found or reached, only the plan is explained, after a warning.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from userspace_proxy.cli.command import Given
from userspace_proxy.errors import ConfigError, UserspaceProxyError
from userspace_proxy.model.quoting import printable

from .followed import read_once

if TYPE_CHECKING:
    from userspace_proxy.cli.explain import NodesAnswer
    from userspace_proxy.config import Settings
    from userspace_proxy.explain import Explanation, Invocation, Subject
    from userspace_proxy.facts import PortFacts

    from ..nodes.agent_answer import AgentAnswer, AllNodes

_NODE = "node"


@dataclass(frozen=True, slots=True)
class OnNodes:
    """The nodes' facts about one Service, as a NodesAnswer."""

    service: str
    """``namespace/name``, optionally with ``:port``."""
    all_nodes: AllNodes
    is_one: bool

    @property
    def subject(self) -> Subject | None:
        answer = self.all_nodes.answers[0] if self.is_one and self.all_nodes.answers else None
        return None if answer is None else self._subject_of(answer)

    def settings(self, name: str) -> Mapping[str, object]:
        known = [one.status.settings for one in self.all_nodes.answers if one.status is not None]
        return max(known, key=lambda one: one.get("service_proxy_name", "") == name, default={})

    @property
    def worst(self) -> Subject | None:
        from ..nodes.merged import merge

        ports = merge(self.all_nodes).of_service(self.service).ports
        unhealthy = [node for port in ports for group in port.groups for node in group.nodes]
        known = [one for one in self.all_nodes.answers if one.status is not None]
        known.sort(key=lambda one: one.node not in unhealthy[:1])
        return self._subject_of(known[0]) if known else None

    def _subject_of(self, answer: AgentAnswer) -> Subject | None:
        from userspace_proxy.explain import read_subject

        if answer.status is None:
            return None
        origin = f"the proxy of {answer.node}"
        return read_subject(answer.status, self.service, origin, is_live=True)

    def added_to(
        self, explanation: Explanation, planned: Sequence[PortFacts] | None, invocation: Invocation
    ) -> Explanation:
        from ..nodes.explained import behind_steps, with_nodes, with_plan
        from ..nodes.merged import merge

        behind = behind_steps(self.service, planned, self.all_nodes)
        if self.subject is not None:
            return with_plan(explanation, behind, self.all_nodes.answers[0].behind)
        merged = merge(self.all_nodes).of_service(self.service)
        return with_nodes(explanation, merged, behind, invocation=invocation, planned=planned)

    def with_json(self, text: str) -> str:
        from ..nodes.as_json import status_to_json
        from ..nodes.merged import merge

        merged = merge(self.all_nodes).of_service(self.service)
        fields = {**json.loads(text), "nodes": json.loads(status_to_json(merged))}
        return json.dumps(fields, indent=2) + "\n"


def ask_nodes(
    given: Given, settings: Settings, service: str, *, instead: UserspaceProxyError | None = None
) -> NodesAnswer | None:
    """Return nodes' facts about a Service; None if the nodes can't be read.

    If there is a plan, a warning is printed then.

    Args:
        instead: Why there is no plan; None if there is one, which is explained without the nodes.

    Raises:
        ConfigError: A flag is wrong, and there is a plan.
    """
    names = [name for name in given.values.get(_NODE, "").split(",") if name]
    try:
        all_nodes = read_once(given, settings, [service.partition(":")[0]])
    except UserspaceProxyError as exc:
        if instead is None and isinstance(exc, ConfigError):
            raise
        if instead is None:
            _warn(f"no node is asked, so this is planned from the API server: {exc}")
        return None
    if instead is not None:
        _warn(f"only nodes are asked: {instead}")
    if len(names) == 1:
        all_nodes = _compared(given, settings, service, all_nodes)
    return OnNodes(service, all_nodes, is_one=len(names) == 1)


def _compared(given: Given, settings: Settings, service: str, one: AllNodes) -> AllNodes:
    """Return one node's answer; if endpoints fail there, with other nodes' results for them."""
    from ..nodes.reached import depends_on_others, with_reached

    if depends_on_others(one.answers, service):
        theirs = replace(given, values={**given.values, _NODE: ""})
        with contextlib.suppress(UserspaceProxyError):
            others = read_once(theirs, settings, [service.partition(":")[0]])
            return with_reached(one, others.answers)
    return one


def _warn(what: str) -> None:
    print(f"warning: {printable(what)}", file=sys.stderr)
