"""Converts a cluster's Services into Services that another machine serves by port-forward.

    Service, its slices ──▶ a Service with one address of 127.64.0.0/10, TCP ports only
                        └─▶ headless: one more for each name of its endpoints: ``web-0.web``
                            its endpoints, each of one family, that are pods ──▶ ForwardTarget

Rule 1: an address depends only on the Service's name and the cluster, so it is stable. A user can
choose a name that hashes to another Service's address: the older Service keeps the address. If all
Services share one address, the older Service keeps the port.
Rule 2: traffic policies and hints concern nodes, and this machine isn't a node: all endpoints may
be used from here.
Rule 3: an address represents the pod that the dialled Service's own slices list for it, because
another Service may list another pod with the same address, by mistake or on purpose.
Rule 4: a pod's real address isn't reachable from here, so names don't resolve to it: a headless
Service's pods have addresses of 127.64.0.0/10 as well, with the pod's own ports.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from userspace_proxy.causes.notes import cause_of
from userspace_proxy.causes.say import say
from userspace_proxy.cluster import PersistentMap, ServiceState, Snapshot, Store, differing_keys
from userspace_proxy.embedding.arguments import free_loopback
from userspace_proxy.model import (
    Endpoint,
    EndpointSlice,
    Frontend,
    IPFamily,
    PortKey,
    Protocol,
    Service,
    ServiceKey,
    ServicePort,
    ServicePortName,
    ServiceType,
    SocketAddress,
)
from userspace_proxy.names.question import hostname_of
from userspace_proxy.shares import remove_from
from userspace_proxy.status.missing import say_meant

from ..port_forward import ForwardTarget

_PRIVILEGED_BELOW = 1024
# The number that is added to privileged ports: 80 becomes 8080, 443 becomes 8443.
_UNPRIVILEGED = 8000


class NotForwarded(NamedTuple):
    """A Service or one of its ports that can't be forwarded."""

    service: ServiceKey
    port: str
    """The port, such as ``53/UDP``; empty for the whole Service."""
    reason: str


class Forwardable:
    """One cluster's forwarded Services; call :meth:`follow` with each snapshot.

    Args:
        wanted: The Services to forward; empty for all.
        seed: A string that identifies the cluster.
        address: The common address of all Services; empty if each has its own.
    """

    def __init__(self, wanted: frozenset[ServiceKey], *, seed: str, address: str = "") -> None:
        self.pods: dict[str, Mapping[SocketAddress, ForwardTarget]] = {}
        """The endpoints of each Service port as pods, by the port's label: ``shop/web:http``."""
        self._wanted = wanted
        self._seed = seed
        self._address = address
        self._store = Store()
        self._seen: Mapping[ServiceKey, ServiceState] = PersistentMap()
        self._ips: dict[ServiceKey, str] = {}
        self._made: dict[ServiceKey, list[ServiceKey]] = {}
        """The Services derived from each Service: itself, and one per name of its endpoints."""
        self._numbers: dict[str, dict[ServiceKey, frozenset[int]]] = {}
        """The port numbers of each Service, by address and Service."""
        self._left_out: dict[ServiceKey, tuple[NotForwarded, ...]] = {}

    @property
    def left_out(self) -> list[NotForwarded]:
        """The Services and ports that aren't forwarded."""
        found = [each for key in sorted(self._left_out) for each in self._left_out[key]]
        if missing := sorted(self._wanted - self._seen.keys()):
            names = [*map(str, self._seen)]
            known = [self._seen[key].service for key in self._wanted & self._seen.keys()]
            # As for kubectl, the user may have given a port as a second argument: svc/web http.
            ports = {port.name for service in known for port in service.ports}
            for key in missing:
                meant = "; all ports are forwarded" if key.name in ports else ""
                meant = meant or say_meant(str(key), names)
                found.append(NotForwarded(key, "", f"there is no such Service{meant}"))
        return found

    def follow(self, snapshot: Snapshot) -> Snapshot:
        """Update the Services, and return the snapshot that this machine serves."""
        changed = differing_keys(self._seen, snapshot.services)
        if self._wanted:
            changed &= self._wanted
        # Remove slices before any is added, because a slice may have moved between Services.
        before = {key: self._remove(key) for key in changed}
        states = [snapshot.services[key] for key in changed & snapshot.services.keys()]
        for state in sorted(states, key=lambda state: (state.service.created, state.service.key)):
            self._put(state)
        for key, made in before.items():
            for gone in set(made) - set(self._made.get(key, ())):
                if gone != key or key not in snapshot.services:
                    remove_from(self._numbers, self._ips.pop(gone), gone)
        self._seen = snapshot.services
        return self._store.snapshot()

    def second_port(self, frontend: Frontend) -> int:
        """Return the port that replaces a frontend's privileged port; 0 if no port replaces it."""
        port = frontend.port + _UNPRIVILEGED
        is_taken = any(port in one for one in self._numbers.get(frontend.ip, {}).values())
        return port if frontend.port < _PRIVILEGED_BELOW and not is_taken else 0

    def _remove(self, key: ServiceKey) -> list[ServiceKey]:
        """Remove the Services made from a Service; return their keys."""
        self._left_out.pop(key, None)
        made = self._made.pop(key, [])
        services = self._store.snapshot().services if made else {}
        for each in made:
            state = services[each]
            for item in state.slices:
                self._store.delete_slice(item.key)
            self._store.delete_service(each)
            for port in state.service.ports:
                self.pods.pop(_label(state.service, port), None)
        return made

    def _put(self, state: ServiceState) -> None:
        service = state.service
        left_out = [
            NotForwarded(
                service.key, f"{port.port}/{port.protocol}", "port-forwards carry TCP only"
            )
            for port in service.ports
            if port.protocol != Protocol.TCP
        ]
        ports = tuple(port for port in service.ports if port.protocol == Protocol.TCP)
        reason = ""
        if service.type is ServiceType.EXTERNAL_NAME:
            reason = f"it is a name for {service.external_name}, outside of the cluster"
        elif not service.ports:
            reason = "it has no ports"
        elif any(item.endpoints for item in state.slices) and not any(_pods_of(state)):
            notes = (
                f"{item.key.name}: {say(cause_of(note))}"
                for item in state.slices
                for note in item.notes
            )
            reason = "; ".join(("its endpoints are not pods", *islice(notes, 1)))
        if reason:
            left_out = [NotForwarded(service.key, "", reason)]
        elif ports:
            parts = list(_parts_of(state)) if service.is_headless else []
            of_endpoints = tuple(part.service.key for part in parts if part.service.ports)
            shown = replace(service, ports=ports, of_endpoints=of_endpoints)
            self._serve(service.key, ServiceState(shown, state.slices))
            for part in parts:
                if part.service.ports:
                    self._serve(service.key, part)
                else:
                    left_out.append(
                        NotForwarded(part.service.key, "", "it is no pod with TCP ports")
                    )
        if left_out:
            self._left_out[service.key] = tuple(left_out)

    def _serve(self, of: ServiceKey, state: ServiceState) -> None:
        """Serve a Service with TCP ports on its own address, or on the common address."""
        service = state.service
        ip = self._ips.get(service.key)
        if ip is None:
            taken = frozenset(self._ips.values())
            ip = self._address or free_loopback(service.key, taken, self._seed)
            self._ips[service.key] = ip
        self._made.setdefault(of, []).append(service.key)
        self._numbers.setdefault(ip, {})[service.key] = frozenset(
            port.port for port in service.ports
        )
        names = {name for port in service.ports for name in (port.name, str(port.port))}
        ranges = tuple(one for one in service.handling.port_ranges if one.port in names)
        self._store.put_service(
            Service(
                service.key,
                tuple(replace(port, node_port=0) for port in service.ports),
                cluster_ips=(ip,),
                of_endpoints=service.of_endpoints or (),
                selector=service.selector,
                affinity_timeout_s=service.affinity_timeout_s,
                handling=replace(service.handling, port_ranges=ranges),
                created=service.created,
            )
        )
        pods: dict[SocketAddress, ForwardTarget] = {}
        self.pods |= {_label(service, port): pods for port in service.ports}
        for item in _slices_of(state):
            self._store.put_slice(_at_loopback(item))
            pods |= {
                SocketAddress(endpoint.ip, port.port): ForwardTarget(
                    item.service.namespace, endpoint.pod, port.port
                )
                for port in item.ports
                for endpoint in item.endpoints
                if endpoint.pod
            }


