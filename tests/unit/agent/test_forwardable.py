"""Which Services of a cluster are forwarded, at which addresses, and to which pods."""

import json

import pytest

from userspace_proxy.agent.forwardable import Forwardable, NotForwarded
from userspace_proxy.cluster import Store
from userspace_proxy.model import Frontend, IPFamily, Protocol, ServiceKey, SocketAddress
from userspace_proxy.model.reading import read_slice
from userspace_proxy.model.service_reading import read_service
from userspace_proxy.model.wire import WireEndpointSlice, WireService, decode
from userspace_proxy.sources.kubernetes.port_forward import ForwardTarget

from .forwarding import endpoint, endpoint_slice, service

WEB = ServiceKey("shop", "web")
TCP = {"name": "http", "port": 80}
UDP = {"name": "dns", "port": 53, "protocol": "UDP"}


class World:
    """A cluster that a test changes, and what is forwarded of it."""

    def __init__(self, *wanted):
        self.store = Store()
        self.forwardable = Forwardable(frozenset(wanted), seed="a")

    def put(self, *items):
        for item in items:
            data = json.dumps(item).encode()
            if item["kind"] == "Service":
                self.store.put_service(read_service(decode(data, WireService)))
            else:
                wire = decode(data, WireEndpointSlice)
                self.store.put_slice(read_slice(wire, with_headless=True, with_pods=True))
        return self.follow()

    def follow(self):
        self.snapshot = self.forwardable.follow(self.store.snapshot())
        return self

    @property
    def web(self):
        return self.snapshot.services[WEB]

    @property
    def endpoints(self):
        return {each.ip for item in self.web.slices for each in item.endpoints}


def test_a_service_gets_an_address_on_loopback_and_its_pods_are_known():
    world = World().put(service(), endpoint_slice(endpoint("web-1", "10.244.0.1")))
    (ip,) = world.web.service.cluster_ips
    assert 64 <= int(ip.removeprefix("127.").split(".")[0]) < 128
    assert [port.port for port in world.web.service.ports] == [80]
    assert world.endpoints == {"10.244.0.1"}
    assert world.forwardable.pods == {
        SocketAddress("10.244.0.1", 8080): ForwardTarget("shop", "web-1", 8080)
    }
    assert world.forwardable.left_out == []


def test_what_is_about_nodes_has_no_effect():
    spec = {
        "type": "LoadBalancer",
        "internalTrafficPolicy": "Local",
        "externalTrafficPolicy": "Local",
        "externalIPs": ["192.0.2.1"],
        "loadBalancerSourceRanges": ["192.0.2.0/24"],
        "ports": [{**TCP, "nodePort": 30080}],
    }
    hinted = {**endpoint("web-1", "10.244.0.1"), "hints": {"forZones": [{"name": "a"}]}}
    there = World().put(service(**spec), endpoint_slice(hinted)).web
    assert not there.service.is_internal_local
    assert not there.service.is_external_local
    assert there.service.external_ips == there.service.load_balancer_source_ranges == ()
    assert [port.node_port for port in there.service.ports] == [0]
    assert [each.hinted_zones for each in there.slices[0].endpoints] == [()]


def test_conditions_of_endpoints_and_affinity_stay():
    spec = {"sessionAffinity": "ClientIP"}
    item = endpoint_slice(endpoint("web-1", "10.244.0.1", is_ready=False))
    there = World().put(service(**spec), item).web
    assert there.service.affinity_timeout_s == 10800
    assert [each.ready for each in there.slices[0].endpoints] == [False]


def test_a_port_that_takes_privileges_has_a_second_one():
    ports = [{"name": str(port), "port": port} for port in (80, 443, 8443, 9000)]
    world = World().put(service(ports=ports))
    (ip,) = world.web.service.cluster_ips
    assert [port.port for port in world.web.service.ports] == [80, 443, 8443, 9000]
    seconds = [
        world.forwardable.second_port(Frontend(ip, port, Protocol.TCP))
        for port in (80, 443, 8443, 9000)
    ]
    # 8443 is the Service's own.
    assert seconds == [8080, 0, 0, 0]


