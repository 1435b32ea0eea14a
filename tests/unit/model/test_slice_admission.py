"""Tests that EndpointSlices are rejected as an API server would reject them."""

from __future__ import annotations

import pytest

from userspace_proxy.model.slice_admission import check_slice
from userspace_proxy.model.syntax import (
    check_address,
    check_family,
    check_label_value,
    check_subdomain,
)
from userspace_proxy.model.wire import FieldError, WireEndpointSlice, convert

from ..refusals import why

WEB_LABEL = {"kubernetes.io/service-name": "web"}
HTTP = {"name": "http", "port": 80}


def endpoint_slice(**fields: object) -> WireEndpointSlice:
    whole = {"metadata": {"name": "web-1", "labels": WEB_LABEL}, "addressType": "IPv4", **fields}
    return convert(whole, WireEndpointSlice)


def hinted(**hints: object) -> dict[str, object]:
    return {"endpoints": [{"addresses": ["10.244.1.7"], "hints": hints}]}


@pytest.mark.parametrize(
    "wire",
    [
        endpoint_slice(),
        endpoint_slice(endpoints=[{"addresses": ["10.244.1.7"]}], ports=[{"port": 8080}]),
        endpoint_slice(addressType="FQDN", endpoints=[{"addresses": ["shop.example"]}]),
        endpoint_slice(ports=[{"name": ""}]),
        endpoint_slice(ports=[HTTP, {"port": 81}]),
        endpoint_slice(endpoints=[{"addresses": ["127.0.0.1"]}, {"addresses": ["0.0.0.0"]}]),
        endpoint_slice(
            endpoints=[
                {
                    "addresses": ["10.244.1.7"],
                    "hostname": "web-0",
                    "nodeName": "node-1.example",
                    "hints": {"forZones": [{"name": "Zone_a"}], "forNodes": [{"name": "b"}]},
                },
                {"addresses": ["10.244.1.8"], "hints": {"forZones": None}},
            ]
        ),
        endpoint_slice(endpoints=[{"addresses": ["10.244.1.7"]}] * 1000),
    ],
)
def test_valid_slices_are_accepted(wire):
    check_slice(wire)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"addressType": "ipv4"}, "addressType: 'ipv4' is unknown: write IPv4, IPv6 or FQDN"),
        ({"addressType": None}, "addressType: is missing: write IPv4, IPv6 or FQDN"),
        (
            {"endpoints": [{"addresses": ["10.244.1.7"]}, {"addresses": ["fd00::7"]}]},
            why(check_family, "fd00::7", "IPv4", "endpoints[1].addresses[0]"),
        ),
        (
            {"endpoints": [{"addresses": ["10.244.1"]}]},
            why(check_address, "10.244.1", "endpoints[0].addresses[0]"),
        ),
        (
            {"endpoints": [{"addresses": ["10.244.1.7"]}] * 1001},
            "endpoints: has 1001 items, and may have 1000",
        ),
        (
            {"endpoints": [{"addresses": ["10.244.1.7"] * 101}]},
            "endpoints[0].addresses: has 101 items, and may have 100",
        ),
        (
            {"endpoints": [{"addresses": ["10.244.1.7"], "nodeName": "Node 1"}]},
            why(check_subdomain, "Node 1", "endpoints[0].nodeName"),
        ),
        (
            hinted(forZones=[{"name": f"z{n}"} for n in range(9)]),
            "endpoints[0].hints.forZones: has 9 items, and may have 8",
        ),
        (
            hinted(forZones=[{"name": "a b"}]),
            why(check_label_value, "a b", "endpoints[0].hints.forZones[0].name"),
        ),
        (
            hinted(forNodes=[{"name": "a"}, {"name": "a"}]),
            "endpoints[0].hints.forNodes[1].name: 'a' is already listed",
        ),
        (
            {"ports": [{"port": 80, "protocol": "tcp"}]},
            "ports[0].protocol: 'tcp' is not one of TCP, UDP, SCTP",
        ),
        (
            {"ports": [{"name": f"p{n}", "port": 80} for n in range(20001)]},
            "ports: has 20001 items, and may have 20000",
        ),
        ({"metadata": {"labels": WEB_LABEL}}, "metadata.name: is missing"),
        ({"endpoints": [{}]}, "endpoints[0].addresses: is missing"),
        ({"ports": [{"port": 0}]}, "ports[0].port: 0 is not in 1–65535"),
        (
            {"ports": [{"port": 80}, HTTP, {"port": 81}]},
            "ports[0].name: is missing: one of several ports needs a name",
        ),
    ],
)
def test_an_invalid_slice_is_rejected_and_its_field_named(fields, problem):
    with pytest.raises(FieldError) as caught:
        check_slice(endpoint_slice(**fields))
    assert str(caught.value) == problem


def test_all_errors_of_a_slice_are_reported_together():
    endpoints = [{"addresses": ["x", "fd00::7"], "nodeName": "_"}, {}]
    wire = convert(
        {"addressType": "ipv4", "ports": [{"port": 0, "protocol": "tcp"}], "endpoints": endpoints},
        WireEndpointSlice,
    )
    with pytest.raises(FieldError) as caught:
        check_slice(wire)
    paths = [error.path for error in (caught.value, *caught.value.others)]
    assert paths == [
        "metadata.name",
        "addressType",
        "ports[0].port",
        "ports[0].protocol",
        "endpoints[0].nodeName",
        "endpoints[1].addresses",
    ]


def test_an_app_protocol_must_be_a_qualified_name():
    port = {"name": "a", "port": 80, "appProtocol": "kubernetes.io/h2c"}
    check_slice(endpoint_slice(ports=[port]))
    with pytest.raises(FieldError, match=r"ports\[0\].appProtocol: 'a b' is not a qualified name"):
        check_slice(endpoint_slice(ports=[port | {"appProtocol": "a b"}]))
