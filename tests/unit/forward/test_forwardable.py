"""Tests of which Services of a cluster are forwarded, their addresses and their pods."""

import json

import pytest

from userspace_proxy.cluster import Store
from userspace_proxy.model import Frontend, IPFamily, Protocol, ServiceKey, SocketAddress
from userspace_proxy.model.reading import read_slice
from userspace_proxy.model.service_reading import read_service
from userspace_proxy.model.syntax import check_subdomain
from userspace_proxy.model.wire import WireEndpointSlice, WireService, decode
from userspace_proxy.names import ServiceNames
from userspace_proxy_kubectl.forward.forwardable import Forwardable, NotForwarded
from userspace_proxy_kubectl.port_forward import ForwardTarget

from ..refusals import why
from .pods import endpoint, endpoint_slice, headless, named, service

WEB = ServiceKey("shop", "web")
TCP = {"name": "http", "port": 80}
UDP = {"name": "dns", "port": 53, "protocol": "UDP"}


class World:
    """A cluster that a test changes, and the Services forwarded from this cluster."""

    def __init__(self, *wanted, address=""):
        self.store = Store()
        self.forwardable = Forwardable(frozenset(wanted), seed="a", address=address)

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
    def web_pods(self):
        return self.forwardable.pods["shop/web:http"]

    @property
    def endpoints(self):
        return {each.ip for item in self.web.slices for each in item.endpoints}


def test_a_forwarded_service_gets_a_loopback_address_and_known_pods():
    world = World().put(service(), endpoint_slice(endpoint("web-1", "10.244.0.1")))
    (ip,) = world.web.service.cluster_ips
    assert 64 <= int(ip.removeprefix("127.").split(".")[0]) < 128
    assert [port.port for port in world.web.service.ports] == [80]
    assert world.endpoints == {"10.244.0.1"}
    assert world.forwardable.pods == {
        "shop/web:http": {SocketAddress("10.244.0.1", 8080): ForwardTarget("shop", "web-1", 8080)}
    }
    assert world.forwardable.left_out == []


def test_all_forwarded_services_can_share_one_address():
    world = World(address="127.0.0.1")
    db = service("db", ports=[{"name": "http", "port": 8080}])
    world.put(service(), db, endpoint_slice(endpoint("web-1", "10.244.0.1")))
    ips = {state.service.cluster_ips for state in world.snapshot.services.values()}
    assert (len(world.snapshot.services), ips) == (2, {("127.0.0.1",)})
    at = Frontend("127.0.0.1", 80, Protocol.TCP)
    assert world.forwardable.second_port(at) == 0, "db's port is a substitute"
    world.store.delete_service(ServiceKey("shop", "db"))
    assert world.follow().forwardable.second_port(at) == 8080


def test_node_specific_fields_of_a_service_have_no_effect():
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


def test_endpoint_conditions_and_session_affinity_are_preserved():
    spec = {"sessionAffinity": "ClientIP"}
    item = endpoint_slice(endpoint("web-1", "10.244.0.1", is_ready=False))
    there = World().put(service(**spec), item).web
    assert there.service.affinity_timeout_s == 10800
    assert [each.ready for each in there.slices[0].endpoints] == [False]


def test_a_privileged_port_has_a_substitute_unless_a_port_has_that_number():
    ports = [{"name": str(port), "port": port} for port in (80, 443, 8443, 9000)]
    world = World().put(service(ports=ports))
    (ip,) = world.web.service.cluster_ips
    assert [port.port for port in world.web.service.ports] == [80, 443, 8443, 9000]
    seconds = [
        world.forwardable.second_port(Frontend(ip, port, Protocol.TCP))
        for port in (80, 443, 8443, 9000)
    ]
    # 8443, the substitute for 443, is another port of the Service.
    assert seconds == [8080, 0, 0, 0]


def test_two_forwarded_services_have_two_stable_addresses():
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
def test_a_service_that_cannot_be_forwarded_is_listed_with_the_reason(spec, reason):
    world = World().put(service(**{"clusterIPs": None, **spec}))
    assert dict(world.snapshot.services) == {}
    assert world.forwardable.left_out == [NotForwarded(WEB, "", reason)]


def test_udp_ports_are_omitted_with_the_reason():
    world = World().put(service(ports=[TCP, UDP]))
    assert [port.name for port in world.web.service.ports] == ["http"]
    left_out = NotForwarded(WEB, "53/UDP", "port-forwards carry TCP only")
    assert world.forwardable.left_out == [left_out]
    world.put(service(ports=[UDP]))
    assert dict(world.snapshot.services) == {}
    assert world.forwardable.left_out == [left_out]
    assert world.put(service()).forwardable.left_out == []


