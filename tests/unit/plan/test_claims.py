"""What Services ask for, and who gets it."""

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from userspace_proxy.model import (
    Frontend,
    FrontendKind,
    IPFamily,
    Protocol,
    ServiceKey,
    ServicePort,
)
from userspace_proxy.plan import Ignored
from userspace_proxy.plan.claims import claims_of, settle
from userspace_proxy.policy import PRIMARY, NodeFacts, Scope

from ..model.samples import CART, CART_IP, CART_IP_V6, HTTP, WEB, WEB_IP, service
from .drawn import FACTS, SERVICES, in_two_orders

DNS = ServicePort("dns", 53, "UDP")
DNS_TCP = ServicePort("dns-tcp", 53, "TCP")
SCTP = ServicePort("diameter", 3868, "SCTP")
OLD, NEW = "2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z"
ADDRESS = Frontend(CART_IP, 80, Protocol.TCP)


LB_IP, LB_IP_V6, EXTERNAL_IP = "203.0.113.8", "2001:db8:1::8", "203.0.113.9"
NODE_IP, NODE_IP_V6 = "192.0.2.10", "2001:db8:2::10"
NODE = NodeFacts(
    node_name="node-1",
    addresses=("127.0.0.1", NODE_IP, "::1", NODE_IP_V6),
    primary_addresses=(NODE_IP, NODE_IP_V6),
    external_ip_networks=("203.0.113.0/24",),
)
NODE_PORT = ServicePort("http", 80, "TCP", 30080)


def claims(*services, facts=NODE):
    return [claims_of(service, facts) for service in services]


def asked(service, facts=NODE):
    return {
        str(c.key): [str(f) for f in c.frontends] for c in claims(service, facts=facts)[0].ports
    }


def notes(service, facts=NODE):
    return [note for claim in claims_of(service, facts).ports for note in claim.notes]


def lost(settlement):
    """Return what each port lost, in words."""
    return {str(key): [item.why for item in items] for key, items in settlement.lost.items()}


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
        why = "198.51.100.7:80/TCP is already held by shop/b:http"
        assert lost(settlement) == {"shop/a:http": [why], "shop/c:http": [why]}


def test_only_the_contested_address_is_lost():
    both = claims(service(CART), service(WEB, cluster_ips=(CART_IP, WEB_IP)))
    settlement = settle(both)
    assert str(settlement.holders[Frontend(WEB_IP, 80, Protocol.TCP)].key) == "shop/web:http"
    assert settlement.lost_by(claims(service(WEB))[0].ports[0].key) == {ADDRESS}


def test_every_address_that_a_port_lost_is_known():
    till = ServiceKey("shop", "till")
    services = (service(CART), service(till, cluster_ips=(WEB_IP,)))
    settlement = settle(claims(*services, service(WEB, cluster_ips=(CART_IP, WEB_IP), created=NEW)))
    (items,) = settlement.lost.values()
    assert [item.frontend.ip for item in items] == [CART_IP, WEB_IP]


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
    (key,) = settle(both).lost
    assert (key.name.name, key.family) == ("web", IPFamily.IPV4)