def test_two_services_have_two_addresses_which_stay():
    world = World().put(service(), service("db"))
    first = {key: state.service.cluster_ips for key, state in world.snapshot.services.items()}
    world.put(service(ports=[{**TCP, "port": 81}]))
    again = {key: state.service.cluster_ips for key, state in world.snapshot.services.items()}
    assert first == again
    assert len(set(first.values())) == 2


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        pytest.param(
            {"type": "ExternalName", "externalName": "db.example.com", "ports": []},
            "it is a name for db.example.com, outside of the cluster",
            id="external-name",
        ),
        pytest.param({"clusterIP": "None", "ports": []}, "it has no ports", id="no-ports"),
    ],
)
def test_a_service_that_is_not_forwarded_has_a_reason(spec, reason):
    world = World().put(service(**{"clusterIPs": None, **spec}))
    assert dict(world.snapshot.services) == {}
    assert world.forwardable.left_out == [NotForwarded(WEB, "", reason)]


def test_udp_is_left_out():
    world = World().put(service(ports=[TCP, UDP]))
    assert [port.name for port in world.web.service.ports] == ["http"]
    left_out = NotForwarded(WEB, "53/UDP", "port-forwards carry TCP only")
    assert world.forwardable.left_out == [left_out]
    world.put(service(ports=[UDP]))
    assert dict(world.snapshot.services) == {}
    assert world.forwardable.left_out == [left_out]
    assert world.put(service()).forwardable.left_out == []


def test_endpoints_that_are_not_pods_are_left_out():
    world = World().put(service(), endpoint_slice({"addresses": ["192.0.2.7"]}))
    assert world.forwardable.left_out == [NotForwarded(WEB, "", "its endpoints are not pods")]
    both = endpoint_slice({"addresses": ["192.0.2.7"]}, endpoint("web-1", "10.244.0.1"))
    assert world.put(both).endpoints == {"10.244.0.1"}
    assert world.forwardable.left_out == []


def test_a_headless_service_gets_an_address_too():
    item = endpoint_slice(endpoint("web-1", "10.244.0.1"))
    item["metadata"]["labels"]["service.kubernetes.io/headless"] = ""
    world = World().put(service(clusterIP="None", clusterIPs=["None"]), item)
    assert len(world.web.service.cluster_ips) == 1
    assert not world.web.service.is_headless


@pytest.mark.parametrize("families", [("IPv4", "IPv6"), ("IPv6",)], ids="+".join)
def test_each_pod_is_one_endpoint_in_any_family(families):
    ips = {"IPv4": "10.244.0.1", "IPv6": "fd00::1"}
    slices = [endpoint_slice(endpoint("web-1", ips[one]), family=one) for one in families]
    world = World().put(service(), *slices)
    assert world.endpoints == {ips[families[0]]}
    assert {item.family for item in world.web.slices} == {IPFamily.IPV4}
    assert [pod.pod for pod in world.forwardable.pods.values()] == ["web-1"]


def test_pods_follow_and_what_is_gone_leaves():
    world = World().put(service(), endpoint_slice(endpoint("web-1", "10.244.0.1")))
    world.put(endpoint_slice(endpoint("web-2", "10.244.0.2")))
    assert world.endpoints == {"10.244.0.2"}
    assert list(world.forwardable.pods) == [SocketAddress("10.244.0.2", 8080)]
    before = world.snapshot
    assert world.follow().snapshot is before
    world.store.delete_service(WEB)
    world.follow()
    assert dict(world.snapshot.services) == {}
    assert world.forwardable.pods == {}


def test_only_wanted_services_are_forwarded_and_missing_ones_are_named():
    cart = ServiceKey("shop", "cart")
    world = World(WEB, cart).put(service(), service("db"))
    assert list(world.snapshot.services) == [WEB]
    assert world.forwardable.left_out == [NotForwarded(cart, "", "there is no such Service")]
