"""Draws Services and slices with unusual shapes, and changes of these shapes.

Each draw replaces one Service of the plan; clients dial the affected addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random

from ..plan import Event
from .claims import key_of
from .plan import (
    ADDRESSES,
    CLIENT,
    DELETE,
    LOOPBACK_IP,
    NODE,
    NODE_IP,
    OTHER_NODE_IP,
    OTHER_PODS,
    OWN_PODS,
    PUT,
    ZONE,
    Object,
)
from .readings import (
    LABEL_HEADLESS,
    LABEL_PROXY_NAME,
    LABEL_SERVICE,
    PRIORITY,
    WEIGHT,
)
from .shapes import (
    CLIENTS,
    CREATED,
    PODS,
    TARGETS,
    Shape,
    conditions,
    endpoint,
    numbers,
    plain_ports,
)

SHAPES = 0.5
"""The share of plans with unusual shapes."""

_ZONES = ((ZONE,), ("zone-2",))
# Changes end this long after the calm part begins, a few seconds before everything is idle.
_AFTER_S = 8.0
NODE_PORT_OF_TWIN = 30555
"""A node port on which another program of the node may answer."""
SHARED_IPS = (OWN_PODS[4], OTHER_PODS[4])
"""Addresses of pods that another Service may have for a while."""


def shapes(
    rng: Random, objects: Sequence[Object], events: Sequence[Event], calm_at: float
) -> Iterator[Event]:
    """Yield the events of two changes, each of one Service."""
    puts = [item for item in objects if item["kind"] == "Service"]
    puts += [e.args[0] for e in events if e.what == PUT and e.args[0]["kind"] == "Service"]
    if not puts:
        return
    draws: tuple[Callable[[_Shape, float], Iterator[Event]], ...] = (
        _Shape.preferences,
        _Shape.ports,
        _Shape.kinds,
        _Shape.addresses_of_others,
        _Shape.slices,
        _Shape.single_endpoints,
        _Shape.exchanges,
        _Shape.ranges,
        _Shape.external_ips,
        _Shape.local_hints,
    )
    for draw in rng.sample(draws, 2):
        begins = 0.2 + calm_at * rng.random()
        for event in draw(_Shape(rng, rng.choice(puts)), begins):
            if event.at < calm_at + _AFTER_S:
                yield event


class _Shape(Shape):
    """The possible changes of one Service."""

    def preferences(self, at: float) -> Iterator[Event]:
        """Give endpoints priorities and weights; some endpoints leave and return."""
        rng = self.rng
        item: Object = self.item
        if rng.random() < 0.6:
            health = {"externalTrafficPolicy": "Local", "healthCheckNodePort": self.health_port}
            item = self.outside(**health)
        # Hints select endpoints within a priority.
        finish = self._hinted if rng.random() < 0.4 else list
        parts = [finish(self.endpoints(rng.choice([1, 2]))) for _ in range(2)]
        notes: list[Mapping[str, str]] = [
            {},
            rng.choice([{PRIORITY: "1"}, {WEIGHT: "0"}, {WEIGHT: "7"}, {PRIORITY: "2"}]),
        ]
        yield from self.put(at, item)
        for _ in range(rng.choice([2, 3, 4])):
            yield from self.put(
                at, *(self.slice(n, parts[n], annotations=notes[n]) for n in (0, 1))
            )
            yield from self.dials(at, item)
            at += self.step()
            n = rng.choice([0, 0, 1])
            if rng.random() < 0.3:
                notes[n] = rng.choice([{}, {PRIORITY: "1"}, {WEIGHT: "0"}])
            else:
                state = {} if rng.random() < 0.3 else conditions(rng)
                parts[n] = finish([{**e, "conditions": state} for e in self.endpoints(1)])
                if rng.random() < 0.3:
                    parts[n] = [*parts[n], endpoint(OTHER_PODS[5])]

    def _hinted(self, ends: Sequence[Object]) -> list[Object]:
        zones = self.rng.choice(_ZONES)
        return [{**e, "hints": {"forZones": [{"name": z} for z in zones]}} for e in ends]

    def ports(self, at: float) -> Iterator[Event]:
        """Rename ports, or change their numbers, protocols or targets; some changes are undone."""
        rng = self.rng
        item: Object = self.outside()
        targets: Mapping[str, int] = TARGETS
        parts = self.endpoints(2), self.endpoints(1)
        before = item, [self.slice(0, parts[0]), self.slice(1, parts[1])]
        ports = list(item["spec"]["ports"])
        kind = rng.choice(["name", "number", "node port", "target", "protocol", "unnamed", "more"])
        if kind == "name":
            ports[0] = {**ports[0], "name": "web"}
            targets = {**targets, "web": 8080}
        elif kind == "number":
            ports[0] = {**ports[0], "port": rng.choice([8000, 81])}
        elif kind == "node port":
            ports[0] = {**ports[0], "nodePort": ports[0]["nodePort"] + 5}
        elif kind == "target":
            targets = {**targets, "http": 8081}
        elif kind == "protocol":
            ports[0] = {**ports[0], "protocol": "UDP" if ports[0]["protocol"] == "TCP" else "TCP"}
        elif kind == "unnamed":
            ports = [{k: v for k, v in ports[0].items() if k != "name"}]
        else:
            ports.append(
                {"name": "more", "port": 90, "protocol": "TCP", "nodePort": 30700 + self.number}
            )
            targets = {**targets, "more": 8081}
        new = self.having(item, ports=ports)
        slices = [self.slice(n, parts[n], of=new, targets=targets) for n in (0, 1)]
        if kind == "target" and rng.random() < 0.5:
            # Pods of two versions run, so the slices' ports differ.
            slices[0] = before[1][0]
        steps = [before, (new, slices), before][: rng.choice([2, 2, 3])]
        for service, parts_of in steps:
            both = [self.put(at, service), self.put(at + self.gap(), *parts_of)]
            for events in both if rng.random() < 0.5 else both[::-1]:
                yield from events
            yield from self.dials(at, item, new)
            at += self.step()

    def kinds(self, at: float) -> Iterator[Event]:
        """Change a Service so that it isn't served; another may take its addresses."""
        rng = self.rng
        item = rng.choice([self.item, self.outside(), self.outside()])
        metadata, spec = item["metadata"], item["spec"]
        kind = rng.choice(["headless", "name", "label", "proxy", "gone", "none"])
        other = item
        if kind == "headless":
            other = self.having(type="ClusterIP", clusterIP="None", clusterIPs=["None"])
        elif kind == "name":
            left = dict.fromkeys(("clusterIP", "clusterIPs", "selector"))
            other = self.having(type="ExternalName", externalName="web.example.com", **left)
        elif kind in ("label", "proxy"):
            label = {LABEL_HEADLESS: "", LABEL_PROXY_NAME: "another"}
            name = LABEL_HEADLESS if kind == "label" else LABEL_PROXY_NAME
            other = {**item, "metadata": {**metadata, "labels": {name: label[name]}}}
        twin = self.twin(clusterIP=spec["clusterIP"], ports=spec["ports"], type=spec["type"])
        twin = {**twin, "status": item.get("status", {})}
        yield from self.put(at, item, self.slice(0, self.endpoints(2)))
        at += self.step()
        if kind == "gone":
            yield Event(at, DELETE, (key_of(item),))
        else:
            yield from self.put(at, other)
        if rng.random() < 0.5:
            yield from self.put(at + self.gap(), self.slice(0, self.endpoints(1), of=twin), twin)
            if rng.random() < 0.5:
                yield Event(at + 4.0, DELETE, (key_of(twin),))
        yield from self.dials(at, item)
        at += self.step()
        if rng.random() < 0.7:
            yield from self.put(at, item)
            yield from self.dials(at, item, twin)

    def addresses_of_others(self, at: float) -> Iterator[Event]:
        """Give endpoints the address of another Service or of the node for a while."""
        rng = self.rng
        ip = rng.choice(SHARED_IPS)
        kind = rng.choice(["cluster", "balancer", "node port", "node", "loopback", "api"])
        if kind == "cluster":
            twin = self.twin(clusterIP=ip)
        elif kind in ("balancer", "loopback"):
            port = {"name": "http", "port": 8080, "protocol": "TCP"}
            twin = self.twin(type="LoadBalancer", ports=[port])
            twin = {**twin, "status": {"loadBalancer": {"ingress": [{"ip": ip}]}}}
        else:
            port = {"name": "http", "port": 80, "protocol": "TCP", "nodePort": NODE_PORT_OF_TWIN}
            twin = self.twin(type="NodePort", ports=[port])
            ip = NODE_IP
        targets = {**TARGETS, "http": NODE_PORT_OF_TWIN} if kind == "node port" else TARGETS
        mixed = [endpoint(LOOPBACK_IP if kind == "loopback" else ip)]
        mixed += self.endpoints(rng.choice([2, 2, 5]), [each for each in PODS if each != ip])
        if kind != "node" and rng.random() < 0.7:
            mixed[0] = {**mixed[0], "nodeName": NODE, "targetRef": {"kind": "Pod", "name": "p"}}
        if rng.random() < 0.2:
            mixed = mixed[:1]
        steps: list[list[Object]] = [
            [self.item],
            [self.slice(0, mixed, targets=targets)],
            [twin, self.slice(0, self.endpoints(1), of=twin)],
        ]
        rng.shuffle(steps)
        for step in steps:
            at += self.gap()
            yield from self.put(at, *step)
        yield from self.dials(at, self.item, twin, count=5)
        at += self.step()
        if rng.random() < 0.7:
            gone = rng.random() < 0.6
            moved = self.having(
                twin, clusterIP=f"10.96.0.{self.number + 120}", ports=plain_ports(twin)
            )
            moved = {**moved, "status": {}}
            yield Event(at, DELETE, (key_of(twin),)) if gone else Event(at, PUT, (moved,))
            yield from self.dials(at, self.item, count=5)

    def slices(self, at: float) -> Iterator[Event]:
        """Move slices to another Service, headless or not, or omit fields of slices."""
        rng = self.rng
        twin = self.twin()
        ends = self.endpoints(rng.choice([2, 5]))
        new: Object
        mine, theirs = self.slice(0, ends), self.slice(1, self.endpoints(2))
        yield from self.put(at, self.item, mine, theirs)
        if rng.random() < 0.6:
            yield from self.put(at + self.gap(), twin)
        for _ in range(rng.choice([2, 3])):
            at += self.step()
            kind = rng.choice(
                ["moved", "label", "orphan", "unnumbered", "nowhere", "copy", "as before"]
            )
            if kind == "moved":
                metadata = mine["metadata"]
                # The namespace doesn't change, because it is part of the slice's name.
                labels = {LABEL_SERVICE: twin["metadata"]["name"]}
                new = {**mine, "metadata": {**metadata, "labels": labels}}
            elif kind == "label":
                new = self.slice(0, ends, labels={LABEL_HEADLESS: ""})
            elif kind == "orphan":
                new = self.slice(0, ends, labels={LABEL_SERVICE: "nothing"})
            elif kind == "unnumbered":
                new = {**mine, "ports": [{**port, "port": None} for port in mine["ports"]]}
            elif kind == "nowhere":
                new = {
                    **mine,
                    "endpoints": [{"addresses": e["addresses"], "conditions": {}} for e in ends],
                }
            elif kind == "copy":
                copy = {**ends[0], "conditions": conditions(rng)}
                new = {**theirs, "endpoints": [*theirs["endpoints"], copy]}
            else:
                new = mine
            yield from self.put(at, new)
            yield from self.dials(at, self.item, twin)

    def single_endpoints(self, at: float) -> Iterator[Event]:
        """Change one of many endpoints at a time; another slice may contain it, too."""
        rng = self.rng
        ends = self.endpoints(10)
        parts = [ends[:5], ends[5:9]]
        yield from self.put(at, self.item, self.slice(0, parts[0]), self.slice(1, parts[1]))
        for _ in range(rng.choice([2, 3])):
            at += self.step()
            n, place = rng.randrange(2), rng.randrange(2)
            one = parts[n][place]
            kind = rng.choice(["conditions", "copy", "copy", "hint", "gone", "new"])
            if kind == "conditions":
                parts[n][place] = {**one, "conditions": conditions(rng)}
            elif kind == "copy":
                # While the endpoint moves, the other slice lists it in another state.
                parts[1 - n] = [*parts[1 - n], {**one, "conditions": conditions(rng)}]
                n = 1 - n
            elif kind == "hint":
                parts[n][place] = {**one, "hints": {"forZones": [{"name": ZONE}]}}
            elif kind == "gone":
                del parts[n][place]
            else:
                parts[n] = [*parts[n], ends[9]]
            yield from self.put(at, self.slice(n, parts[n]))
            yield from self.dials(at, self.item, count=8)

    def exchanges(self, at: float) -> Iterator[Event]:
        """Let two Services claim one address, or exchange addresses, the older Service first."""
        rng = self.rng
        item: Object = self.outside()
        ports = [{**item["spec"]["ports"][0], "nodePort": NODE_PORT_OF_TWIN}]
        twin: Object = self.twin(type="LoadBalancer", ports=ports)
        ingress = [{"ip": f"203.0.113.{self.number + 100}"}]
        twin = {**twin, "status": {"loadBalancer": {"ingress": ingress}}}
        yield from self.put(at, item, self.slice(0, self.endpoints(2)))
        yield from self.put(at, twin, self.slice(0, self.endpoints(1), of=twin))
        at += self.step()
        kind = rng.choice(["node port", "balancer", "cluster IP", "all"])
        first: Object = item
        second: Object = twin
        if kind in ("node port", "all"):
            mine, theirs = item["spec"]["ports"], twin["spec"]["ports"]
            first = self.having(
                first, ports=[{**mine[0], "nodePort": theirs[0]["nodePort"]}, *mine[1:]]
            )
            second = self.having(second, ports=[{**theirs[0], "nodePort": mine[0]["nodePort"]}])
        if kind in ("balancer", "all"):
            first, second = (
                {**first, "status": twin["status"]},
                {**second, "status": item["status"]},
            )
        if kind in ("cluster IP", "all"):
            ip = item["spec"]["clusterIP"]
            first = self.having(first, clusterIP=twin["spec"]["clusterIP"], clusterIPs=None)
            second = self.having(second, clusterIP=ip)
        if rng.random() < 0.5:
            # Both claim the address, and then the first one may give it up.
            yield from self.put(at, second)
            yield from self.dials(at, item, twin)
            at += self.step()
            if rng.random() < 0.6:
                yield from (
                    self.put(at, first)
                    if rng.random() < 0.6
                    else [Event(at, DELETE, (key_of(twin),))]
                )
        else:
            changes = [first, second]
            rng.shuffle(changes)
            yield from self.put(at, changes[0])
            yield from self.put(at + self.gap(), changes[1])
        yield from self.dials(at, item, twin, first, second, count=6)

    def ranges(self, at: float) -> Iterator[Event]:
        """Add and remove source ranges of a Service without endpoints, or with only local ones."""
        rng = self.rng
        for _ in range(rng.choice([2, 3])):
            ranges = rng.choice(
                [["10.1.0.0/24"], ["10.3.0.0/24"], ["10.2.0.0/16", "10.3.9.0/24"], None]
            )
            policy = rng.choice(["Cluster", "Local", "Local"])
            item = self.outside(loadBalancerSourceRanges=ranges, externalTrafficPolicy=policy)
            ips = rng.choice([OWN_PODS, OTHER_PODS, OTHER_PODS])
            yield from self.put(at, item)
            yield from self.put(
                at + self.gap(), self.slice(0, self.endpoints(rng.choice([0, 1, 2]), ips))
            )
            yield Event(at, DELETE, (("EndpointSlice", self.namespace, f"{self.name}-1"),))
            for _ in range(4):
                later = self.later()
                at_balancer = (
                    f"203.0.113.{self.number}",
                    *numbers(rng.choice(item["spec"]["ports"])),
                )
                ip = rng.choice([*CLIENTS, at_balancer[0]])
                yield Event(round(at + later, 4), CLIENT, (ip, at_balancer, 0.0))
            at += self.step()

    def external_ips(self, at: float) -> Iterator[Event]:
        """Set external IPs that are the node's, the API server's, or another Service's."""
        rng = self.rng
        ip = f"198.51.100.{self.number + 60}"
        item = self.having(externalIPs=[ip, f"198.51.100.{self.number + 80}"])
        kind = rng.choice(["node", "api", "cluster", "balancer", "both"])
        yield from self.put(at, item, self.slice(0, self.endpoints(2)))
        at += self.step()
        if kind == "node":
            yield Event(at, ADDRESSES, ((LOOPBACK_IP, NODE_IP, ip),))
            undo = Event(at + 2.7, ADDRESSES, ((LOOPBACK_IP, NODE_IP, OTHER_NODE_IP),))
        elif kind == "api":
            of = {"metadata": {"namespace": "default", "name": "kubernetes"}, "spec": {"ports": []}}
            new = {
                **self.slice(0, [endpoint(ip)], of=of),
                "ports": [{"name": "https", "port": 6443, "protocol": "TCP"}],
            }
            yield from self.put(at, self._api_server(), new)
            undo = Event(at + 2.7, PUT, ({**new, "endpoints": [endpoint(NODE_IP)]},))
        else:
            twin = self.twin(clusterIP=ip)
            if kind == "balancer":
                twin = {
                    **self.twin(type="LoadBalancer"),
                    "status": {"loadBalancer": {"ingress": [{"ip": ip}]}},
                }
            elif kind == "both":
                twin = self.twin(externalIPs=[ip])
            yield from self.put(at, twin, self.slice(0, self.endpoints(1), of=twin))
            undo = Event(at + 2.7, DELETE, (key_of(twin),))
        yield from self.dials(at, item)
        if rng.random() < 0.6:
            yield undo
            yield from self.dials(undo.at, item)

    def _api_server(self) -> Object:
        port = {"name": "https", "port": 443, "protocol": "TCP"}
        spec = {"type": "ClusterIP", "clusterIP": "10.96.0.250", "ports": [port]}
        metadata = {
            "namespace": "default",
            "name": "kubernetes",
            "uid": "uid-kubernetes",
            "creationTimestamp": CREATED[0],
        }
        return {"kind": "Service", "metadata": metadata, "spec": spec}

    def local_hints(self, at: float) -> Iterator[Event]:
        """Give local and remote endpoints hints, while the policy ``Local`` ignores hints."""
        rng = self.rng
        item = self.outside(
            externalTrafficPolicy=rng.choice(["Cluster", "Local"]),
            internalTrafficPolicy=rng.choice(["Cluster", "Local"]),
        )
        yield from self.put(at, item)
        for _ in range(rng.choice([2, 3])):
            ends = [*self.endpoints(1, OWN_PODS), *self.endpoints(2, OTHER_PODS)]
            hinted: list[Object] = [
                {**e, "hints": {"forZones": [{"name": z} for z in rng.choice(_ZONES)]}}
                for e in ends
            ]
            if rng.random() < 0.3:
                hinted[rng.randrange(3)] = ends[0]
            yield from self.put(at, self.slice(0, hinted))
            yield from self.dials(at, item)
            at += self.step()
