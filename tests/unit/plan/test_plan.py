"""Plans and their keys as values."""

import pytest

from userspace_proxy.model import IPFamily, Protocol, ServicePortName
from userspace_proxy.plan import Plan, PortKey, PortPlan, Side

from ..model.samples import POD_A

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
        pytest.param(
            KEY._replace(side=Side.EXTERNAL), "shop/cart:http (external)", id="external-side"
        ),
        pytest.param(
            PortKey(HTTP, IPFamily.IPV6, Side.LOAD_BALANCER),
            "shop/cart:http (IPv6, load balancer)",
            id="ipv6-and-side",
        ),
    ],
)
def test_the_text_of_a_key_is_the_service_port_and_what_is_unusual(key, text):
    assert str(key) == text


def test_keys_sort_by_side_last():
    sides = [KEY._replace(side=side) for side in (Side.ALL, Side.EXTERNAL, Side.LOAD_BALANCER)]
    assert sorted([*reversed(sides), KEY._replace(family=IPFamily.IPV6)])[:3] == sides


def test_keys_sort_by_service_port_then_family():
    keys = [
        PortKey(name, family) for name in (HTTP, HTTP._replace(port="web")) for family in (4, 6)
    ]
    shuffled = [keys[2], keys[0], keys[3], keys[1]]
    assert sorted(shuffled) == keys


def test_the_plan_of_a_node_without_services_is_empty():
    assert (dict(Plan.empty().ports), Plan.empty().ignored) == ({}, ())


def test_plans_are_compared_without_their_revision():
    port = PortPlan(KEY, Protocol.TCP, (), (), (), "it has no endpoints")
    assert Plan({KEY: port}, revision=1) == Plan({KEY: port}, revision=2)
    assert Plan({KEY: port}) != Plan.empty()


@pytest.mark.parametrize(
    ("usable", "admits", "is_refusing"),
    [
        pytest.param((), None, True, id="no-endpoint"),
        pytest.param((POD_A,), None, False, id="an-endpoint"),
        pytest.param((), ("192.0.2.0/24",), True, id="admitted-clients-are-refused"),
        pytest.param((), (), False, id="none-admitted-so-packets-are-dropped"),
        pytest.param((POD_A,), (), False, id="none-admitted-and-an-endpoint"),
    ],
)
def test_a_port_refuses_when_no_node_could_serve_the_admitted_clients(usable, admits, is_refusing):
    port = PortPlan(KEY, Protocol.TCP, (), (), usable, "", admits=admits)
    assert port.is_refusing is is_refusing


@pytest.mark.parametrize(
    ("usable", "reason", "admits", "is_dropping"),
    [
        pytest.param((POD_A,), "", None, False, id="served"),
        pytest.param((), "it has no endpoints", None, False, id="refused"),
        pytest.param((POD_A,), "1 not on this node", ("10.0.0.0/8",), True, id="outside"),
        pytest.param((), "1 not on this node", (), True, id="all-clients"),
    ],
)
def test_a_port_drops_when_only_other_nodes_have_endpoints(usable, reason, admits, is_dropping):
    port = PortPlan(KEY, Protocol.TCP, (), (), usable, reason, admits=admits)
    assert port.is_dropping is is_dropping
