"""Decides which endpoints a Service port can use on this node, and why it can't use others.

slices of one family ──▶ unique addresses, up to a bound ──▶ without refused endpoints ──▶ by scope:
ready endpoints, or else endpoints that terminate but still serve ──▶ by priority, for the balancer

Rule 1: an endpoint with weight 0 isn't usable.
Rule 2: endpoints of all priorities are usable: the balancer dials a standby if all endpoints with
lower priority numbers fail. Hints choose among the endpoints of one priority.
Rule 3: all nodes omit the same endpoints beyond the bound, so a client reaches the same endpoint
through any node; only with policy ``Local`` does the choice depend on the node.
"""

from __future__ import annotations

import collections
import enum
import functools
import heapq
import operator
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace

from ..causes.cause import CauseCode
from ..model import (
    DEFAULT_WEIGHT,
    Endpoint,
    EndpointSlice,
    IPFamily,
    Protocol,
    ServiceKey,
    SocketAddress,
    is_loopback,
    pack_ip,
)
from ..model.reserved_addresses import no_endpoint_reason
from ..model.serving import Serving
from .endpoint_index import EndpointIndex, PortName
from .facts import NodeFacts
from .hints import not_meant_reason
from .preferences import NO_PREFERENCES, have_preferences, read_preferences

ENDPOINTS_MAX = 10_000
"""The maximum number of endpoints of one Service port and family; the rest is omitted.

10,000 are two endpoints on each of the 5,000 nodes that Kubernetes supports. With weights, they
take a message of 2 MB to each worker."""
_by_number = operator.itemgetter(0, 1)

_UnusableReason = Callable[[Endpoint], str]
_Packed = tuple[bytes, SocketAddress, Endpoint]
"""The IP as bytes, for sorting; the address; the endpoint."""


NODE_ENDPOINT = "refused: this node's own address, and no pod of this node (--allow-node-endpoints)"
"""Why an endpoint on this node's address isn't used: it may be a daemon of the node."""


class EndpointState(enum.StrEnum):
    """The state of an endpoint, unless it is refused or meant for other nodes."""

    READY = "ready"
    PUBLISHED = "not ready, but published"
    """The Service has ``publishNotReadyAddresses``: its slices list the pod as ready."""
    NOT_READY = "not ready"
    TERMINATING = "terminating"
    """The endpoint terminates, but still serves."""
    HAS_ENDED = "terminating, not serving"
    DRAINED = "drained (weight 0)"
    ELSEWHERE = "not on this node"


class Scope(enum.Enum):
    """The traffic policy of a frontend."""

    CLUSTER = "Cluster"
    """All clients may use all endpoints of the cluster."""
    LOCAL = "Local"
    """All clients may use only this node's endpoints (``internalTrafficPolicy: Local``)."""
    LOCAL_FROM_OUTSIDE = "Local from outside"
    """External clients may use only this node's endpoints (``externalTrafficPolicy: Local``)."""


@dataclass(frozen=True, slots=True)
class EndpointVerdict:
    """Whether one endpoint is usable, and why."""

    address: SocketAddress
    is_usable: bool
    """Whether clients may use the endpoint; clients from outside, if their policy differs."""
    reason: str
    """An :class:`EndpointState`, or the reason why the endpoint is refused or for other nodes."""
    node: str = ""
    code: CauseCode | None = None
    """Why the endpoint isn't used, as a code; None if ``reason`` isn't an obstacle."""
    weight: int = DEFAULT_WEIGHT
    priority: int = 0
    is_standby: bool = False
    """Whether the endpoint is on standby: other usable endpoints have a lower priority number."""
    host: str = ""
    """The DNS name that resolved to the address; empty if the slice lists the address."""
    pod: str = ""
    """The pod's name, in the Service's namespace; empty if the slice names no pod."""

    @property
    def is_leaving(self) -> bool:
        """Whether the endpoint terminates: it serves open connections, but takes no new clients."""
        return not self.is_usable and self.reason == EndpointState.TERMINATING

    @property
    def is_last(self) -> bool:
        """Whether the endpoint terminates, but is used because no ready endpoint is usable."""
        return self.is_usable and self.reason == EndpointState.TERMINATING

    @property
    def preference(self) -> str:
        """Priority and weight, like ``priority 1, weight 5``; defaults and weight 0 are omitted."""
        words = [f"priority {self.priority}"] if self.priority else []
        if self.is_standby:
            words = [f"on standby (priority {self.priority})"]
        if self.weight not in (0, DEFAULT_WEIGHT):
            words.append(f"weight {self.weight}")
        return ", ".join(words)