EVERYTHING = {
    "ports": (NODE_PORT,),
    "load_balancer_ips": (LB_IP,),
    "external_ips": (EXTERNAL_IP,),
}
INTERNAL = ["198.51.100.7:80/TCP"]
NODE_PORTS = ["127.0.0.1:30080/TCP", "192.0.2.10:30080/TCP"]
OUTER = [NODE_PORTS[0], NODE_PORTS[1], "203.0.113.8:80/TCP", "203.0.113.9:80/TCP"]
OUTER_BUT_LB = [NODE_PORTS[0], NODE_PORTS[1], "203.0.113.9:80/TCP"]
RANGES = ("198.51.100.0/24",)


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        pytest.param({}, {"": sorted(INTERNAL + OUTER)}, id="one-policy-one-proxy-port"),
        pytest.param(
            {"is_external_local": True}, {"": INTERNAL, " (external)": OUTER}, id="external-local"
        ),
        pytest.param(
            {"is_internal_local": True}, {"": INTERNAL, " (external)": OUTER}, id="internal-local"
        ),
        pytest.param(
            {"is_internal_local": True, "is_external_local": True},
            {"": INTERNAL, " (external)": OUTER},
            id="both-local-are-two-since-inside-clients-use-all-by-the-outer-one",
        ),
        pytest.param(
            {"load_balancer_source_ranges": RANGES},
            {"": sorted(INTERNAL + OUTER_BUT_LB), " (load balancer)": ["203.0.113.8:80/TCP"]},
            id="source-ranges",
        ),
        pytest.param(
            {"load_balancer_source_ranges": RANGES, "is_external_local": True},
            {
                "": INTERNAL,
                " (external)": OUTER_BUT_LB,
                " (load balancer)": ["203.0.113.8:80/TCP"],
            },
            id="source-ranges-and-external-local",
        ),
    ],
)
def test_frontends_of_one_policy_share_a_proxy_port(policies, expected):
    given = service(**EVERYTHING, **policies)
    assert {k: sorted(v) for k, v in asked(given).items()} == {
        f"shop/cart:http{side}": frontends for side, frontends in expected.items()
    }


@pytest.mark.parametrize(
    ("policies", "scopes"),
    [
        pytest.param({}, [Scope.CLUSTER], id="cluster"),
        pytest.param({"is_internal_local": True}, [Scope.LOCAL, Scope.CLUSTER], id="internal"),
        pytest.param(
            {"is_external_local": True}, [Scope.CLUSTER, Scope.LOCAL_FROM_OUTSIDE], id="external"
        ),
        pytest.param(
            {"is_internal_local": True, "is_external_local": True},
            [Scope.LOCAL, Scope.LOCAL_FROM_OUTSIDE],
            id="both",
        ),
        pytest.param(
            {"is_external_local": True, "load_balancer_source_ranges": RANGES},
            [Scope.CLUSTER, Scope.LOCAL_FROM_OUTSIDE, Scope.LOCAL_FROM_OUTSIDE],
            id="ranges-take-the-external-policy",
        ),
    ],
)
def test_each_side_has_the_scope_of_its_policy(policies, scopes):
    (made,) = claims(service(**EVERYTHING, **policies))
    assert [claim.scope for claim in made.ports] == scopes


def test_a_policy_without_frontends_of_its_kind_splits_nothing():
    policies = {"is_external_local": True, "load_balancer_source_ranges": RANGES}
    assert list(asked(service(**policies))) == ["shop/cart:http"]


@pytest.mark.parametrize(
    ("networks", "expected"),
    [
        pytest.param((), NODE_PORTS, id="unset-all-with-localhost"),
        pytest.param(("192.0.2.0/24",), NODE_PORTS[1:], id="networks"),
        pytest.param((PRIMARY,), NODE_PORTS[1:], id="primary"),
        pytest.param(("10.0.0.0/8",), [], id="none"),
    ],
)
def test_a_node_port_is_asked_for_on_the_addresses_that_answer(networks, expected):
    facts = replace(NODE, node_port_networks=networks)
    assert asked(service(ports=(NODE_PORT,)), facts) == {"shop/cart:http": expected + INTERNAL}
    note = "node port 30080 is not served: this node has no IPv4 address for it"
    assert notes(service(ports=(NODE_PORT,)), facts) == ([] if expected else [note])


def test_tcp_and_udp_may_share_a_node_port():
    udp = ServicePort("dns", 53, "UDP", 30080)
    settlement = settle(claims(service(ports=(NODE_PORT, udp))))
    assert len(settlement.holders) == 6
    assert not settlement.lost


