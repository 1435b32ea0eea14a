"""Allocation of cluster IPs for Services that don't specify them."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.errors import ConfigError
from userspace_proxy.model import IPFamily, Service, ServiceKey, ServicePort
from userspace_proxy.sources.manifests.cluster_ips import (
    ClusterIPRange,
    allocate_cluster_ips,
    open_ranges,
)
from userspace_proxy.sources.manifests.written import WrittenService

BOTH = ("10.96.0.0/16", "fd00:96::/112")


def service(name: str = "web", *ips: str, families=(), policy: str = "", **fields):
    ports = (ServicePort("", 80, "TCP"),)
    return WrittenService(
        Service(ServiceKey("shop", name), ports, cluster_ips=ips, **fields), families, policy
    )


def allocate(cidrs, *services: WrittenService) -> dict[str, tuple[str, ...]]:
    allocated, _ = allocate_cluster_ips(services, open_ranges(cidrs))
    return {key.name: ips for key, ips in allocated.items()}


def test_an_allocated_cluster_ip_is_the_same_after_a_restart():
    before = allocate(["10.96.0.0/16"], service())
    after = allocate(["10.96.0.0/16"], service("cart"), service())
    assert after["web"] == before["web"] == ("10.96.67.208",)


def test_an_explicit_address_is_never_allocated_and_displaces_an_allocation():
    ips = allocate(["10.96.0.0/16"], service(), service("cart", "10.96.67.208"))
    assert ips == {"web": ("10.96.67.209",), "cart": ("10.96.67.208",)}


def test_a_full_range_leaves_some_services_without_an_address():
    services = [service(f"web-{n}") for n in range(7)]
    allocated, problems = allocate_cluster_ips(services, open_ranges(["10.96.0.0/29"]))
    assert len({ip for ips in allocated.values() for ip in ips}) == 6
    problem = "spec.clusterIP: no address is left in 10.96.0.0/29"
    assert problems == [(ServiceKey("shop", "web-6"), problem)]
    assert allocated[ServiceKey("shop", "web-6")] == ()


@pytest.mark.parametrize(
    ("cidr", "words"),
    [
        pytest.param("10.96.0.1/16", "has host bits set", id="host-bits"),
        pytest.param("web/16", "does not appear to be", id="text"),
        pytest.param("10.96.0.0", "is a single address", id="no-length"),
    ],
)
def test_an_invalid_cluster_ip_range_is_rejected(cidr, words):
    with pytest.raises(ConfigError, match=words) as caught:
        ClusterIPRange(cidr)
    assert caught.value.hint == "write a range as 10.96.0.0/16"


@pytest.mark.parametrize(
    ("cidrs", "words"),
    [
        pytest.param([], "no range is given", id="none"),
        pytest.param(
            ["10.96.0.0/16", "10.97.0.0/16"], "10.97.0.0/16 are both IPv4", id="one-family-twice"
        ),
    ],
)
def test_missing_and_incompatible_cluster_ip_ranges_are_rejected(cidrs, words):
    with pytest.raises(ConfigError, match=words):
        open_ranges(cidrs)


@pytest.mark.parametrize(
    ("cidrs", "written", "ips"),
    [
        pytest.param(BOTH, service(), ("10.96.67.208",), id="default"),
        pytest.param(BOTH[1:], service(), ("fd00:96::734c",), id="ipv6-alone"),
        pytest.param(
            BOTH, service(policy="RequireDualStack"), ("10.96.67.208", "fd00:96::734c"), id="dual"
        ),
        pytest.param(
            BOTH,
            service(families=(IPFamily.IPV6, IPFamily.IPV4)),
            ("fd00:96::734c", "10.96.67.208"),
            id="ipv6-first",
        ),
        pytest.param(
            BOTH,
            service("web", "10.96.7.1", policy="PreferDualStack"),
            ("10.96.7.1", "fd00:96::734c"),
            id="other-family-beside-a-named-address",
        ),
        pytest.param(BOTH[:1], service("web", "fd00::7"), ("fd00::7",), id="named-without-a-range"),
        pytest.param(BOTH, service(is_headless=True), (), id="headless"),
    ],
)
def test_an_address_of_each_requested_family_is_allocated(cidrs, written, ips):
    allocated, problems = allocate_cluster_ips([written], open_ranges(cidrs))
    assert allocated == {written.service.key: ips}
    assert problems == []


def test_a_family_without_a_range_is_reported_and_the_other_family_is_served():
    web = service(policy="RequireDualStack")
    allocated, [(key, problem)] = allocate_cluster_ips([web], open_ranges(BOTH[:1]))
    assert allocated == {web.service.key: ("10.96.67.208",)}
    assert key == web.service.key
    assert problem == "spec.ipFamilies: --service-cluster-ip-range has no IPv6 addresses"


@given(
    cidr=st.sampled_from(
        ["10.96.0.0/24", "10.96.0.0/28", "fd00::/108", "fd00::/64", "10.0.0.0/31"]
    ),
    names=st.lists(st.text("abc", min_size=1, max_size=3), unique=True, max_size=20),
)
def test_addresses_are_unique_and_depend_only_on_the_names(cidr, names):
    ips = allocate([cidr], *map(service, names))
    given_out = [ip for (ip,) in filter(None, ips.values())]
    assert len(set(given_out)) == len(given_out)
    assert all(ipaddress.ip_address(ip) in ipaddress.ip_network(cidr) for ip in given_out)
    assert allocate([cidr], *map(service, names[::-1])) == ips
