"""Merges incidents of all nodes: each is about one object, with the causes that nodes report.

    Service ports of all nodes ──diagnosis.incidents──▶ one object ──which nodes tried?──▶ extent
    failures of several endpoints on the paths of one node, or the same few nodes ──▶ one incident

Rule 1: grouping, and when a node counts as failed, follow the rules of one node, applied to all
nodes' Service ports. A dead node is one incident, with the same id as on each node's page.
Rule 2: if some nodes can't reach endpoints that others reach, the nodes are at fault, not the
endpoints. So is the endpoints' node if several programs on it fail other nodes' clients at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from userspace_proxy.causes.cause import Cause, CauseCode, When
from userspace_proxy.causes.endpoints import (
    denies,
    dropped_here,
    no_datagram,
    resets,
    sends_nothing,
    silent,
)
from userspace_proxy.causes.nodes import cut_off, not_answered, path_fails
from userspace_proxy.causes.say import kubectl_words, on_node
from userspace_proxy.diagnosis.incidents import OF_ROUTES, Incidents, at_ports, id_of, seen_together
from userspace_proxy.facts import (
    LAST_MINUTE_S,
    WORST_FIRST,
    EndpointFacts,
    FirewallFacts,
    IncidentFacts,
    PortFacts,
    StatusFacts,
    worst,
)
from userspace_proxy.facts.units import in_order
from userspace_proxy.model import ip_of
from userspace_proxy.model.quoting import shell_word, shown

from .endpoints import (
    Extent,
    NodesByCause,
    answers_since,
    by_cause,
    current_cause,
    extent_of,
    has_failed_lately,
    has_tried,
    last_answer,
    same_cause,
    with_extent,
)

# The number of endpoints that must fail together before the path to them is blamed: with fewer, the
# endpoints themselves are as likely to be at fault.
_PATHS = 3
# The number of them that must fail all clients of a node; others may fail only one client, or UDP.
_PROVEN = 2
_PLACES = 2
_ACCEPT = (resets, sends_nothing)
_OF_DATA, _OF_DIALS, _OF_PATH = "data", "dials", "path"
_FIGURES = ("ports", "waiting", "last_minute", "failed", "saved")
_EXPLAIN = "kubectl userspace-proxy explain"


@dataclass(frozen=True, slots=True)
class MergedIncident:
    """One object that fails, with all affected Services and nodes."""

    incident: IncidentFacts
    """The incident as on a single node, with all nodes' figures; its ports are the cluster's."""
    nodes: tuple[str, ...]
    tried: int
    """The number of nodes that tried the endpoints; 0 if the incident isn't about endpoints."""
    answered: int
    """The number of nodes without a fault that got an answer after other nodes' faults began."""
    away: int
    """The number of answered nodes on which none of the endpoints runs."""
    extent: Extent
    left_out: int
    """The number of nodes whose summaries don't show whether they tried the endpoints."""
    keys: frozenset[object]
    """The keys of the incident's causes, from ``same_cause``."""
    failing: NodesByCause
    pod: str
    """The pod of the first endpoint; empty if unknown, or if its slice names none."""
    places: tuple[str, ...]
    """The nodes on which the endpoints run, as far as known."""

    def cause_on(self, node: str) -> Cause:
        """Return the first cause that one of the incident's nodes reports."""
        return next((cause for cause, nodes in self.failing if node in nodes), self.cause)

    @property
    def command(self) -> str:
        """A shell command that shows more; a comment in it names the node if it must run there."""
        service, node = self.incident.services[0], shell_word(self.failing[0][1][0])
        if self.extent is Extent.PATH or self.cause.is_of_way:
            return f"{_EXPLAIN} {shell_word(service)} --node={node}"
        if self.cause.is_of_pods:
            return f"{_EXPLAIN} {shell_word(service)} --pods"
        if words := kubectl_words(self.cause, service, self.pod):
            return f"kubectl {words}"
        if there := on_node(self.cause):
            return f"{there}  # on {node}"
        return f"{_EXPLAIN} {shell_word(service)}"

    @property
    def is_of_nodes(self) -> bool:
        """Whether a rule or route of the nodes that see the incident causes it."""
        cause = self.cause.replace(answers_nodes=False)
        is_known = bool(self.answered or cause.row is dropped_here)
        return is_known and bool(cause.row in OF_ROUTES or on_node(cause))

    @property
    def cause(self) -> Cause:
        assert self.incident.cause is not None
        return self.incident.cause


