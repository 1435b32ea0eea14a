"""What proxies write into Leases for each other, as text of annotations.

    Lease of a node      demand    how much each Service needs pods; absent: this isn't known
                         answer    to the last round: Services without clients, which get none now
    Lease of the holder  demand    the sums
                         unknown   a node whose figure isn't known; absent: all are
                         round     which Services all nodes are asked about, or what came of it

Rule 1: what can't be read means that nothing is known, and never that there are no clients.
Rule 2: a note has the smallest namespaces first; each of the others is one entry, for any Service.
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
# An object's annotations have 256 KiB in all.
DEMAND_BYTES_MAX = 128 << 10
"""Some 3,000 Services; nothing is known of more than 1,800 namespaces with the longest names."""
ROUND_BYTES_MAX = 32 << 10
"""Of a round's Services, of which 250 may have the longest names."""


class Round(NamedTuple):
    """A question of the holder to all nodes: whether Services have clients."""

    number: str
    """Different for each round."""
    services: tuple[ServiceKey, ...]
    """Over: those whose workload was scaled to zero."""
    is_over: bool = False


class NodeAnswer(NamedTuple):
    """A node's answer."""

    number: str = ""
    """Of the round; empty: it has answered none."""
    quiesced: frozenset[ServiceKey] = frozenset()
    """Services without clients on this node, where new ones wait."""


class NodeReport(NamedTuple):
    """What a node's Lease says."""

    demand: Mapping[ServiceKey, int] | None = None
    """Without Services that have none; None: it isn't known."""
    answer: NodeAnswer = NodeAnswer()


class Tally(NamedTuple):
    """What the holder's Lease says."""

    demand: Mapping[ServiceKey, int] | None = None
    """Of all nodes, without Services that have none; None: it isn't known."""
    unknown: str = ""
    """A node whose figure isn't known, and may be any number; empty: there is none."""
    round: Round | None = None


def write_report(report: NodeReport) -> dict[str, str]:
    """Return the notes of a node's Lease."""
    number, quiesced = report.answer
    notes = {"answer": json.dumps({"round": number, "services": _names(quiesced)})}
    return notes | _write_demand(report.demand)


def read_report(lease: Lease) -> NodeReport:
    """Return what a node's Lease says."""
    try:
        answer = json.loads(lease.notes.get("answer", "{}"))
        read = NodeAnswer(
            str(answer.get("round", "")), frozenset(_keys(answer.get("services", ())))
        )
    except (ValueError, TypeError, AttributeError):
        read = NodeAnswer()
    return NodeReport(_read_demand(lease), read)


def write_tally(tally: Tally) -> dict[str, str]:
    """Return the notes of the holder's Lease."""
    notes = _write_demand(tally.demand)
    if tally.unknown:
        notes["unknown"] = tally.unknown
    if tally.round is not None:
        number, services, is_over = tally.round
        notes["round"] = json.dumps(
            {"number": number, "services": _names(services), "isOver": is_over}
        )
    return notes


def read_tally(lease: Lease) -> Tally:
    """Return what the holder's Lease says."""
    asked: Round | None = None
    try:
        if text := lease.notes.get("round"):
            item = json.loads(text)
            services = tuple(_keys(item["services"]))
            asked = Round(str(item["number"]), services, bool(item["isOver"]))
    except (ValueError, TypeError, KeyError, AttributeError):
        asked = None
    return Tally(_read_demand(lease), lease.notes.get("unknown", ""), asked)


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
    """Return what stands for any Service of a namespace."""
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
