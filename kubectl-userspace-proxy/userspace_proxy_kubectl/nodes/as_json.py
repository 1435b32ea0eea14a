"""Renders all nodes as JSON, with the contents of ``status``, ``nodes`` and the dashboard.

Rule 1: causes are written as in one node's JSON, with text, code and parameters.
Rule 2: fields are only added.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from userspace_proxy.causes.cause import Cause
from userspace_proxy.facts import Level
from userspace_proxy.facts.encoding import to_json as write_value

from .endpoints import MergedEndpoint, same_cause
from .findings import NodeFinding
from .incidents import MergedIncident
from .merged import Merged, MergedPort, NodeGroup
from .rows import NodeRow
from .words import format_endpoint, format_finding, format_incident, format_port


def status_to_json(merged: Merged) -> bytes:
    """Return all nodes' verdicts, and the nodes, as a line of JSON."""
    total = len(merged.answered)
    return _encoded(
        {
            "now": merged.now,
            "level": merged.level,
            **_nodes(merged),
            "service_ports": len(merged.ports) + merged.healthy,
            "incidents": [_incident(one, merged.now, total) for one in merged.incidents],
            "ports": [_port(port, merged) for port in merged.ports],
            "ignored": merged.ignored,
        }
    )


def nodes_to_json(merged: Merged) -> bytes:
    """Return the table of nodes as a line of JSON."""
    return _encoded({"now": merged.now, **_nodes(merged)})


def _nodes(merged: Merged) -> dict[str, Any]:
    return {
        "answered": len(merged.answered),
        "excluded": merged.excluded,
        "findings": [_finding(one, merged.now) for one in merged.findings],
        "nodes": [_row(row) for row in merged.rows],
    }


def _finding(finding: NodeFinding, now: float) -> dict[str, Any]:
    return {
        "level": finding.level,
        "sentence": format_finding(finding, now),
        "cause": finding.cause,
        "nodes": finding.nodes,
        "services": finding.services,
    }


def _row(row: NodeRow) -> dict[str, Any]:
    return {
        "node": row.node,
        "level": row.level,
        "has_answer": row.has_answer,
        "causes": [
            *(finding.cause for finding in row.findings),
            *(one.cause_on(row.node) for one in row.incidents),
        ],
        "agents": [f"{one.namespace}/{one.pod}" for one in row.agents],
        "version": row.version,
        "commit": row.commit,
        "settings": {name: one._asdict() for name, one in row.settings.items()},
        "steering": row.steering,
        "path": row.path,
        "plan_age_s": row.plan_age_s,
        "revision": row.revision,
        "behind": row.behind,
        "ports": row.ports,
        "ports_not_ok": row.unhealthy,
        **row.sums._asdict(),
        "cpu": row.cpu,
        "memory_bytes": row.memory_bytes,
    }


def _incident(one: MergedIncident, now: float, total: int) -> dict[str, Any]:
    return {
        **msgspec.structs.asdict(one.incident),
        "command": one.command,
        "sentence": format_incident(one, now, total),
        "extent": one.extent,
        "nodes": one.nodes,
        "tried": one.tried,
        "answered": one.answered,
        "left_out": one.left_out,
        "failing": [{"cause": cause, "nodes": nodes} for cause, nodes in one.failing],
    }


def _port(port: MergedPort, merged: Merged) -> dict[str, Any]:
    # Omit the endpoints of healthy Service ports, which would be most of the JSON.
    endpoints = port.endpoints if port.level is not Level.OK else ()
    return {
        **port.key._asdict(),
        "protocol": port.first.protocol,
        "addresses": [one.address for one in port.first.frontends],
        "level": port.level,
        "sentence": format_port(port, merged),
        "groups": [_group(group, port.causes_of_endpoints) for group in port.groups],
        "served": port.served,
        "neutral": dict(port.neutral),
        "left_out": port.left_out,
        "missing": port.missing,
        **port.sums._asdict(),
        "endpoints": [_endpoint(one) for one in endpoints],
    }


def _group(group: NodeGroup, of_endpoints: Mapping[object, Cause]) -> dict[str, Any]:
    return {
        "level": group.level,
        "state": group.state.word,
        "causes": [of_endpoints.get(same_cause(one), one) for one in group.causes],
        "nodes": group.nodes,
    }


def _endpoint(one: MergedEndpoint) -> dict[str, Any]:
    return {
        "address": one.address,
        "host": one.host,
        "pod": one.pod,
        "node": one.node,
        "sentence": format_endpoint(one),
        "extent": one.extent,
        "usable": one.usable,
        "tried": one.tried,
        "answered": one.answered,
        "failing": [{"cause": cause, "nodes": nodes} for cause, nodes in one.failing],
        **one.sums._asdict(),
    }


def _encoded(answer: object) -> bytes:
    return msgspec.json.encode(answer, enc_hook=write_value) + b"\n"
