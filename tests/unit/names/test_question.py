"""Tests of parsing the labels of a name below the cluster domain."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.model import ServiceKey
from userspace_proxy.names.question import (
    Question,
    address_of,
    hostname_of,
    keys_of_label,
    parse_question,
    pod_address,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("", Question(), id="the-domain"),
        pytest.param("svc", Question(), id="all-services"),
        pytest.param("pod", Question(), id="all-pods"),
        pytest.param("shop.svc", Question("svc", "shop"), id="a-namespace"),
        pytest.param("web.shop.svc", Question("svc", "shop", "web"), id="a-service"),
        pytest.param("web-0.web.shop.svc", Question("svc", "shop", "web", "web-0"),
            id="an-endpoint"),
        pytest.param("_http._tcp.web.shop.svc",
            Question("svc", "shop", "web", port="http", protocol="tcp"), id="a-port"),
        pytest.param("10-0-0-1.shop.pod", Question("pod", "shop", "10-0-0-1"), id="a-pod"),
    ],
)  # fmt: skip
def test_a_name_is_split_into_its_parts(name, expected):
    assert parse_question(name) == expected


def test_a_service_name_is_parsed_into_its_key():
    assert parse_question("web.shop.svc").key == ServiceKey("shop", "web")


@pytest.mark.parametrize("name", ["com", "web.shop", "a.b.c.d.shop.svc", "web..svc"])
def test_parse_question_returns_none_for_names_of_no_object(name):
    assert parse_question(name) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("10-244-0-3", "10.244.0.3", id="ipv4"),
        pytest.param("fd00--3", "fd00::3", id="ipv6"),
        pytest.param("web-0", None, id="a-name"),
    ],
)
def test_a_pod_name_contains_its_address(text, expected):
    assert pod_address(text) == expected


@pytest.mark.parametrize(
    ("ip", "hostname", "expected"),
    [
        pytest.param("10.244.0.3", "", "10-244-0-3", id="ipv4"),
        pytest.param("fd00::3", "", "fd00--3", id="ipv6"),
        pytest.param("fd00::", "", "fd00--0", id="ipv6-with-zeros-at-its-end"),
        pytest.param("10.244.0.3", "web-0", "web-0", id="with-a-hostname"),
    ],
)
def test_an_endpoints_first_label_is_its_hostname_or_address(ip, hostname, expected):
    assert hostname_of(ip, hostname) == expected


@given(st.ip_addresses())
def test_a_reverse_name_maps_to_its_address(ip):
    assert address_of(f"{ip.reverse_pointer}.") == str(ipaddress.ip_address(str(ip)))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("web.shop.svc.cluster.local.", id="another-zone"),
        pytest.param("in-addr.arpa.", id="the-zone-itself"),
        pytest.param("0.96.10.in-addr.arpa.", id="a-part-of-an-address"),
        pytest.param("256.0.96.10.in-addr.arpa.", id="not-a-byte"),
        pytest.param("1.0.0.ip6.arpa.", id="a-part-of-an-ipv6-address"),
        pytest.param("10.0.ip6.arpa.", id="not-a-digit"),
    ],
)
def test_an_invalid_reverse_name_maps_to_no_address(name):
    assert address_of(name) is None


def test_a_label_is_read_as_a_hostname_and_as_an_address():
    assert keys_of_label("10-0-0-1") >= {"10-0-0-1", "10.0.0.1"}
    assert "fd00::7" in keys_of_label("fd00--7")
    assert "fd00::" in keys_of_label("fd00--0")