@dataclass(frozen=True, slots=True)
class Usable:
    """The result for one Service port and family."""

    verdicts: tuple[EndpointVerdict, ...]
    """The verdicts on all endpoints, sorted by address and port."""
    serving: Serving
    """The usable endpoints, in the form for workers, without the Service's settings."""
    is_dropping: bool = False
    """Whether some clients have no usable endpoint only because of the scope: other nodes have
    endpoints, so their packets are dropped instead of refused."""
    are_all: bool = True
    """Whether all endpoints have a verdict: there were at most :data:`ENDPOINTS_MAX`."""

    @property
    def leaving(self) -> tuple[SocketAddress, ...]:
        """The endpoints that terminate and still serve, but take no new clients."""
        return tuple(v.address for v in self.verdicts if v.is_leaving)


@dataclass(frozen=True, slots=True)
class Refusals:
    """The addresses that no endpoint of any Service may have."""

    facts: NodeFacts
    frontends: Collection[SocketAddress] = ()
    """The addresses that this proxy serves: dialling them would be a loop."""
    node_ports: Container[int] = ()
    """All node ports of the protocol; on a node's address, they are steered to a proxy again."""
    cluster_ips: Mapping[str, ServiceKey] = field(default_factory=dict)
    """Cluster IPs on which only the ports of these Services answer."""
    may_be_node: bool = True
    """Whether to accept endpoints on this node's own addresses even if they aren't its pods."""


def usable_endpoints(
    index: EndpointIndex, port: PortName, refusals: Refusals, scope: Scope = Scope.CLUSTER
) -> Usable:
    """Judge the endpoints of one Service port.

    Args:
        index: The index of the Service's slices.

    Source: KEP-1669: the ready endpoints; if there are none, terminating endpoints that serve,
        separately for each set. KEP-2086: without local endpoints, a Local policy drops packets.
        CVE-2021-25737: endpoints must not point into the node itself.
    """
    facts = refusals.facts
    merged, are_all = _bounded(_merge(index.addresses(*port), facts), facts, scope)
    if not merged:
        return Usable((), Serving(outside=() if scope is Scope.LOCAL_FROM_OUTSIDE else None))
    judged = sorted([(pack_ip(a.ip), a, e) for a, e in merged.items()], key=_by_number)
    refused = {
        a: why
        for packed, a, e in judged
        if (why := _refused_reason(a, packed, e, refusals, port.protocol))
    }
    # Cost: nearly all Services have no preferences, so one check suffices.
    preferred = have_preferences(merged.values())
    if preferred:
        drained = [a for _, a, e in judged if not e.weight and a not in refused]
        refused |= dict.fromkeys(drained, EndpointState.DRAINED)
    sound = [item for item in judged if item[1] not in refused] if refused else judged
    unusable_reason = not_meant_reason(
        [e for _, _, e in sound if e.ready], facts, by_priority=preferred
    )
    in_cluster = _choose(sound, unusable_reason)
    chosen, outside = in_cluster, None
    if scope is not Scope.CLUSTER:
        local = _choose([item for item in sound if _is_local(item[2], facts)])
        unusable_reason = functools.partial(_not_local_reason, facts=facts)
        chosen = local if scope is Scope.LOCAL else in_cluster
        outside = None if scope is Scope.LOCAL else local
    shown = chosen if outside is None else outside
    verdicts = _verdicts(judged, shown, refused, unusable_reason)
    weights, standbys = NO_PREFERENCES
    if preferred:
        verdicts = _with_standbys(verdicts)
        weights, standbys = read_preferences(merged, (*chosen, *(outside or ())))
    return Usable(
        verdicts,
        Serving(chosen, outside=outside, weights=weights, standbys=standbys),
        is_dropping=not shown and bool(in_cluster),
        are_all=are_all,
    )


