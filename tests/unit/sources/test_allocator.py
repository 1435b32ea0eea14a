"""Cluster IPs and node ports together, and over a restart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from userspace_proxy.model import IPFamily, Service, ServiceKey, ServicePort, ServiceType
from userspace_proxy.sources.allocator import Allocator
from userspace_proxy.sources.written import WrittenService

V4, V6 = IPFamily.IPV4, IPFamily.IPV6
BOTH = ("10.96.0.0/16", "fd00:96::/112")


def web(name: str = "web", *ips: str, families=(), policy: str = "", **fields):
    service = Service(
        ServiceKey("shop", name), (ServicePort("", 80, "TCP"),), cluster_ips=ips, **fields
    )
    written = WrittenService(service, families, policy, service.type is ServiceType.NODE_PORT)
    return written, f"{name}.yaml:1"


def ips_of(allocator: Allocator, *services) -> list[tuple[str, ...]]:
    return [service.cluster_ips for service in allocator.allocate(services).services]


@pytest.mark.parametrize(
    ("cidrs", "written", "ips"),
    [
        pytest.param(BOTH, web(), ("10.96.67.208",), id="default"),
        pytest.param(BOTH[::-1], web(), ("fd00:96::734c",), id="ipv6-first"),
        pytest.param(BOTH[1:], web(), ("fd00:96::734c",), id="ipv6-alone"),
        pytest.param(
            BOTH, web(policy="RequireDualStack"), ("10.96.67.208", "fd00:96::734c"), id="dual"
        ),
        pytest.param(
            BOTH, web(families=(V6, V4)), ("fd00:96::734c", "10.96.67.208"), id="as-written"
        ),
        pytest.param(
            BOTH,
            web("web", "10.96.7.1", policy="PreferDualStack"),
            ("10.96.7.1", "fd00:96::734c"),
            id="the-other-one-beside-a-named-one",
        ),
        pytest.param(
            BOTH, web("web", "fd00::7", "10.96.7.1"), ("fd00::7", "10.96.7.1"), id="both-named"
        ),
        pytest.param(BOTH[:1], web("web", "fd00::7"), ("fd00::7",), id="named-without-a-range"),
        pytest.param(BOTH, web(is_headless=True), (), id="headless"),
    ],
)
def test_addresses_of_each_family_that_is_wanted(cidrs, written, ips):
    allocated = Allocator(cidrs).allocate([written])
    assert allocated.services[0].cluster_ips == ips
    assert allocated.problems == ()


def test_a_family_without_a_range_is_a_problem_and_the_other_is_served():
    allocated = Allocator(BOTH[:1]).allocate([web(policy="RequireDualStack")])
    assert allocated.services[0].cluster_ips == ("10.96.67.208",)
    assert allocated.problems == (
        "web.yaml:1: spec.ipFamilies: --service-cluster-ip-range has no IPv6 addresses",
    )


def test_without_an_address_left_the_service_has_none_and_the_place_is_named():
    allocated = Allocator(["10.96.0.1/32"]).allocate([web("web", "10.96.0.1"), web("cart")])
    assert allocated.services[1].cluster_ips == ()
    assert allocated.problems == (
        "cart.yaml:1: spec.clusterIP: no address is left in 10.96.0.1/32",
    )


def test_names_that_meet_keep_their_seats_over_a_restart_whatever_order_they_come_in(tmp_path):
    file = tmp_path / "allocations.json"
    names = "fedcba"
    first = Allocator(["10.96.0.0/29"], file)
    come = [web(name, type=ServiceType.NODE_PORT) for name in names]
    for count in range(len(come)):
        before = first.allocate(come[: count + 1]).services
    after = Allocator(["10.96.0.0/29"], file).allocate(come[::-1]).services
    assert {s.key: s for s in after} == {s.key: s for s in before}
    hashed = Allocator(["10.96.0.0/29"]).allocate(come[::-1]).services
    assert {s.key: s for s in hashed} != {s.key: s for s in before}


def test_a_range_that_was_changed_gives_new_addresses(tmp_path):
    file = tmp_path / "allocations.json"
    Allocator(BOTH, file).allocate([web()])
    [[ip]] = ips_of(Allocator(["10.97.0.0/16"], file), web())
    assert ip.startswith("10.97.")


def test_where_the_file_cannot_be_written_services_are_served_all_the_same(tmp_path):
    (tmp_path / "state").write_text("no folder")
    allocated = Allocator(BOTH, tmp_path / "state" / "allocations.json").allocate([web()])
    assert allocated.services[0].cluster_ips == ("10.96.67.208",)
    [problem] = allocated.problems
    assert "cannot save allocations" in problem


def test_a_node_port_is_kept_over_a_restart(tmp_path):
    file = tmp_path / "allocations.json"
    file.write_text('{"version": 1, "nodePorts": {"shop/web:80": 32000}}')
    allocated = Allocator(BOTH, file).allocate([web(type=ServiceType.NODE_PORT)])
    assert allocated.services[0].ports[0].node_port == 32000


def at_30080(name: str):
    written, place = web(name, type=ServiceType.NODE_PORT)
    port = ServicePort("", 80, "TCP", 30080)
    return replace(written, service=replace(written.service, ports=(port,))), place


def test_of_two_that_name_one_node_port_the_same_has_it_after_a_restart(tmp_path):
    file = tmp_path / "allocations.json"
    allocator = Allocator(BOTH, file)
    allocator.allocate([at_30080("web")])
    for running in (allocator, Allocator(BOTH, file)):
        services = running.allocate([at_30080("cart"), at_30080("web")]).services
        assert [service.ports[0].node_port for service in services] == [0, 30080]


def test_a_node_port_that_another_service_names_is_a_problem_with_the_place():
    allocated = Allocator(BOTH).allocate([at_30080("web"), at_30080("cart")])
    assert allocated.problems == (
        "cart.yaml:1: spec.ports[0].nodePort: 30080/TCP is already used by shop/web",
    )
