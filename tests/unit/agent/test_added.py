"""Objects for the Services of an embedder."""

import pytest

from userspace_proxy.agent.added import make_service, make_slices, parse_address
from userspace_proxy.model import ServiceKey, SocketAddress

WEB = ServiceKey("shop", "web")


def web(**more):
    arguments = {"cluster_ip": None, "affinity_timeout_s": None, "taken": (), "seed": "a"} | more
    return make_service(WEB, 80, "TCP", **arguments)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        pytest.param("192.0.2.1:80", SocketAddress("192.0.2.1", 80), id="ipv4"),
        pytest.param("[2001:db8::1]:80", SocketAddress("2001:db8::1", 80), id="ipv6"),
    ],
)
def test_an_address_is_read(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["192.0.2.1", "192.0.2.1:", "192.0.2.1:0", "192.0.2.1:65536", ":80", "web:80", "1:²"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 - its words are tested where users see them
        parse_address(text)


def test_the_loopback_address_is_the_same_again_and_not_one_that_is_taken():
    first = web().cluster_ips[0]
    assert web().cluster_ips == (first,)
    second = web(taken={first}).cluster_ips[0]
    assert second != first
    assert second.startswith("127.")


def test_two_proxies_choose_different_addresses_for_services_of_one_name():
    assert web(seed="a").cluster_ips != web(seed="b").cluster_ips


def test_an_address_that_was_asked_for_is_kept():
    assert web(cluster_ip="127.99.0.1").cluster_ips == ("127.99.0.1",)


def test_endpoints_are_grouped_into_slices_by_family_and_port():
    addresses = [
        SocketAddress("192.0.2.1", 80),
        SocketAddress("192.0.2.2", 80),
        SocketAddress("192.0.2.1", 81),
        SocketAddress("2001:db8::1", 80),
    ]
    slices = make_slices(web(), addresses)
    assert [s.key.name for s in slices] == ["web-4-80", "web-4-81", "web-6-80"]
    assert [[e.ip for e in s.endpoints] for s in slices] == [
        ["192.0.2.1", "192.0.2.2"],
        ["192.0.2.1"],
        ["2001:db8::1"],
    ]
    assert all(s.service == WEB for s in slices)