def _choose(
    endpoints: Collection[_Packed], unusable_reason: _UnusableReason | None = None
) -> tuple[SocketAddress, ...]:
    """Return the usable ready endpoints or, if there are none, terminating endpoints that serve."""
    ready = [a for _, a, e in endpoints if e.ready and not (unusable_reason and unusable_reason(e))]
    return tuple(ready or [a for _, a, e in endpoints if e.serving and e.terminating])


def _verdicts(
    judged: Collection[_Packed],
    usable: Collection[SocketAddress],
    refused: Mapping[SocketAddress, str],
    unusable_reason: _UnusableReason | None,
) -> tuple[EndpointVerdict, ...]:
    # Cost: usually all endpoints are usable, and look-ups would take a tenth of a plan's time.
    are_all = len(usable) == len(judged)
    is_usable = frozenset(() if are_all else usable).__contains__
    return tuple(
        [
            _verdict(a, e, unusable_reason, refused.get(a), is_usable=are_all or is_usable(a))
            for _, a, e in judged
        ]
    )


def _with_standbys(verdicts: Collection[EndpointVerdict]) -> tuple[EndpointVerdict, ...]:
    """Return the verdicts, with endpoints of lower priority marked as standbys."""
    first = min((v.priority for v in verdicts if v.is_usable), default=0)
    return tuple(
        [replace(v, is_standby=True) if v.is_usable and v.priority > first else v for v in verdicts]
    )


def _not_local_reason(endpoint: Endpoint, facts: NodeFacts) -> str:
    return "" if _is_local(endpoint, facts) else EndpointState.ELSEWHERE


def _is_local(endpoint: Endpoint, facts: NodeFacts) -> bool:
    return bool(endpoint.node) and (facts.is_any_node or endpoint.node == facts.node_name)


def count_local_ready(slices: Iterable[EndpointSlice], facts: NodeFacts) -> int:
    """Count the ready endpoints of a Service on this node that aren't drained, over all its ports.

    Source: kube-proxy's LocalReadyEndpoints: each address counts once. kube-proxy counts each
    family separately; here, a dual-stack pod is one endpoint, so the larger count is used. As in
    kube-proxy, slices without a port don't count, because their endpoints can't serve clients.
    """
    counts = collections.Counter(dict.fromkeys(IPFamily, 0))
    used = (item for item in slices if item.ports and not item.is_headless)
    listed = ((SocketAddress(e.ip, 0), e) for item in used for e in item.endpoints)
    for address, endpoint in _merge(listed, facts).items():
        is_ready = endpoint.ready and endpoint.weight and _is_local(endpoint, facts)
        counts[IPFamily.of(address.ip)] += bool(is_ready)
    return max(counts.values())


def _merge(
    listed: Iterable[tuple[SocketAddress, Endpoint]], facts: NodeFacts
) -> dict[SocketAddress, Endpoint]:
    """Collect every address once; if slices disagree, use the copy in the better state.

    While an endpoint moves between slices, both list it for a moment, and the stale copy must not
    remove it. If a new pod has the address of a pod that still terminates, the new pod is used.

    Source: kube-proxy's endpointslicecache.go, which prefers the copy on this node; since
        kubernetes PR 135593 a copy that isn't terminating always wins.
    """
    merged: dict[SocketAddress, Endpoint] = {}
    for address, endpoint in listed:
        known = merged.get(address)
        if known is None or _rank(endpoint, facts) > _rank(known, facts):
            merged[address] = endpoint
    return merged