@dataclass(slots=True)
class _SeenOn:
    """Facts about an incident that aren't in its cause."""

    nodes: dict[str, None] = field(default_factory=dict)
    ports: set[tuple[str, ...]] = field(default_factory=set)
    keys: set[object] = field(default_factory=set)
    causes: list[tuple[str, Cause]] = field(default_factory=list)


def incidents_of(
    members: Iterable[Mapping[str, PortFacts]],
    summaries: Collection[str] = (),
    firewalls: Sequence[FirewallFacts] = (),
) -> tuple[MergedIncident, ...]:
    """Return incidents of some Service ports: the worst first, then by number of nodes.

    Args:
        members: Each Service port's facts by node.
        summaries: The nodes whose answers are summaries.
        firewalls: The firewalls that nodes report.
    """
    on_nodes = [item for of_port in members for item in of_port.items()]
    ports = [port for _, port in on_nodes]
    grouped = Incidents(StatusFacts(ports=ports, firewalls=firewalls))
    seen: dict[str, _SeenOn] = defaultdict(_SeenOn)
    of_services: dict[object, str] = {}
    # If a node reports a cause for an endpoint, its own cause for the Service isn't a separate
    # incident.
    others: list[tuple[object, str]] = []
    for node, port in on_nodes:
        # Cost: skip healthy ports at once, because nearly all ports are healthy.
        if not grouped.has(port):
            continue
        key = (port.namespace, port.service, port.port, port.family, port.side)
        ids = grouped.ids(port)
        for cause in port.state.causes:
            same = same_cause(cause)
            of_service = port.namespace, port.service, same
            if (id_ := ids.get(cause.fact)) is None:
                others.append((of_service, node))
            else:
                of_services[of_service] = id_
                one = seen[id_]
                one.nodes[node] = None
                one.ports.add(key)
                one.keys.add(same)
                one.causes.append((node, cause))
    for key_, node in others:
        if (id_ := of_services.get(key_)) is not None:
            seen[id_].nodes[node] = None
    found = [one for one in grouped.all() if one.cause is not None]
    reach = _Reach(on_nodes, {at for one in found for at in one.endpoints}, {*summaries})
    merged = [_merged(one, seen[one.id], reach) for one in found]
    merged = _joined(merged, reach)
    merged.sort(key=lambda one: (WORST_FIRST.index(one.incident.level), -len(one.nodes)))
    return tuple(merged)


class _Reach:
    """Which nodes have tried which endpoints, over all Services."""

    def __init__(
        self,
        on_nodes: Sequence[tuple[str, PortFacts]],
        addresses: Collection[str],
        summaries: set[str],
    ) -> None:
        self._summaries = summaries
        self._listed: Mapping[str, set[str]] = {at: set() for at in addresses}
        self.tried: Mapping[str, set[str]] = {at: set() for at in addresses}
        self.failed: Mapping[str, set[str]] = {at: set() for at in addresses}
        """The nodes that have a cause for each endpoint, current or past."""
        self.answers: Mapping[str, dict[str, float]] = {at: {} for at in addresses}
        """Unix times of the endpoints' last answers to other nodes."""
        self.failing: Mapping[str, list[tuple[str, EndpointFacts]]] = {at: [] for at in addresses}
        """The nodes that have a cause for each endpoint, with their facts about it."""
        self.lately: Mapping[str, set[str]] = {at: set() for at in addresses}
        """The nodes with recent failures of each endpoint, from ``has_failed_lately``."""
        self.pods: dict[str, str] = {}
        self.places: dict[str, str] = {}
        """The nodes on which endpoints run."""
        for node, port in on_nodes if addresses else ():
            for endpoint in port.endpoints:
                tried = self.tried.get(endpoint.address)
                if tried is not None:
                    self.places[endpoint.address] = endpoint.node
                    self.pods[endpoint.address] = endpoint.pod
                    self._listed[endpoint.address].add(node)
                    if has_tried(endpoint):
                        tried.add(node)
                    if has_failed_lately(port, endpoint.address):
                        self.lately[endpoint.address].add(node)
                    if endpoint.cause is not None:
                        self.failed[endpoint.address].add(node)
                        self.failing[endpoint.address].append((node, endpoint))
                    elif last := last_answer(endpoint):
                        self.answers[endpoint.address][node] = last

    def left_out(self, addresses: Iterable[str]) -> int:
        """Return the number of summaries that list no Service port with any of these endpoints."""
        if not self._summaries:
            return 0
        listed = set[str]().union(*(self._listed[at] for at in addresses))
        return len(self._summaries - listed)


