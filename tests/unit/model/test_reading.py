"""What a missing, null, unknown or impossible field of a Kubernetes object means."""

import pytest

from userspace_proxy.model import (
    Endpoint,
    IPFamily,
    Node,
    Service,
    ServicePort,
    ServiceType,
    SliceKey,
    SlicePort,
)
from userspace_proxy.model.reading import FieldError, read_node, read_service, read_slice
from userspace_proxy.model.wire import WireEndpointSlice, WireNode, WireService, convert

from .samples import CART, CART_IP, CART_IP_V6, HTTP

HTTP_PORT = {"name": "http", "port": 80}
LABEL = "kubernetes.io/service-name"


def a_service(*, labels=None, status=None, created=None, **spec):
    metadata = {
        "name": "cart",
        "namespace": "shop",
        "labels": labels,
        "creationTimestamp": created,
    }
    spec = {"clusterIP": CART_IP, "ports": [HTTP_PORT], **spec}
    wire = {"metadata": metadata, "spec": spec, "status": status}
    return read_service(convert(wire, WireService))


def a_slice(**fields):
    metadata = {"name": "cart-x7", "namespace": "shop", "labels": {LABEL: "cart"}}
    wire = {
        "metadata": metadata,
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["192.0.2.1"]}],
        "ports": [{"name": "http", "port": 8080}],
        **fields,
    }
    return read_slice(convert(wire, WireEndpointSlice))


def the_endpoint(**fields):
    (endpoint,) = a_slice(endpoints=[{"addresses": ["192.0.2.1"], **fields}]).endpoints
    return endpoint


