"""Tests of reading Services with missing, null, unknown or impossible fields."""

import pytest

from userspace_proxy.model import Handling, Hold, Service, ServicePort
from userspace_proxy.model.annotations import DOMAIN
from userspace_proxy.model.notes import NoteKind
from userspace_proxy.model.service_reading import BALANCED_MAX, read_service
from userspace_proxy.model.source_ranges import parse_range
from userspace_proxy.model.wire import FieldError, WireService, convert

from ..refusals import why
from .samples import CART, CART_IP, CART_IP_V6, HTTP

HTTP_PORT = {"name": "http", "port": 80}
OF_SERVICES = "service.kubernetes.io"


def a_service(*, labels=None, annotations=None, status=None, created=None, **spec):
    metadata = {
        "name": "cart",
        "namespace": "shop",
        "labels": labels,
        "annotations": annotations,
        "creationTimestamp": created,
    }
    spec = {"clusterIP": CART_IP, "ports": [HTTP_PORT], **spec}
    wire = {"metadata": metadata, "spec": spec, "status": status}
    return read_service(convert(wire, WireService))


def test_a_service_has_name_address_and_tcp_ports_by_default():
    assert a_service() == Service(CART, (HTTP,), cluster_ips=(CART_IP,))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({"type": "ExternalName", "externalName": "db.example.com."}, "db.example.com",
            id="trailing-dot"),
        pytest.param({"type": "ExternalName"}, "", id="missing"),
        pytest.param({"externalName": "db.example.com"}, "", id="of-another-type"),
    ],
)  # fmt: skip
def test_only_type_external_name_has_an_external_name(spec, expected):
    assert a_service(**spec).external_name == expected


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
def test_cluster_ips_are_canonical_and_none_is_headless(spec, cluster_ips, is_headless):
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
        pytest.param({"port": 9, "protocol": "SCTP"}, ServicePort("", 9, "SCTP"), id="as-written"),
    ],
)
def test_service_ports_are_read(port, expected):
    assert a_service(ports=[port]).ports == (expected,)


