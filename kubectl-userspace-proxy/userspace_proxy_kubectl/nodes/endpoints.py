"""Merges all nodes' facts about an endpoint: which nodes tried it, with which results.

    all that tried it fail         ──▶ the endpoint fails
    some receive nothing,
    while it answers others        ──▶ the path from these nodes
    some fail otherwise, or before ──▶ the endpoint, which comes and goes
    some failed only at times, or
    others failed lately           ──▶ the endpoint, at times
    only one has tried             ──▶ unknown

Rule 1: a node has tried an endpoint if it dialled the endpoint, got an answer from it, or has a
cause for it.
Rule 2: an answer is a byte from the endpoint: without a byte or a cause, the result is unknown.
Rule 3: an answer that is older than the failures on other nodes doesn't show that it works now.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from userspace_proxy.causes.cause import Cause, CauseCode, When
from userspace_proxy.causes.endpoints import owes_answers
from userspace_proxy.diagnosis.failures import DENIALS, DENIALS_S
from userspace_proxy.diagnosis.incidents import seen_together
from userspace_proxy.facts import LAST_MINUTE_S, WORST_FIRST, EndpointFacts, Level, PortFacts

from .sums import Sums, added, of_endpoint

CLOCKS_DIFFER_S = 2.0
"""The seconds by which an answer may precede a failure on a node whose clock differs."""
_OF_PATHS = {CauseCode.PACKETS_LOST, CauseCode.ENDPOINT_FAILS, owes_answers} | frozenset(
    (CauseCode.ENDPOINT_SILENT, CauseCode.ENDPOINT_UNREACHABLE, CauseCode.ENDPOINT_NO_HOST)
)
"""If a node has one of these causes, it has received nothing from the endpoint, or not all."""
_PROBED_S = 20.0
"""Seconds in which an ejected endpoint is probed at least once; failed probes aren't counted."""
NodesByCause: TypeAlias = tuple[tuple[Cause, tuple[str, ...]], ...]
"""The causes of a failure, each with the nodes that report it."""


class Extent(enum.StrEnum):
    """Where the fault lies."""

    NONE = "none"
    """Nothing fails, or the fault isn't about an endpoint."""
    ENDPOINT = "endpoint"
    """At least two nodes have a cause for the endpoint, and no node is known to be answered."""
    PATH = "path"
    """The endpoint answers some nodes while others receive nothing from it."""
    SOME = "some nodes"
    """The endpoint answers some nodes, but refuses others or closes their connections, perhaps
    earlier."""
    TIMES = "at times"
    """The endpoint answers some nodes while others fail, which may be chance."""
    ONE = "one node"


@dataclass(frozen=True, slots=True)
class MergedEndpoint:
    """One endpoint of a Service port, on all nodes."""

    address: str
    host: str
    """The DNS name from which the endpoint was resolved; empty if it is given as an address."""
    pod: str
    """The pod's name; empty if unknown."""
    node: str
    """The node on which the endpoint runs; empty if unknown."""
    usable: int
    tried: tuple[str, ...]
    answered: tuple[str, ...]
    """The nodes without a cause that got an answer after the endpoint began to fail on others."""
    away: int
    """The number of answered nodes, without the node on which the endpoint runs."""
    extent: Extent
    failing: NodesByCause
    sums: Sums
    left_out: int = 0
    """The number of nodes whose summaries omit the Service port: nothing fails there, and whether
    they tried the endpoint is unknown."""
    doubts: tuple[Level | None, ...] = ()
    """The marks of nodes on which it failed clients in the last minute, but doesn't fail now."""
    is_unseen: bool = False
    """Whether a node's kernel sends clients to it, so that no dial or answer is visible there."""
    is_over: bool = False
    """Whether it failed so long ago that its mark is neutral on each node with a cause."""

    @property
    def level(self) -> Level | None:
        """How well the endpoint serves; None if nothing is known, or all its doubts are neutral."""
        if self.is_over:
            return None
        if self.failing:
            return Level.ATTENTION if self.answered else Level.TROUBLE
        if self.doubts:
            return min(filter(None, self.doubts), key=WORST_FIRST.index, default=None)
        return Level.OK if self.answered else None


