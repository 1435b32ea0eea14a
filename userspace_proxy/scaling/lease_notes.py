"""Defines the annotations of Leases by which proxies exchange demand and votes.

    Lease of a node      demand    each Service's demand for pods; absent: unknown
                         answer    to the last round: cordoned Services without clients
    Lease of the holder  demand    the sums
                         unknown   a node whose demand is unknown; absent: all are known
                         round     the Services that all nodes vote on, or the result

Rule 1: an annotation that can't be read means "unknown", never "no clients".
Rule 2: annotations have a maximum size: namespaces are listed by Service, the smallest first, as
long as there is room; each other namespace is a single entry.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..model import ServiceKey
from ..sources.base import Lease

NODE_PREFIX = "node."
HOLDER = "holder"
# Kubernetes limits the annotations of an object to 256 KiB in total.
DEMAND_BYTES_MAX = 128 << 10
"""The maximum size of the demand in one Lease in bytes: room for about 3,000 Services; beyond 1,800
namespaces with the longest names, all demand is unknown."""
ROUND_BYTES_MAX = 32 << 10
"""The maximum size of the Services of a round in bytes: 250 Services with the longest names."""


class Vote(NamedTuple):
    """A vote that the Lease holder requests from all nodes, on whether Services have clients."""

    number: str
    """The number of the round, different for each round."""
    services: tuple[ServiceKey, ...]
    """The Services to vote on; once the round is over, the Services that were scaled to zero."""
    is_over: bool = False


class NodeAnswer(NamedTuple):
    """A node's answer to a round."""

    number: str = ""
    """The round's number; empty if the node has answered no round."""
    cordoned: frozenset[ServiceKey] = frozenset()
    """Cordoned Services without clients on this node; new clients wait."""


class NodeReport(NamedTuple):
    """The contents of a node's Lease."""

    demand: Mapping[ServiceKey, int] | None = None
    """The demand of the Services that have any; None if unknown."""
    answer: NodeAnswer = NodeAnswer()


class VoteCounts(NamedTuple):
    """The contents of the holder's Lease."""

    demand: Mapping[ServiceKey, int] | None = None
    """The demand of all nodes for the Services that have any; None if unknown."""
    unknown: str = ""
    """A node whose demand is unknown, and may be any number; empty if there is none."""
    round: Vote | None = None


def write_report(report: NodeReport) -> dict[str, str]:
    """Return the annotations of a node's Lease."""
    number, cordoned = report.answer
    notes = {"answer": json.dumps({"round": number, "services": _names(cordoned)})}
    return notes | _write_demand(report.demand)


def read_report(lease: Lease) -> NodeReport:
    """Parse the annotations of a node's Lease."""
    try:
        answer = json.loads(lease.notes.get("answer", "{}"))
        read = NodeAnswer(
            str(answer.get("round", "")), frozenset(_keys(answer.get("services", ())))
        )
    except (ValueError, TypeError, AttributeError):
        read = NodeAnswer()
    return NodeReport(_read_demand(lease), read)


def write_counts(vote_counts: VoteCounts) -> dict[str, str]:
    """Return the annotations of the holder's Lease."""
    notes = _write_demand(vote_counts.demand)
    if vote_counts.unknown:
        notes["unknown"] = vote_counts.unknown
    if vote_counts.round is not None:
        number, services, is_over = vote_counts.round
        notes["round"] = json.dumps(
            {"number": number, "services": _names(services), "isOver": is_over}
        )
    return notes


def read_counts(lease: Lease) -> VoteCounts:
    """Parse the annotations of the holder's Lease."""
    asked: Vote | None = None
    try:
        if text := lease.notes.get("round"):
            item = json.loads(text)
            services = tuple(_keys(item["services"]))
            asked = Vote(str(item["number"]), services, bool(item["isOver"]))
    except (ValueError, TypeError, KeyError, AttributeError):
        asked = None
    return VoteCounts(_read_demand(lease), lease.notes.get("unknown", ""), asked)


def _write_demand(demand: Mapping[ServiceKey, int] | None) -> dict[str, str]:
    if demand is None:
        return {}
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for key, count in demand.items():
        if count:
            counts[key.namespace][str(key)] = count
    least = {namespace: {str(whole(namespace)): 1} for namespace in counts}
    room = DEMAND_BYTES_MAX - sum(map(_size, least.values()))
    if room < 0:
        return {}
    for namespace in sorted(counts, key=lambda namespace: (_size(counts[namespace]), namespace)):
        room -= _size(counts[namespace]) - _size(least[namespace])
        if room < 0:
            counts[namespace] = least[namespace]
    return {"demand": json.dumps({k: n for own in counts.values() for k, n in own.items()})}


def whole(namespace: str) -> ServiceKey:
    """Return the key that represents all Services of a namespace."""
    return ServiceKey(namespace, "")


def _size(counts: Mapping[str, int]) -> int:
    return len(json.dumps(counts))


def _read_demand(lease: Lease) -> Mapping[ServiceKey, int] | None:
    try:
        counts = json.loads(lease.notes["demand"])
        keys = _keys(counts)
        return dict(zip(keys, map(int, counts.values()), strict=True))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _names(services: Iterable[ServiceKey]) -> list[str]:
    return sorted(map(str, services))


def _keys(names: Iterable[object]) -> list[ServiceKey]:
    return [ServiceKey(*str(name).split("/")) for name in names]
