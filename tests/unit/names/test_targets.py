"""Tests of the targets of a name, each of which is created only when it is picked."""

import pytest

from userspace_proxy.model import Endpoint, ServicePort, SocketAddress
from userspace_proxy.names.endpoints import Endpoints, Ready, SamePorts
from userspace_proxy.names.targets import (
    Alias,
    EachTargets,
    EndpointTargets,
    NamedAddress,
    NamedPort,
    PortTargets,
    Targets,
    pod_target,
)

PORTS = [[ServicePort(f"p{i}", i, "TCP")] for i in range(1, 101)]
BOTH = [[ServicePort("dns-tcp", 53, "TCP"), ServicePort("dns", 53, "UDP")]]


def test_an_empty_name_and_an_alias_have_no_targets():
    for targets in (Targets(), Alias("web.")):
        assert (len(targets), targets.count_ports()) == (0, 0)
        assert (*targets.ips(range, is_ipv6=False), *targets.addresses(range)) == ()
        with pytest.raises(IndexError):
            targets.ports_at(0)
    assert (Targets().alias, Alias("web.").alias) == ("", "web.")


def test_a_pod_target_has_the_pods_address():
    pod = pod_target("fd00--3.shop.pod.", "fd00::3")
    assert (len(pod), pod.count_ports()) == (1, 1)
    assert pod.ports_at(0) == [NamedPort("fd00--3.shop.pod.", 0)]
    assert pod.addresses(range) == [NamedAddress("fd00--3.shop.pod.", "fd00::3")]
    assert (pod.ips(range, is_ipv6=True), pod.ips(range, is_ipv6=False)) == (["fd00::3"], [])


def test_port_targets_contain_each_port_on_each_cluster_ip():
    targets = PortTargets("web.", PORTS, 100, ["10.0.0.1", "fd00::1"], None)
    assert (len(targets), targets.count_ports()) == (200, 100)
    assert targets.ports_at(2) == [NamedPort("web.", 3)]
    assert targets.addresses(range) == [
        NamedAddress("web.", "10.0.0.1"),
        NamedAddress("web.", "fd00::1"),
    ]
    assert targets.ips(range, is_ipv6=True) == ["fd00::1"]
    without = PortTargets("web.", PORTS, 100, [], None)
    assert (len(without), without.count_ports()) == (0, 0)


def test_ports_with_the_same_number_and_address_are_one_target():
    assert PortTargets("web.", BOTH, 2, ["10.0.0.1"], None).ports_at(0) == [NamedPort("web.", 53)]

    def dialled_address(frontend):
        return SocketAddress("127.0.0.1", 1000 if frontend.protocol == "TCP" else 2000)

    reached = PortTargets("web.", BOTH, 2, ["10.0.0.1", "fd00::1"], dialled_address)
    assert reached.ports_at(0) == [NamedPort("web.", 1000), NamedPort("web.", 2000)]
    assert reached.addresses(range) == [NamedAddress("web.", "127.0.0.1")]


def test_only_as_many_ports_as_picked_are_resolved():
    reached = []

    def dialled_address(frontend):
        reached.append(frontend.port)
        return SocketAddress(f"127.0.0.{frontend.port % 2}", frontend.port + 1000)

    targets = PortTargets("web.", PORTS, 100, ["10.0.0.1"], dialled_address)
    assert targets.ports_at(6) == [NamedPort("web.", 1007)]
    assert targets.ips(lambda _: [4, 7, 1], is_ipv6=False) == ["127.0.0.1", "127.0.0.0"]
    assert reached == [7, 1, 2, 3]


def test_equal_queries_for_ports_have_equal_responses():
    """With a random pick of ports, only some responses contained a port on another address."""

    def dialled_address(frontend):
        return SocketAddress(f"127.0.0.{1 + (frontend.port == 90)}", frontend.port)

    targets = PortTargets("web.", PORTS, 100, ["10.0.0.1"], dialled_address)
    for first in range(0, 100, 20):
        chosen = range(first, first + 20)
        assert targets.ips(lambda _, chosen=chosen: chosen, is_ipv6=False) == ["127.0.0.1"]


def test_each_endpoint_target_has_its_own_name():
    endpoints = [Endpoint("10.0.0.1", hostname="web-0"), Endpoint("fd00::2")]
    targets = EndpointTargets("web.", Endpoints([SamePorts([Ready(endpoints)], [80, 443], 2)]))
    assert (len(targets), targets.count_ports()) == (4, 4)
    assert targets.ports_at(1) == [NamedPort("web-0.web.", 443)]
    assert targets.ports_at(2) == [NamedPort("fd00--2.web.", 80)]
    assert targets.addresses(lambda _: [1]) == [NamedAddress("fd00--2.web.", "fd00::2")]
    assert targets.ips(range, is_ipv6=True) == ["fd00::2"]


def test_a_service_whose_endpoints_are_services_has_a_name_for_each_endpoint():
    whole = PortTargets("db.", PORTS[:1], 1, ["127.0.0.5"], None)
    parts = [PortTargets(f"db-{i}.db.", PORTS[:1], 1, [f"127.0.0.{6 + i}"], None) for i in (0, 1)]
    targets = EachTargets(whole, parts)
    assert (len(targets), targets.count_ports()) == (2, 2)
    assert [targets.ports_at(i) for i in (0, 1)] == [
        [NamedPort("db-0.db.", 1)],
        [NamedPort("db-1.db.", 1)],
    ]
    assert targets.addresses(lambda count: range(count)[1:]) == [
        NamedAddress("db-1.db.", "127.0.0.7")
    ]
    assert targets.ips(range, is_ipv6=False) == ["127.0.0.5"]
    with pytest.raises(IndexError):
        targets.ports_at(2)
    assert len(EachTargets(whole, [])) == 1
