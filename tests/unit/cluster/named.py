"""Services with endpoints by name, whose look-ups the test answers."""

from userspace_proxy.cluster import Snapshot, Store
from userspace_proxy.cluster.forbidden import ClusterNetworks, ForbiddenAddresses
from userspace_proxy.cluster.from_names import EndpointsByName
from userspace_proxy.model import (
    Handling,
    IPFamily,
    Service,
    ServiceKey,
    ServicePort,
)
from userspace_proxy.model.endpoint_names import EndpointName, Lookup

NETWORKS = ClusterNetworks(services=("10.96.0.0/12",))
V4, V6 = IPFamily.IPV4, IPFamily.IPV6
DB = "db.example.com"


class Proxy:
    """The store of a source, and the snapshot that is derived from it."""

    def __init__(self, *allowed, networks=NETWORKS):
        self.store = Store()
        self.own = set()
        self.endpoints = EndpointsByName(
            allowed or ("example.com",), ForbiddenAddresses(networks, self.own.__contains__)
        )
        self.derive(Snapshot({}))
        self.now = 0.0

    def put(self, name="db", *hosts, namespace="shop", cluster_ips=("10.96.0.1",), **fields):
        names = tuple(EndpointName(host, 5433) for host in hosts or (DB,))
        service = Service(
            ServiceKey(namespace, name),
            (ServicePort("", 5432, "TCP"),),
            cluster_ips=cluster_ips,
            handling=Handling(names=names),
            **fields,
        )
        self.store.put_service(service)

    def derive(self, source=None):
        self.source = source or self.store.snapshot()
        self.snapshot = self.endpoints.derive(self.source)

    def answer(self, *ips, host=DB, lookup=None):
        """Answer the next look-up."""
        self.now += 1000
        taken, families = self.endpoints.hosts.take(self.now)
        assert taken == host
        by_family = {f: tuple(ip for ip in ips if IPFamily.of(ip) is f) for f in families}
        found = lookup or Lookup(by_family, 30)
        if self.endpoints.learn(host, found, self.now):
            self.derive(self.source)

    def state(self, name="db", namespace="shop"):
        return self.snapshot.services[ServiceKey(namespace, name)]

    def ips(self, name="db", namespace="shop"):
        slices = self.state(name, namespace).slices
        return [endpoint.ip for item in slices for endpoint in item.endpoints]

    def problems(self, name="db", namespace="shop"):
        slices = self.state(name, namespace).slices
        return [(p.state, p.detail) for item in slices for p in item.problems]
