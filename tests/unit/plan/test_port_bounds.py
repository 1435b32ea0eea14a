"""Which ports of a Service are served, and which are listed as not served."""

import pytest

from userspace_proxy.causes.services import too_many_frontends, unsupported_protocol
from userspace_proxy.model import IPFamily, ServicePort
from userspace_proxy.plan import IgnoredService
from userspace_proxy.plan.claims import claims_of
from userspace_proxy.plan.port_bounds import (
    IGNORED_MAX,
    count_frontends,
    families_of,
    first_ignored,
    most_external_ips,
    served_ports,
    unsupported_ports,
)
from userspace_proxy.policy import NodeFacts

from ..model.samples import CART, CART_IP, CART_IP_V6, WEB, service
from .planning import plan_of

SCTP = ServicePort("diameter", 3868, "SCTP")
NO_SCTP = unsupported_protocol("SCTP")
LB_IP = "203.0.113.8"
NODE = NodeFacts(addresses=("192.0.2.10",), external_ip_networks=("203.0.113.0/24",))


def ports(count, **fields):
    protocol = fields.pop("protocol", "TCP")
    return tuple(ServicePort(f"p{n:05}", n + 1, protocol, **fields) for n in range(count))


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        pytest.param({}, 10_000, id="one-address"),
        pytest.param({"cluster_ips": (CART_IP, CART_IP_V6)}, 5_000, id="both-families"),
        pytest.param({"load_balancer_ips": (LB_IP,)}, 5_000, id="load-balancer-ip"),
        pytest.param({"external_ips": ("203.0.113.9",)}, 10_000, id="external-ip"),
        pytest.param({"ports": ports(6_000, node_port=30000)}, 5_000, id="node-ports"),
    ],
)
def test_ports_times_addresses_have_a_bound_and_the_first_ports_by_name_are_served(
    policies, expected
):
    given = service(**{"ports": tuple(reversed(ports(20_000))), **policies})
    served, (left_out,) = served_ports(given)
    assert served == sorted(given.ports, key=lambda port: port.name)[:expected]
    count = len(given.ports) - expected
    assert left_out.cause == too_many_frontends(CART, 10_000, count)
    assert (left_out.port, left_out.is_conflict) == (f"p{expected:05}", True)
    assert count_frontends(given, NODE) > 10_000


def test_one_port_beyond_the_bound_is_not_served():
    given = service(ports=ports(10_001))
    _, (left_out,) = served_ports(given)
    assert left_out.cause == too_many_frontends(CART, 10_000, 1)
    assert served_ports(service(ports=ports(10_000))) == (list(ports(10_000)), ())


def test_what_is_left_out_is_not_claimed():
    given = service(ports=(SCTP, *ports(10_001)))
    made = claims_of(given, NODE)
    assert len(made.ports) == 10_000
    assert [item.port for item in made.ignored] == ["p10000", "diameter"]


@pytest.mark.parametrize(
    ("count", "most"), [(0, 100), (1, 100), (100, 100), (200, 50), (20_000, 1)]
)
def test_a_service_with_many_ports_has_fewer_external_ips(count, most):
    assert most_external_ips(service(ports=ports(count))) == most


def test_the_families_are_those_of_cluster_ips():
    given = service(cluster_ips=(CART_IP_V6, CART_IP), load_balancer_ips=(LB_IP,))
    assert families_of(given) == [IPFamily.IPV4, IPFamily.IPV6]
    assert families_of(service(load_balancer_ips=("2001:db8::8",))) == [IPFamily.IPV4]


def test_external_ips_count_where_they_are_on():
    given = service(external_ips=("203.0.113.9",))
    assert count_frontends(given, NODE) == 2
    assert count_frontends(given, NodeFacts()) == 1


def test_a_service_that_is_not_served_counts_nothing():
    assert count_frontends(service(cluster_ips=()), NODE) == 0
    assert count_frontends(service(ports=(SCTP,)), NODE) == 0


def test_of_many_ports_without_support_the_first_ones_are_listed():
    *found, last = unsupported_ports(service(ports=ports(20_000, protocol="SCTP")))
    assert [item.port for item in (*found, last)] == [p.name for p in ports(20)]
    assert {item.cause for item in found} == {NO_SCTP}
    assert last.cause == NO_SCTP.replace(more=19_980)
    assert unsupported_ports(service(ports=(SCTP,))) == (IgnoredService(CART, "diameter", NO_SCTP),)
    assert unsupported_ports(service()) == ()


def test_of_many_ignored_ports_the_last_that_is_listed_counts_the_others():
    items = [IgnoredService(CART, f"p{n}", NO_SCTP) for n in range(IGNORED_MAX + 1)]
    assert first_ignored(items[:-1]) == tuple(items[:-1])
    found = first_ignored(items)
    assert found[:-1] == tuple(items[: IGNORED_MAX - 1])
    assert found[-1].cause == NO_SCTP.replace(more=1)


def test_of_many_conflicts_of_a_service_the_first_are_listed():
    older, newer = (service(key, created=key.name, ports=ports(30)) for key in (CART, WEB))
    ignored = plan_of(older, newer).ignored
    assert [(item.service, item.port) for item in ignored] == [(WEB, p.name) for p in ports(20)]
    assert ignored[-1].cause.more == 10