def _merged(incident: IncidentFacts, seen: _SeenOn, reach: _Reach) -> MergedIncident:
    assert incident.cause is not None
    tried, failed = set[str](), {*seen.nodes}
    for at in incident.endpoints:
        tried |= reach.tried[at] | failed
        failed |= reach.failed[at]
    answers = {
        node: at
        for one in incident.endpoints
        for node, at in reach.answers[one].items()
        if node not in failed
    }
    failing = [one for at in incident.endpoints for one in reach.failing[at]]
    current = {node for node, one in failing if current_cause(one) is not None}
    # A node's past failures for another Service don't show that the endpoint is up only at times.
    causes = [
        cause
        for node, one in failing
        if (cause := current_cause(one)) is not None or node not in current
    ]
    answered = answers_since(
        [one.cause for _, one in failing if one.cause is not None] or [incident.cause], answers
    )
    nodes = tuple(sorted(seen.nodes, key=in_order))
    places = {reach.places[at] for at in incident.endpoints if at in reach.places}
    reported = _failing(incident, seen.causes, places) or ((incident.cause, nodes),)
    named = str(reported[0][0].get("at"))
    total = seen_together([incident.cause])
    times = {name: getattr(total, name) for name in ("count", "first_at", "last_at")}
    ways = ((reach.lately[at], reach.failed[at] or failed) for at in incident.endpoints)
    extent = extent_of(
        # An endpoint that has answered since has no cause, but its lost packets show the path.
        causes or [incident.cause],
        len(tried & failed),
        answered,
        fails_others=any(not lately <= now for lately, now in ways),
    )
    away = len({*answered} - places)
    reported = tuple((with_extent(cause, extent, away), of) for cause, of in reported)
    facts = replace(incident, cause=reported[0][0].replace(**times), ports=len(seen.ports))
    left_out = reach.left_out(incident.endpoints) if incident.endpoints else 0
    pod = next((reach.pods[at] for at in (named, *incident.endpoints) if at in reach.pods), "")
    return MergedIncident(
        facts,
        nodes,
        len(tried),
        len(answered),
        away,
        extent,
        left_out,
        frozenset(seen.keys),
        reported,
        pod,
        tuple(sorted(filter(None, places), key=in_order)),
    )


def _failing(
    incident: IncidentFacts, seen: Sequence[tuple[str, Cause]], places: Collection[str]
) -> NodesByCause:
    """Return the causes of the endpoints; if these have several IPs, only of one endpoint.

    Empty if the incident isn't about endpoints.
    """
    if not incident.endpoints or incident.cause is None or incident.cause.row.shared is not None:
        return ()
    is_of_ip = len({ip_of(at) for at in incident.endpoints}) == 1
    if is_of_ip and len(incident.endpoints) > 1:
        alike: dict[str, dict[str, None]] = defaultdict(dict)
        for _, cause in seen:
            alike[cause.row.key][str(cause.get("at"))] = None
        seen = [(node, at_ports(cause, list(alike[cause.row.key]))) for node, cause in seen]
    failing = by_cause(seen, places)
    at = failing[0][0].get("at")
    return tuple(one for one in failing if is_of_ip or one[0].get("at") == at)


def _joined(found: Sequence[MergedIncident], reach: _Reach) -> list[MergedIncident]:
    """Merge the incidents of _PATHS or more endpoints that one node, or the same nodes, explain."""
    of_hubs: dict[tuple[str, tuple[str, ...]], list[MergedIncident]] = defaultdict(list)
    for one in found:
        for hub in _hubs(one):
            of_hubs[_kind(one), hub].append(one)
    left, kept = {one.incident.id: one for one in found}, list[MergedIncident]()
    # If the failing node and the endpoints' node explain the same incidents, blame the latter.
    for (kind, hub), members in sorted(
        of_hubs.items(),
        key=lambda item: (-len(item[1]), not any(item[0][1] == one.places for one in item[1])),
    ):
        same = [one for one in members if one.incident.id in left]
        endpoints = list(dict.fromkeys(at for one in same for at in one.incident.endpoints))
        proven = {at for one in same if _is_proven(one) for at in one.incident.endpoints}
        are_enough = len(endpoints) >= _PATHS and len(proven) >= _PROVEN
        if are_enough if kind == _OF_PATH else _began_together(same):
            kept.append(_path(kind, hub, same, endpoints, reach))
            for one in same:
                del left[one.incident.id]
    return [*left.values(), *kept]


