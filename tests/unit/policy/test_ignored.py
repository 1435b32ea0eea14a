"""Tests of which Services this proxy ignores, and for which reasons."""

import pytest

from userspace_proxy.causes.notes import cause_of
from userspace_proxy.causes.services import (
    has_headless_label,
    is_external_name,
    is_headless,
    lacks_label,
    no_cluster_ip,
    of_other_proxy,
    own_address,
    unsupported_protocol,
)
from userspace_proxy.model import ServicePort, ServiceType
from userspace_proxy.model.notes import NoteKind
from userspace_proxy.model.service_reading import CLUSTER_IPS, LABEL_PROXY_NAME
from userspace_proxy.policy import (
    NodeFacts,
    ignored_reason,
    own_address_reason,
    port_ignored_reason,
)

from ..model.samples import CART_IP_V6, service

WRONG_IP = NoteKind.ADDRESS_WRONG(CLUSTER_IPS, "'10.96.300.1' is not an IP address")
EVERYBODYS = NodeFacts()
MESH = NodeFacts(proxy_name="mesh")


@pytest.mark.parametrize(
    ("given", "facts"),
    [
        pytest.param(service(), EVERYBODYS, id="cluster-ip"),
        pytest.param(service(type=ServiceType.NODE_PORT), EVERYBODYS, id="node-port"),
        pytest.param(service(type=ServiceType.LOAD_BALANCER), EVERYBODYS, id="load-balancer"),
        pytest.param(service(cluster_ips=(CART_IP_V6,)), EVERYBODYS, id="ipv6"),
        pytest.param(service(ports=()), EVERYBODYS, id="no-ports"),
        pytest.param(service(proxy_name="mesh"), MESH, id="assigned-by-label"),
        pytest.param(service(proxy_name=""), NodeFacts(proxy_name=""), id="empty-label-and-name"),
    ],
)
def test_a_service_assigned_to_this_proxy_is_not_ignored(given, facts):
    assert ignored_reason(given, facts) is None


@pytest.mark.parametrize(
    ("given", "facts", "reason"),
    [
        (service(type=ServiceType.EXTERNAL_NAME), EVERYBODYS, is_external_name()),
        (
            service(type=ServiceType.EXTERNAL_NAME, external_name="192.0.2.7"),
            EVERYBODYS,
            is_external_name("192.0.2.7"),
        ),
        (service(cluster_ips=(), is_headless=True), EVERYBODYS, is_headless()),
        (
            service(
                cluster_ips=(), is_headless=True, ports=(ServicePort("", 80, "TCP", target="8080"),)
            ),
            EVERYBODYS,
            is_headless(("8080 (not 80)",)),
        ),
        (service(has_headless_label=True), EVERYBODYS, has_headless_label()),
        (service(cluster_ips=()), EVERYBODYS, no_cluster_ip()),
        (service(cluster_ips=(), notes=(WRONG_IP,)), EVERYBODYS, cause_of(WRONG_IP)),
        (service(proxy_name="mesh"), EVERYBODYS, of_other_proxy("mesh")),
        (service(proxy_name=""), EVERYBODYS, of_other_proxy("")),
        (service(), MESH, lacks_label(f"{LABEL_PROXY_NAME}=mesh")),
        (service(proxy_name="other"), MESH, of_other_proxy("other")),
        (service(proxy_name="mesh", cluster_ips=()), MESH, no_cluster_ip()),
        (service(proxy_name="mesh", is_headless=True), EVERYBODYS, of_other_proxy("mesh")),
    ],
)
def test_a_service_that_this_proxy_does_not_serve_is_ignored_with_the_reason(given, facts, reason):
    assert ignored_reason(given, facts) == reason


@pytest.mark.parametrize(
    ("protocol", "reason"),
    [
        pytest.param("TCP", None, id="tcp"),
        pytest.param("UDP", None, id="udp"),
        pytest.param("SCTP", unsupported_protocol("SCTP"), id="sctp"),
        pytest.param("tcp", unsupported_protocol("tcp"), id="lower-case"),
    ],
)
def test_a_port_is_served_only_if_its_protocol_is_supported(protocol, reason):
    assert port_ignored_reason(ServicePort("http", 80, protocol)) == reason


OWN = service(cluster_ips=("10.96.0.7", "fd00::5"))


@pytest.mark.parametrize(
    ("facts", "ip"),
    [
        pytest.param({}, "", id="another-address"),
        pytest.param({"addresses": ("10.0.0.1", "fd00::5")}, "fd00::5", id="interface"),
        pytest.param({"primary_addresses": ("10.96.0.7",)}, "10.96.0.7", id="node-object"),
        pytest.param(
            {"addresses": ("10.96.0.7",), "allow_loopback_endpoints": True}, "", id="no-steering"
        ),
    ],
)
def test_the_nodes_own_address_is_rejected_as_a_cluster_ip(facts, ip):
    assert own_address_reason(OWN, NodeFacts(**facts)) == (own_address(ip) if ip else None)
