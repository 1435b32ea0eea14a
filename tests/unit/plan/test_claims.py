"""Tests of which frontends a Service claims, by its ports and policies."""

from dataclasses import replace

import pytest

from userspace_proxy.causes.notes import cause_of, names_bug, no_node_address, of_other_family
from userspace_proxy.causes.services import (
    NOTES_MAX,
    balanced_elsewhere,
    external_ip_off,
    more_notes,
    no_cluster_ip,
    own_address,
    too_many_external_ips,
    too_many_frontends,
    too_many_frontends_in_namespace,
    unsupported_protocol,
)
from userspace_proxy.model import (
    FrontendKind,
    Handling,
    IPFamily,
    Protocol,
    ServicePort,
)
from userspace_proxy.model.notes import NoteKind
from userspace_proxy.model.port_ranges import AskedRange
from userspace_proxy.plan import IgnoredService
from userspace_proxy.plan.bounds import FRONTENDS_OF_NAMESPACE_MAX
from userspace_proxy.plan.claims import (
    IGNORED_MAX,
    claims_of,
    count_frontends,
    first_ignored,
    most_external_ips,
    served_ports,
    unsupported_ports,
)
from userspace_proxy.policy import PRIMARY, NodeFacts, Scope

from ..model.samples import CART, CART_IP, CART_IP_V6, HTTP, WEB, WEB_IP, service
from .planning import plan_of

DNS = ServicePort("dns", 53, "UDP")
DNS_TCP = ServicePort("dns-tcp", 53, "TCP")
SCTP = ServicePort("diameter", 3868, "SCTP")
NO_SCTP = unsupported_protocol("SCTP")
OLD, NEW = "2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z"
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
    found = claims_of(service, facts)
    return [note for part in (found, *found.ports) for note in part.notes]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (service(), {"shop/cart:http": ["198.51.100.7:80/TCP"]}),
        (
            service(cluster_ips=(CART_IP_V6, CART_IP)),
            {
                "shop/cart:http": ["198.51.100.7:80/TCP"],
                "shop/cart:http (IPv6)": ["[2001:db8::7]:80/TCP"],
            },
        ),
        (
            service(ports=(DNS_TCP, DNS)),
            {
                "shop/cart:dns": ["198.51.100.7:53/UDP"],
                "shop/cart:dns-tcp": ["198.51.100.7:53/TCP"],
            },
        ),
        (
            service(cluster_ips=(WEB_IP, CART_IP)),
            {"shop/cart:http": ["198.51.100.7:80/TCP", "198.51.100.8:80/TCP"]},
        ),
        (service(ports=()), {}),
    ],
)
def test_a_service_claims_each_port_on_each_address(given, expected):
    assert asked(given) == expected
    assert list(asked(given)) == sorted(expected)