def test_a_service_is_left_out_with_the_reason_only_if_none_of_its_endpoints_is_a_pod():
    world = World().put(service(), endpoint_slice({"addresses": ["192.0.2.7"]}))
    assert world.forwardable.left_out == [NotForwarded(WEB, "", "its endpoints are not pods")]
    both = endpoint_slice({"addresses": ["192.0.2.7"]}, endpoint("web-1", "10.244.0.1"))
    assert world.put(both).endpoints == {"10.244.0.1"}
    assert world.forwardable.left_out == []


def test_an_endpoint_with_an_invalid_pod_is_omitted_with_the_reason():
    evil = endpoint("../../nodes", "10.244.0.9")
    world = World().put(service(), endpoint_slice(evil))
    assert dict(world.snapshot.services) == {}
    (left_out,) = world.forwardable.left_out
    invalid = why(check_subdomain, "../../nodes", "endpoints[0].targetRef.name")
    assert (
        left_out.reason == f"its endpoints are not pods; web-ipv4: {invalid}: 10.244.0.9 has no pod"
    )
    world.put(endpoint_slice(evil, endpoint("web-1", "10.244.0.1")))
    assert world.endpoints == {"10.244.0.1"}
    assert [pod.pod for pod in world.web_pods.values()] == ["web-1"]
    assert world.web.slices[0].notes[0].about == invalid


def test_a_forwarded_headless_service_has_an_address():
    item = endpoint_slice(endpoint("web-1", "10.244.0.1"))
    item["metadata"]["labels"]["service.kubernetes.io/headless"] = ""
    world = World().put(service(clusterIP="None", clusterIPs=["None"]), item)
    assert len(world.web.service.cluster_ips) == 1
    assert not world.web.service.is_headless
    # The plan would ignore slices that are marked as headless.
    assert [item.is_headless for item in world.web.slices] == [False]
    assert world.endpoints == {"10.244.0.1"}


def test_a_slice_with_the_headless_label_is_not_forwarded_for_a_service_with_a_cluster_ip():
    labelled = endpoint_slice(endpoint("web-1", "10.244.0.1"), name="web-old")
    labelled["metadata"]["labels"] = {
        "kubernetes.io/service-name": "web",
        "service.kubernetes.io/headless": "",
    }
    world = World().put(service(), labelled, endpoint_slice(endpoint("web-2", "10.244.0.2")))
    assert world.endpoints == {"10.244.0.2"}


@pytest.mark.parametrize("families", [("IPv4", "IPv6"), ("IPv6",)], ids="+".join)
def test_a_pod_with_addresses_of_one_or_two_families_is_one_endpoint(families):
    ips = {"IPv4": "10.244.0.1", "IPv6": "fd00::1"}
    slices = [endpoint_slice(endpoint("web-1", ips[one]), family=one) for one in families]
    world = World().put(service(), *slices)
    assert world.endpoints == {ips[families[0]]}
    assert {item.family for item in world.web.slices} == {IPFamily.IPV4}
    assert [pod.pod for pod in world.web_pods.values()] == ["web-1"]


def test_a_pod_with_only_an_ipv6_address_is_an_endpoint():
    only = named("web-2", "fd00::2")
    slices = [
        endpoint_slice(named("web-1", "10.244.0.1")),
        endpoint_slice(named("web-1", "fd00::1"), only, family="IPv6"),
    ]
    world = World().put(service(), *slices)
    assert world.endpoints == {"10.244.0.1", "fd00::2"}
    assert sorted(pod.pod for pod in world.web_pods.values()) == ["web-1", "web-2"]
    world = World().put(*headless("web", *slices))
    assert world.snapshot.services.keys() == {
        ServiceKey("shop", name) for name in ("web", "web-1.web", "web-2.web")
    }


def test_forwarded_endpoints_follow_added_and_removed_pods():
    world = World().put(service(), endpoint_slice(endpoint("web-1", "10.244.0.1")))
    world.put(endpoint_slice(endpoint("web-2", "10.244.0.2")))
    assert world.endpoints == {"10.244.0.2"}
    assert list(world.web_pods) == [SocketAddress("10.244.0.2", 8080)]
    before = world.snapshot
    assert world.follow().snapshot is before
    world.store.delete_service(WEB)
    world.follow()
    assert dict(world.snapshot.services) == {}
    assert world.forwardable.pods == {}


# The hash of this key selects the same address as the hash of shop/web.
SAME = ServiceKey("tenant", "e4947804")