def test_each_family_has_the_frontends_and_ranges_of_its_own():
    (made,) = claims(
        service(
            cluster_ips=(CART_IP_V6, CART_IP),
            ports=(NODE_PORT,),
            load_balancer_ips=(LB_IP_V6, LB_IP),
            load_balancer_source_ranges=("198.51.100.0/24", "2001:db8:9::/48"),
        )
    )
    assert {str(c.key): ([f.ip for f in c.frontends], c.admits) for c in made.ports} == {
        "shop/cart:http": (["127.0.0.1", NODE_IP, CART_IP], None),
        "shop/cart:http (load balancer)": ([LB_IP], ("198.51.100.0/24",)),
        "shop/cart:http (IPv6)": (["2001:db8:2::10", CART_IP_V6, "::1"], None),
        "shop/cart:http (IPv6, load balancer)": ([LB_IP_V6], ("2001:db8:9::/48",)),
    }


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        pytest.param(RANGES, RANGES, id="as-written"),
        pytest.param(("2001:db8::/32",), None, id="of-the-other-family-alone-everybody"),
        pytest.param(("192.0.2.0/24",), ("192.0.2.0/24", f"{LB_IP}/32"), id="with-this-node"),
    ],
)
def test_source_ranges_admit(ranges, expected):
    given = service(load_balancer_ips=(LB_IP,), load_balancer_source_ranges=ranges)
    assert [c.admits for c in claims(given)[0].ports] == [None, expected]


def test_a_family_without_a_cluster_ip_has_no_frontends():
    given = service(load_balancer_ips=(LB_IP_V6,), ports=(NODE_PORT,))
    assert asked(given) == {"shop/cart:http": NODE_PORTS + INTERNAL}


OFF = "external IPs are off: see --allow-external-ips"
ELSEWHERE = "it is in none of the networks of --allow-external-ips"


@pytest.mark.parametrize(
    ("ip", "facts", "why"),
    [
        pytest.param(EXTERNAL_IP, NodeFacts(), OFF, id="off-by-default"),
        pytest.param("198.18.0.1", NODE, ELSEWHERE, id="in-no-allowed-network"),
        pytest.param(
            EXTERNAL_IP,
            replace(NODE, addresses=(EXTERNAL_IP,)),
            "it is an address of this node",
            id="on-an-interface",
        ),
        pytest.param(
            EXTERNAL_IP,
            replace(NODE, primary_addresses=(EXTERNAL_IP,)),
            "it is an address of this node",
            id="in-the-node-object",
        ),
        pytest.param(
            EXTERNAL_IP,
            replace(NODE, api_server_addresses=(EXTERNAL_IP,)),
            "it is the API server's address",
            id="of-the-api-server",
        ),
    ],
)
def test_an_external_ip_that_may_not_be_is_noted_and_not_asked_for(ip, facts, why):
    given = service(external_ips=(ip,))
    assert asked(given, facts) == {"shop/cart:http": INTERNAL}
    assert notes(given, facts) == [f"external IP {ip} is not served: {why}"]


def test_an_external_ip_in_an_allowed_network_is_asked_for_without_a_note():
    given = service(external_ips=(EXTERNAL_IP,))
    assert asked(given) == {"shop/cart:http": [*INTERNAL, "203.0.113.9:80/TCP"]}
    assert notes(given) == []


def test_notes_stand_once_at_the_family_that_they_are_about():
    external_ips = ("198.18.0.1", "2001:db8:ffff::1")
    given = service(
        cluster_ips=(CART_IP, CART_IP_V6),
        external_ips=external_ips,
        load_balancer_ips=(LB_IP, LB_IP_V6),
        is_external_local=True,
    )
    assert notes(given) == [f"external IP {ip} is not served: {ELSEWHERE}" for ip in external_ips]


def test_what_the_service_noted_itself_stands_first():
    given = service(notes=("balance 'maglev' is unknown",), external_ips=("198.18.0.1",))
    assert notes(given)[0] == "balance 'maglev' is unknown"


@pytest.mark.parametrize(
    "owner",
    [
        pytest.param(service(WEB, cluster_ips=(EXTERNAL_IP,)), id="of-ours"),
        pytest.param(service(WEB, (DNS,), cluster_ips=(EXTERNAL_IP,)), id="on-another-port"),
        pytest.param(
            service(WEB, cluster_ips=(EXTERNAL_IP,), proxy_name="mesh"), id="of-another-proxy"
        ),
        pytest.param(service(WEB, (SCTP,), cluster_ips=(EXTERNAL_IP,)), id="that-is-not-carried"),
        pytest.param(
            service(WEB, cluster_ips=("198.51.100.99",), load_balancer_ips=(EXTERNAL_IP,)),
            id="of-a-load-balancer",
        ),
    ],
)
def test_an_external_ip_is_never_another_services_own(owner):
    thief = service(created=OLD, external_ips=(EXTERNAL_IP,))
    for order in permutations((thief, owner)):
        settlement = settle(claims(*order))
        assert ADDRESS in settlement.holders
        assert lost(settlement) == {
            "shop/cart:http": ["external IP 203.0.113.9 is an address of shop/web"]
        }