def _bounded(
    merged: Mapping[SocketAddress, Endpoint], facts: NodeFacts, scope: Scope
) -> tuple[Mapping[SocketAddress, Endpoint], bool]:
    """Return at most ENDPOINTS_MAX endpoints, and whether no endpoint was omitted.

    This node's endpoints come first if the scope prefers them, then ready ones that aren't drained,
    then those that still serve, then low priority numbers, then low addresses.
    """
    if len(merged) <= ENDPOINTS_MAX:
        return merged, True

    def place(item: tuple[SocketAddress, Endpoint]) -> tuple[bool, bool, bool, int, bytes, int]:
        address, endpoint = item
        is_far = scope is Scope.CLUSTER or not _is_local(endpoint, facts)
        is_unready = not endpoint.ready or not endpoint.weight
        last = endpoint.priority, pack_ip(address.ip), address.port
        return is_far, is_unready, not endpoint.serving, *last

    return dict(heapq.nsmallest(ENDPOINTS_MAX, merged.items(), key=place)), False


def _rank(endpoint: Endpoint, facts: NodeFacts) -> tuple[bool, bool, bool, bool]:
    is_local = _is_local(endpoint, facts)
    return not endpoint.terminating, endpoint.ready, endpoint.serving, is_local


def _refused_reason(
    address: SocketAddress,
    packed: bytes,
    endpoint: Endpoint,
    refusals: Refusals,
    protocol: Protocol,
) -> str | None:
    facts = refusals.facts
    if address in refusals.frontends:
        return "refused: it is an address that this proxy serves"
    if address.ip in refusals.cluster_ips:
        lacks = f"which has no port {address.port}/{protocol}"
        return (
            f"refused: it is the ClusterIP of Service {refusals.cluster_ips[address.ip]}, {lacks}"
        )
    if address.ip in facts.all_node_addresses:
        if address.port in refusals.node_ports:
            return "refused: it is a node port of a node"
        # A dial from this node would pass a firewall that blocks the client, so reject this node's
        # own addresses, unless they are permitted or a pod of this node has the address.
        is_pod = endpoint.pod and _is_local(endpoint, facts)
        if not (refusals.may_be_node or is_pod) and address.ip in facts.addresses:
            return NODE_ENDPOINT
    if facts.allow_loopback_endpoints and is_loopback(address.ip):
        return None
    why = no_endpoint_reason(packed)
    return f"refused: {why}" if why else None


def judge_alone(
    address: SocketAddress, endpoint: Endpoint, refusals: Refusals, protocol: Protocol
) -> EndpointVerdict:
    """Judge an endpoint that is used if it is ready, whatever the state of other endpoints."""
    why = _refused_reason(address, pack_ip(address.ip), endpoint, refusals, protocol)
    return _verdict(address, endpoint, None, why, is_usable=endpoint.ready and not why)


def _verdict(
    address: SocketAddress,
    endpoint: Endpoint,
    unusable_reason: _UnusableReason | None,
    refusal: str | None,
    *,
    is_usable: bool,
) -> EndpointVerdict:
    code: CauseCode | None = None
    reason: str = EndpointState.READY
    if refusal:
        is_drained = refusal == EndpointState.DRAINED
        reason = refusal
        code = CauseCode.NOT_READY if is_drained else CauseCode.ENDPOINT_NOT_ALLOWED
    elif endpoint.ready or (endpoint.terminating and endpoint.serving):
        why = unusable_reason(endpoint) if unusable_reason else ""
        listed = EndpointState.READY if endpoint.serving else EndpointState.PUBLISHED
        reason = why or (listed if endpoint.ready else EndpointState.TERMINATING)
        if why:
            is_elsewhere = why == EndpointState.ELSEWHERE
            code = CauseCode.NOT_LOCAL if is_elsewhere else CauseCode.NOT_FOR_THIS_NODE
    elif endpoint.terminating:
        reason, code = EndpointState.HAS_ENDED, CauseCode.NOT_READY
    else:
        reason, code = EndpointState.NOT_READY, CauseCode.NOT_READY
    return EndpointVerdict(
        address,
        is_usable,
        reason,
        endpoint.node,
        code,
        endpoint.weight,
        endpoint.priority,
        host=endpoint.host,
        pod=endpoint.pod,
    )
