"""Draws plans of whole nodes: objects and their changes, clients, and faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from ..machine.machine import Speed
from ..plan import Event
from .claims import key_of
from .drawing_families import FAMILIES, with_families
from .drawing_faults import ZONES, Faults
from .drawing_holds import HOLDS, with_holds
from .drawing_lacks import LACKING, bursts, what_lacks
from .drawing_nodes import NODES, with_nodes
from .drawing_outside import OUTSIDE, outside
from .drawing_owed import OWED, with_owed
from .drawing_refusals import REFUSALS, with_refusals
from .drawing_restarts import CROWD, CROWDED, KEPT, QUIET, RESTARTS, restarts
from .drawing_settings import SETTINGS, with_settings
from .drawing_shapes import SHAPES, shapes
from .machine import QUEUE
from .objects import EndpointSpec, PortSpec, ServiceSpec, node_object
from .plan import (
    CLIENT,
    CRASH,
    DELETE,
    LOOPBACK_IP,
    NODE,
    NODE_IP,
    OTHER_PODS,
    OTHERS,
    OWN_PODS,
    PUT,
    Object,
    Plan,
    Settings,
)

_FEATURES = (
    "endpoint changes",
    "Service changes",
    "policy changes",
    "removals",
    "new Services in place of others",
    "exchanged addresses",
    "external traffic",
    "local policies",
    "hints",
    "source ranges",
    "zones of the node",
    "turns of namespaces",
    "drift",
    "API faults",
    "disk faults",
    "UDP",
    "terminating endpoints",
    "two slices",
    "ports of slices",
    "late Node",
    "kills",
    "broken endpoints",
    "stops",
    "crashes",
    "deaths at a call",
    "orderly ends",
    "refused rules",
    "kernel faults",
    "slow rules",
    "clock jumps",
    "slow",
)
_CONDITIONS: tuple[tuple[bool | None, bool | None, bool | None], ...] = (
    (None, None, None),
    (None, True, False),
    (False, True, True),
    (False, None, True),
    (False, False, True),
    (False, False, False),
    # Endpoint conditions as publishNotReadyAddresses sets them.
    (True, True, True),
)
"""Combinations of ready, serving and terminating."""
_HINTS = ("", "zones", "zones", "nodes", "zones, nodes")
_NAMESPACES = ("shop", "lab")
_OUTSIDE = ("10.3.0.1", "10.3.0.2", "10.3.9.2")
_INSIDE = ("10.2.1.77", "10.1.0.1")


_ADDRESSES = LOOPBACK_IP, NODE_IP


_CHANGES: tuple[tuple[str, float, Callable[[Random, Plan], Plan]], ...] = (
    ("settings", SETTINGS, with_settings),
    ("holds", HOLDS, with_holds),
    ("owed rounds", OWED, with_owed),
    ("families", FAMILIES, with_families),
    ("other Nodes", NODES, with_nodes),
    ("refusals", REFUSALS, with_refusals),
)
"""Additional changes of some plans: the name, the share of plans, and the function."""


def make_plan(seed: int) -> Plan:
    plan = _make_plan(seed)
    for name, share, change in _CHANGES:
        # Use a separate random generator, so that plans without the feature stay the same.
        own = Random(f"{seed}: {name}")
        if own.random() < share:
            plan = change(own, plan)
    return plan


def _make_plan(seed: int) -> Plan:
    rng = Random(seed)
    features = frozenset(f for f in _FEATURES if rng.random() < 0.4)
    calm_at = rng.choice([3.0, 6.0, 12.0])
    starting = Random(f"{seed}: restarts")
    is_restarting = starting.random() < RESTARTS
    if is_restarting:
        features = frozenset(f for f in sorted(features) if starting.random() < QUIET)
        calm_at = starting.choice([6.0, 6.0, 12.0])
    drawing = _Drawing(rng, features, calm_at)
    objects = tuple(drawing.objects())
    events = list(drawing.events())
    # Use a separate random generator, so that plans in which nothing is short stay the same.
    own = Random(f"{seed}: what lacks")
    if own.random() < LACKING:
        features |= {"what lacks"}
        events += what_lacks(own, objects, events, calm_at)
    if "turns of namespaces" in features and own.random() < LACKING:
        events += bursts(own, objects, calm_at)
    own = Random(f"{seed}: outside")
    if own.random() < OUTSIDE:
        features |= {"outside"}
        events += outside(own, objects, tuple(events), calm_at)
    queue = own.choice([3, 8, QUEUE, QUEUE])
    if is_restarting:
        features |= {"restarts"}
        events += restarts(starting, objects, events, calm_at)
    if is_crowded := starting.random() < CROWDED:
        features |= {"crowd"}
    own = Random(f"{seed}: shapes")
    if own.random() < SHAPES and "turns of namespaces" not in features:
        features |= {"shapes"}
        events += shapes(own, objects, tuple(events), calm_at)
    dies = "deaths at a call" in features
    return Plan(
        seed,
        features,
        workers=rng.choice([1, 1, 2]),
        keeps_workers=rng.random() < (KEPT if is_restarting else 0.6),
        keeps_state=rng.random() < 0.6,
        speed=Speed(
            latency_s=rng.choice([0.01, 0.03]) if "slow" in features else 0.0005,
            start_s=rng.choice([0.1, 0.5]) if "slow" in features else 0.05,
            room=65536,
        ),
        objects=objects,
        events=tuple(sorted(events, key=lambda event: event.at)),
        endpoint_s=rng.choice([0.003, 0.01]) if "turns of namespaces" in features else 0.0,
        agent_dies_at=tuple(rng.randint(1, rng.choice([60, 300])) for _ in range(3))
        if dies
        else (),
        calm_at=calm_at,
        queue=queue,
        settings=Settings(),
        addresses=_ADDRESSES,
        crowd=CROWD if is_crowded else 0,
        later_workers=starting.choice([1, 1, 2]),
        later_path=starting.choice(["userspace", "userspace", "kernel"]),
    )


class _Drawing:
    """Draws the Services of one plan, and its events in the order of their times."""

    def __init__(self, rng: Random, features: frozenset[str], calm_at: float) -> None:
        self._rng = rng
        self._features = features
        self._calm_at = calm_at
        self._uid = 0
        self._last = 0.0
        """The time of the last change so far: an object isn't changed before it exists."""
        self._services = [self._service(n) for n in range(rng.randint(2, 4))]

    def objects(self) -> Iterator[Object]:
        """Yield the objects that exist at the start."""
        yield node_object()
        for service in self._services:
            if self._rng.random() < 0.85:
                yield from service.objects()
            else:
                service.is_there = False

    def _service(self, number: int) -> ServiceSpec:
        rng, features = self._rng, self._features
        self._uid += 1
        ports = [PortSpec("http", 80, "TCP", 30000 + 10 * number, 8080)]
        if rng.random() < 0.3:
            ports.append(PortSpec("admin", 81, "TCP", 30001 + 10 * number, 8081))
        if "UDP" in features and rng.random() < 0.5:
            ports.append(PortSpec("dns", 53, "UDP", 30002 + 10 * number, 5353))
        service = ServiceSpec(
            rng.choice(_NAMESPACES),
            f"web-{number}",
            f"uid-{self._uid}",
            f"2026-01-01T00:00:{self._uid:02}Z",
            f"10.96.0.{number + 1}",
            ports,
            [],
        )
        self._draw_kind(service, number)
        self._draw_slices(service)
        return service

    def _draw_kind(self, service: ServiceSpec, number: int) -> None:
        rng, features = self._rng, self._features
        if "external traffic" in features:
            service.type = rng.choice(["ClusterIP", "NodePort", "LoadBalancer", "LoadBalancer"])
            service.balancer_ips = [rng.choice([f"203.0.113.{number + 1}", "198.51.100.9"])]
            if rng.random() < 0.4:
                ip = rng.choice([f"198.51.100.{number + 1}", "198.51.100.9", "192.0.2.77"])
                service.external_ips = [ip]
        if "local policies" in features:
            service.is_internal_local = rng.random() < 0.3
            service.is_external_local = rng.random() < 0.6
            service.health_port = 31000 + number
        if "source ranges" in features:
            service.ranges = rng.choice([[], ["10.3.0.0/24"], ["10.3.9.0/24", "10.2.0.0/16"]])

    def _draw_slices(self, service: ServiceSpec) -> None:
        rng = self._rng
        count = 2 if "two slices" in self._features and rng.random() < 0.6 else 1
        service.slices = [self._endpoints() for _ in range(count)]
        if count > 1 and rng.random() < 0.5:
            self._copy_endpoint(service)
        service.names = [self._names(service) for _ in range(count)]

    def _copy_endpoint(self, service: ServiceSpec) -> None:
        """Copy an endpoint to the second slice, with other conditions, as during a move."""
        first, second = service.slices
        if first:
            ip = self._rng.choice(first).ip
            kept = [endpoint for endpoint in second if endpoint.ip != ip]
            copy = EndpointSpec(ip, NODE if ip in OWN_PODS else self._rng.choice(OTHERS))
            copy.ready, copy.serving, copy.terminating = self._rng.choice(_CONDITIONS)
            service.slices[1] = [*kept, copy]

    def _names(self, service: ServiceSpec) -> dict[str, str]:
        """Draw the port names of a slice, as pods of several versions have them."""
        rng = self._rng
        if "ports of slices" not in self._features:
            return {}
        return {
            port.name: rng.choice(("", "other")) for port in service.ports if rng.random() < 0.25
        }

    def _endpoints(self) -> list[EndpointSpec]:
        rng = self._rng
        ips = rng.sample(OWN_PODS + OTHER_PODS, rng.choice([0, 1, 2, 2, 3]))
        hints = rng.choice(_HINTS) if "hints" in self._features else ""
        return [self._endpoint(ip, hints) for ip in ips]

    def _endpoint(self, ip: str, hints: str) -> EndpointSpec:
        rng = self._rng
        node = NODE if ip in OWN_PODS else rng.choice(OTHERS)
        endpoint = EndpointSpec(ip, node)
        if "terminating endpoints" in self._features and rng.random() < 0.5:
            endpoint.ready, endpoint.serving, endpoint.terminating = rng.choice(_CONDITIONS)
        if "zones" in hints and rng.random() < 0.9:
            endpoint.zones = (rng.choice(ZONES),)
        if "nodes" in hints and rng.random() < 0.9:
            endpoint.nodes = tuple(rng.sample((NODE, *OTHERS), rng.choice([1, 1, 2])))
        return endpoint

    def events(self) -> Iterator[Event]:
        """Yield all events, in any order."""
        rng = self._rng
        times = sorted(self._at() for _ in range(rng.randint(4, 16)))
        for at in times:
            yield from self._change(at)
            for _ in range(rng.choice([0, 1, 2])):
                yield self._client(at + rng.choice([0.0, 0.01, 0.1, 1.0]) * rng.random())
        for _ in range(rng.randint(3, 12)):
            yield self._client(self._at())
        yield from Faults(rng, self._features, self._at).events()

    def _at(self) -> float:
        # Many clients dial at about the same time.
        rng = self._rng
        return round(rng.choice([0.0, 0.3, rng.random()]) * self._calm_at + rng.random() * 0.2, 4)

    def _client(self, at: float) -> Event:
        rng = self._rng
        service = rng.choice(self._services)
        port = rng.choice(service.ports)
        number, ips = port.port, [service.cluster_ip, *service.external_ips]
        if service.type == "LoadBalancer":
            ips += service.balancer_ips
        ip = rng.choice(ips)
        if service.type != "ClusterIP" and rng.random() < 0.3:
            ip, number = "10.1.0.1", port.node_port
        dialled = (ip, number, port.protocol)
        # Some clients stay connected for longer than the drain of the last agent's workers.
        hold_s = rng.choice([0.0, 0.05, 2.5 if "crashes" in self._features else 1.0])
        return Event(at, CLIENT, (rng.choice(_OUTSIDE + _INSIDE), dialled, hold_s))

    def _change(self, at: float) -> Iterator[Event]:
        rng, features = self._rng, self._features
        service = rng.choice(self._services)
        kinds = [
            (self._change_endpoints, "endpoint changes", 4),
            (self._change_service, "Service changes", 2),
            (self._change_policy, "policy changes", 2),
            (self._remove, "removals", 1),
            (self._replace, "new Services in place of others", 1),
            (self._exchange, "exchanged addresses", 1),
        ]
        choices = [
            make for make, feature, weight in kinds if feature in features for _ in range(weight)
        ]
        count = 1
        if "crashes" in features and rng.random() < 0.2:
            # Changes while no agent runs.
            at = max(at, self._last)
            yield Event(at, CRASH)
            at, count = at + 0.01, rng.choice([1, 2, 3])
            if rng.random() < 0.4:
                yield from self._take_turns(at)
        for _ in range(count):
            for event in rng.choice(choices)(max(at, self._last), service) if choices else ():
                self._last = max(self._last, event.at)
                yield event
            service = rng.choice(self._services)

    def _take_turns(self, at: float) -> Iterator[Event]:
        """Delete one Service and create another one at the same time."""
        there = [service for service in self._services if service.is_there]
        away = [service for service in self._services if not service.is_there]
        if not there or not away:
            return
        gone, new = self._rng.choice(there), self._rng.choice(away)
        yield from self._deletions(at, gone)
        gone.is_there, new.is_there = False, True
        for item in new.objects():
            yield Event(at, PUT, (item,))
        self._last = max(self._last, at)

    def _change_endpoints(self, at: float, service: ServiceSpec) -> Iterator[Event]:
        rng = self._rng
        if "two slices" in self._features and rng.random() < 0.3:
            yield from self._change_slices(at, service)
            return
        number = rng.randrange(len(service.slices))
        service.slices[number] = self._endpoints()
        if service.is_there:
            yield Event(at, PUT, (service.slice(number),))

    def _change_slices(self, at: float, service: ServiceSpec) -> Iterator[Event]:
        """Split or merge slices, as the controller does when it repacks endpoints."""
        before = len(service.slices)
        last = service.slice(before - 1)
        if before > 1:
            service.slices.pop()
        else:
            service.slices.append(self._endpoints())
            self._copy_endpoint(service)
        if not service.is_there:
            return
        if before > 1:
            yield Event(at, DELETE, (key_of(last),))
        else:
            yield Event(at, PUT, (service.slice(1),))

    def _change_service(self, at: float, service: ServiceSpec) -> Iterator[Event]:
        self._draw_kind(service, self._services.index(service))
        changes_protocol = "UDP" in self._features and self._rng.random() < 0.3
        if changes_protocol:
            port = self._rng.choice(service.ports)
            port.protocol = "UDP" if port.protocol == "TCP" else "TCP"
        if service.is_there:
            yield Event(at, PUT, (service.service(),))
            for number in range(len(service.slices) if changes_protocol else 0):
                yield Event(at, PUT, (service.slice(number),))

    def _change_policy(self, at: float, service: ServiceSpec) -> Iterator[Event]:
        """Make the external and the internal policy differ or agree; no address is removed."""
        if service.type == "ClusterIP":
            service.type = "LoadBalancer"
            number = self._services.index(service)
            service.balancer_ips = [f"203.0.113.{number + 1}"]
        service.is_external_local = not service.is_external_local
        if service.is_there:
            yield Event(at, PUT, (service.service(),))

    def _remove(self, at: float, service: ServiceSpec) -> Iterator[Event]:
        rng = self._rng
        if not service.is_there:
            service.is_there = True
            for item in service.objects():
                yield Event(at, PUT, (item,))
            return
        yield from self._deletions(at, service)
        service.is_there = False
        if rng.random() < 0.6:
            service.is_there = True
            self._uid += 1
            service.uid, service.created = f"uid-{self._uid}", f"2026-01-01T00:00:{self._uid:02}Z"
            later = at + rng.choice([0.0, 0.001, 0.1])
            for item in service.objects():
                yield Event(later, PUT, (item,))

    def _deletions(self, at: float, service: ServiceSpec) -> Iterator[Event]:
        for item in service.objects():
            yield Event(at, DELETE, (key_of(item),))

    def _replace(self, at: float, service: ServiceSpec) -> Iterator[Event]:
        """Replace a Service with another one that has its address."""
        if service.is_there:
            yield from self._deletions(at, service)
        self._uid += 1
        service.name = f"{service.name.partition('.')[0].rstrip('x')}x"[:20] + "x" * (self._uid % 3)
        service.namespace = self._rng.choice(_NAMESPACES)
        service.uid, service.created = f"uid-{self._uid}", f"2026-01-01T00:00:{self._uid:02}Z"
        service.is_there = True
        self._draw_slices(service)
        later = at + self._rng.choice([0.0, 0.001, 0.1])
        for item in service.objects():
            yield Event(later, PUT, (item,))

    def _exchange(self, at: float, service: ServiceSpec) -> Iterator[Event]:
        """Exchange the addresses of two Services, which the API server can't do in one step."""
        other = self._rng.choice(self._services)
        if other is service or not (service.is_there and other.is_there):
            return
        service.cluster_ip, other.cluster_ip = other.cluster_ip, service.cluster_ip
        for one in (service, other):
            yield Event(at + self._rng.choice([0.0, 0.001, 0.05]), PUT, (one.service(),))
