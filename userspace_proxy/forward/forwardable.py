"""Turns the Services of a cluster into Services that another machine can serve by port-forward.

    Service, its slices ──▶ a Service with one address of 127.64.0.0/10, TCP ports only
                            its endpoints, of one family, that are pods ──▶ ForwardTarget

Rule 1: an address depends on the Service's name and the cluster alone, so it is the same each time.
Anyone can find a name that leads to the address of another Service: the older one has it.
Rule 2: traffic policies and hints are about nodes, and this machine is none: all endpoints may be
used from here.
Rule 3: an endpoint is a pod of its own Service. Another one may have the same address, by mistake
or on purpose: nothing else relates an address to a pod.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from ..causes.notes import cause_of
from ..causes.say import say
from ..cluster import PersistentMap, ServiceState, Snapshot, Store, differing_keys
from ..embedding.arguments import free_loopback
from ..model import (
    Endpoint,
    EndpointSlice,
    Frontend,
    IPFamily,
    Protocol,
    Service,
    ServiceKey,
    ServicePort,
    ServicePortName,
    ServiceType,
    SocketAddress,
)
from ..plan import PortKey
from ..sources.kubernetes.port_forward import ForwardTarget

_PRIVILEGED_BELOW = 1024
# 80 becomes 8080, 443 becomes 8443.
_UNPRIVILEGED = 8000


class NotForwarded(NamedTuple):
    """A Service, or one port of it, that can't be forwarded."""

    service: ServiceKey
    port: str
    """As ``53/UDP``; empty: the whole Service."""
    reason: str


class Forwardable:
    """The Services of one cluster that are forwarded; call :meth:`follow` with each snapshot.

    Args:
        wanted: The Services to forward; empty: all.
        seed: Names the cluster.
    """

    def __init__(self, wanted: frozenset[ServiceKey], *, seed: str) -> None:
        self.pods: dict[str, Mapping[SocketAddress, ForwardTarget]] = {}
        """What the endpoints of each Service port are, by its label, such as ``shop/web:http``."""
        self._wanted = wanted
        self._seed = seed
        self._store = Store()
        self._seen: Mapping[ServiceKey, ServiceState] = PersistentMap()
        self._ips: dict[ServiceKey, str] = {}
        self._numbers: dict[str, frozenset[int]] = {}
        """The ports at each address."""
        self._left_out: dict[ServiceKey, tuple[NotForwarded, ...]] = {}

    @property
    def left_out(self) -> list[NotForwarded]:
        """What isn't forwarded, by Service."""
        found = [each for key in sorted(self._left_out) for each in self._left_out[key]]
        missing = sorted(self._wanted - self._seen.keys())
        return found + [NotForwarded(key, "", "there is no such Service") for key in missing]

    def follow(self, snapshot: Snapshot) -> Snapshot:
        """Return the Services of a snapshot as they are served here."""
        changed = differing_keys(self._seen, snapshot.services)
        if self._wanted:
            changed &= self._wanted
        # Before anything is added: a slice may have moved from one Service to another.
        for key in changed:
            if key in self._seen:
                self._remove(self._seen[key])
            self._left_out.pop(key, None)
        for key in changed - snapshot.services.keys():
            self._ips.pop(key, None)
        states = [snapshot.services[key] for key in changed & snapshot.services.keys()]
        for state in sorted(states, key=lambda state: (state.service.created, state.service.key)):
            self._put(state)
        self._seen = snapshot.services
        return self._store.snapshot()

    def second_port(self, frontend: Frontend) -> int:
        """Return where a Service port answers for which this program lacks privileges; 0: none."""
        port = frontend.port + _UNPRIVILEGED
        is_taken = port in self._numbers.get(frontend.ip, ())
        return port if frontend.port < _PRIVILEGED_BELOW and not is_taken else 0

    def _remove(self, state: ServiceState) -> None:
        for item in state.slices:
            self._store.delete_slice(item.key)
        self._store.delete_service(state.service.key)
        for port in state.service.ports:
            self.pods.pop(_label(state.service, port), None)

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
            self._serve(state, ports)
        if left_out:
            self._left_out[service.key] = tuple(left_out)

    def _serve(self, state: ServiceState, ports: tuple[ServicePort, ...]) -> None:
        service = state.service
        ip = self._ips.get(service.key)
        if ip is None:
            ip = free_loopback(service.key, frozenset(self._ips.values()), self._seed)
            self._ips[service.key] = ip
        self._numbers[ip] = frozenset(port.port for port in ports)
        self._store.put_service(
            Service(
                service.key,
                tuple(replace(port, node_port=0) for port in ports),
                cluster_ips=(ip,),
                selector=service.selector,
                affinity_timeout_s=service.affinity_timeout_s,
                handling=service.handling,
                created=service.created,
            )
        )
        pods: dict[SocketAddress, ForwardTarget] = {}
        self.pods |= {_label(service, port): pods for port in ports}
        family = min((item.family for item, _ in _pods_of(state)), default=IPFamily.IPV4)
        for item in state.slices:
            if item.family is family:
                self._store.put_slice(_at_loopback(item))
                pods |= {
                    SocketAddress(endpoint.ip, port.port): ForwardTarget(
                        item.service.namespace, endpoint.pod, port.port
                    )
                    for port in item.ports
                    for endpoint in item.endpoints
                    if endpoint.pod
                }


def _label(service: Service, port: ServicePort) -> str:
    """Return the label of a Service port: here it has one family and one side."""
    return str(PortKey(ServicePortName(*service.key, port.name), IPFamily.IPV4))


def _pods_of(state: ServiceState) -> Iterator[tuple[EndpointSlice, Endpoint]]:
    """Yield the endpoints that are pods."""
    return ((item, each) for item in state.slices for each in item.endpoints if each.pod)


def _at_loopback(item: EndpointSlice) -> EndpointSlice:
    """Return a slice whose endpoints any client of an IPv4 address may use: they are pods."""
    endpoints = tuple(
        replace(each, hinted_zones=(), hinted_nodes=()) for each in item.endpoints if each.pod
    )
    return replace(item, family=IPFamily.IPV4, endpoints=endpoints)