@pytest.mark.parametrize(
    ("given", "ignored"),
    [
        (service(cluster_ips=()), IgnoredService(CART, "", no_cluster_ip())),
        (service(ports=(HTTP, SCTP)), IgnoredService(CART, "diameter", NO_SCTP)),
        (service(ports=(ServicePort("", 3868, "SCTP"),)), IgnoredService(CART, "3868", NO_SCTP)),
    ],
)
def test_an_unserved_service_or_port_is_ignored_with_the_reason(given, ignored):
    (made,) = claims(given)
    assert made.ignored == (ignored,)


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
        pytest.param({}, {"": sorted(INTERNAL + OUTER)}, id="one-policy"),
        pytest.param(
            {"is_external_local": True}, {"": INTERNAL, " (external)": OUTER}, id="external-local"
        ),
        pytest.param(
            {"is_internal_local": True}, {"": INTERNAL, " (external)": OUTER}, id="internal-local"
        ),
        pytest.param(
            {"is_internal_local": True, "is_external_local": True},
            {"": INTERNAL, " (external)": OUTER},
            id="both-local",
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
def test_frontends_with_the_same_policy_share_a_proxy_port(policies, expected):
    given = service(**EVERYTHING, **policies)
    assert {k: sorted(v) for k, v in asked(given).items()} == {
        f"shop/cart:http{side}": frontends for side, frontends in expected.items()
    }


@pytest.mark.parametrize(
    ("policies", "prefixes"),
    [
        ({}, [Scope.CLUSTER]),
        ({"is_internal_local": True}, [Scope.LOCAL, Scope.CLUSTER]),
        ({"is_external_local": True}, [Scope.CLUSTER, Scope.LOCAL_FROM_OUTSIDE]),
        (
            {"is_internal_local": True, "is_external_local": True},
            [Scope.LOCAL, Scope.LOCAL_FROM_OUTSIDE],
        ),
        (
            {"is_external_local": True, "load_balancer_source_ranges": RANGES},
            [Scope.CLUSTER, Scope.LOCAL_FROM_OUTSIDE, Scope.LOCAL_FROM_OUTSIDE],
        ),
    ],
)
def test_frontends_have_the_scope_of_their_traffic_policy(policies, prefixes):
    (made,) = claims(service(**EVERYTHING, **policies))
    assert [claim.scope for claim in made.ports] == prefixes


@pytest.mark.parametrize(
    ("networks", "expected"),
    [
        pytest.param((), NODE_PORTS, id="unset"),
        pytest.param(("192.0.2.0/24",), NODE_PORTS[1:], id="networks"),
        pytest.param((PRIMARY,), NODE_PORTS[1:], id="primary"),
        pytest.param(("10.0.0.0/8",), [], id="none"),
    ],
)
def test_a_node_port_is_claimed_on_the_node_port_addresses(networks, expected):
    facts = replace(NODE, node_port_networks=networks)
    assert asked(service(ports=(NODE_PORT,)), facts) == {"shop/cart:http": expected + INTERNAL}
    note = no_node_address(30080, "IPv4", networks)
    assert notes(service(ports=(NODE_PORT,)), facts) == ([] if expected else [note])


def test_each_family_has_its_own_frontends_and_ranges():
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
        pytest.param(("2001:db8::/32",), None, id="only-of-the-other-family"),
        pytest.param(("192.0.2.0/24",), ("192.0.2.0/24", f"{LB_IP}/32"), id="with-this-node"),
    ],
)
def test_source_ranges_determine_the_admitted_clients(ranges, expected):
    given = service(load_balancer_ips=(LB_IP, LB_IP_V6), load_balancer_source_ranges=ranges)
    assert [c.admits for c in claims(given)[0].ports] == [None, expected]


OFF = "external IPs are off"
ELSEWHERE = "it is in none of the networks of --allow-external-ips"


@pytest.mark.parametrize(
    ("ip", "facts", "why"),
    [
        (EXTERNAL_IP, NodeFacts(), OFF),
        ("198.18.0.1", NODE, ELSEWHERE),
        (EXTERNAL_IP, replace(NODE, addresses=(EXTERNAL_IP,)), "of this node"),
        (EXTERNAL_IP, replace(NODE, primary_addresses=(EXTERNAL_IP,)), "of this node"),
        (
            EXTERNAL_IP,
            replace(NODE, api_server_addresses=(EXTERNAL_IP,)),
            "it is the API server's address",
        ),
    ],
)
def test_a_forbidden_external_ip_gets_a_note_and_is_not_claimed(ip, facts, why):
    given = service(external_ips=(ip,))
    assert asked(given, facts) == {"shop/cart:http": INTERNAL}
    is_allowed = why not in (OFF, ELSEWHERE)
    (note,) = notes(given, facts)
    assert note == external_ip_off(ip, note.get("why"), is_allowed=is_allowed)
    assert note.get("why").endswith(why)


@pytest.mark.parametrize(
    ("ports", "ips", "served"),
    [
        (1, 100, 100),
        (1, 101, 100),
        (100, 101, 100),
        (200, 50, 50),
        (200, 51, 50),
        pytest.param(10_000, 2, 1, marks=pytest.mark.long),
    ],
)
def test_the_limit_of_external_ips_depends_on_the_number_of_ports(ports, ips, served):
    given = service(
        ports=tuple(ServicePort(f"p{number}", number, "TCP") for number in range(1, ports + 1)),
        external_ips=tuple(f"203.0.113.{number}" for number in range(ips)),
    )
    (made,) = claims(given)
    frontends = [frontend for claim in made.ports for frontend in claim.frontends]
    external = [f.ip for f in frontends if f.kind is FrontendKind.EXTERNAL_IP]
    assert len(external) == ports * served
    assert set(external) == set(given.external_ips[:served])
    note = too_many_external_ips(f"203.0.113.{served}", served)
    expected = (note,) if served < ips else ()
    assert [claim.notes for claim in made.ports] == [expected] * ports