def test_service_ports_are_read_in_order():
    ports = [{"name": name, "port": port} for name, port in (("b", 2), ("a", 1), ("c", 3))]
    assert [port.name for port in a_service(ports=ports).ports] == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("spec", "timeout_s"),
    [
        ({}, None),
        ({"sessionAffinity": None}, None),
        ({"sessionAffinity": ""}, None),
        ({"sessionAffinity": "None"}, None),
        ({"sessionAffinity": "ClientIP"}, 10800),
        ({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": None}}, 10800),
        (
            {
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86400}},
            },
            86400,
        ),
        ({"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}}, None),
    ],
)
def test_session_affinity_is_read(spec, timeout_s):
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
def test_traffic_policies_are_read(spec, local):
    service = a_service(**spec)
    assert (service.is_internal_local, service.is_external_local) == local


@pytest.mark.parametrize(
    ("target", "read", "name"),
    [(8080, "8080", ""), ("https", "https", "https"), (80, "", ""), (None, "", "")],
)
def test_a_target_port_is_read_if_it_differs_from_the_port(target, read, name):
    (port,) = a_service(ports=[{"port": 80, "targetPort": target}]).ports
    assert (port.target, port.target_name) == (read, name)


@pytest.mark.parametrize(
    ("labels", "proxy_name", "has_headless_label"),
    [
        pytest.param(None, None, False, id="none"),
        pytest.param({f"{OF_SERVICES}/service-proxy-name": "mesh"}, "mesh", False, id="proxy"),
        pytest.param({f"{OF_SERVICES}/service-proxy-name": ""}, "", False, id="empty-is-a-name"),
        pytest.param(
            {"service.kubernetes.io/headless": ""}, None, True, id="headless-whatever-value"
        ),
    ],
)
def test_labels_of_a_service_are_read(labels, proxy_name, has_headless_label):
    service = a_service(labels=labels)
    assert (service.proxy_name, service.has_headless_label) == (proxy_name, has_headless_label)


def test_a_services_creation_time_is_read_from_its_metadata():
    assert a_service(created="2026-01-01T00:00:00Z").created == "2026-01-01T00:00:00Z"
    assert a_service().created == ""


@pytest.mark.parametrize(
    ("ip_mode", "is_in"),
    [
        pytest.param(None, True, id="missing"),
        pytest.param("VIP", True, id="vip"),
        pytest.param("Proxy", False, id="proxy"),
        pytest.param("DSR", False, id="unknown-is-proxy"),
    ],
)
def test_only_vip_mode_load_balancer_ips_are_used(ip_mode, is_in):
    ingress = [{"ip": "203.0.113.8", "ipMode": ip_mode}]
    service = a_service(status={"loadBalancer": {"ingress": ingress}})
    assert service.load_balancer_ips == (("203.0.113.8",) if is_in else ())
    assert service.balanced_elsewhere == (() if is_in else ("203.0.113.8",))


def test_an_invalid_source_range_admits_no_client_and_valid_ranges_are_read():
    service = a_service(loadBalancerSourceRanges=["10.0.0.0/8", "10.0.0.0/99"])
    assert service.load_balancer_source_ranges == ("10.0.0.0/8", "0.0.0.0/32", "::/128")
    assert service.notes == (NoteKind.RANGE_WRONG(why(parse_range, "10.0.0.0/99")),)
    assert a_service(loadBalancerSourceRanges=None).load_balancer_source_ranges == ()


@pytest.mark.parametrize(
    ("spec", "port"),
    [
        pytest.param({"type": "LoadBalancer", "externalTrafficPolicy": "Local"}, 32000, id="yes"),
        pytest.param({"type": "LoadBalancer"}, 0, id="policy-cluster"),
        pytest.param({"type": "NodePort", "externalTrafficPolicy": "Local"}, 0, id="node-port"),
    ],
)
def test_a_health_check_node_port_requires_type_and_policy(spec, port):
    assert a_service(healthCheckNodePort=32000, **spec).health_check_node_port == port
    assert a_service(healthCheckNodePort=None, **spec).health_check_node_port == 0


def test_stored_addresses_may_have_leading_zeros_and_duplicates():
    ingress = [{"ip": "203.0.113.08"}, {"ip": "203.0.113.007", "ipMode": "Proxy"}]
    service = a_service(
        clusterIPs=["10.96.011.012"],
        externalIPs=["203.0.113.9", "::ffff:203.0.113.9"],
        status={"loadBalancer": {"ingress": ingress}},
    )
    assert service.cluster_ips == ("10.96.11.12",)
    assert service.external_ips == ("203.0.113.9",)
    assert service.load_balancer_ips == ("203.0.113.8",)
    assert service.balanced_elsewhere == ("203.0.113.7",)
    assert service.notes == ()


def test_an_invalid_address_gets_a_note_and_drops_only_that_address():
    ingress = [{"ip": "203.0.113.800"}, {"ip": "203.0.113.8"}]
    service = a_service(
        clusterIPs=["10.96.7.7", "fd00::x"],
        externalIPs=["cart", "203.0.113.9"],
        status={"loadBalancer": {"ingress": ingress}},
    )
    assert service.cluster_ips == ("10.96.7.7",)
    assert service.external_ips == ("203.0.113.9",)
    assert service.load_balancer_ips == ("203.0.113.8",)
    assert service.notes == tuple(
        NoteKind.ADDRESS_WRONG(path, f"{text!r} is not an IP address")
        for path, text in (
            ("spec.clusterIPs", "fd00::x"),
            ("spec.externalIPs", "cart"),
            ("status.loadBalancer.ingress", "203.0.113.800"),
        )
    )


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"ports": [HTTP_PORT, {"name": "x"}]}, "spec.ports[1].port: is missing"),
        ({"ports": [{"port": 70000}]}, "spec.ports[0].port: 70000 is not in 1–65535"),
        ({"ports": [{"port": 0}]}, "spec.ports[0].port: 0 is not in 1–65535"),
        ({"ports": [{"port": 80, "nodePort": -1}]}, "spec.ports[0].nodePort: -1 is not in 1–65535"),
        (
            {
                "type": "LoadBalancer",
                "externalTrafficPolicy": "Local",
                "healthCheckNodePort": 70000,
            },
            "spec.healthCheckNodePort: 70000 is not in 1–65535",
        ),
        (
            {"type": "Magic"},
            "spec.type: 'Magic' is not one of ClusterIP, NodePort, LoadBalancer, ExternalName",
        ),
        ({"sessionAffinity": "Cookie"}, "spec.sessionAffinity: 'Cookie' is not ClientIP or None"),
        (
            {
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}},
            },
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: 0 is not in 1–86400",
        ),
    ],
)
def test_an_invalid_value_is_rejected_and_its_field_reported(spec, problem):
    with pytest.raises(FieldError) as caught:
        a_service(**spec)
    assert str(caught.value) == problem
    assert problem == f"{caught.value.path}: {caught.value.problem}"


