"""What proxies write into Leases for each other, as text of annotations.

    Lease of a node      demand    how much each Service needs pods, by namespace; null: of this one
                                   it isn't known; absent: of all
                         answer    to the last round: Services without clients, which get none now
    Lease of the holder  demand    the sums
                         unknown   a node whose figure isn't known; absent: all are
                         round     which Services all nodes are asked about, or what came of it

Rule 1: what can't be read means that nothing is known, and never that there are no clients.
Rule 2: where a note is full, the namespaces that need the most room are unknown, and only these.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..model import ServiceKey
from ..sources.base import Lease

NODE_PREFIX = "node."
HOLDER = "holder"
# An object's annotations have 256 KiB in all.
DEMAND_BYTES_MAX = 128 << 10
"""Some 6,000 Services. The smallest namespaces are written first. Each of the others takes its name
only, so with more than 1,700 of the longest names in use at a node nothing of it is known."""
ROUND_BYTES_MAX = 32 << 10
"""Names of the Services of one round, some 250 of the longest."""


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
    unlisted: frozenset[str] = frozenset()
    """Namespaces for which there was no room: their demand isn't known."""


class Tally(NamedTuple):
    """What the holder's Lease says."""

    demand: Mapping[ServiceKey, int] | None = None
    """Of all nodes, without Services that have none; None: it isn't known."""
    unknown: str = ""
    """A node whose figure isn't known, and may be any number; empty: there is none."""
    round: Round | None = None
    unlisted: frozenset[str] = frozenset()
    """Namespaces whose demand isn't known, as of a node that had no room for it."""


def write_report(report: NodeReport) -> dict[str, str]:
    """Return the notes of a node's Lease."""
    number, quiesced = report.answer
    notes = {"answer": json.dumps({"round": number, "services": _names(quiesced)})}
    return notes | _write_demand(report.demand, report.unlisted)


def read_report(lease: Lease) -> NodeReport:
    """Return what a node's Lease says."""
    try:
        answer = json.loads(lease.notes.get("answer", "{}"))
        read = NodeAnswer(
            str(answer.get("round", "")), frozenset(_keys(answer.get("services", ())))
        )
    except (ValueError, TypeError, AttributeError):
        read = NodeAnswer()
    demand, unlisted = _read_demand(lease)
    return NodeReport(demand, read, unlisted)


def write_tally(tally: Tally) -> dict[str, str]:
    """Return the notes of the holder's Lease."""
    notes = _write_demand(tally.demand, tally.unlisted)
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
    demand, unlisted = _read_demand(lease)
    return Tally(demand, lease.notes.get("unknown", ""), asked, unlisted)


def is_too_long(services: Iterable[ServiceKey]) -> bool:
    """Return whether a round can't ask about that many Services."""
    return sum(len(str(service)) for service in services) > ROUND_BYTES_MAX


def _write_demand(
    demand: Mapping[ServiceKey, int] | None, unlisted: frozenset[str]
) -> dict[str, str]:
    if demand is None:
        return {}
    counts: dict[str, dict[str, int]] = {}
    for (namespace, name), count in demand.items():
        if count and namespace not in unlisted:
            counts.setdefault(namespace, {})[name] = count
    left_out = dict.fromkeys(unlisted)
    room = DEMAND_BYTES_MAX - sum(len(f'"{name}": null, ') for name in (*counts, *unlisted))
    if room < 0:
        return {}
    sizes = {namespace: len(json.dumps(own)) for namespace, own in counts.items()}
    for namespace in sorted(sizes, key=lambda namespace: (sizes[namespace], namespace)):
        room -= sizes[namespace]
        if room < 0:
            left_out[namespace] = None
    return {"demand": json.dumps(counts | left_out)}


def _read_demand(lease: Lease) -> tuple[Mapping[ServiceKey, int] | None, frozenset[str]]:
    try:
        counts = json.loads(lease.notes["demand"])
        unlisted = frozenset(namespace for namespace, own in counts.items() if own is None)
        known = {
            ServiceKey(namespace, name): int(count)
            for namespace, own in counts.items()
            for name, count in (own or {}).items()
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        return None, frozenset()
    return known, unlisted


def _names(services: Iterable[ServiceKey]) -> list[str]:
    return sorted(map(str, services))


def _keys(names: Iterable[object]) -> list[ServiceKey]:
    return [ServiceKey(*str(name).split("/")) for name in names]