def _slices_of(state: ServiceState) -> Iterator[EndpointSlice]:
    """Yield the slices that a Service uses: IPv4 first; IPv6 slices omit pods that have IPv4."""
    is_headless = state.service.is_headless
    slices = [item for item in state.slices if is_headless or not item.is_headless]
    first = [item for item in slices if item.family is IPFamily.IPV4]
    yield from first
    seen = {each.pod for item in first for each in item.endpoints}
    for item in slices:
        left = tuple(each for each in item.endpoints if each.pod not in seen)
        if left and item.family is IPFamily.IPV6:
            yield replace(item, endpoints=left)


def _parts_of(state: ServiceState) -> Iterator[ServiceState]:
    """Yield a Service for each endpoint name, with the pods' own ports.

    A Service that can't be served has no ports.
    """
    service = state.service
    named: dict[str, list[EndpointSlice]] = {}
    for item in _slices_of(state):
        by_name: dict[str, list[Endpoint]] = {}
        for each in item.endpoints:
            by_name.setdefault(hostname_of(each.ip, each.hostname).lower(), []).append(each)
        for name, endpoints in by_name.items():
            slice_key = item.key._replace(name=f"{item.key.name}/{name}")
            whole = replace(item, key=slice_key, is_headless=False)
            part = replace(whole, endpoints=tuple(endpoints))
            named.setdefault(name, []).append(part)
    for name, items in sorted(named.items()):
        key = ServiceKey(service.key.namespace, f"{name}.{service.key.name}")
        numbers = {
            port.name: port.port
            for item in items
            for port in item.ports
            if port.protocol == Protocol.TCP and any(each.pod for each in item.endpoints)
        }
        ports = tuple(ServicePort(port, number, Protocol.TCP) for port, number in numbers.items())
        shown = Service(key, ports, handling=service.handling, created=service.created)
        yield ServiceState(shown, tuple(replace(item, service=key) for item in items))


def _label(service: Service, port: ServicePort) -> str:
    """Return a Service port's label; here a Service port has one family and one side."""
    return str(PortKey(ServicePortName(*service.key, port.name), IPFamily.IPV4))


def _pods_of(state: ServiceState) -> Iterator[tuple[EndpointSlice, Endpoint]]:
    return ((item, each) for item in state.slices for each in item.endpoints if each.pod)


def _at_loopback(item: EndpointSlice) -> EndpointSlice:
    """Return a slice's pods as endpoints for any IPv4 client: they aren't dialled by address."""
    endpoints = tuple(
        replace(each, hinted_zones=(), hinted_nodes=()) for each in item.endpoints if each.pod
    )
    return replace(item, family=IPFamily.IPV4, endpoints=endpoints, is_headless=False)
