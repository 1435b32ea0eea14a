"""Derives clients' outcomes from API objects as JSON; shares no code with the product.

Rule 1: ready endpoints are usable, or the ready endpoints that hints select, if any; if no endpoint
is ready, endpoints that terminate but still serve. With the policy ``Local`` only this node's
endpoints are usable, and hints are ignored: the internal policy applies to all clients of cluster
IPs, the external policy to clients from outside at external addresses. Of the usable endpoints, the
endpoints of the best priority serve; hints select within each priority.
Rule 2: an endpoint with an address of a Service or of the node itself is never usable.
Rule 3: a Service has the families of its cluster IPs, each with its own endpoints and ranges.

Source: kubernetes.io/docs/reference/networking/virtual-ips, KEP-1669, KEP-2086, KEP-2433.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

from .claims import (
    AT_NODE,
    EXTERNAL_IP,
    Claim,
    ClaimReader,
    Dialled,
    Key,
    Kind,
    families_of,
    ranges_of,
)
from .families import is_six, six, with_six
from .plan import LOOPBACK_IP, NODE, POD_NETWORK, Object
from .readings import (
    LABEL_SERVICE,
    addresses_of,
    balancer_ips,
    cluster_ips,
    endpoints_of,
    hold_of,
    is_in,
    is_reserved,
    is_served,
    labels_of,
    name_of,
    own_ips,
    priority_of,
    weight_of,
)

HOST: Key = ("Host", "", NODE)
"""The node's addresses, which aren't in an API object."""
_API_SERVER: Key = ("Service", "default", "kubernetes")


class Expected(NamedTuple):
    """The allowed outcome of a client at one address, in one state of the cluster."""

    service: str
    """``namespace/name:port``; empty if no Service has the address."""
    endpoints: frozenset[tuple[str, int]] = frozenset()
    may_be_refused: bool = False
    may_be_dropped: bool = False
    waits_s: float = 0.0
    """The time after which a client that waits for an endpoint is reset; 0 if it doesn't wait."""
    standbys: frozenset[tuple[str, int]] = frozenset()
    """Endpoints of later priorities, which serve while none of the first one answers."""


NO_SERVICE = Expected("", may_be_refused=True)


