"""Tests that Services are rejected as an API server would reject them."""

from __future__ import annotations

import pytest

from userspace_proxy.model.admission import check_metadata, check_service
from userspace_proxy.model.quoting import quoted
from userspace_proxy.model.source_ranges import ANNOTATION_SOURCE_RANGES as RANGES
from userspace_proxy.model.source_ranges import parse_range
from userspace_proxy.model.syntax import (
    check_common_address,
    check_label,
    check_qualified_name,
    check_subdomain,
    check_target_port,
)
from userspace_proxy.model.wire import FieldError, Metadata, WireService, convert

from ..refusals import why


def service(*ports: dict[str, object], **spec: object) -> WireService:
    return convert(
        {"metadata": {"name": "web"}, "spec": {"ports": list(ports), **spec}}, WireService
    )


HTTP = {"name": "http", "port": 80}
HTTPS = {"name": "https", "port": 443}
DNS = {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053}
DNS_TCP = {"name": "dns-tcp", "port": 53, "nodePort": 30053}


def with_ingress(*ingress: dict[str, object], **spec: object) -> WireService:
    wire = {
        "metadata": {"name": "web"},
        "spec": {"ports": [HTTP], "type": "LoadBalancer", **spec},
        "status": {"loadBalancer": {"ingress": list(ingress)}},
    }
    return convert(wire, WireService)


def with_annotation(text: str, **spec: object) -> WireService:
    metadata = {"name": "web", "annotations": {RANGES: text}}
    return convert({"metadata": metadata, "spec": {"ports": [HTTP], **spec}}, WireService)


def refusal(wire: WireService) -> str:
    with pytest.raises(FieldError) as caught:
        check_service(wire)
    return str(caught.value)


@pytest.mark.parametrize(
    "wire",
    [
        service({"port": 80}),
        service(HTTP, HTTPS, {"name": "dns", "port": 80, "protocol": "UDP"}),
        service(clusterIP="None"),
        service(type="ExternalName", externalName="shop.example."),
        service(HTTP, clusterIP=""),
        service(HTTP, clusterIP="10.96.7.1", clusterIPs=["10.96.7.1", "fd00::7"]),
        service(HTTP, ipFamilies=["IPv6", "IPv4"], clusterIP="fd00::7", clusterIPs=["fd00::7"]),
        service(
            DNS,
            DNS_TCP,
            type="NodePort",
            externalTrafficPolicy="Local",
            internalTrafficPolicy="Local",
            sessionAffinity="ClientIP",
            trafficDistribution="PreferSameZone",
            ipFamilyPolicy="PreferDualStack",
        ),
        service(
            HTTP,
            type="LoadBalancer",
            externalTrafficPolicy="Local",
            healthCheckNodePort=32000,
            allocateLoadBalancerNodePorts=False,
            loadBalancerSourceRanges=[" 10.0.0.0/8 ", "2001:DB8::/32"],
        ),
        service({**HTTP, "nodePort": 5060, "targetPort": "web"}, type="NodePort"),
        service(HTTP, {**HTTPS, "nodePort": HTTP["port"]}, type="NodePort"),
        service(HTTP, externalIPs=["192.0.2.1"], externalTrafficPolicy="Local"),
        service(HTTP, type="", sessionAffinity="", externalTrafficPolicy=""),
        with_ingress({"ip": "192.0.2.1", "ipMode": "Proxy"}, {"hostname": "lb.example"}),
    ],
)
def test_valid_services_are_accepted(wire):
    check_service(wire)