class TestService:
    def test_a_plain_one_has_a_name_an_address_and_tcp_ports(self):
        assert a_service() == Service(CART, (HTTP,), cluster_ips=(CART_IP,))

    def test_one_without_a_namespace_is_in_the_default_one(self):
        wire = convert({"metadata": {"name": "cart"}}, WireService)
        assert str(read_service(wire).key) == "default/cart"

    def test_one_without_a_spec_has_neither_ports_nor_addresses(self):
        service = read_service(convert({"metadata": {"name": "cart"}}, WireService))
        assert (service.ports, service.cluster_ips) == ((), ())
        assert not service.is_headless

    @pytest.mark.parametrize(
        ("spec", "cluster_ips", "is_headless"),
        [
            pytest.param(
                {"clusterIPs": [CART_IP, CART_IP_V6]}, (CART_IP, CART_IP_V6), False, id="both"
            ),
            pytest.param({"clusterIPs": None}, (CART_IP,), False, id="old-field-alone"),
            pytest.param({"clusterIP": None}, (), False, id="not-allocated"),
            pytest.param({"clusterIP": ""}, (), False, id="empty"),
            pytest.param({"clusterIP": "", "clusterIPs": [""]}, (), False, id="list-of-empty"),
            pytest.param({"clusterIP": "None"}, (), True, id="headless"),
            pytest.param({"clusterIPs": ["None"]}, (), True, id="headless-list"),
            pytest.param({"clusterIP": "2001:DB8::0007"}, (CART_IP_V6,), False, id="canonical"),
        ],
    )
    def test_cluster_ips(self, spec, cluster_ips, is_headless):
        service = a_service(**spec)
        assert (service.cluster_ips, service.is_headless) == (cluster_ips, is_headless)

    @pytest.mark.parametrize(
        ("port", "expected"),
        [
            pytest.param({"port": 80}, ServicePort("", 80, "TCP"), id="number-alone"),
            pytest.param(
                {"name": None, "port": 80, "protocol": None, "nodePort": None},
                ServicePort("", 80, "TCP"),
                id="nulls",
            ),
            pytest.param(
                {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053},
                ServicePort("dns", 53, "UDP", 30053),
                id="all-fields",
            ),
            pytest.param({"port": 65535}, ServicePort("", 65535, "TCP"), id="highest"),
            pytest.param(
                {"port": 9, "protocol": "SCTP"}, ServicePort("", 9, "SCTP"), id="as-written"
            ),
        ],
    )
    def test_ports(self, port, expected):
        assert a_service(ports=[port]).ports == (expected,)

    def test_ports_keep_their_order(self):
        ports = [{"name": name, "port": port} for name, port in (("b", 2), ("a", 1), ("c", 3))]
        assert [port.name for port in a_service(ports=ports).ports] == ["b", "a", "c"]

    @pytest.mark.parametrize("kind", [None, "", "ClusterIP"])
    def test_a_missing_type_is_cluster_ip(self, kind):
        assert a_service(type=kind).type is ServiceType.CLUSTER_IP

    @pytest.mark.parametrize(
        ("spec", "timeout_s"),
        [
            pytest.param({}, None, id="missing"),
            pytest.param({"sessionAffinity": None}, None, id="null"),
            pytest.param({"sessionAffinity": ""}, None, id="empty"),
            pytest.param({"sessionAffinity": "None"}, None, id="none"),
            pytest.param({"sessionAffinity": "ClientIP"}, 10800, id="three-hours-by-default"),
            pytest.param(
                {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": None}},
                10800,
                id="config-without-timeout",
            ),
            pytest.param(
                {
                    "sessionAffinity": "ClientIP",
                    "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86400}},
                },
                86400,
                id="one-day-at-most",
            ),
            pytest.param(
                {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}},
                None,
                id="timeout-without-affinity",
            ),
        ],
    )
    def test_session_affinity(self, spec, timeout_s):
        assert a_service(**spec).affinity_timeout_s == timeout_s

    @pytest.mark.parametrize(
        ("spec", "local"),
        [
            pytest.param({}, (False, False), id="missing"),
            pytest.param({"internalTrafficPolicy": "Local"}, (True, False), id="internal"),
            pytest.param({"externalTrafficPolicy": "Local"}, (False, True), id="external"),
            pytest.param(
                {"internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Elsewhere"},
                (False, False),
                id="unknown-is-cluster",
            ),
        ],
    )
    def test_traffic_policies(self, spec, local):
        service = a_service(**spec)
        assert (service.is_internal_local, service.is_external_local) == local

    @pytest.mark.parametrize(
        ("labels", "proxy_name", "has_headless_label"),
        [
            pytest.param(None, None, False, id="none"),
            pytest.param(
                {"service.kubernetes.io/service-proxy-name": "mesh"}, "mesh", False, id="proxy"
            ),
            pytest.param(
                {"service.kubernetes.io/service-proxy-name": ""}, "", False, id="empty-is-a-name"
            ),
            pytest.param(
                {"service.kubernetes.io/headless": ""}, None, True, id="headless-whatever-value"
            ),
        ],
    )
    def test_labels(self, labels, proxy_name, has_headless_label):
        service = a_service(labels=labels)
        assert (service.proxy_name, service.has_headless_label) == (proxy_name, has_headless_label)

    def test_it_was_created_when_its_metadata_says(self):
        assert a_service(created="2026-01-01T00:00:00Z").created == "2026-01-01T00:00:00Z"
        assert a_service().created == ""

    def test_external_addresses_are_read_though_not_served_yet(self):
        ingress = [{"ip": "203.0.113.8"}, {"hostname": "lb.example"}]
        service = a_service(
            externalIPs=["203.0.113.9"], status={"loadBalancer": {"ingress": ingress}}
        )
        assert service.external_ips == ("203.0.113.9",)
        assert service.load_balancer_ips == ("203.0.113.8",)

    def test_a_bad_external_address_costs_that_address_alone(self):
        ingress = [{"ip": "203.0.113.08"}, {"ip": "203.0.113.8"}]
        service = a_service(
            externalIPs=["cart", "203.0.113.9"], status={"loadBalancer": {"ingress": ingress}}
        )
        assert service.external_ips == ("203.0.113.9",)
        assert service.load_balancer_ips == ("203.0.113.8",)

    @pytest.mark.parametrize(
        ("spec", "problem"),
        [
            pytest.param(
                {"ports": [HTTP_PORT, {"name": "x"}]}, "spec.ports[1].port: is missing", id="port"
            ),
            pytest.param(
                {"ports": [{"port": 70000}]},
                "spec.ports[0].port: 70000 is not in 1–65535",
                id="port-too-high",
            ),
            pytest.param(
                {"ports": [{"port": 0}]}, "spec.ports[0].port: 0 is not in 1–65535", id="port-zero"
            ),
            pytest.param(
                {"ports": [{"port": 80, "nodePort": -1}]},
                "spec.ports[0].nodePort: -1 is not in 1–65535",
                id="node-port",
            ),
            pytest.param(
                {"clusterIP": "198.51.100.007"},
                "spec.clusterIPs: '198.51.100.007' is not an IP address",
                id="cluster-ip",
            ),
            pytest.param(
                {"type": "Magic"},
                "spec.type: 'Magic' is not one of ClusterIP, NodePort, LoadBalancer, ExternalName",
                id="type",
            ),
            pytest.param(
                {"sessionAffinity": "Cookie"},
                "spec.sessionAffinity: 'Cookie' is not ClientIP or None",
                id="affinity",
            ),
            pytest.param(
                {
                    "sessionAffinity": "ClientIP",
                    "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}},
                },
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds: 0 is not in 1–86400",
                id="timeout",
            ),
        ],
    )
    def test_what_cannot_be_is_named_with_its_field(self, spec, problem):
        with pytest.raises(FieldError) as caught:
            a_service(**spec)
        assert str(caught.value) == problem
        assert problem == f"{caught.value.path}: {caught.value.problem}"

    def test_one_without_a_name_cannot_be(self):
        with pytest.raises(FieldError, match=r"^metadata\.name: is missing$"):
            read_service(WireService())