@pytest.mark.parametrize("older", [WEB, SAME], ids=str)
def test_the_older_of_two_services_gets_a_shared_address(older):
    (ip,) = World().put(service()).web.service.cluster_ips
    items = [service(key.name, key.namespace) for key in (WEB, SAME)]
    for item, key in zip(items, (WEB, SAME), strict=True):
        year = 2025 if key == older else 2026
        item["metadata"]["creationTimestamp"] = f"{year}-01-01T00:00:00Z"
    services = World().put(*items).snapshot.services
    assert [key for key, it in services.items() if it.service.cluster_ips == (ip,)] == [older]
    # At a shared address, the plan gives a contested port to the older Service.
    assert min(services, key=lambda key: services[key].service.created) == older


def test_each_service_maps_an_address_to_its_own_pod():
    at = SocketAddress("10.244.0.1", 8080)
    world = World().put(service(), endpoint_slice(endpoint("web-1", at.ip)))
    evil = endpoint("evil-1", at.ip, namespace="tenant")
    both = {"ports": [{"name": name, "port": port} for name, port in (("http", 80), ("b", 81))]}
    world.put(
        service("evil", "tenant", **both), endpoint_slice(evil, name="evil", namespace="tenant")
    )
    its = ForwardTarget("tenant", "evil-1", 8080)
    assert world.forwardable.pods == {
        "shop/web:http": {at: ForwardTarget("shop", "web-1", 8080)},
        "tenant/evil:http": {at: its},
        "tenant/evil:b": {at: its},
    }
    world.put(service("evil", "tenant", ports=[{"port": 80}]))
    assert world.forwardable.pods.keys() == {"shop/web:http", "tenant/evil"}


@pytest.mark.parametrize("others", [("db",), ("a", "b", "c", "d")], ids=len)
def test_a_slice_relabelled_for_other_services_and_back_is_always_assigned_to_one_service(others):
    item = endpoint_slice(endpoint("web-1", "10.244.0.1"))
    world = World().put(service(), *(service(name) for name in others), item)
    for name in (*others, "web"):
        item["metadata"]["labels"] = {"kubernetes.io/service-name": name}
        world.put(item)
        have = {key.name: len(state.slices) for key, state in world.snapshot.services.items()}
        assert have == {each: int(each == name) for each in (*others, "web")}


def test_only_requested_services_are_forwarded_and_nonexistent_services_are_reported():
    cart = ServiceKey("shop", "cart")
    world = World(WEB, cart).put(service(), service("db"))
    assert list(world.snapshot.services) == [WEB]
    assert world.forwardable.left_out == [NotForwarded(cart, "", "there is no such Service")]


def test_a_nonexistent_service_that_is_a_port_name_is_reported_as_such():
    world = World(WEB, ServiceKey("shop", "http")).put(service())
    (missing,) = world.forwardable.left_out
    assert missing.reason == "there is no such Service; all ports are forwarded"


def test_a_nonexistent_service_is_reported_with_a_suggestion():
    missing = [ServiceKey("shop", "wbe"), ServiceKey("cart", "web")]
    world = World(*missing).put(service())
    assert world.forwardable.left_out == [
        NotForwarded(missing[1], "", "there is no such Service; shop/web exists"),
        NotForwarded(missing[0], "", "there is no such Service (did you mean shop/web?)"),
    ]


def names_of(world, name, type_="A"):
    answer = ServiceNames(world.snapshot).answer(f"{name}.cluster.local.", type_)
    return [record.data for record in (*answer.records, *answer.additional)]


def ledger_slice(*endpoints, numbers=(7199,), family="IPv4"):
    ports = [
        {"name": name, "port": port, "protocol": "TCP"}
        for name, port in zip(("db", "admin"), numbers, strict=False)
    ]
    return endpoint_slice(*endpoints, name="ledger", ports=ports, family=family)


def ledger(*endpoints, numbers=(7199,)):
    return World().put(*headless("ledger", ledger_slice(*endpoints, numbers=numbers)))


def test_the_name_of_a_headless_services_pod_resolves_only_to_that_pod():
    world = ledger(named("ledger-0", "10.44.1.5"), named("ledger-1", "10.44.2.5"))
    ips = {name: names_of(world, f"{name}.shop.svc") for name in ("ledger-0.ledger", "ledger")}
    assert len({ip for found in ips.values() for ip in found}) == 2
    assert all(ip.startswith("127.") for found in ips.values() for ip in found)
    assert world.forwardable.pods["shop/ledger-0.ledger:db"] == {
        SocketAddress("10.44.1.5", 7199): ForwardTarget("shop", "ledger-0", 7199)
    }
    (first,) = ips["ledger-0.ledger"]
    (second,) = names_of(world, "ledger-1.ledger.shop.svc")
    assert names_of(world, "_db._tcp.ledger.shop.svc", "SRV") == [
        "0 50 7199 ledger-0.ledger.shop.svc.cluster.local.",
        "0 50 7199 ledger-1.ledger.shop.svc.cluster.local.",
        first,
        second,
    ]


