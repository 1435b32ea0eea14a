"""What is refused of objects that no API server has seen."""

from __future__ import annotations

import pytest

from userspace_proxy.model.admission import check_metadata, check_service, check_slice
from userspace_proxy.model.reading import FieldError
from userspace_proxy.model.wire import Metadata, WireEndpointSlice, WireService, convert

WEB_LABEL = {"kubernetes.io/service-name": "web"}


def service(*ports: dict[str, object], **spec: object) -> WireService:
    return convert(
        {"metadata": {"name": "web"}, "spec": {"ports": list(ports), **spec}}, WireService
    )


def endpoint_slice(**fields: object) -> WireEndpointSlice:
    whole = {"metadata": {"name": "web-1", "labels": WEB_LABEL}, "addressType": "IPv4", **fields}
    return convert(whole, WireEndpointSlice)


HTTP = {"name": "http", "port": 80}
HTTPS = {"name": "https", "port": 443}


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(service({"port": 80}), id="one-port-without-a-name"),
        pytest.param(service(HTTP, HTTPS, {"name": "dns", "port": 80, "protocol": "UDP"}), id="3"),
        pytest.param(service(clusterIP="None"), id="headless-without-ports"),
        pytest.param(service(type="ExternalName"), id="external-name"),
        pytest.param(service(HTTP, clusterIP=""), id="no-address-yet"),
        pytest.param(
            service(HTTP, clusterIP="10.96.7.1", clusterIPs=["10.96.7.1", "fd00::7"]), id="dual"
        ),
    ],
)
def test_sound_services_pass(wire):
    check_service(wire)


@pytest.mark.parametrize(
    ("wire", "problem"),
    [
        pytest.param(service(), "spec.ports: is missing: write at least one", id="no-ports"),
        pytest.param(
            service({"port": 70000}), "spec.ports[0].port: 70000 is not in 1–65535", id="port"
        ),
        pytest.param(service({"name": "a"}), "spec.ports[0].port: is missing", id="no-number"),
        pytest.param(
            service({"port": 80, "nodePort": -1}),
            "spec.ports[0].nodePort: -1 is not in 1–65535",
            id="node-port",
        ),
        pytest.param(
            service({"port": 80, "protocol": "tcp"}),
            "spec.ports[0].protocol: 'tcp' is not one of TCP, UDP, SCTP",
            id="protocol",
        ),
        pytest.param(
            service(HTTP, {"port": 81}),
            "spec.ports[1].name: is missing: one of several ports needs a name",
            id="unnamed",
        ),
        pytest.param(
            service(HTTP, {"name": "http", "port": 81}),
            "spec.ports[1].name: 'http' is the name of another port already",
            id="name-twice",
        ),
        pytest.param(
            service(HTTP, {"name": "web", "port": 80}),
            "spec.ports[1].port: 80/TCP is that of spec.ports[0] already",
            id="port-twice",
        ),
        pytest.param(
            service({"name": "HTTP", "port": 80}),
            "spec.ports[0].name: 'HTTP' is not a DNS label: lower-case letters, digits and '-', "
            "at most 63, a letter or digit at both ends",
            id="port-name",
        ),
        pytest.param(
            service(HTTP, clusterIP="10.96.07.1"),
            "spec.clusterIP: '10.96.07.1' is not an IP address",
            id="leading-zero",
        ),
        pytest.param(
            service(HTTP, clusterIPs=["10.96.7.1", "10.96.7.2"]),
            "spec.clusterIPs: may have one address of each family",
            id="one-family-twice",
        ),
        pytest.param(
            service(HTTP, clusterIP="10.96.7.1", clusterIPs=["10.96.7.2"]),
            "spec.clusterIPs[0]: 10.96.7.2 is not clusterIP, 10.96.7.1",
            id="two-opinions",
        ),
        pytest.param(
            service(HTTP, clusterIP="0.0.0.0"),
            "spec.clusterIP: 0.0.0.0 can't be the address of a Service",
            id="every-address",
        ),
        pytest.param(
            service(HTTP, externalIPs=["192.0.2.1", "web"]),
            "spec.externalIPs[1]: 'web' is not an IP address",
            id="external-ip",
        ),
        pytest.param(
            convert({"metadata": {"name": "web"}}, WireService), "spec: is missing", id="no-spec"
        ),
    ],
)
def test_a_service_is_refused_with_the_field(wire, problem):
    with pytest.raises(FieldError) as caught:
        check_service(wire)
    assert str(caught.value) == problem


def test_the_name_of_a_service_is_one_label():
    with pytest.raises(FieldError, match=r"metadata.name: 'web.shop' is not a DNS label"):
        check_service(convert({"metadata": {"name": "web.shop"}, "spec": {}}, WireService))


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        pytest.param(Metadata(), "metadata.name: is missing", id="no-name"),
        pytest.param(Metadata(name="Web"), "metadata.name: 'Web' is not a DNS name", id="case"),
        pytest.param(Metadata(name="web\n"), "metadata.name: 'web\\n' is not a DNS", id="newline"),
        pytest.param(Metadata(name="a" * 254), "metadata.name: 'aaa", id="too-long"),
        pytest.param(
            Metadata(name="web", namespace="my shop"),
            "metadata.namespace: 'my shop' is not a DNS label",
            id="namespace",
        ),
    ],
)
def test_names_are_dns_names(metadata, problem):
    with pytest.raises(FieldError) as caught:
        check_metadata(metadata)
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(endpoint_slice(), id="empty"),
        pytest.param(
            endpoint_slice(endpoints=[{"addresses": ["10.244.1.7"]}], ports=[{"port": 8080}]),
            id="ipv4",
        ),
        pytest.param(
            endpoint_slice(addressType="FQDN", endpoints=[{"addresses": ["shop.example"]}]),
            id="names",
        ),
        pytest.param(endpoint_slice(ports=[{"name": ""}]), id="all-ports"),
    ],
)
def test_sound_slices_pass(wire):
    check_slice(wire)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        pytest.param(
            {"metadata": {"name": "web-1"}},
            "metadata.labels: kubernetes.io/service-name is missing: it must name the Service "
            "that the slice serves",
            id="no-service",
        ),
        pytest.param(
            {"addressType": "ipv4"},
            "addressType: 'ipv4' is unknown: write IPv4, IPv6 or FQDN",
            id="type",
        ),
        pytest.param(
            {"addressType": None}, "addressType: is missing: write IPv4, IPv6 or FQDN", id="no-type"
        ),
        pytest.param(
            {"endpoints": [{"addresses": ["10.244.1.7"]}, {"addresses": ["fd00::7"]}]},
            "endpoints[1].addresses[0]: fd00::7 is not IPv4",
            id="family",
        ),
        pytest.param(
            {"endpoints": [{"addresses": ["10.244.1"]}]},
            "endpoints[0].addresses[0]: '10.244.1' is not an IP address",
            id="address",
        ),
        pytest.param({"endpoints": [{}]}, "endpoints[0].addresses: is missing", id="no-addresses"),
        pytest.param({"ports": [{"port": 0}]}, "ports[0].port: 0 is not in 1–65535", id="port"),
        pytest.param(
            {"ports": [HTTP, {"port": 81}]},
            "ports[1].name: is missing: one of several ports needs a name",
            id="port-name",
        ),
    ],
)
def test_a_slice_is_refused_with_the_field(fields, problem):
    with pytest.raises(FieldError) as caught:
        check_slice(endpoint_slice(**fields))
    assert str(caught.value) == problem