class TestSlice:
    def test_a_plain_one_belongs_to_the_service_of_its_label(self):
        item = a_slice()
        assert (item.key, item.service) == (SliceKey("shop", "cart-x7"), CART)
        assert item.family is IPFamily.IPV4
        assert item.ports == (SlicePort("http", 8080, "TCP"),)
        assert item.endpoints == (Endpoint("192.0.2.1"),)

    @pytest.mark.parametrize(
        ("conditions", "expected"),
        [
            pytest.param(None, (True, True, False), id="none"),
            pytest.param({}, (True, True, False), id="empty"),
            pytest.param(
                {"ready": None, "serving": None, "terminating": None}, (True, True, False), id="nil"
            ),
            pytest.param({"ready": True}, (True, True, False), id="ready"),
            pytest.param({"ready": False, "serving": False}, (False, False, False), id="not-ready"),
            pytest.param(
                {"ready": False, "terminating": True}, (False, True, True), id="nil-serving-is-true"
            ),
            pytest.param(
                {"ready": False, "serving": False, "terminating": True},
                (False, False, True),
                id="no-more-serving",
            ),
        ],
    )
    def test_conditions(self, conditions, expected):
        endpoint = the_endpoint(conditions=conditions)
        assert (endpoint.ready, endpoint.serving, endpoint.terminating) == expected

    def test_an_endpoint_says_where_it_runs_or_nothing(self):
        assert the_endpoint(nodeName="node-1", zone="a") == Endpoint(
            "192.0.2.1", node="node-1", zone="a"
        )
        assert the_endpoint(nodeName=None, zone=None) == Endpoint("192.0.2.1")

    def test_only_the_first_address_of_an_endpoint_counts(self):
        assert the_endpoint(addresses=["192.0.2.1", "192.0.2.2"]).ip == "192.0.2.1"

    def test_an_address_is_made_canonical(self):
        endpoints = [{"addresses": ["2001:DB8::0001"]}]
        item = a_slice(addressType="IPv6", endpoints=endpoints)
        assert item.family is IPFamily.IPV6
        assert item.endpoints == (Endpoint("2001:db8::1"),)

    @pytest.mark.parametrize(
        "addresses",
        [
            pytest.param(None, id="null"),
            pytest.param([], id="none"),
            pytest.param(["cart.example"], id="name"),
            pytest.param(["192.0.2.01"], id="leading-zero"),
            pytest.param(["cart.example", "192.0.2.9"], id="good-one-behind-a-bad-one"),
            pytest.param(["2001:db8::1"], id="other-family"),
        ],
    )
    def test_a_bad_address_costs_that_endpoint_alone(self, addresses):
        item = a_slice(endpoints=[{"addresses": addresses}, {"addresses": ["192.0.2.2"]}])
        assert item.endpoints == (Endpoint("192.0.2.2"),)

    @pytest.mark.parametrize(
        "port",
        [
            pytest.param({"name": "any"}, id="all-ports"),
            pytest.param({"name": "zero", "port": 0}, id="zero"),
            pytest.param({"name": "high", "port": 65536}, id="too-high"),
            pytest.param({"name": "low", "port": -1}, id="negative"),
        ],
    )
    def test_a_port_that_nobody_can_dial_is_left_out(self, port):
        item = a_slice(ports=[port, {"port": 8080, "protocol": "UDP"}])
        assert item.ports == (SlicePort("", 8080, "UDP"),)

    @pytest.mark.parametrize("field", ["endpoints", "ports"])
    def test_null_lists_are_empty_ones(self, field):
        assert getattr(a_slice(**{field: None}), field) == ()

    @pytest.mark.parametrize(
        "fields",
        [
            pytest.param({"metadata": {"name": "x"}}, id="no-labels"),
            pytest.param({"metadata": {"name": "x", "labels": {LABEL: None}}}, id="null-label"),
            pytest.param({"metadata": {"name": "x", "labels": {LABEL: ""}}}, id="empty-label"),
            pytest.param({"addressType": "FQDN"}, id="names-for-addresses"),
        ],
    )
    def test_one_that_serves_no_service_of_ours_is_none(self, fields):
        assert a_slice(**fields) is None

    @pytest.mark.parametrize(
        ("fields", "problem"),
        [
            pytest.param({"addressType": None}, "addressType: is missing", id="no-address-type"),
            pytest.param(
                {"addressType": "IPv5"},
                "addressType: 'IPv5' is not IPv4, IPv6 or FQDN",
                id="address-type",
            ),
            pytest.param(
                {"metadata": {"labels": {LABEL: "cart"}}}, "metadata.name: is missing", id="no-name"
            ),
        ],
    )
    def test_what_cannot_be_is_named_with_its_field(self, fields, problem):
        with pytest.raises(FieldError) as caught:
            a_slice(**fields)
        assert str(caught.value) == problem


