"""Ports and endpoints of one Service, by what is asked for."""

import pytest

from tests.unit.model.samples import CART, service, slice_of
from userspace_proxy.cluster import ServiceState
from userspace_proxy.model import Endpoint, ServicePort, SlicePort
from userspace_proxy.names.endpoints import Endpoints, NamedEndpoints

HTTP = SlicePort("http", 8080, "TCP")
ADMIN = SlicePort("Admin", 9090, "TCP")
DNS = SlicePort("dns", 5353, "UDP")


def index(*slices, ports=()):
    return NamedEndpoints(ServiceState(service(ports=ports), slices))


def pairs(endpoints):
    found = (endpoints.at(i) for i in range(len(endpoints)))
    return [(endpoint.ip, number) for endpoint, number in found]


MIXED = index(
    slice_of("10.0.0.1", Endpoint("10.0.0.2", ready=False), key="a", ports=(HTTP, ADMIN, DNS)),
    slice_of("10.0.0.3", key="b", ports=()),
    slice_of("10.0.0.4", "10.0.0.1", "fd00::4", key="c", ports=(HTTP,)),
)


@pytest.mark.parametrize(
    ("port", "protocol", "expected"),
    [
        pytest.param("", "", [
            ("10.0.0.1", 9090), ("10.0.0.1", 5353), ("10.0.0.1", 8080), ("10.0.0.3", None),
            ("10.0.0.4", 8080), ("10.0.0.1", 8080), ("fd00::4", 8080)], id="any"),
        pytest.param("admin", "tcp", [("10.0.0.1", 9090)], id="in-any-case"),
        pytest.param("", "udp", [("10.0.0.1", 5353)], id="any-of-a-protocol"),
        pytest.param("dns", "", [("10.0.0.1", 5353)], id="any-protocol"),
        pytest.param("dns", "tcp", [], id="another-protocol"),
    ],
)  # fmt: skip
def test_each_ready_endpoint_with_a_port_once_for_each_number(port, protocol, expected):
    assert pairs(MIXED.endpoints(port, protocol)) == expected
    assert pairs(MIXED.endpoints(port, protocol)) == expected


def test_addresses_are_those_of_a_family_each_once():
    ips = MIXED.endpoints("http", "tcp").ips
    assert (list(ips(is_ipv6=False)), list(ips(is_ipv6=True))) == (
        ["10.0.0.1", "10.0.0.4"],
        ["fd00::4"],
    )


def test_endpoints_are_found_by_their_hostnames_or_addresses():
    one, two = Endpoint("10.0.0.1", hostname="Web-0"), Endpoint("10.0.0.2", hostname="web-0")
    slices = slice_of(one, two, "10.0.0.3", key="a"), slice_of(one, key="b", ports=(DNS,))
    found = index(*slices)
    assert pairs(found.labelled("web-0")) == [
        ("10.0.0.1", 8080),
        ("10.0.0.2", 8080),
        ("10.0.0.1", 5353),
    ]
    assert pairs(found.labelled("10-0-0-3")) == [("10.0.0.3", 8080)]
    assert not len(found.labelled("10-0-0-1"))


def test_what_does_not_exist_is_not_remembered():
    found = index(slice_of("10.0.0.1"))
    for i in range(10):
        assert not len(found.endpoints(f"p{i}", "tcp"))
        assert not len(found.labelled(f"p{i}"))
    assert found._found == {}


def test_ports_of_the_service():
    http, dns = ServicePort("HTTP", 80, "TCP"), ServicePort("dns", 53, "UDP")
    found = index(ports=(http, dns))
    assert list(found.ports("", "")) == [http, dns]
    assert list(found.ports("http", "tcp")) == [http]
    assert list(found.ports("", "udp")) == [dns]
    assert list(found.ports("dns", "tcp")) == []


def test_none():
    assert len(Endpoints(())) == 0
    assert index().state.service.key == CART