class Truth:
    """The cluster in one state.

    Results are cached, because a state is queried for each address as long as it may be applied.
    """

    def __init__(self, objects: Mapping[Key, Object], reader: ClaimReader) -> None:
        self.objects = dict(objects)
        self._reader = reader
        self._expected: dict[tuple[Kind, str, Dialled], Expected] = {}
        self._usable_ones: dict[tuple[str, bool, bool], frozenset[tuple[str, int]]] = {}
        self._elsewhere: dict[int, Truth] = {}
        """Copies of this state with other node addresses."""
        self._mixed: dict[frozenset[int], Truth] = {}
        """Copies of this state with the Services of another state."""

    @cached_property
    def frontends(self) -> Mapping[Dialled, Claim]:
        """The owner of each address."""
        owners: dict[Dialled, Claim] = {}
        for at, claims in self._claims_at.items():
            # Of equal claims, the first object's wins, because sorting is stable.
            allowed = [
                claim
                for claim in claims
                if at[0] not in self._cluster_ips or claim.order[0] != EXTERNAL_IP
            ]
            if allowed:
                owners[at] = min(allowed, key=lambda claim: claim.order)
        return owners

    @cached_property
    def _claims_at(self) -> Mapping[Dialled, Sequence[Claim]]:
        claims: dict[Dialled, list[Claim]] = {}
        for item in self._served:
            for at, claim in self._reader.claims(item):
                if claim.order[0] == EXTERNAL_IP and self._is_elsewhere(at[0]):
                    continue
                is_at_node = at[0] == AT_NODE[claim.is_six]
                node_ips = (ip for ip in self._node_port_ips if is_six(ip) is claim.is_six)
                for ip in node_ips if is_at_node else (at[0],):
                    claims.setdefault((ip, *at[1:]), []).append(claim)
        return claims

    @cached_property
    def _served(self) -> Sequence[Object]:
        """The Services that claim addresses; excludes those whose cluster IP is a node address."""
        own = {*self._node_ips, *self._primary_ips}
        found = filter(is_served, self._of_kind("Service"))
        return [item for item in found if own.isdisjoint(cluster_ips(item))]

    def _is_elsewhere(self, ip: str) -> bool:
        """Return whether an external IP is an address of this node or of the API server."""
        return ip in self._node_ips or ip in self._primary_ips or ip in self._api_ips

    @cached_property
    def _pod_networks(self) -> Sequence[str]:
        """The pod networks that count as inside."""
        node = self.objects.get(("Node", "", NODE))
        if self._reader.settings.has_only_own_pods and node is not None:
            return [str(network) for network in node["spec"]["podCIDRs"]]
        return with_six((POD_NETWORK,))

    @cached_property
    def _primary_ips(self) -> Sequence[str]:
        return addresses_of(self.objects.get(("Node", "", NODE)))

    @cached_property
    def _api_ips(self) -> frozenset[str]:
        _, namespace, name = _API_SERVER
        slices = (
            self._slices_of({"namespace": namespace, "name": name})
            if _API_SERVER in self.objects
            else ()
        )
        return frozenset(e["addresses"][0] for item in slices for e in endpoints_of(item))

    @property
    def host(self) -> Object:
        """The node's addresses."""
        return self.objects[HOST]

    def at(self, host: Object) -> Truth:
        """Return the state of the same objects on a node with other addresses."""
        if host is self.host:
            return self
        found = self._elsewhere.get(id(host))
        if found is None:
            found = Truth({**self.objects, HOST: host}, self._reader)
            self._elsewhere[id(host)] = found
        return found

    def with_services_of(self, other: Truth) -> Truth:
        """Return this state with the Services of another state."""
        services = other.parts[0]
        found = self._mixed.get(services)
        if found is None:
            rest = {key: item for key, item in self.objects.items() if key[0] != "Service"}
            wanted = {key: item for key, item in other.objects.items() if key[0] == "Service"}
            found = self._mixed[services] = Truth({**rest, **wanted}, self._reader)
        return found

    @cached_property
    def parts(self) -> tuple[frozenset[int], frozenset[int]]:
        """The id()s of the Services, and the id()s of the other objects."""
        found: tuple[set[int], set[int]] = set(), set()
        for key, item in self.objects.items():
            found[key[0] != "Service"].add(id(item))
        return frozenset(found[0]), frozenset(found[1])

    @cached_property
    def without_node(self) -> Truth:
        """The same state without this node's Node."""
        objects = {key: item for key, item in self.objects.items() if key[0] != "Node"}
        return Truth(objects, self._reader)

    @cached_property
    def _node_ips(self) -> Sequence[str]:
        return tuple(self.host["addresses"])

    @cached_property
    def _node_port_ips(self) -> Sequence[str]:
        """The node's addresses on which node ports are served."""
        names = self._reader.settings.node_port_networks
        if not names:
            return self._node_ips
        networks = with_six(name for name in names if "." in name)
        found = [ip for ip in self._node_ips if any(is_in(network, ip) for network in networks)]
        if "localhost" in names:
            found += [ip for ip in self._node_ips if ip in (LOOPBACK_IP, six(LOOPBACK_IP))]
        if "primary" in names:
            first = {is_six(ip): ip for ip in self._primary_ips[::-1] if ip in self._node_ips}
            found += first.values()
        return found

    def claims_at(self, at: Dialled) -> Sequence[Claim]:
        """Return all claims of an address."""
        return self._claims_at.get(at, ())

    @cached_property
    def _cluster_ips(self) -> frozenset[str]:
        found: set[str] = set()
        for item in self._of_kind("Service"):
            found.update(own_ips(item))
        return frozenset(found)

    @cached_property
    def zone(self) -> str:
        node = self.objects.get(("Node", "", NODE))
        labels = node["metadata"].get("labels", {}) if node else {}
        return str(labels.get("topology.kubernetes.io/zone", ""))

    def _of_kind(self, kind: str) -> Iterator[Object]:
        return (item for key, item in self.objects.items() if key[0] == kind)

    def expected(self, client: str, at: Dialled) -> Expected:
        """Return the allowed outcome of a client that dials an address."""
        return self.expected_of(self.frontends.get(at), client, at)

    def expected_of(self, claim: Claim | None, client: str, at: Dialled) -> Expected:
        """Return the outcome if the address has the owner that it had in another state."""
        if claim is None:
            return NO_SERVICE
        key = claim.kind, client, at
        found = self._expected.get(key)
        if found is None:
            found = self._expected[key] = self._find_expected(claim, client, at)
        return found

    def _find_expected(self, before: Claim, client: str, at: Dialled) -> Expected:
        claim = self._now(before)
        if claim is None:
            return NO_SERVICE
        spec = claim.service["spec"]
        is_pod = any(is_in(network, client) for network in self._pod_networks)
        # A program of the node that dials a Service's address also uses that as its source. A
        # former node address counts as another program's: listeners close before rules are updated.
        own = {*own_ips(claim.service), *spec.get("externalIPs", ())} & {at[0]}
        is_inside = is_pod or client in (*self._node_ips, *own)
        everywhere = self._usable(claim, is_local=False)
        local = self._usable(claim, is_local=True)
        is_local = self._is_local(claim)
        is_only_local = is_local and not (claim.is_outside and is_inside)
        endpoints = local if is_only_local else everywhere
        ranges, hold_s = ranges_of(claim), hold_of(claim.service)
        if ranges and not self._admits(ranges, client, claim.service):
            # If there is no endpoint, the rules refuse all clients, also outside the source ranges.
            is_refusing = not (local if is_local else everywhere) and not hold_s
            return Expected(claim.name, may_be_refused=is_refusing, may_be_dropped=True)
        if endpoints:
            standbys = frozenset(self._allowed(claim, is_local=is_only_local)) - endpoints
            return Expected(claim.name, endpoints, standbys=standbys)
        if hold_s and not everywhere:
            return Expected(claim.name, waits_s=hold_s)
        return Expected(claim.name, may_be_refused=not everywhere, may_be_dropped=bool(everywhere))

    def bars(self, claim: Claim, client: str) -> bool:
        """Return whether a Service's source ranges exclude a client from one of its addresses."""
        now = self._now(claim)
        ranges = ranges_of(now) if now else ()
        is_barred = bool(ranges) and not self._admits(ranges, client, claim.service)
        return claim.has_ranges and is_barred

    def _admits(self, ranges: Sequence[str], client: str, service: Object) -> bool:
        """Return whether source ranges admit a client.

        The node's own connections use the load balancer's address as their source; they are
        admitted if an address of the node is.
        """
        if any(is_in(network, client) for network in ranges):
            return True
        own = any(is_in(network, ip) for network in ranges for ip in self._primary_ips)
        return own and client in balancer_ips(service)

    def _now(self, claim: Claim) -> Claim | None:
        """Return a claim with the Service's current state; None if the Service port is gone."""
        metadata = claim.service["metadata"]
        service = self.objects.get(("Service", metadata["namespace"], metadata["name"]))
        if service is None or not any(service is each for each in self._served):
            return None
        name = name_of(claim.port)
        port = next((each for each in service["spec"]["ports"] if name_of(each) == name), None)
        if port is None or claim.is_six not in families_of(service):
            return None
        return replace(claim, service=service, port=port)

    def _usable(self, claim: Claim, *, is_local: bool) -> frozenset[tuple[str, int]]:
        # The key omits the protocol, because a Service port has only one within a state.
        key = claim.name, claim.is_six, is_local
        usable = self._usable_ones.get(key)
        if usable is None:
            usable = self._usable_ones[key] = self._find_usable(claim, is_local=is_local)
        return usable

    def usable(self, claim: Claim) -> frozenset[tuple[str, int]]:
        """Return the usable endpoints of all priorities at an address, by its side's policy."""
        return frozenset(self._allowed(claim, is_local=self._is_local(claim)))

    def _is_local(self, claim: Claim) -> bool:
        name = "externalTrafficPolicy" if claim.is_outside else "internalTrafficPolicy"
        return bool(claim.service["spec"].get(name) == "Local")

    def _find_usable(self, claim: Claim, *, is_local: bool) -> frozenset[tuple[str, int]]:
        return _first_of(self._allowed(claim, is_local=is_local))

    def _allowed(self, claim: Claim, *, is_local: bool) -> Mapping[tuple[str, int], Object]:
        found = {
            at: endpoint
            for at, endpoint in self._endpoints(claim)
            if (not is_local or endpoint.get("nodeName") == NODE)
            and weight_of(endpoint)
            and not self._is_refused(at, claim, endpoint)
        }
        return self._chosen(found, is_local=is_local)

    def _chosen(
        self, found: Mapping[tuple[str, int], Object], *, is_local: bool
    ) -> Mapping[tuple[str, int], Object]:
        ready = {at: e for at, e in found.items() if _is(e, "ready")}
        if not is_local:
            priorities = {priority_of(e) for e in ready.values()}
            each = ({a: e for a, e in ready.items() if priority_of(e) == n} for n in priorities)
            ready = {at: e for one in each for at, e in self._hinted(one).items()}
        terminating = (
            (at, e) for at, e in found.items() if _is(e, "serving") and _is(e, "terminating")
        )
        return ready or dict(terminating)

    def _is_refused(self, at: tuple[str, int], claim: Claim, endpoint: Object) -> bool:
        """Return whether an endpoint has a forbidden address."""
        ip, port = at
        if (ip, port, claim.port["protocol"]) in self.frontends or is_reserved(ip):
            return True
        if ip in self.only_cluster_ips:
            return True
        is_here = ip in self._node_ips
        if not is_here and ip not in self._primary_ips:
            return False
        if (port, claim.port["protocol"]) in self._node_ports:
            return True
        is_pod = "targetRef" in endpoint and endpoint.get("nodeName") == NODE
        metadata = claim.service["metadata"]
        is_api_server = ("Service", metadata["namespace"], metadata["name"]) == _API_SERVER
        is_allowed = is_pod or is_api_server or self._reader.settings.allows_node_endpoints
        return is_here and not is_allowed

    @cached_property
    def only_cluster_ips(self) -> frozenset[str]:
        """The ClusterIPs of served Services, which refuse clients at other ports."""
        return frozenset(ip for item in self._served for ip in cluster_ips(item))

    @cached_property
    def _node_ports(self) -> frozenset[tuple[int, str]]:
        families = set(map(is_six, self._node_port_ips))
        served = (item for item in self._served if families & families_of(item))
        ports = (port for item in served for port in item["spec"]["ports"])
        return frozenset((p["nodePort"], p["protocol"]) for p in ports if p.get("nodePort"))

    def _hinted(self, ready: dict[tuple[str, int], Object]) -> dict[tuple[str, int], Object]:
        for kind, own in (("forNodes", NODE), ("forZones", self.zone)):
            hints = {
                at: {each["name"] for each in e.get("hints", {}).get(kind, ())}
                for at, e in ready.items()
            }
            if own and hints and all(hints.values()) and any(own in h for h in hints.values()):
                return {at: e for at, e in ready.items() if own in hints[at]}
        return ready

    def _endpoints(self, claim: Claim) -> Iterator[tuple[tuple[str, int], Object]]:
        """Yield a Service port's endpoints; among copies of one address, only the best one."""
        best: dict[tuple[str, int], Object] = {}
        metadata = claim.service["metadata"]
        slices = (s for s in self._slices_of(metadata) if _is_of_six(s) is claim.is_six)
        for item in slices:
            for port in item["ports"]:
                wanted = name_of(claim.port), claim.port["protocol"]
                if (name_of(port), port["protocol"]) != wanted or not port.get("port"):
                    continue
                for endpoint in endpoints_of(item):
                    at = (endpoint["addresses"][0], port["port"])
                    if at not in best or _rank(endpoint) > _rank(best[at]):
                        best[at] = endpoint
        yield from best.items()

    def _slices_of(self, service: Object) -> Iterator[Object]:
        """Yield the slices of the Service with this metadata, in the order of the slices' names.

        Of two equally good copies of an endpoint, the first one is used.
        """
        found = {}
        for item in self._of_kind("EndpointSlice"):
            of, metadata = labels_of(item).get(LABEL_SERVICE), item["metadata"]
            if (metadata["namespace"], of) == (service["namespace"], service["name"]):
                found[metadata["name"]] = item
        for name in sorted(found):
            yield found[name]

    def _at_any_port(self, service: Object) -> Iterator[Object]:
        """Yield the endpoints of slices that have a port with a number.

        Source: kube-proxy, which lists endpoints per port of a slice.
        """
        for item in self._slices_of(service):
            yield from endpoints_of(item) if any(p.get("port") for p in item["ports"]) else ()

    @property
    def open_health_ports(self) -> Mapping[int, tuple[str, int]]:
        """Like ``health_ports``; empty if no address of the node serves node ports."""
        return self.health_ports if self._node_port_ips else {}

    @cached_property
    def health_ports(self) -> Mapping[int, tuple[str, int]]:
        """The health check node ports, with the Service and its number of ready local endpoints."""
        found: dict[int, tuple[str, int]] = {}
        for item in self._served:
            spec, metadata = item["spec"], item["metadata"]
            is_local = spec.get("externalTrafficPolicy") == "Local"
            number = spec.get("healthCheckNodePort", 0)
            if spec["type"] != "LoadBalancer" or not is_local or not number:
                continue
            best: dict[str, Object] = {}
            for endpoint in self._at_any_port(metadata):
                ip = endpoint["addresses"][0]
                if ip not in best or _rank(endpoint) > _rank(best[ip]):
                    best[ip] = endpoint
            here = [e for e in best.values() if e.get("nodeName") == NODE and weight_of(e)]
            # A dual-stack pod is one endpoint.
            families = (is_six(each["addresses"][0]) for each in here if _is(each, "ready"))
            ready = max(Counter(families).values(), default=0)
            found[number] = (f"{metadata['namespace']}/{metadata['name']}", ready)
        return found


def _is(endpoint: Object, condition: str) -> bool:
    """Return whether an endpoint has a condition; an unknown one counts as the better value."""
    value = endpoint["conditions"].get(condition)
    return condition != "terminating" if value is None else bool(value)


def _rank(endpoint: Object) -> tuple[bool, bool, bool, bool]:
    is_here = endpoint.get("nodeName") == NODE
    is_terminating = _is(endpoint, "terminating")
    return not is_terminating, _is(endpoint, "ready"), _is(endpoint, "serving"), is_here


def _first_of(chosen: Mapping[tuple[str, int], Object]) -> frozenset[tuple[str, int]]:
    """Return the endpoints of the best priority."""
    first = min(map(priority_of, chosen.values()), default=0)
    return frozenset(at for at, e in chosen.items() if priority_of(e) == first)


def _is_of_six(item: Object) -> bool:
    return bool(item["addressType"] == "IPv6")
