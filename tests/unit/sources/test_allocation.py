"""Addresses for Services that name none."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.errors import ConfigError
from userspace_proxy.model import IPFamily
from userspace_proxy.sources.allocation import ClusterIPs, open_ranges

WEB = "shop/web"
CART = "shop/cart"


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
        key = f"shop/{name}"
        new = ips.allocate([*seats, key], taken=())
        assert {k: new[k] for k in seats} == seats
        seats = dict(new)
    assert set(seats.values()) == {f"10.96.0.{n}" for n in range(1, 7)}


def test_a_full_range_leaves_some_without_an_address():
    keys = [f"shop/web-{n}" for n in range(7)]
    given_out = ClusterIPs("10.96.0.0/29").allocate(keys, taken=())
    assert len(given_out) == 6


def test_an_address_that_is_given_back_can_be_given_again():
    ips = ClusterIPs("10.96.0.1/32")
    assert ips.allocate([WEB], taken=()) == {WEB: "10.96.0.1"}
    assert ips.allocate([WEB, CART], taken=()) == {WEB: "10.96.0.1"}
    assert ips.allocate([CART], taken=()) == {CART: "10.96.0.1"}


def test_the_start_of_the_range_is_left_for_people_to_name():
    keys = [f"shop/web-{n}" for n in range(300)]
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


def test_what_was_given_before_a_restart_is_given_again_if_it_is_of_the_range():
    ips = ClusterIPs("10.96.0.0/16")
    ips.remember({WEB: "10.96.0.99", CART: "10.97.0.1", "shop/db": "10.96.0.099", "shop/x": "x"})
    assert ips.given == {WEB: "10.96.0.99"}
    assert ips.allocate([WEB], taken=()) == {WEB: "10.96.0.99"}


def test_ranges_are_opened_by_family_with_the_first_one_as_the_default():
    ranges = open_ranges(["fd00:96::/112", "10.96.0.0/16"])
    assert list(ranges) == [IPFamily.IPV6, IPFamily.IPV4]
    assert [ips.cidr for ips in ranges.values()] == ["fd00:96::/112", "10.96.0.0/16"]


@pytest.mark.parametrize(
    ("cidrs", "words"),
    [
        pytest.param([], "no range is given", id="none"),
        pytest.param(
            ["10.96.0.0/16", "10.97.0.0/16"], "10.97.0.0/16 are both IPv4", id="one-family-twice"
        ),
    ],
)
def test_ranges_that_do_not_go_together_are_refused(cidrs, words):
    with pytest.raises(ConfigError, match=words):
        open_ranges(cidrs)


names = st.text("abc", min_size=1, max_size=3).map("shop/{}".format)


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
