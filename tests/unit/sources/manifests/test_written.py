"""The fields of a Service in a manifest that the proxy must allocate."""

from __future__ import annotations

import pytest

from userspace_proxy.model import IPFamily
from userspace_proxy.model.wire import WireService, convert
from userspace_proxy.sources.manifests.written import WrittenService, read_written

V4, V6 = IPFamily.IPV4, IPFamily.IPV6


def written(**spec: object) -> WrittenService:
    wire = {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}], **spec}}
    return read_written(convert(wire, WireService))


DUAL = "RequireDualStack"
PREFER = "PreferDualStack"


@pytest.mark.parametrize(
    ("spec", "configured", "families"),
    [
        pytest.param({}, (V4, V6), (V4,), id="default"),
        pytest.param({}, (V6, V4), (V6,), id="default-of-the-first-range"),
        pytest.param({"ipFamilies": ["IPv6"]}, (V4, V6), (V6,), id="named-family"),
        pytest.param({"ipFamilies": ["IPv6"]}, (V4,), (V6,), id="even-without-a-range"),
        pytest.param({"ipFamilies": ["IPv6", "IPv4"]}, (V4, V6), (V6, V4), id="two-in-order"),
        pytest.param({"ipFamilyPolicy": DUAL}, (V6, V4), (V6, V4), id="both-required"),
        pytest.param({"ipFamilyPolicy": DUAL}, (V4,), (V4, V6), id="required-without-a-range"),
        pytest.param({"ipFamilyPolicy": PREFER}, (V4,), (V4,), id="preferred-without-a-range"),
        pytest.param(
            {"ipFamilyPolicy": PREFER, "ipFamilies": ["IPv6"]}, (V4, V6), (V6, V4), id="preferred"
        ),
        pytest.param({"ipFamilyPolicy": "SingleStack"}, (V4, V6), (V4,), id="single"),
        pytest.param({"clusterIP": "fd00::7"}, (V4, V6), (V6,), id="named-address"),
        pytest.param(
            {"clusterIP": "fd00::7", "ipFamilyPolicy": PREFER}, (V4, V6), (V6, V4), id="named-dual"
        ),
        pytest.param({"clusterIP": "None", "ipFamilyPolicy": DUAL}, (V4, V6), (), id="headless"),
        pytest.param({"type": "ExternalName"}, (V4, V6), (), id="external-name"),
    ],
)
def test_requested_families_follow_from_the_addresses_and_policy(spec, configured, families):
    assert written(**spec).wanted_families(configured) == families


@pytest.mark.parametrize(
    ("spec", "node_ports", "health_check"),
    [
        ({}, False, False),
        ({"type": "NodePort", "externalTrafficPolicy": "Local"}, True, False),
        ({"type": "LoadBalancer"}, True, False),
        ({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False}, False, False),
        ({"type": "LoadBalancer", "externalTrafficPolicy": "Local"}, True, True),
    ],
)
def test_a_service_type_determines_the_requested_node_ports(spec, node_ports, health_check):
    item = written(**spec)
    assert (item.wants_node_ports, item.wants_health_check_node_port) == (node_ports, health_check)
