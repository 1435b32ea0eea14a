"""What Services ask for, and who gets it."""

from itertools import permutations

import pytest

from userspace_proxy.model import Frontend, IPFamily, Protocol, ServiceKey, ServicePort
from userspace_proxy.plan import Ignored
from userspace_proxy.plan.claims import claims_of, settle
from userspace_proxy.policy import NodeFacts

from ..model.samples import CART, CART_IP, CART_IP_V6, HTTP, WEB, WEB_IP, service

DNS = ServicePort("dns", 53, "UDP")
DNS_TCP = ServicePort("dns-tcp", 53, "TCP")
SCTP = ServicePort("diameter", 3868, "SCTP")
OLD, NEW = "2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z"
ADDRESS = Frontend(CART_IP, 80, Protocol.TCP)


def claims(*services):
    return [claims_of(service, NodeFacts()) for service in services]


def asked(service):
    return {str(c.key): [str(f) for f in c.frontends] for c in claims(service)[0].ports}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(
            service(), {"shop/cart:http": ["198.51.100.7:80/TCP"]}, id="one-port-one-address"
        ),
        pytest.param(
            service(cluster_ips=(CART_IP_V6, CART_IP)),
            {
                "shop/cart:http": ["198.51.100.7:80/TCP"],
                "shop/cart:http (IPv6)": ["[2001:db8::7]:80/TCP"],
            },
            id="both-families-in-one-plan",
        ),
        pytest.param(
            service(ports=(DNS_TCP, DNS)),
            {
                "shop/cart:dns": ["198.51.100.7:53/UDP"],
                "shop/cart:dns-tcp": ["198.51.100.7:53/TCP"],
            },
            id="tcp-and-udp-on-one-number",
        ),
        pytest.param(
            service(cluster_ips=(WEB_IP, CART_IP)),
            {"shop/cart:http": ["198.51.100.7:80/TCP", "198.51.100.8:80/TCP"]},
            id="several-addresses-sorted",
        ),
        pytest.param(service(ports=()), {}, id="no-ports"),
    ],
)
def test_a_service_asks_for_each_port_on_each_address(given, expected):
    assert asked(given) == expected
    assert list(asked(given)) == sorted(expected)


@pytest.mark.parametrize(
    ("given", "ignored"),
    [
        pytest.param(
            service(cluster_ips=()),
            Ignored(CART, "", "it has no cluster IP yet"),
            id="whole-service",
        ),
        pytest.param(
            service(ports=(HTTP, SCTP)),
            Ignored(CART, "diameter", "protocol SCTP is not carried (TCP and UDP are)"),
            id="one-port",
        ),
        pytest.param(
            service(ports=(ServicePort("", 3868, "SCTP"),)),
            Ignored(CART, "3868", "protocol SCTP is not carried (TCP and UDP are)"),
            id="port-without-a-name-by-its-number",
        ),
    ],
)
def test_what_is_not_carried_is_ignored_with_the_reason(given, ignored):
    (made,) = claims(given)
    assert made.ignored == (ignored,)


def test_a_port_that_is_ignored_leaves_the_others_alone():
    assert list(asked(service(ports=(SCTP, HTTP)))) == ["shop/cart:http"]


@pytest.mark.parametrize(
    ("cart", "web", "holder"),
    [
        pytest.param(OLD, NEW, "shop/cart:http", id="the-older-one"),
        pytest.param(NEW, OLD, "shop/web:http", id="the-older-one-whatever-its-name"),
        pytest.param(OLD, OLD, "shop/cart:http", id="of-one-second-by-name"),
        pytest.param("", "", "shop/cart:http", id="of-unknown-age-by-name"),
    ],
)
def test_an_address_belongs_to_the_older_service_then_by_name(cart, web, holder):
    both = claims(service(CART, created=cart), service(WEB, created=web))
    for order in (both, both[::-1]):
        settlement = settle(order)
        assert str(settlement.holders[ADDRESS].key) == holder
        assert {str(key) for key in settlement.lost} == {"shop/cart:http", "shop/web:http"} - {
            holder
        }


def test_one_of_three_claimants_gets_the_address_in_whatever_order_they_come():
    ages = {"a": NEW, "b": OLD, "c": NEW}
    three = claims(*(service(ServiceKey("shop", n), created=age) for n, age in ages.items()))
    for order in permutations(three):
        settlement = settle(order)
        assert settlement.holders[ADDRESS].key.name.name == "b"
        assert {key.name.name: held for key, held in settlement.lost.items()} == {
            "a": {ADDRESS},
            "c": {ADDRESS},
        }


def test_only_the_contested_address_is_lost():
    both = claims(service(CART), service(WEB, cluster_ips=(CART_IP, WEB_IP)))
    settlement = settle(both)
    assert str(settlement.holders[Frontend(WEB_IP, 80, Protocol.TCP)].key) == "shop/web:http"
    assert list(settlement.lost.values()) == [{ADDRESS}]


def test_every_address_that_a_port_lost_is_known():
    till = ServiceKey("shop", "till")
    services = (service(CART), service(till, cluster_ips=(WEB_IP,)))
    settlement = settle(claims(*services, service(WEB, cluster_ips=(CART_IP, WEB_IP), created=NEW)))
    (lost,) = settlement.lost.values()
    assert {frontend.ip for frontend in lost} == {CART_IP, WEB_IP}


def test_two_ports_of_one_service_may_not_share_an_address_either():
    settlement = settle(claims(service(ports=(ServicePort("web", 80, "TCP"), HTTP))))
    assert settlement.holders[ADDRESS].key.name.port == "http"
    assert [key.name.port for key in settlement.lost] == ["web"]


def test_tcp_and_udp_on_one_number_are_no_conflict():
    settlement = settle(claims(service(ports=(DNS, DNS_TCP))))
    assert len(settlement.holders) == 2
    assert not settlement.lost


def test_each_family_is_settled_by_itself():
    both = claims(service(CART), service(WEB, cluster_ips=(CART_IP, CART_IP_V6)))
    ((lost, _),) = settle(both).lost.items()
    assert (lost.name.name, lost.family) == ("web", IPFamily.IPV4)