def test_external_ips_beyond_the_limit_get_a_note_in_their_family():
    both = service(
        cluster_ips=(CART_IP, CART_IP_V6),
        external_ips=(*(f"203.0.113.{number}" for number in range(100)), "2001:db8:1::9"),
    )
    networks = ("203.0.113.0/24", "2001:db8:1::/64")
    four, six = claims_of(both, replace(NODE, external_ip_networks=networks)).ports
    assert (four.notes, six.notes) == ((), (too_many_external_ips("2001:db8:1::9", 100),))
    off = replace(NODE, external_ip_networks=())
    assert too_many_external_ips not in [note.row for note in notes(both, off)]


def test_a_note_about_an_address_appears_only_once_in_its_family():
    external_ips = ("198.18.0.1", "2001:db8:ffff::1")
    given = service(
        cluster_ips=(CART_IP, CART_IP_V6),
        external_ips=external_ips,
        load_balancer_ips=(LB_IP, LB_IP_V6),
        is_external_local=True,
    )
    assert notes(given) == [external_ip_off(ip, ELSEWHERE) for ip in external_ips]


def test_addresses_of_an_unserved_family_get_one_note_each():
    given = service(
        cluster_ips=(CART_IP_V6,),
        load_balancer_ips=(LB_IP, LB_IP_V6),
        external_ips=("203.0.113.9",),
    )
    assert notes(given) == [
        of_other_family(LB_IP, "IPv4", "IPv6"),
        of_other_family("203.0.113.9", "IPv4", "IPv6"),
    ]
    both = replace(given, cluster_ips=(CART_IP_V6, CART_IP))
    assert notes(both) == []
    ranges = {"load_balancer_ips": (LB_IP,), "load_balancer_source_ranges": RANGES}
    assert notes(replace(both, **ranges)) == []


def test_notes_on_addresses_are_kept_beside_many_notes_on_a_service():
    given = service(
        notes=tuple(NoteKind.NAMES_BUG(f"bug {number}") for number in range(100)),
        external_ips=tuple(f"198.18.0.{number}" for number in range(100)),
    )
    own, addresses = notes(given)[: NOTES_MAX + 1], notes(given)[NOTES_MAX + 1 :]
    assert own[-2:] == [names_bug("bug 9"), more_notes()]
    assert len(addresses) == NOTES_MAX + 1
    assert addresses[0] == external_ip_off("198.18.0.0", ELSEWHERE)


def test_notes_of_a_service_with_many_ports_are_not_repeated():
    ports = tuple(ServicePort(f"p{n:03}", n, "TCP") for n in range(1, 1001))
    given = service(
        ports=ports,
        cluster_ips=(CART_IP, CART_IP_V6),
        notes=(NoteKind.NAMES_BUG("it is odd"), NoteKind.HEADER_WITHOUT_TCP()),
    )
    assert notes(given) == list(map(cause_of, given.notes))


def test_an_address_with_two_kinds_is_claimed_once_with_the_stricter_kind():
    given = service(load_balancer_ips=(EXTERNAL_IP, CART_IP), external_ips=(EXTERNAL_IP,))
    (claim,) = claims(given)[0].ports
    assert [(f.ip, f.kind) for f in claim.frontends] == [
        (CART_IP, FrontendKind.CLUSTER_IP),
        (EXTERNAL_IP, FrontendKind.LOAD_BALANCER),
    ]


def test_equal_claims_whose_frontends_differ_in_kind_are_not_the_same():
    both, balanced = service(cluster_ips=(CART_IP, LB_IP)), service(load_balancer_ips=(LB_IP,))
    facts = NodeFacts(allow_loopback_endpoints=True)
    one, again, other = (claims_of(each, facts) for each in (both, both, balanced))
    assert one == other
    assert one.is_same(again)
    assert not one.is_same(other)
    assert not one.is_same(None)


