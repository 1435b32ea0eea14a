"""Tests of a balancer with separate endpoints for clients inside and outside."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.balance import Balancer, SplitBalancer

from ..model.samples import POD_A, POD_B, POD_C

PODS = ("10.0.0.0/8", "192.0.2.7/32", "fd00::/8")
INSIDE, OUTSIDE = "10.1.2.3", "203.0.113.1"


def split(inner=(POD_A, POD_B), outer=(POD_C,), inside=PODS, affinity_timeout_s=None):
    return SplitBalancer(
        Balancer(inner, affinity_timeout_s=affinity_timeout_s),
        Balancer(outer, affinity_timeout_s=affinity_timeout_s),
        inside,
    )


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        pytest.param("10.0.0.0", POD_A, id="first-of-a-network"),
        pytest.param("10.255.255.255", POD_A, id="last-of-a-network"),
        pytest.param("11.0.0.0", POD_C, id="after-a-network"),
        pytest.param("192.0.2.7", POD_A, id="network-of-one-address"),
        pytest.param("192.0.2.8", POD_C, id="after-that-network"),
        pytest.param("fd12::1", POD_A, id="v6-inside"),
        pytest.param("2001:db8::1", POD_C, id="v6-outside"),
        pytest.param("fd12::1%eth0", POD_A, id="v6-with-an-interface"),
    ],
)
def test_the_clients_address_selects_the_balancer(client, expected):
    assert split().pick(client, 0.0) == expected


def test_each_side_has_its_own_round_robin_position():
    both = split(outer=(POD_B, POD_C))
    got = [both.pick(client, 0.0) for client in (INSIDE, OUTSIDE) * 3]
    assert got == [POD_A, POD_B, POD_B, POD_C, POD_A, POD_B]


def test_a_side_without_endpoints_does_not_affect_the_other_side():
    both = split(outer=())
    assert (both.pick(INSIDE, 0.0), both.pick(OUTSIDE, 0.0)) == (POD_A, None)


def test_tried_endpoints_are_skipped_on_each_side():
    assert split().pick(INSIDE, 0.0, tried={POD_A}) == POD_B
    assert split().pick(OUTSIDE, 0.0, tried={POD_C}) is None


def test_has_more_is_true_until_all_endpoints_of_the_clients_side_were_tried():
    both = split()
    assert both.has_more(INSIDE, 0.0, tried={POD_A, POD_C})
    assert not both.has_more(INSIDE, 0.0, tried={POD_A, POD_B})
    assert not both.has_more(OUTSIDE, 0.0, tried={POD_C})


def test_an_endpoint_of_both_sides_is_ejected_and_readmitted_for_both():
    both = split(inner=(POD_A, POD_B), outer=(POD_B, POD_A))
    assert both.failed(POD_A, 0.0)
    assert not both.failed(POD_A, 0.0)
    assert [both.pick(client, 1.0) for client in (INSIDE, OUTSIDE)] == [POD_B, POD_B]
    assert both.ejected(1.0) == {POD_A: 4.0}
    assert both.answered(POD_A)
    assert not both.answered(POD_A)
    assert both.ejected(1.0) == {}


def test_an_endpoint_of_one_side_can_be_ejected_but_not_an_unknown_endpoint():
    both = split()
    assert both.failed(POD_C, 0.0)
    assert both.ejected(0.0) == {POD_C: 5.0}
    assert not both.failed(POD_A._replace(port=1), 0.0), "an unknown endpoint"


@given(
    network=st.tuples(st.ip_addresses(v=4), st.integers(0, 32)),
    client=st.ip_addresses(v=4),
)
def test_a_client_is_inside_if_a_network_contains_its_address(network, client):
    inside = ipaddress.ip_network(network, strict=False)
    picked = split(inside=[str(inside)]).pick(str(client), 0.0)
    assert picked == (POD_A if client in inside else POD_C)


def test_restored_affinity_entries_go_to_the_side_of_the_clients_address():
    former = split(affinity_timeout_s=60)
    former.inner.pick(OUTSIDE, 0.0)
    former.inner.pick(INSIDE, 0.0)
    former.outer.pick(OUTSIDE, 0.0)
    successor = split(affinity_timeout_s=60)
    successor.restore(former.entries(5.0), 5.0)
    assert successor.pick(INSIDE, 5.0) == POD_B
    assert successor.pick(OUTSIDE, 5.0) == POD_C
    sides = successor.inner, successor.outer
    assert [len(list(side.entries(5.0))) for side in sides] == [1, 1]


@pytest.mark.parametrize(("client", "serving"), [(INSIDE, POD_A), (OUTSIDE, POD_C)])
def test_serves_is_true_only_for_endpoints_of_the_clients_side(client, serving):
    balancer = split()
    assert [pod for pod in (POD_A, POD_C) if balancer.serves(client, pod)] == [serving]


def test_outside_clients_at_the_limit_do_not_put_inside_clients_at_the_limit():
    balancer = split()
    balancer.outer.is_full = {POD_C}.__contains__
    assert balancer.is_at_limit(OUTSIDE, 0.0)
    assert not balancer.is_at_limit(INSIDE, 0.0)