def extent_of(
    causes: Collection[Cause | None],
    unhealthy: int,
    answers: Collection[str],
    *,
    fails_others: bool = False,
) -> Extent:
    """Return where the fault lies.

    Args:
        causes: The result of :func:`current_cause` for each node that reports a cause.
        unhealthy: The number of nodes with a cause.
        answers: The nodes that the endpoint answers, from :func:`answers_since`.
        fails_others: Whether the endpoint failed other nodes' clients in the last minute.
    """
    if not unhealthy:
        return Extent.NONE
    if not answers:
        return Extent.ENDPOINT if unhealthy > 1 else Extent.ONE
    known = [cause for cause in causes if cause is not None]
    if known and (fails_others or any(map(_may_be_chance, known))):
        return Extent.TIMES
    is_path = known and len(known) == len(causes) and all(map(_is_of_path, known))
    return Extent.PATH if is_path else Extent.SOME


def has_failed_lately(port: PortFacts, address: str) -> bool:
    """Return whether most clients that failed on a node in the last minute had this endpoint."""
    cause = port.last_minute.cause
    return cause is not None and cause.get("at") == address


def _may_be_chance(cause: Cause) -> bool:
    """Return whether a cause may be chance: the endpoint may fail some clients of every node.

    Failures within a short time, or with answers in between, don't show that it fails all clients.
    """
    if cause.when is When.LAST_MINUTE:
        return cause.code.traits.is_dial
    lasted_s = cause.last_at - cause.first_at
    are_few = lasted_s < (DENIALS_S if cause.count >= DENIALS else _PROBED_S)
    return bool(cause.first_at and cause.row.at_times and are_few)


def with_extent(cause: Cause, extent: Extent, away: int) -> Cause:
    """Return a cause whose remedy takes into account which nodes the endpoint answers.

    Args:
        away: See :class:`MergedEndpoint`.
    """
    if extent is Extent.TIMES and cause.row.at_times:
        return cause.replace(answers_others=True)
    # An endpoint that is up only at times may have failed for a node just while it was down.
    is_reached = extent is Extent.PATH or (extent is Extent.SOME and not _is_of_path(cause))
    is_reached &= cause.when is not When.PAST
    return cause.replace(answers_nodes=is_reached, answers_own=is_reached and not away)


def _is_of_path(cause: Cause) -> bool:
    return not _OF_PATHS.isdisjoint((cause.code, cause.row))


def answers_since(causes: Iterable[Cause], answers: Mapping[str, float]) -> tuple[str, ...]:
    """Return the nodes that an endpoint answered after it began to fail on others.

    Args:
        causes: The other nodes' causes.
        answers: The endpoint's last answer to each node in Unix time, from :func:`last_answer`.
    """
    # A cause of the last minute has only the time of the last failure.
    began = (cause.first_at or cause.last_at - LAST_MINUTE_S for cause in causes)
    since = max(began, default=0.0) - CLOCKS_DIFFER_S
    return tuple(node for node, at in answers.items() if at >= since)


def last_answer(endpoint: EndpointFacts) -> float:
    """Return the last answer's Unix time, 1 if unknown; 0 without an answer, or with a cause."""
    has_answered = endpoint.has_sent and endpoint.cause is None
    return max(endpoint.answered_at, endpoint.sent_at, 1.0) if has_answered else 0.0


def current_cause(endpoint: EndpointFacts) -> Cause | None:
    """Return an endpoint's current cause; None if it is past, or the endpoint isn't used."""
    return endpoint.cause if endpoint.is_usable and not endpoint.is_past else None


def has_tried(endpoint: EndpointFacts) -> bool:
    """Return whether a node has tried an endpoint."""
    is_dialled = endpoint.connections or endpoint.failures or endpoint.answered_at
    return bool(is_dialled or endpoint.sent_at or endpoint.cause is not None)


def same_cause(cause: Cause) -> object:
    """Return a key that is equal if several nodes report the same about the same object."""
    # Cost: 1,000 nodes may report hundreds of thousands of causes.
    if (shared := cause.shared) is None:
        return cause.fact
    if len(cause.params) == 1:
        return cause.row.key, shared
    # The first parameter is the object. Numbers may differ, such as durations.
    texts = [value for _, value in cause.params[1:] if isinstance(value, str)]
    return cause.row.key, shared, *texts


