"""Plans and their keys as values."""

import pytest

from userspace_proxy.model import IPFamily, Protocol, ServicePortName
from userspace_proxy.plan import Plan, PortKey, PortPlan

HTTP = ServicePortName("shop", "cart", "http")
KEY = PortKey(HTTP, IPFamily.IPV4)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        pytest.param(KEY, "shop/cart:http", id="ipv4"),
        pytest.param(PortKey(HTTP, IPFamily.IPV6), "shop/cart:http (IPv6)", id="ipv6"),
        pytest.param(
            PortKey(ServicePortName("shop", "cart", ""), IPFamily.IPV4), "shop/cart", id="no-name"
        ),
    ],
)
def test_a_key_prints_the_service_port_and_the_family_where_it_is_ipv6(key, text):
    assert str(key) == text


def test_keys_sort_by_service_port_then_family():
    keys = [
        PortKey(name, family) for name in (HTTP, HTTP._replace(port="web")) for family in (4, 6)
    ]
    shuffled = [keys[2], keys[0], keys[3], keys[1]]
    assert sorted(shuffled) == keys


def test_the_plan_of_a_node_without_services_is_empty():
    assert (dict(Plan.empty().ports), Plan.empty().ignored) == ({}, ())


def test_plans_compare_by_what_is_wanted_not_by_their_revision():
    port = PortPlan(KEY, Protocol.TCP, (), (), (), "it has no endpoints")
    assert Plan({KEY: port}, revision=1) == Plan({KEY: port}, revision=2)
    assert Plan({KEY: port}) != Plan.empty()