class TestNode:
    def test_its_addresses_zone_and_name_are_read(self):
        addresses = [
            {"type": "Hostname", "address": "node-1"},
            {"type": "InternalIP", "address": "192.0.2.1"},
            {"type": "ExternalIP", "address": "2001:DB8::1"},
            {"type": "InternalIP", "address": "nonsense"},
            {"type": "InternalIP"},
        ]
        wire = {
            "metadata": {"name": "node-1", "labels": {"topology.kubernetes.io/zone": "a"}},
            "status": {"addresses": addresses},
        }
        node = read_node(convert(wire, WireNode))
        assert node == Node("node-1", ("192.0.2.1", "2001:db8::1"), "a")

    def test_a_deletion_timestamp_means_that_it_is_being_deleted(self):
        metadata = {"name": "node-1", "deletionTimestamp": "2026-01-01T00:00:00Z"}
        assert read_node(convert({"metadata": metadata}, WireNode)).is_being_deleted

    def test_one_of_which_only_the_name_is_known(self):
        assert read_node(convert({"metadata": {"name": "node-1"}}, WireNode)) == Node("node-1")

    def test_one_without_a_name_cannot_be(self):
        with pytest.raises(FieldError, match=r"^metadata\.name: is missing$"):
            read_node(WireNode())