def by_cause(seen: Iterable[tuple[str, Cause]], places: Collection[str] = ()) -> NodesByCause:
    """Group nodes by their causes: past causes last, then the cause on most nodes first.

    Args:
        places: The nodes on which the endpoints run; their causes precede other causes, because
            these nodes are nearest.
    """
    found: dict[object, list[tuple[str, Cause]]] = {}
    for node, cause in seen:
        found.setdefault(same_cause(cause), []).append((node, cause))
    nodes = (tuple(dict.fromkeys(node for node, _ in same)) for same in found.values())
    causes = (seen_together([cause for _, cause in same]) for same in found.values())
    return tuple(
        sorted(
            zip(causes, nodes, strict=True),
            key=lambda one: (
                one[0].when is When.PAST,
                not any(place in one[1] for place in places),
                -len(one[1]),
            ),
        )
    )


def endpoints_of(members: Mapping[str, PortFacts], left_out: int = 0) -> tuple[MergedEndpoint, ...]:
    """Return the merged endpoints of one Service port.

    Failing endpoints come first, led by those that fail on the most nodes, then doubtful ones; the
    others are sorted by address.

    Args:
        members: The port's facts by node.
        left_out: The number of nodes whose summaries omit the Service port.
    """
    found: dict[str, list[tuple[str, EndpointFacts]]] = {}
    lately: dict[str, set[str]] = {}
    doubts: dict[str, list[Level | None]] = {}
    unseen: set[str] = set()
    failing: dict[str, set[Level | None]] = {}
    for node, port in members.items():
        for endpoint in port.endpoints:
            found.setdefault(endpoint.address, []).append((node, endpoint))
            if has_failed_lately(port, endpoint.address):
                lately.setdefault(endpoint.address, set()).add(node)
            if port.is_unseen and endpoint.is_usable:
                unseen.add(endpoint.address)
            mark = port.mark_of(endpoint)
            if endpoint.cause is not None:
                failing.setdefault(endpoint.address, set()).add(mark)
            is_known = bool(mark) or last_answer(endpoint)
            if is_known and mark is not endpoint.level:
                doubts.setdefault(endpoint.address, []).append(mark)
    merged = [
        replace(
            _merged(at, seen, left_out, tuple(doubts.get(at, ())), lately.get(at, set())),
            is_unseen=at in unseen,
            is_over=failing.get(at) == {None},
        )
        for at, seen in found.items()
    ]
    merged.sort(
        key=lambda one: (
            not one.failing,
            -sum(len(nodes) for _, nodes in one.failing),
            not one.doubts,
            one.address,
        )
    )
    return tuple(merged)


def _merged(
    address: str,
    seen: Collection[tuple[str, EndpointFacts]],
    left_out: int,
    doubts: tuple[Level | None, ...],
    lately: set[str],
) -> MergedEndpoint:
    hosts = (one.host for _, one in seen)
    pods = (one.pod for _, one in seen)
    place = next((one.node for _, one in seen if one.node), "")
    failed: list[tuple[str, Cause]] = []
    tried: list[str] = []
    answered: dict[str, float] = {}
    for node, one in seen:
        if not has_tried(one):
            continue
        tried.append(node)
        if at := last_answer(one):
            answered[node] = at
        elif one.cause is not None:
            failed.append((node, one.cause))
    usable = sum(one.is_usable for _, one in seen)
    if not usable:
        # Earlier answers don't show that an endpoint that no node uses would answer now.
        answered.clear()
    causes = [current_cause(one) for _, one in seen if one.cause is not None]
    answers = answers_since((one.cause for _, one in seen if one.cause is not None), answered)
    extent = extent_of(causes, len(causes), answers, fails_others=not lately.isdisjoint(answers))
    away = len({*answers} - {place})
    return MergedEndpoint(
        address,
        next(filter(None, hosts), ""),
        next(filter(None, pods), ""),
        place,
        usable,
        tuple(tried),
        answers,
        away,
        extent,
        tuple((with_extent(one, extent, away), nodes) for one, nodes in by_cause(failed, [place])),
        added(of_endpoint(one) for _, one in seen),
        left_out,
        doubts,
    )