def _kind(one: MergedIncident) -> str:
    """Return what kind of failures an incident may be joined with: of data, of dials or a path."""
    if one.cause.row in _ACCEPT:
        return _OF_DATA
    is_of_all = one.cause.row is silent and one.extent in (Extent.ENDPOINT, Extent.ONE)
    return _OF_DIALS if is_of_all else _OF_PATH


def _began_together(same: Sequence[MergedIncident]) -> bool:
    """Return whether _PATHS or more programs, of different Services, began to fail at once."""
    services: dict[str, set[str]] = defaultdict(set)
    for one in same:
        for at in one.incident.endpoints:
            services[ip_of(at)].update(one.incident.services)
    first = [one.cause.first_at for one in same]
    is_at_once = 0 < max(first) <= min(first) + LAST_MINUTE_S
    return is_at_once and len(set(map(frozenset, services.values()))) >= _PATHS


def _hubs(one: MergedIncident) -> Iterator[tuple[str, ...]]:
    """Yield the nodes whose paths would explain an incident."""
    cause = one.cause
    if _kind(one) != _OF_PATH and cause.when is not When.PAST:
        # The way to a node doesn't explain that its own clients fail, or that others are answered.
        if len(one.places) == 1 and one.places[0] not in one.nodes and not one.away:
            yield one.places
        return
    # An endpoint on the client's node can't deny the client because of the node's paths.
    is_denial = cause.row is denies and one.nodes != one.places
    is_supporting = is_denial or cause.row is no_datagram
    is_supporting &= one.extent is Extent.SOME and cause.when is not When.PAST
    # A chain that drops an endpoint's packets explains more than the path.
    if cause.row is dropped_here or not (_is_proven(one) or is_supporting):
        return
    if not one.away and one.places and not is_denial and not one.is_of_nodes:
        yield one.places
    if len(one.nodes) == 1 or (len(one.nodes) <= one.away and cause.code.traits.is_dial):
        yield one.nodes


def _is_proven(one: MergedIncident) -> bool:
    code = one.cause.code
    return one.extent is Extent.PATH and (code.traits.is_dial or code is CauseCode.PACKETS_LOST)


def _path(
    kind: str,
    hub: tuple[str, ...],
    same: Sequence[MergedIncident],
    endpoints: Sequence[str],
    reach: _Reach,
) -> MergedIncident:
    nodes = tuple(sorted({node for one in same for node in one.nodes}, key=in_order))
    places = sorted({place for at in endpoints if (place := reach.places.get(at))})
    is_own = places == [*hub] and not any(one.away for one in same)
    seen = seen_together([one.cause for one in same])
    is_lossy = all(one.cause.code is CauseCode.PACKETS_LOST for one in same if _is_proven(one))
    if kind != _OF_PATH:
        at, accepts = ip_of(min(endpoints)), kind == _OF_DATA
        row = not_answered(len(endpoints), shown(hub[0]), at, accepts=accepts)
    elif is_lossy or not (is_own or nodes == hub):
        row, places = cut_off(shown(hub[0]), is_lossy), [*hub]
    else:
        named = tuple(map(shown, places[:_PLACES]))
        row = path_fails(len(endpoints), named, len(places), ip_of(min(endpoints)), is_own)
    cause = row.replace(count=seen.count, first_at=seen.first_at, last_at=seen.last_at)
    parts = [one.incident for one in same]
    services = sorted({name for one in parts for name in one.services})
    of_place = () if nodes == hub else hub
    incident = IncidentFacts(
        id=id_of((kind, *nodes, *of_place)),
        level=worst(one.level for one in parts),
        cause=cause,
        services=services,
        endpoints=endpoints,
        **{name: max(getattr(one, name) for one in parts) for name in _FIGURES},
    )
    answered = min(one.answered for one in same)
    # Only the hub's endpoints are known to answer no other node.
    away = 0 if of_place else max(1, min(one.away for one in same))
    keys = frozenset(key for one in same for key in one.keys)
    left_out = min(one.left_out for one in same)
    tried = len(nodes) + answered
    failing = ((cause, nodes),)
    extent, pod, of = Extent.PATH, "", tuple(places)
    return MergedIncident(
        incident, nodes, tried, answered, away, extent, left_out, keys, failing, pod, of
    )
