"""Addresses for Services that name none."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.errors import ConfigError
from userspace_proxy.model import ServiceKey
from userspace_proxy.sources.allocation import ClusterIPs

WEB = ServiceKey("shop", "web")
CART = ServiceKey("shop", "cart")


def test_the_address_is_the_same_after_a_restart():
    before = ClusterIPs("10.96.0.0/16").allocate([WEB], taken=())
    after = ClusterIPs("10.96.0.0/16").allocate([CART, WEB], taken=())
    assert after[WEB] == before[WEB] == "10.96.67.208"


def test_a_named_address_is_never_given_and_moves_who_had_it():
    ips = ClusterIPs("10.96.0.0/16")
    first = ips.allocate([WEB], taken=())[WEB]
    second = ips.allocate([WEB], taken={first})[WEB]
    assert second == str(ipaddress.ip_address(first) + 1)


def test_who_has_an_address_keeps_it_when_another_name_meets_it():
    ips = ClusterIPs("10.96.0.0/29")
    seats = {}
    for name in "fedcba":
        key = ServiceKey("shop", name)
        new = ips.allocate([*seats, key], taken=())
        assert {k: new[k] for k in seats} == seats
        seats = dict(new)
    assert set(seats.values()) == {f"10.96.0.{n}" for n in range(1, 7)}


def test_a_full_range_leaves_some_without_an_address():
    keys = [ServiceKey("shop", f"web-{n}") for n in range(7)]
    given_out = ClusterIPs("10.96.0.0/29").allocate(keys, taken=())
    assert len(given_out) == 6


def test_an_address_that_is_given_back_can_be_given_again():
    ips = ClusterIPs("10.96.0.1/32")
    assert ips.allocate([WEB], taken=()) == {WEB: "10.96.0.1"}
    assert ips.allocate([WEB, CART], taken=()) == {WEB: "10.96.0.1"}
    assert ips.allocate([CART], taken=()) == {CART: "10.96.0.1"}


def test_the_start_of_the_range_is_left_for_people_to_name():
    keys = [ServiceKey("shop", f"web-{n}") for n in range(300)]
    given_out = ClusterIPs("10.96.0.0/24").allocate(keys, taken=())
    low = [ips for ips in list(given_out.values())[:200] if int(ips.rpartition(".")[2]) <= 16]
    assert len(given_out) == 254
    assert low == []


@pytest.mark.parametrize(
    ("cidr", "words"),
    [
        pytest.param("10.96.0.1/16", "has host bits set", id="host-bits"),
        pytest.param("web/16", "does not appear to be", id="text"),
        pytest.param("10.96.0.0", "is a single address", id="no-length"),
    ],
)
def test_a_range_that_is_none_is_refused(cidr, words):
    with pytest.raises(ConfigError, match=words) as caught:
        ClusterIPs(cidr)
    assert caught.value.hint == "write a range as 10.96.0.0/16"


names = st.text("abc", min_size=1, max_size=3).map(lambda name: ServiceKey("shop", name))


@given(
    cidr=st.sampled_from(
        ["10.96.0.0/24", "10.96.0.0/28", "fd00::/108", "fd00::/64", "10.0.0.0/31"]
    ),
    rounds=st.lists(st.sets(names, max_size=20), max_size=5),
)
def test_addresses_are_unique_in_the_range_and_kept(cidr, rounds):
    ips = ClusterIPs(cidr)
    before = {}
    for wanting in rounds:
        now = ips.allocate(wanting, taken=())
        assert len(set(now.values())) == len(now)
        assert all(ipaddress.ip_address(ip) in ipaddress.ip_network(cidr) for ip in now.values())
        assert all(now[key] == before[key] for key in wanting & before.keys())
        before = now
