"""Tests of plans and their keys as values, and of the changes between two plans."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.causes.services import held_by
from userspace_proxy.causes.slices import none_ready
from userspace_proxy.model import (
    Balance,
    Frontend,
    FrontendKind,
    Handling,
    IPFamily,
    PortKey,
    Protocol,
    ServicePortName,
    Side,
)
from userspace_proxy.model.serving import Serving
from userspace_proxy.plan import (
    IgnoredService,
    Plan,
    PlanChanges,
    PortPlan,
    diff_plans,
    new_conflicts,
)

from ..model.samples import CART, CART_IP, POD_A, POD_B, WEB, WEB_IP
from .planning import with_serving

HTTP = ServicePortName("shop", "cart", "http")
KEY = PortKey(HTTP, IPFamily.IPV4)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (KEY, "shop/cart:http"),
        (PortKey(HTTP, IPFamily.IPV6), "shop/cart:http (IPv6)"),
        (PortKey(ServicePortName("shop", "cart", ""), IPFamily.IPV4), "shop/cart"),
        (KEY._replace(side=Side.EXTERNAL), "shop/cart:http (external)"),
        (PortKey(HTTP, IPFamily.IPV6, Side.LOAD_BALANCER), "shop/cart:http (IPv6, load balancer)"),
    ],
)
def test_a_port_key_prints_the_service_port_and_non_default_attributes(key, text):
    assert str(key) == text


def test_port_keys_are_sorted_by_service_port_and_family():
    keys = [
        PortKey(name, family) for name in (HTTP, HTTP._replace(port="web")) for family in (4, 6)
    ]
    shuffled = [keys[2], keys[0], keys[3], keys[1]]
    assert sorted(shuffled) == keys


def test_the_plan_of_a_node_without_services_is_empty():
    assert (dict(Plan.empty().ports), Plan.empty().ignored) == ({}, ())


def test_plans_with_equal_ports_are_equal_regardless_of_their_revision():
    port = PortPlan(KEY, Protocol.TCP, (), (), Serving(), "it has no endpoints")
    assert Plan({KEY: port}, revision=1) == Plan({KEY: port}, revision=2)
    assert Plan({KEY: port}) != Plan.empty()


OUTSIDE = Serving((POD_A,), outside=(), admits=("10.0.0.0/8",))


@pytest.mark.parametrize(
    ("serving", "cause", "is_dropping"),
    [
        pytest.param(Serving((POD_A,)), None, False, id="served"),
        pytest.param(Serving(), none_ready(1, 0, ()), False, id="refused"),
        pytest.param(OUTSIDE, none_ready(1, 0, ()), True, id="outside"),
        pytest.param(Serving(admits=()), none_ready(1, 0, ()), True, id="all-clients"),
    ],
)
def test_a_port_drops_clients_if_only_other_nodes_have_endpoints(serving, cause, is_dropping):
    port = PortPlan(KEY, Protocol.TCP, (), (), serving, cause)
    assert port.is_dropping is is_dropping


def port_plan(service=CART, ip=CART_IP, usable=(POD_A,), protocol=Protocol.TCP):
    key = PortKey(ServicePortName(*service, "http"), IPFamily.IPV4)
    return PortPlan(key, protocol, (Frontend(ip, 80, protocol),), (), Serving(usable))


def plan(*ports):
    return Plan({port.key: port for port in ports})


CART_PORT = port_plan()
WEB_PORT = port_plan(WEB, WEB_IP)
LOAD_BALANCED = Frontend(CART_IP, 80, Protocol.TCP, FrontendKind.LOAD_BALANCER)


@pytest.mark.parametrize(
    ("have", "want", "expected"),
    [
        pytest.param(
            plan(CART_PORT),
            plan(CART_PORT, WEB_PORT),
            PlanChanges(open=(WEB_PORT,), update=(), close=()),
            id="new-port",
        ),
        pytest.param(
            plan(CART_PORT, WEB_PORT),
            plan(WEB_PORT),
            PlanChanges(open=(), update=(), close=(CART_PORT.key,)),
            id="port-gone",
        ),
        pytest.param(
            plan(CART_PORT, WEB_PORT),
            plan(port_plan(usable=(POD_A, POD_B)), WEB_PORT),
            PlanChanges(open=(), update=(port_plan(usable=(POD_A, POD_B)),), close=()),
            id="other-endpoints",
        ),
        pytest.param(
            plan(CART_PORT),
            plan(port_plan(ip=WEB_IP)),
            PlanChanges(open=(), update=(port_plan(ip=WEB_IP),), close=()),
            id="other-address",
        ),
        *(
            pytest.param(
                plan(CART_PORT),
                plan(with_serving(CART_PORT, **fields)),
                PlanChanges(open=(), update=(with_serving(CART_PORT, **fields),), close=()),
                id=name,
            )
            for name, fields in {
                "balance": {"handling": Handling(balance=Balance.LEAST_CONNECTIONS)},
                "source-ranges": {"admits": ("192.0.2.0/24",)},
                "endpoints-of-the-outside": {"outside": (POD_A,)},
                "who-is-inside": {"inside": ("192.0.2.0/24",)},
            }.items()
        ),
        pytest.param(
            plan(CART_PORT),
            plan(replace(CART_PORT, frontends=(LOAD_BALANCED,))),
            PlanChanges(
                open=(), update=(replace(CART_PORT, frontends=(LOAD_BALANCED,)),), close=()
            ),
            id="frontend-of-another-kind",
        ),
        pytest.param(
            plan(CART_PORT),
            plan(port_plan(protocol=Protocol.UDP)),
            PlanChanges(
                open=(port_plan(protocol=Protocol.UDP),), update=(), close=(CART_PORT.key,)
            ),
            id="another-protocol-is-another-socket",
        ),
    ],
)
def test_plan_differences_are_opened_updated_and_closed_ports(have, want, expected):
    changes = diff_plans(have, want)
    assert changes == expected
    assert changes


@pytest.mark.parametrize(
    "same",
    [
        pytest.param(Plan.empty(), id="empty"),
        pytest.param(plan(CART_PORT, WEB_PORT), id="two-ports"),
    ],
)
def test_equal_plans_have_no_difference(same):
    equal = Plan({key: replace(port) for key, port in same.ports.items()}, revision=9)
    assert diff_plans(same, same) == diff_plans(same, equal) == PlanChanges((), (), ())
    assert not diff_plans(same, equal)


def test_plan_differences_are_sorted_by_key():
    both = plan(CART_PORT, WEB_PORT)
    idle = plan(replace(CART_PORT, serving=Serving()), replace(WEB_PORT, serving=Serving()))
    assert [p.key.name.name for p in diff_plans(Plan.empty(), both).open] == ["cart", "web"]
    assert [p.key.name.name for p in diff_plans(both, idle).update] == ["cart", "web"]
    assert [key.name.name for key in diff_plans(both, Plan.empty()).close] == ["cart", "web"]


PORTS = st.builds(
    port_plan,
    st.sampled_from([CART, WEB, CART._replace(name="till")]),
    ip=st.sampled_from([CART_IP, WEB_IP]),
    usable=st.sampled_from([(), (POD_A,), (POD_A, POD_B)]),
    protocol=st.sampled_from(Protocol),
)
PLANS = st.lists(PORTS, max_size=4).map(lambda ports: plan(*sorted(ports, key=lambda p: p.key)))


@given(PLANS, PLANS)
def test_applying_the_difference_in_order_yields_the_desired_plan(have, want):
    sockets = {(key, port.protocol): port for key, port in have.ports.items()}
    changes = diff_plans(have, want)
    for port in changes.open:
        assert (port.key, port.protocol) not in sockets
        sockets[port.key, port.protocol] = port
    for port in changes.update:
        assert sockets[port.key, port.protocol] != port
        sockets[port.key, port.protocol] = port
    for key in changes.close:
        del sockets[key, have.ports[key].protocol]
    assert sockets == {(key, port.protocol): port for key, port in want.ports.items()}


def test_only_one_new_conflict_per_service_is_reported():
    taken = held_by("198.51.100.7", "shop/x")
    web, web_2, cart = (
        IgnoredService(key, port, taken, is_conflict=True)
        for key, port in ((WEB, "a"), (WEB, "b"), (CART, "a"))
    )
    by_design = IgnoredService(CART, "sctp", taken)
    none, some = Plan({}), Plan({}, (cart, by_design, web, web_2))
    assert list(new_conflicts(none, some)) == [cart, web]
    assert list(new_conflicts(some, some)) == []
    assert list(new_conflicts(some, none)) == []
    assert list(new_conflicts(Plan({}, (web,)), some)) == [cart, web_2]