class Looks(tuple):
    """Networks; the class counts how often one of them is read."""

    count = 0

    def __iter__(self):
        for ip in super().__iter__():
            Looks.count += 1
            yield ip


def test_source_ranges_of_fifty_ports_are_read_less_than_a_hundred_times():
    Looks.count = 0
    given = service(
        load_balancer_ips=(LB_IP,),
        load_balancer_source_ranges=Looks(f"10.0.{n}.0/24" for n in range(10)),
        ports=tuple(ServicePort(f"p{n}", n, "TCP") for n in range(1, 51)),
    )
    assert len(claims_of(given, NODE).ports) == 100
    assert Looks.count < 100


def test_an_omitted_service_claims_no_frontend_but_has_its_own_addresses():
    made = claims_of(service(load_balancer_ips=(LB_IP,)), NODE, is_left_out=True)
    assert (made.ports, made.own_ips) == ((), (CART_IP, LB_IP))
    (ignored,) = made.ignored
    assert (ignored.port, ignored.is_conflict) == ("", True)
    assert ignored.cause == too_many_frontends_in_namespace("shop", FRONTENDS_OF_NAMESPACE_MAX)
    (by_design,) = claims_of(service(cluster_ips=()), NODE, is_left_out=True).ignored
    assert not by_design.is_conflict


def test_a_service_with_the_nodes_own_address_claims_no_frontends():
    given = service(cluster_ips=(NODE_IP,), ports=(NODE_PORT,), load_balancer_ips=(LB_IP,))
    made = claims_of(given, NODE)
    (ignored,) = made.ignored
    assert (made.ports, ignored.port, ignored.is_conflict) == ((), "", True)
    assert ignored.cause == own_address(NODE_IP)


def test_an_ip_answered_by_its_load_balancer_gets_a_note():
    (port,) = claims_of(service(balanced_elsewhere=(LB_IP, LB_IP_V6)), NODE).ports
    assert port.notes == (balanced_elsewhere(LB_IP),)


def test_cluster_ips_are_claimed_unless_another_program_may_serve_them():
    assert claims_of(service(), NODE).cluster_ips == (CART_IP,)
    for facts, is_left_out in ((NODE, True), (NodeFacts(allow_loopback_endpoints=True), False)):
        assert claims_of(service(), facts, is_left_out=is_left_out).cluster_ips == ()


OF_EXTERNAL_IPS = NodeFacts(addresses=("192.0.2.10",), external_ip_networks=("203.0.113.0/24",))


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
def test_above_the_frontend_limit_only_the_first_ports_by_name_are_served(policies, expected):
    given = service(**{"ports": tuple(reversed(ports(20_000))), **policies})
    served, (left_out,) = served_ports(given)
    assert served == sorted(given.ports, key=lambda port: port.name)[:expected]
    count = len(given.ports) - expected
    assert left_out.cause == too_many_frontends(CART, 10_000, count)
    assert (left_out.port, left_out.is_conflict) == (f"p{expected:05}", True)
    assert count_frontends(given, OF_EXTERNAL_IPS) > 10_000


def test_omitted_ports_are_not_claimed():
    given = service(ports=(SCTP, *ports(10_001)))
    made = claims_of(given, OF_EXTERNAL_IPS)
    assert (len(made.ports), made.cluster_ips) == (10_000, ())
    assert [item.port for item in made.ignored] == ["p10000", "diameter"]


def test_external_ips_count_towards_frontends_only_if_allowed_and_within_their_limit():
    given = service(external_ips=tuple(f"203.0.113.{n}" for n in range(101)))
    assert count_frontends(given, OF_EXTERNAL_IPS) == 1 + 100
    assert count_frontends(given, NodeFacts()) == 1


def test_a_port_range_counts_as_one_additional_port():
    ranges = tuple(AskedRange(f"p{n:05}", 1, 99) for n in range(50))
    given = service(
        ports=ports(9_990),
        external_ips=("203.0.113.9",),
        handling=Handling(port_ranges=ranges),
    )
    assert count_frontends(given, NodeFacts()) == 9_990 + 50
    assert count_frontends(given, OF_EXTERNAL_IPS) == 2 * (9_990 + 50)
    assert len(served_ports(given)[0]) == 10_000 - 50
    few = replace(given, ports=ports(50))
    assert most_external_ips(few) == 100
    assert most_external_ips(replace(few, ports=ports(51))) == 99