@pytest.mark.parametrize(
    ("wire", "problem"),
    [
        (service(), "spec.ports: is missing: write at least one"),
        (service({"port": 70000}), "spec.ports[0].port: 70000 is not in 1–65535"),
        (service({"name": "a"}), "spec.ports[0].port: is missing"),
        (
            service({"port": 80, "nodePort": 65536}, type="NodePort"),
            "spec.ports[0].nodePort: 65536 is not in 1–65535",
        ),
        (
            service({"port": 80, "protocol": "tcp"}),
            "spec.ports[0].protocol: 'tcp' is not one of TCP, UDP, SCTP",
        ),
        (
            service(HTTP, {"port": 81}),
            "spec.ports[1].name: is missing: one of several ports needs a name",
        ),
        (
            service(HTTP, {"name": "http", "port": 81}),
            "spec.ports[1].name: 'http' is already the name of another port",
        ),
        (
            service(HTTP, {"name": "web", "port": 80}),
            "spec.ports[1].port: 80/TCP is already used by spec.ports[0]",
        ),
        (service({"name": "HTTP", "port": 80}), why(check_label, "HTTP", "spec.ports[0].name")),
        (
            service(HTTP, clusterIP="10.96.07.1"),
            "spec.clusterIP: '10.96.07.1' is not an IP address",
        ),
        (
            service(HTTP, clusterIP="10.96.7.1", clusterIPs=["10.96.7.1", "10.96.7.2"]),
            "spec.clusterIPs: may have one address of each family",
        ),
        (
            service(HTTP, clusterIP="10.96.7.1", clusterIPs=["10.96.7.2"]),
            "spec.clusterIPs[0]: 10.96.7.2 is not clusterIP, 10.96.7.1",
        ),
        (
            service(HTTP, clusterIP="0.0.0.0"),
            "spec.clusterIP: 0.0.0.0 can't be the address of a Service",
        ),
        (
            service(HTTP, externalIPs=["192.0.2.1", "web"]),
            "spec.externalIPs[1]: 'web' is not an IP address",
        ),
        (
            service(HTTP, externalTrafficPolicy="Cluster"),
            "spec.externalTrafficPolicy: may only be used with type NodePort or LoadBalancer, or "
            "with externalIPs",
        ),
        (
            service({**HTTP, "targetPort": "8080"}),
            why(check_target_port, "8080", "spec.ports[0].targetPort"),
        ),
        (
            service(HTTP, clusterIPs=["10.96.7.1"]),
            "spec.clusterIPs: may not be used without clusterIP, which is the first",
        ),
        (
            service(HTTP, internalTrafficPolicy=""),
            "spec.internalTrafficPolicy: '' is not one of Cluster, Local",
        ),
        (
            service(HTTP, loadBalancerClass="a.b/c"),
            "spec.loadBalancerClass: may only be used with type LoadBalancer",
        ),
        (service(HTTP, selector={"a b": "c"}), why(check_qualified_name, "a b", "spec.selector")),
        (
            service({"port": 80, "nodePort": 30080}),
            "spec.ports[0].nodePort: may only be used with type NodePort or LoadBalancer",
        ),
        (
            service({**HTTP, "nodePort": 30080}, {**HTTPS, "nodePort": 30080}, type="NodePort"),
            "spec.ports[1].nodePort: 30080/TCP is already used by spec.ports[0]",
        ),
        (
            service(
                HTTP, type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=65536
            ),
            "spec.healthCheckNodePort: 65536 is not in 1–65535",
        ),
        (
            service(
                {**HTTP, "nodePort": 32000},
                type="LoadBalancer",
                externalTrafficPolicy="Local",
                healthCheckNodePort=32000,
            ),
            "spec.healthCheckNodePort: 32000 is already used by spec.ports[0]",
        ),
        (
            service(HTTP, type="LoadBalancer", loadBalancerSourceRanges=["10.0.0.1/8"]),
            "spec.loadBalancerSourceRanges[0]: '10.0.0.1/8' has bits set after its prefix (write "
            "10.0.0.0/8)",
        ),
        (
            with_annotation("10.0.0.0/8,10.0.0.0", type="LoadBalancer"),
            f"metadata.annotations.{RANGES}: {why(parse_range, '10.0.0.0')}",
        ),
        (
            service(HTTP, externalIPs=["127.0.0.1"]),
            why(check_common_address, "127.0.0.1", "spec.externalIPs[0]"),
        ),
        (service(type="ExternalName"), "spec.externalName: is missing: type ExternalName needs it"),
        (
            service(type="ExternalName", externalName="a.b", clusterIP="10.96.7.1"),
            "spec.clusterIP: may not be used with type ExternalName",
        ),
        (
            service(HTTP, type="NodePort", clusterIP="None"),
            "spec.clusterIP: 'None' may not be used with type NodePort",
        ),
        (service(HTTP, ipFamilies=["ipv4"]), "spec.ipFamilies[0]: 'ipv4' is not one of IPv4, IPv6"),
        (service(HTTP, ipFamilies=[""]), "spec.ipFamilies[0]: \"''\" is not one of IPv4, IPv6"),
        (service(HTTP, ipFamilies=["IPv4", "IPv4"]), "spec.ipFamilies[1]: IPv4 is already listed"),
        (
            service(HTTP, ipFamilies=["IPv6"], clusterIP="10.96.7.1"),
            "spec.clusterIP: 10.96.7.1 is not IPv6",
        ),
        (
            service(HTTP, ipFamilies=["IPv6", "IPv4"], ipFamilyPolicy="SingleStack"),
            "spec.ipFamilyPolicy: 'SingleStack' has one address family, not two: write "
            "PreferDualStack or RequireDualStack",
        ),
        (
            service(HTTP, clusterIP="10.96.7.1", clusterIPs=["10.96.7.1", ""]),
            "spec.clusterIPs: may have one address of each family",
        ),
        (
            with_ingress({"ip": "192.0.2.01"}),
            "status.loadBalancer.ingress[0].ip: '192.0.2.01' is not an IP address",
        ),
        (
            with_ingress({"ip": "192.0.2.1", "ipMode": "DSR"}),
            "status.loadBalancer.ingress[0].ipMode: 'DSR' is not one of VIP, Proxy",
        ),
        (
            with_ingress({"hostname": "lb", "ipMode": "VIP"}),
            "status.loadBalancer.ingress[0].ipMode: may only be used with ip",
        ),
        (
            service(type="ExternalName", externalName="shop_web"),
            why(check_subdomain, "shop_web", "spec.externalName"),
        ),
        (convert({"metadata": {}, "spec": {}}, WireService), "metadata.name: is missing"),
        (convert({"metadata": {"name": "web"}}, WireService), "spec: is missing"),
    ],
)
def test_an_invalid_service_is_rejected_and_its_field_named(wire, problem):
    assert refusal(wire) == problem


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("type", "ClusterIP, NodePort, LoadBalancer, ExternalName"),
        ("sessionAffinity", "ClientIP, None"),
        ("internalTrafficPolicy", "Cluster, Local"),
        ("externalTrafficPolicy", "Cluster, Local"),
        ("trafficDistribution", "PreferClose, PreferSameZone, PreferSameNode"),
        ("ipFamilyPolicy", "SingleStack, PreferDualStack, RequireDualStack"),
    ],
)
def test_an_unknown_value_in_a_service_is_rejected_with_the_allowed_values(field, words):
    spec = {"type": "NodePort", field: "local"}
    assert refusal(service(HTTP, **spec)) == f"spec.{field}: 'local' is not one of {words}"


