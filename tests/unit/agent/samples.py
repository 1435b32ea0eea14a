"""Services, slices and snapshots for the agent's tests."""

from dataclasses import replace

from userspace_proxy.agent.rounds.served_ports import ServedPorts
from userspace_proxy.agent.rounds.wall_clock import WallClock
from userspace_proxy.cluster import Store
from userspace_proxy.model import (
    Endpoint,
    EndpointSlice,
    IPFamily,
    Service,
    ServiceKey,
    ServicePort,
    SliceKey,
    SlicePort,
)
from userspace_proxy.plan import Planner
from userspace_proxy.plane import PortPool
from userspace_proxy.policy import NodeFacts


def service(name, ip, *, port=80, protocol="TCP", node_port=0, **fields):
    ports = (ServicePort("", port, protocol, node_port),)
    return Service(ServiceKey("shop", name), ports, cluster_ips=(ip,), **fields)


def endpoints(name, *ips, port=8080, protocol="TCP", **fields):
    return EndpointSlice(
        SliceKey("shop", f"{name}-1"),
        ServiceKey("shop", name),
        IPFamily.IPV4,
        (SlicePort("", port, protocol),),
        tuple(Endpoint(ip, **fields) for ip in ips),
    )


class Cluster:
    """A store; changes return a snapshot: ``cluster.serve("web", "10.96.0.1", "192.0.2.1")``."""

    def __init__(self):
        self.store = Store()

    def serve(self, name, ip, *pods, **more):
        self.store.put_service(service(name, ip, **more))
        self.store.put_slice(endpoints(name, *pods, protocol=more.get("protocol", "TCP")))
        return self.store.snapshot()

    def terminate(self, name, *pods):
        """Mark the pods of a Service as terminating and still serving; return the snapshot."""
        fields = {"ready": False, "serving": True, "terminating": True}
        self.store.put_slice(endpoints(name, *pods, **fields))
        return self.store.snapshot()

    def serve_beside_terminating(self, name, pod, *terminating):
        """Add a serving pod to a Service with terminating pods; return the snapshot."""
        ending = endpoints(name, *terminating, ready=False, serving=True, terminating=True)
        both = (Endpoint(pod), *ending.endpoints)
        self.store.put_slice(replace(ending, endpoints=both))
        return self.store.snapshot()

    def serve_large(self, count, **fields):
        """Add a Service with this many ports and two endpoints; return the snapshot."""
        key, at = ServiceKey("shop", "large"), SliceKey("shop", "large-1")
        ports = tuple(ServicePort(f"p{n:05}", n, "TCP") for n in range(1, count + 1))
        targets = tuple(SlicePort(port.name, 8080, "TCP") for port in ports)
        pods = (Endpoint("192.0.2.1"), Endpoint("192.0.2.2"))
        self.store.put_service(Service(key, ports, cluster_ips=("10.96.0.9",), **fields))
        self.store.put_slice(EndpointSlice(at, key, IPFamily.IPV4, targets, pods))
        return self.store.snapshot()

    def remove(self, name):
        self.store.delete_service(ServiceKey("shop", name))
        return self.store.snapshot()


def at(now):
    """Return a stopped clock with this monotonic time; its Unix time is 1000 s ahead."""
    return WallClock(lambda: now, lambda: 1000.0 + now)


def served(plane, bind, snapshot, facts=NodeFacts()):  # noqa: B008 - it is immutable
    served_ports = ServedPorts(plane, bind, PortPool(26000, 26999))
    for port in Planner(facts).plan(snapshot).ports.values():
        served_ports.open(port, {})
    return served_ports