def test_a_service_without_a_name_is_rejected():
    with pytest.raises(FieldError, match=r"^metadata\.name: is missing$"):
        read_service(WireService())


@pytest.mark.parametrize(
    ("protocols", "notes"),
    [
        (["TCP", "UDP"], ()),
        (["UDP"], (NoteKind.HEADER_WITHOUT_TCP(),)),
    ],
)
def test_a_proxy_header_requires_tcp(protocols, notes):
    service = a_service(
        annotations={f"{DOMAIN}proxy-protocol": "v2"},
        ports=[{"name": p.lower(), "port": 53, "protocol": p} for p in protocols],
    )
    assert service.notes == notes


@pytest.mark.parametrize(
    ("scope", "affinity", "notes"),
    [
        ("service", "ClientIP", ()),
        ("service", "None", (NoteKind.SCOPE_WITHOUT_AFFINITY(),)),
        ("port", "None", ()),
    ],
)
def test_a_shared_affinity_scope_requires_session_affinity(scope, affinity, notes):
    annotations = {f"{DOMAIN}affinity-scope": scope}
    assert a_service(annotations=annotations, sessionAffinity=affinity).notes == notes


@pytest.mark.parametrize("selector", [None, {}])
def test_a_service_without_a_selector_cannot_name_a_workload(selector):
    """Issue 52: such a Service would scale a workload to which it doesn't route."""
    wake = {"userspace-proxy.io/hold": "60s", "userspace-proxy.io/wake": "deployment/cart"}
    service = a_service(annotations=wake, selector=selector)
    assert service.handling == Handling(hold=Hold(60.0))
    assert service.notes == (NoteKind.WAKE_WITHOUT_SELECTOR("deployment/cart"),)
    service = a_service(annotations=wake, selector={"app": "cart"})
    assert (str(service.handling.wake), service.notes) == ("deployment/cart", ())


def test_a_load_balancer_without_an_address_gets_a_note():
    pending = a_service(type="LoadBalancer")
    assert pending.notes == (NoteKind.NO_BALANCER_ADDRESS(),)
    ingress = [{"hostname": "lb.example.com"}]
    assert a_service(type="LoadBalancer", status={"loadBalancer": {"ingress": ingress}}).notes == ()
    assert a_service(type="NodePort").notes == ()


def test_only_the_first_load_balancer_ips_up_to_the_limit_are_used():
    ingress = [{"ip": f"203.0.113.{n}"} for n in range(BALANCED_MAX + 1)]
    most = a_service(status={"loadBalancer": {"ingress": ingress[:-1]}})
    assert (len(most.load_balancer_ips), most.notes) == (BALANCED_MAX, ())
    more = a_service(status={"loadBalancer": {"ingress": ingress}})
    assert more.load_balancer_ips == most.load_balancer_ips
    assert more.notes == (NoteKind.TOO_MANY_BALANCED(101, 100),)