def test_an_unserved_service_has_no_frontends():
    assert count_frontends(service(cluster_ips=()), OF_EXTERNAL_IPS) == 0
    assert count_frontends(service(ports=(SCTP,)), OF_EXTERNAL_IPS) == 0


def test_only_the_first_20_unsupported_ports_are_listed():
    *found, last = unsupported_ports(service(ports=ports(20_000, protocol="SCTP")))
    assert [item.port for item in (*found, last)] == [p.name for p in ports(20)]
    assert {item.cause for item in found} == {NO_SCTP}
    assert last.cause == NO_SCTP.replace(more=19_980)
    assert unsupported_ports(service(ports=(SCTP,))) == (IgnoredService(CART, "diameter", NO_SCTP),)
    assert unsupported_ports(service()) == ()


def test_the_last_listed_of_many_ignored_ports_counts_the_other_ports():
    items = [IgnoredService(CART, f"p{n}", NO_SCTP) for n in range(IGNORED_MAX + 1)]
    assert first_ignored(items[:-1]) == tuple(items[:-1])
    found = first_ignored(items)
    assert found[:-1] == tuple(items[: IGNORED_MAX - 1])
    assert found[-1].cause == NO_SCTP.replace(more=1)


def test_only_the_first_20_conflicts_of_a_service_are_listed():
    older, newer = (service(key, created=key.name, ports=ports(30)) for key in (CART, WEB))
    ignored = plan_of(older, newer).ignored
    assert [(item.service, item.port) for item in ignored] == [(WEB, p.name) for p in ports(20)]
    assert ignored[-1].cause.more == 10


@pytest.mark.parametrize(
    ("facts", "served", "count"),
    [
        pytest.param(NodeFacts(), [f"{CART_IP}:50–60/UDP"], 1, id="at-the-cluster-ip"),
        pytest.param(
            NodeFacts(port_ranges="all"),
            [f"{CART_IP}:50–60/UDP", f"{LB_IP}:50–60/UDP"],
            0,
            id="everywhere",
        ),
        pytest.param(NodeFacts(port_ranges="none"), [], 2, id="nowhere"),
        pytest.param(
            NodeFacts(no_kernel_path={IPFamily.IPV4: "no nftables"}), [], 1, id="not-possible"
        ),
    ],
)
def test_a_range_is_claimed_beside_its_port_where_allowed_and_possible(facts, served, count):
    handling = Handling(port_ranges=(AskedRange("dns", 50, 60),))
    balanced = service(ports=[DNS], handling=handling, load_balancer_ips=(LB_IP, CART_IP))
    (claim,) = claims(balanced, facts=facts)[0].ports
    assert [str(f) for f in claim.frontends if f.last] == served
    assert {f.address.port for f in claim.frontends if not f.last} == {53}
    assert len(claim.notes) == count


def test_a_note_about_a_range_is_attached_to_its_port_in_one_family():
    asked = (AskedRange("dns", 1, 9), AskedRange("unknown", 1, 9))
    given = service(
        ports=[ServicePort("api", 80, "TCP"), DNS],
        handling=Handling(port_ranges=asked),
        cluster_ips=(CART_IP, CART_IP_V6),
    )
    made = claims_of(given, NODE)
    noted = [
        (claim.port.name, str(note.get("asked"))) for claim in made.ports for note in claim.notes
    ]
    assert noted == [("dns", "dns=1-9")]
    assert [note.get("asked") for note in made.notes] == ["unknown=1-9"]


@pytest.mark.parametrize(("last", "listed"), [(179, 100), (180, 1)])
def test_without_range_rules_a_short_range_counts_each_port(last, listed):
    asked = AskedRange("http", 80, last), AskedRange("53", 1, 60)
    given = service(ports=(HTTP, DNS), handling=Handling(port_ranges=asked))
    assert count_frontends(given, NodeFacts()) == 2 + 2
    alone = NodeFacts(no_kernel_path={Protocol.TCP: "it has none"})
    assert count_frontends(given, alone) == 2 + listed + 1
