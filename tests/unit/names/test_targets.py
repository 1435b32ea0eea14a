"""What a name stands for, made as it is picked."""

import pytest

from userspace_proxy.model import Endpoint, ServicePort, SocketAddress
from userspace_proxy.names.endpoints import Endpoints
from userspace_proxy.names.targets import (
    Alias,
    EndpointTargets,
    NamedAddress,
    PodTarget,
    PortTargets,
    Targets,
)

PORTS = [ServicePort(f"p{i}", i, "TCP") for i in range(1, 101)]


def test_a_name_above_others_and_an_alias_have_no_targets():
    for targets in (Targets(), Alias("web.")):
        assert (len(targets), list(targets.ips(range, is_ipv6=False))) == (0, [])
        with pytest.raises(IndexError):
            targets.at(0)
    assert (Targets().alias, Alias("web.").alias) == ("", "web.")


def test_a_pod_has_its_address():
    pod = PodTarget("fd00--3.shop.pod.", "fd00::3")
    assert (len(pod), pod.at(0)) == (1, [NamedAddress("fd00--3.shop.pod.", "fd00::3", 0)])
    assert (pod.ips(range, is_ipv6=True), pod.ips(range, is_ipv6=False)) == (["fd00::3"], [])


def test_each_port_is_at_each_cluster_ip():
    targets = PortTargets("web.", PORTS, ["10.0.0.1", "fd00::1"], None)
    assert (len(targets), targets.ips_of_each) == (100, 2)
    assert targets.at(2) == [
        NamedAddress("web.", "10.0.0.1", 3),
        NamedAddress("web.", "fd00::1", 3),
    ]
    assert targets.ips(range, is_ipv6=True) == ["fd00::1"]
    assert not len(PortTargets("web.", PORTS, [], None))


def test_of_as_many_ports_as_are_picked_the_first_ones_are_looked_up():
    reached = []

    def reach(frontend):
        reached.append(frontend.port)
        return SocketAddress(f"127.0.0.{frontend.port % 2}", frontend.port + 1000)

    targets = PortTargets("web.", PORTS, ["10.0.0.1"], reach)
    assert targets.at(6) == [NamedAddress("web.", "127.0.0.1", 1007)]
    assert targets.ips(lambda _: [4, 7, 1], is_ipv6=False) == ["127.0.0.1", "127.0.0.0"]
    assert reached == [7, 1, 2, 3]


def test_equal_questions_about_ports_have_equal_answers():
    """With a random pick of ports, one that answers elsewhere was in some answers only."""

    def reach(frontend):
        return SocketAddress(f"127.0.0.{1 + (frontend.port == 90)}", frontend.port)

    targets = PortTargets("web.", PORTS, ["10.0.0.1"], reach)
    for first in range(0, 100, 20):
        chosen = range(first, first + 20)
        assert targets.ips(lambda _, chosen=chosen: chosen, is_ipv6=False) == ["127.0.0.1"]


def test_each_endpoint_has_a_name_of_its_own():
    endpoints = [Endpoint("10.0.0.1", hostname="web-0"), Endpoint("fd00::2")]
    targets = EndpointTargets("web.", Endpoints([(endpoints, [80, 443])]))
    assert len(targets) == 4
    assert targets.at(1) == [NamedAddress("web-0.web.", "10.0.0.1", 443)]
    assert targets.at(2) == [NamedAddress("fd00--2.web.", "fd00::2", 80)]
    assert targets.ips(range, is_ipv6=True) == ["fd00::2"]