@pytest.mark.parametrize("name", ["10-44-1-5.shop.pod", "10-44-1-5.web.shop.svc"])
def test_no_name_resolves_to_a_pods_real_address(name):
    world = World().put(service(), endpoint_slice(endpoint("web-1", "10.44.1.5")))
    assert names_of(world, name) == []


def test_the_name_of_an_endpoint_without_a_pod_is_unresolved_and_listed_as_not_forwarded():
    other = {"addresses": ["10.44.2.5"], "hostname": "other"}
    world = ledger(named("ledger-0", "10.44.1.5"), other)
    assert names_of(world, "other.ledger.shop.svc") == []
    assert world.forwardable.left_out == [
        NotForwarded(ServiceKey("shop", "other.ledger"), "", "it is no pod with TCP ports")
    ]


def test_a_deleted_pods_name_is_removed_and_a_recreated_pod_gets_its_address():
    both = named("ledger-0", "10.44.1.5"), named("ledger-1", "10.44.2.5")
    world = ledger(*both)
    before = names_of(world, "ledger-1.ledger.shop.svc")
    world.put(ledger_slice(both[0]))
    assert names_of(world, "ledger-1.ledger.shop.svc") == []
    assert world.snapshot.services.keys() == {
        ServiceKey("shop", "ledger"),
        ServiceKey("shop", "ledger-0.ledger"),
    }
    world.put(ledger_slice(*both))
    assert names_of(world, "ledger-1.ledger.shop.svc") == before


def test_the_port_of_a_deleted_pod_is_free_at_the_common_address():
    world, at = World(address="127.0.0.1"), Frontend("127.0.0.1", 80, Protocol.TCP)
    world.put(*headless("ledger", ledger_slice()))
    world.put(ledger_slice(named("ledger-0", "10.44.1.5"), numbers=(8080,)))
    assert world.forwardable.second_port(at) == 0
    assert world.put(ledger_slice()).forwardable.second_port(at) == 8080


@pytest.mark.parametrize(("numbers", "second"), [((80,), 8080), ((80, 8080), 0)], ids=str)
def test_a_privileged_port_of_a_pod_name_has_a_substitute(numbers, second):
    world = ledger(named("ledger-0", "10.44.1.5"), numbers=numbers)
    (ip,) = names_of(world, "ledger-0.ledger.shop.svc")
    assert world.forwardable.second_port(Frontend(ip, 80, Protocol.TCP)) == second


@pytest.mark.parametrize(
    ("conditions", "exists"),
    [
        ({"ready": False}, False),
        ({"ready": False, "serving": True, "terminating": True}, False),
        # With publishNotReadyAddresses, the EndpointSlice controller writes such conditions.
        ({"ready": True, "serving": False}, True),
    ],
    ids=str,
)
def test_a_pod_name_exists_while_its_pod_is_ready_or_published(conditions, exists):
    ready, other = named("ledger-0", "10.44.1.5"), named("ledger-1", "10.44.2.5", **conditions)
    world = ledger(ready, other)
    assert len(names_of(world, "ledger-1.ledger.shop.svc")) == exists
    srv = names_of(world, "_db._tcp.ledger.shop.svc", "SRV")
    assert ("0 50 7199 ledger-1.ledger.shop.svc.cluster.local." in srv) == exists
    # Until the pod is ready, its name keeps an address, which refuses clients.
    (ip,) = world.snapshot.services[ServiceKey("shop", "ledger-1.ledger")].service.cluster_ips
    world = world.put(*headless("ledger", ledger_slice(ready, named("ledger-1", "10.44.2.5"))))
    assert names_of(world, "ledger-1.ledger.shop.svc") == [ip]


@pytest.mark.parametrize("families", [("IPv4", "IPv6"), ("IPv6",)], ids="+".join)
@pytest.mark.parametrize("has_hostname", [True, False])
def test_a_pods_name_resolves_to_a_single_ipv4_address(families, has_hostname):
    ips = {"IPv4": "10.44.1.5", "IPv6": "fd00::5"}
    make = named if has_hostname else endpoint
    slices = [ledger_slice(make("ledger-0", ips[one]), family=one) for one in families]
    world = World().put(*headless("ledger", *slices))
    label = "ledger-0" if has_hostname else {"IPv4": "10-44-1-5", "IPv6": "fd00--5"}[families[0]]
    (ip,) = names_of(world, f"{label}.ledger.shop.svc")
    assert ip.startswith("127.")
    assert names_of(world, f"{label}.ledger.shop.svc", "AAAA") == []
    assert world.forwardable.pods[f"shop/{label}.ledger:db"] == {
        SocketAddress(ips[families[0]], 7199): ForwardTarget("shop", "ledger-0", 7199)
    }
    assert world.forwardable.left_out == []
