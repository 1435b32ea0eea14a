"""Draws Services, slices and facts for property tests, from few values, so that they overlap."""

from dataclasses import replace

from hypothesis import strategies as st

from userspace_proxy.model import Endpoint, ServiceKey, ServicePort, ServiceType, SlicePort
from userspace_proxy.policy import PRIMARY, NodeFacts

from ..model.samples import CART, HTTP, NOT_READY, READY, TERMINATING, WEB, service, slice_of

FACTS = NodeFacts(
    node_name="node-1",
    zone="east",
    addresses=("127.0.0.1", "192.0.2.10", "2001:db8::10"),
    primary_addresses=("192.0.2.10",),
    external_ip_networks=("198.51.100.0/24",),
    cluster_networks=("192.0.2.0/24",),
)
"""The facts of a node on which everything is allowed."""

ALL_FACTS = st.builds(
    replace,
    st.just(FACTS),
    node_name=st.sampled_from(["node-1", "node-2"]),
    zone=st.sampled_from(["east", ""]),
    proxy_name=st.sampled_from([None, None, "mesh"]),
    allow_loopback_endpoints=st.booleans(),
    addresses=st.sampled_from([(), ("127.0.0.1", "192.0.2.10"), FACTS.addresses]),
    node_port_networks=st.sampled_from([(), ("127.0.0.0/8",), (PRIMARY,)]),
    external_ip_networks=st.sampled_from([(), ("198.51.100.0/24",)]),
    cluster_networks=st.sampled_from([(), ("192.0.2.0/24",)]),
)

IPS = ["198.51.100.7", "198.51.100.8", "2001:db8::7"]
PORTS = [
    HTTP,
    ServicePort("", 80, "TCP", 30080),
    ServicePort("a", 80, "UDP", 30080),
    ServicePort("s", 9, "SCTP"),
]


def some(items, **limits):
    """Return a strategy that draws lists of distinct items."""
    return st.lists(st.sampled_from(items), unique=True, **limits)


KEYS = st.sampled_from([CART, WEB, ServiceKey("bank", "till")])
SERVICES = st.builds(
    service,
    KEYS,
    st.lists(st.sampled_from(PORTS), max_size=2, unique_by=lambda port: port.name),
    some(IPS, max_size=2),
    type=st.sampled_from([ServiceType.CLUSTER_IP, ServiceType.LOAD_BALANCER]),
    created=st.sampled_from(["", "2026-01-01T00:00:00Z"]),
    proxy_name=st.sampled_from([None, None, None, "mesh"]),
    external_ips=some(IPS, max_size=2).map(tuple),
    load_balancer_ips=some(IPS, max_size=1).map(tuple),
    load_balancer_source_ranges=some(["192.0.2.0/25", "2001:db8::/32"], max_size=1).map(tuple),
    health_check_node_port=st.sampled_from([0, 30081]),
    is_internal_local=st.booleans(),
    is_external_local=st.booleans(),
)
"""Services with few addresses, so that several claim one as a cluster IP or external IP."""

ENDPOINTS = st.builds(
    lambda conditions, ip, node, zones: Endpoint(ip, node=node, hinted_zones=zones, **conditions),
    st.sampled_from([READY, READY, NOT_READY, TERMINATING]),
    st.sampled_from(["192.0.2.1", "127.0.0.1", *IPS[:2]]),
    st.sampled_from(["node-1", "node-2"]),
    st.sampled_from([(), ("east",), ("west",)]),
)
SLICES = st.builds(
    lambda endpoints, name, of: slice_of(
        *endpoints,
        key=name,
        of=of,
        ports=[SlicePort(port.name, 80, port.protocol) for port in PORTS],
    ),
    st.lists(ENDPOINTS, max_size=2),
    st.sampled_from(["a", "b"]),
    KEYS,
)
"""Slices in which some endpoints may be frontends of a Service."""


def in_two_orders(services):
    """Return a strategy that draws the services as given, and in another order."""
    return st.tuples(st.just(services), st.permutations(services))