def test_of_two_owners_of_a_cluster_ip_the_first_by_name_is_named():
    thief = service(external_ips=(EXTERNAL_IP,))
    owners = [service(ServiceKey("shop", n), cluster_ips=(EXTERNAL_IP,)) for n in ("b", "a")]
    for order in (owners, owners[::-1]):
        why = "external IP 203.0.113.9 is an address of shop/a"
        assert lost(settle(claims(thief, *order)))["shop/cart:http"] == [why]


def test_external_ips_of_two_services_on_different_ports_are_no_conflict():
    ports = [(ServicePort("http", number, "TCP"),) for number in (80, 81)]
    both = [
        service(key, port, (ip,), external_ips=(EXTERNAL_IP,), load_balancer_ips=(LB_IP,))
        for key, port, ip in zip((CART, WEB), ports, (CART_IP, WEB_IP), strict=True)
    ]
    assert not settle(claims(*both)).lost


def test_a_cluster_ip_goes_before_an_older_load_balancer_ip():
    old = service(WEB, cluster_ips=(WEB_IP,), load_balancer_ips=(CART_IP,), created=OLD)
    settlement = settle(claims(old, service(created=NEW)))
    assert str(settlement.holders[ADDRESS].key) == "shop/cart:http"
    assert lost(settlement) == {
        "shop/web:http": ["198.51.100.7:80/TCP is already held by shop/cart:http"]
    }


def test_of_two_node_ports_the_older_services_is_served_and_both_cluster_ips():
    both = [
        service(key, (NODE_PORT,), (ip,), created=age)
        for key, ip, age in ((CART, CART_IP, NEW), (WEB, WEB_IP, OLD))
    ]
    settlement = settle(claims(*both))
    assert lost(settlement) == {
        "shop/cart:http": [f"{f} is already held by shop/web:http" for f in NODE_PORTS]
    }
    assert ADDRESS in settlement.holders


def test_an_address_that_a_service_names_twice_is_asked_for_once_by_the_stricter_kind():
    given = service(load_balancer_ips=(EXTERNAL_IP, CART_IP), external_ips=(EXTERNAL_IP,))
    (claim,) = claims(given)[0].ports
    assert [(f.ip, f.kind) for f in claim.frontends] == [
        (CART_IP, FrontendKind.CLUSTER_IP),
        (EXTERNAL_IP, FrontendKind.LOAD_BALANCER),
    ]


def test_claims_that_differ_in_the_kind_of_a_frontend_alone_are_not_the_same():
    external, balanced = claims(
        service(external_ips=(EXTERNAL_IP,)), service(load_balancer_ips=(EXTERNAL_IP,))
    )
    assert external.ports == balanced.ports
    assert external.is_same(claims(service(external_ips=(EXTERNAL_IP,)))[0])
    assert not external.is_same(balanced)
    assert not external.is_same(None)


@drawn(st.lists(SERVICES, max_size=5, unique_by=lambda s: s.key).flatmap(in_two_orders))
def test_who_holds_what_does_not_depend_on_the_order(orders):
    first, other = (settle([claims_of(s, FACTS) for s in order]) for order in orders)
    assert first == other
    kept = [{f: c.key for f, c in s.holders.items()} for s in (first, other)]
    assert kept[0] == kept[1]


@drawn(st.lists(SERVICES, max_size=5, unique_by=lambda s: s.key))
def test_every_frontend_is_held_once_or_lost(services):
    made = [claims_of(s, FACTS) for s in services]
    settlement = settle(made)
    for claim in (claim for each in made for claim in each.ports):
        held = {f for f in claim.frontends if settlement.holders.get(f) is claim}
        assert held | settlement.lost_by(claim.key) == set(claim.frontends)
        assert not held & settlement.lost_by(claim.key)
