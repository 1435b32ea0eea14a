"""Reverse names stand for addresses."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.names.reverse import address_of


@given(st.ip_addresses())
def test_the_reverse_name_of_each_address_stands_for_it(ip):
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
def test_other_names_stand_for_none(name):
    assert address_of(name) is None