@pytest.mark.parametrize(
    ("wire", "field"),
    [
        (
            service(HTTP, loadBalancerSourceRanges=["10.0.0.0/8"]),
            "spec.loadBalancerSourceRanges",
        ),
        (with_annotation("10.0.0.0/8"), f"metadata.annotations.{RANGES}"),
        (
            service(HTTP, allocateLoadBalancerNodePorts=True),
            "spec.allocateLoadBalancerNodePorts",
        ),
        (with_ingress({"ip": "192.0.2.1"}, type="NodePort"), "status.loadBalancer.ingress"),
    ],
)
def test_fields_for_load_balancers_require_type_load_balancer(wire, field):
    assert refusal(wire) == f"{field}: may only be used with type LoadBalancer"


@pytest.mark.parametrize(
    "spec",
    [{"type": "NodePort", "externalTrafficPolicy": "Local"}, {"type": "LoadBalancer"}],
)
def test_a_health_check_node_port_requires_a_load_balancer_with_policy_local(spec):
    assert refusal(service(HTTP, healthCheckNodePort=32000, **spec)) == (
        "spec.healthCheckNodePort: may only be used with type LoadBalancer and "
        "externalTrafficPolicy Local"
    )


def test_valid_fields_that_the_proxy_does_not_use_are_accepted():
    metadata = {
        "name": "web",
        "generateName": "web-",
        "finalizers": ["a.b/c"],
        "labels": {"a/b": ""},
    }
    port = {"port": 80, "targetPort": "web", "appProtocol": "kubernetes.io/h2c"}
    spec = {"type": "LoadBalancer", "loadBalancerClass": "a.b/c", "ports": [port]}
    check_service(convert({"metadata": metadata, "spec": spec}, WireService))


def test_all_errors_of_a_service_are_reported_together():
    ports = [{"port": 0, "protocol": "tcp"}, {"name": "a", "port": 80, "nodePort": -1}]
    spec = {"type": "Clusterip", "clusterIP": "x", "externalIPs": ["y"]}
    with pytest.raises(FieldError) as caught:
        check_service(convert({"spec": {"ports": ports, **spec}}, WireService))
    paths = " ".join(error.path for error in (caught.value, *caught.value.others))
    assert paths == (
        "metadata.name spec.type spec.clusterIP spec.externalIPs[0] spec.ports[0].port "
        "spec.ports[0].protocol spec.ports[0].name spec.ports[1].nodePort"
    )


def test_a_service_name_must_be_a_single_label():
    wire = convert({"metadata": {"name": "web.shop"}, "spec": {}}, WireService)
    assert refusal(wire) == why(check_label, "web.shop", "metadata.name")


@pytest.mark.parametrize(
    ("fields", "path", "wrong"),
    [
        pytest.param({"name": None}, "metadata.name", "", id="no-name"),
        pytest.param({"name": "Web"}, "metadata.name", "Web", id="case"),
        pytest.param({"name": "web\n"}, "metadata.name", "web\n", id="newline"),
        pytest.param({"name": "a" * 254}, "metadata.name", "a" * 254, id="too-long"),
        pytest.param({"namespace": "my shop"}, "metadata.namespace", "my shop", id="namespace"),
        pytest.param({"generate_name": "Web-"}, "metadata.generateName", "Web", id="generated"),
        pytest.param({"labels": {"a": "b c"}}, "metadata.labels.a", "b c", id="label"),
        pytest.param({"annotations": {"a b": ""}}, "metadata.annotations", "a b", id="annotation"),
        pytest.param({"finalizers": ["orphan", "x"]}, "metadata.finalizers[1]", "x", id="final"),
    ],
)
def test_names_labels_annotations_and_finalizers_of_an_object_must_be_valid(fields, path, wrong):
    with pytest.raises(FieldError) as caught:
        check_metadata(Metadata(**{"name": "web", **fields}))
    assert caught.value.path == path
    assert caught.value.problem.startswith(quoted(wrong) if wrong else "is missing")
