from ipaddress import ip_address, ip_network

import pytest

from userspace_proxy.errors import SandboxError
from userspace_proxy_testing.sandbox.address_plan import (
    POD_CIDR,
    SERVICE_CIDR,
    by_family,
    nth,
    parse_ranges,
    plan_addresses,
    pod_ranges,
)


def texts(values):
    return [str(value) for value in values]


def test_a_nodes_pod_range_is_split_into_a_routed_and_a_bridged_half():
    ranges = pod_ranges(parse_ranges(POD_CIDR), 1)
    assert texts(ranges.whole) == ["10.244.1.0/24", "fd00:10:244:1::/64"]
    assert texts(ranges.routed) == ["10.244.1.0/25", "fd00:10:244:1::/65"]
    assert texts(ranges.bridged) == ["10.244.1.128/25", "fd00:10:244:1:8000::/65"]


def test_a_small_range_covers_only_the_first_node():
    small = parse_ranges("10.1.2.0/26")
    assert texts(pod_ranges(small, 0).bridged) == ["10.1.2.32/27"]
    with pytest.raises(SandboxError, match=r"node number 2: 10\.1\.2\.0/26 is too small"):
        pod_ranges(small, 1)


def test_the_broadcast_address_is_never_allocated():
    half = parse_ranges("10.244.0.0/25")
    assert texts(nth(half, 126)) == ["10.244.0.126"]
    with pytest.raises(SandboxError, match=r"10\.244\.0\.0/25 is used up"):
        nth(half, 127)


def test_outside_clients_reach_services_and_load_balancers_through_the_node():
    plan = plan_addresses(POD_CIDR, SERVICE_CIDR).without_ipv6()
    assert texts(plan.steered_outside()) == ["10.96.0.0/12", "203.0.113.0/24"]


def test_ranges_are_paired_with_the_node_address_of_their_family():
    ranges = [ip_network("10.96.0.0/12"), ip_network("fd00:10:96::/112")]
    assert list(by_family(ranges, [ip_address("192.0.2.1")])) == [
        (ip_network("10.96.0.0/12"), ip_address("192.0.2.1"))
    ]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("fd00::/64", id="ipv6-alone"),
        pytest.param("fd00::/64,10.0.0.0/8", id="ipv6-first"),
        pytest.param("10.0.0.0/8,10.1.0.0/16", id="ipv4-twice"),
        pytest.param("10.0.0.1/8", id="host-bits"),
    ],
)
def test_an_unusable_range_is_named_in_the_error(text):
    with pytest.raises(SandboxError, match="cannot use the range"):
        parse_ranges(text)
