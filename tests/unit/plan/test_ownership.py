"""Tests of which Service owns an address that several Services claim."""

from itertools import permutations
from typing import NamedTuple

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from userspace_proxy.causes.cause import Cause
from userspace_proxy.causes.say import object_of
from userspace_proxy.causes.services import external_ip_of, held_by, lost_as_address, lost_to
from userspace_proxy.model import (
    Frontend,
    Handling,
    PortKey,
    Protocol,
    ServiceKey,
    ServicePort,
    SlicePort,
    SocketAddress,
)
from userspace_proxy.model.port_ranges import AskedRange
from userspace_proxy.plan import Planner
from userspace_proxy.plan.claims import PortClaim, claims_of
from userspace_proxy.plan.ownership import (
    FrontendOwners,
    OwnershipChange,
    ServiceIndex,
    lost_address,
)
from userspace_proxy.policy import NodeFacts

from ..kept import kept_by
from ..model.samples import CART, CART_IP, HTTP, POD_A, WEB, WEB_IP, service, slice_of
from .drawn import FACTS, KEYS, SERVICES, in_two_orders
from .planning import frontends, say, snapshot_of, store_of
from .test_claims import (
    DNS,
    EXTERNAL_IP,
    LB_IP,
    NEW,
    NODE_IP,
    NODE_PORT,
    OLD,
    SCTP,
    claims,
)

ADDRESS = Frontend(CART_IP, 80, Protocol.TCP)


class Settled(NamedTuple):
    """The owner of each frontend, and the frontends that each claim lost, with the cause."""

    holders: dict[Frontend, PortClaim]
    lost: dict[PortKey, dict[Frontend, Cause]]
    cluster_ips: dict[str, ServiceKey]


def settle(made):
    """Settle all claims in one change; return the result of :func:`settled`."""
    owners = FrontendOwners()
    owners.change((), made)
    return settled(owners)


def holder(owners, frontend):
    claimants = owners._claimants[frontend.protocol].get(frontend.address)
    return claimants[0] if claimants else None


def settled(owners):
    everything = [c for claims in owners.claims.values() for c in claims.ports]
    frontends = {frontend for claim in everything for frontend in claim.frontends}
    holders = {f: holder(owners, f) for f in sorted(frontends)}
    lost = {claim.key: owners.lost_by(claim.key) for claim in everything}
    return Settled(
        {f: holder for f, holder in holders.items() if holder is not None},
        {key: dict(sorted(items.items())) for key, items in lost.items() if items},
        dict(owners.cluster_ips),
    )


def lost(owners):
    """Return the causes for which each port lost frontends."""
    return {str(key): list(items.values()) for key, items in owners.lost.items()}


@pytest.mark.parametrize(
    ("cart", "web", "holder"),
    [
        pytest.param(OLD, NEW, "shop/cart:http", id="older"),
        pytest.param(NEW, OLD, "shop/web:http", id="older-but-later-name"),
        pytest.param(OLD, OLD, "shop/cart:http", id="of-one-second-by-name"),
        pytest.param("", "", "shop/cart:http", id="of-unknown-age-by-name"),
    ],
)
def test_a_contested_address_belongs_to_the_older_service_or_the_first_by_name(cart, web, holder):
    both = claims(service(CART, created=cart), service(WEB, created=web))
    for order in (both, both[::-1]):
        owners = settle(order)
        assert str(owners.holders[ADDRESS].key) == holder
        assert {str(key) for key in owners.lost} == {"shop/cart:http", "shop/web:http"} - {holder}


@pytest.mark.parametrize("ages", [(OLD, NEW), (NEW, OLD)], ids=["node-port", "load-balancer"])
def test_the_older_service_gets_a_nodes_address_that_is_also_a_load_balancer_ip(ages):
    at = ServicePort("http", 30080, "TCP")
    node_port = service(CART, (NODE_PORT,), created=ages[0])
    other = service(WEB, (at,), (WEB_IP,), load_balancer_ips=(NODE_IP,), created=ages[1])
    owners = settle(claims(node_port, other))
    assert lost(owners).keys() == {"shop/web:http" if ages[0] == OLD else "shop/cart:http"}


def test_a_service_loses_only_the_contested_address():
    both = claims(service(CART), service(WEB, cluster_ips=(CART_IP, WEB_IP)))
    owners = settle(both)
    assert str(owners.holders[Frontend(WEB_IP, 80, Protocol.TCP)].key) == "shop/web:http"
    assert owners.lost[claims(service(WEB))[0].ports[0].key].keys() == {ADDRESS}


def test_a_service_that_gets_one_of_two_lost_addresses_lacks_the_other():
    late = service(ServiceKey("shop", "till"), cluster_ips=(CART_IP, WEB_IP), created=NEW)
    web, owners = service(WEB, cluster_ips=(WEB_IP,), created=OLD), FrontendOwners()
    owners.change((), claims(service(CART, created=OLD), web, late))
    owners.change([WEB], ())
    (claim,) = owners.claims[late.key].ports
    assert owners.lost_by(claim.key).keys() == {ADDRESS}


def test_two_ports_of_a_service_may_not_share_an_address():
    owners = settle(claims(service(ports=(ServicePort("web", 80, "TCP"), HTTP))))
    assert owners.holders[ADDRESS].key.name.port == "http"
    assert [key.name.port for key in owners.lost] == ["web"]


@pytest.mark.parametrize(
    "owner",
    [
        pytest.param(service(WEB, cluster_ips=(EXTERNAL_IP,)), id="of-this-proxy"),
        pytest.param(service(WEB, (DNS,), cluster_ips=(EXTERNAL_IP,)), id="on-another-port"),
        pytest.param(
            service(WEB, cluster_ips=(EXTERNAL_IP,), proxy_name="mesh"), id="of-another-proxy"
        ),
        pytest.param(service(WEB, (SCTP,), cluster_ips=(EXTERNAL_IP,)), id="unsupported-protocol"),
        pytest.param(
            service(WEB, cluster_ips=("198.51.100.99",), load_balancer_ips=(EXTERNAL_IP,)),
            id="of-a-load-balancer",
        ),
    ],
)
def test_an_external_ip_cannot_be_another_services_own_address(owner):
    thief = service(created=OLD, external_ips=(EXTERNAL_IP,))
    for order in permutations((thief, owner)):
        owners = settle(claims(*order))
        assert ADDRESS in owners.holders
        assert lost(owners) == {"shop/cart:http": [external_ip_of(EXTERNAL_IP, WEB)]}


@pytest.mark.parametrize("gone", [CART, WEB], ids=["claimant", "owner"])
def test_an_external_ip_is_not_lost_once_either_service_is_removed(gone):
    thief = service(CART, external_ips=(EXTERNAL_IP,))
    owner = service(WEB, cluster_ips=(EXTERNAL_IP,))
    owners = FrontendOwners()
    owners.change((), claims(thief, owner))
    assert lost(settled(owners))
    owners.change([gone], ())
    assert settled(owners) == settle(claims(owner if gone is CART else thief))


def test_the_first_of_two_cluster_ip_owners_by_name_is_named():
    thief = service(external_ips=(EXTERNAL_IP,))
    owners = [service(ServiceKey("shop", n), cluster_ips=(EXTERNAL_IP,)) for n in ("b", "a")]
    for order in (owners, owners[::-1]):
        why = external_ip_of(EXTERNAL_IP, "shop/a")
        assert lost(settle(claims(thief, *order)))["shop/cart:http"] == [why]


def test_external_ips_of_two_services_on_different_ports_do_not_conflict():
    ports = [(ServicePort("http", number, "TCP"),) for number in (80, 81)]
    both = [
        service(key, port, (ip,), external_ips=(EXTERNAL_IP,), load_balancer_ips=(LB_IP,))
        for key, port, ip in zip((CART, WEB), ports, (CART_IP, WEB_IP), strict=True)
    ]
    assert not settle(claims(*both)).lost


def test_a_cluster_ip_takes_precedence_over_an_older_load_balancer_ip():
    old = service(WEB, cluster_ips=(WEB_IP,), load_balancer_ips=(CART_IP,), created=OLD)
    owners = settle(claims(old, service(created=NEW)))
    assert str(owners.holders[ADDRESS].key) == "shop/cart:http"
    assert lost(owners) == {"shop/web:http": [held_by("198.51.100.7:80/TCP", "shop/cart:http")]}


@drawn(st.lists(SERVICES, max_size=5, unique_by=lambda s: s.key).flatmap(in_two_orders))
def test_owners_do_not_depend_on_the_order_of_services(orders):
    first, other = (settle([claims_of(s, FACTS) for s in order]) for order in orders)
    assert first == other


@drawn(st.lists(SERVICES, max_size=5, unique_by=lambda s: s.key))
def test_a_contested_frontend_has_one_owner_and_all_other_claims_lose_it(services):
    made = [claims_of(s, FACTS) for s in services]
    owners = settle(made)
    for claim in (claim for each in made for claim in each.ports):
        held = {f for f in claim.frontends if owners.holders.get(f) is claim}
        lost = owners.lost.get(claim.key, {}).keys()
        assert held | lost == set(claim.frontends)
        assert not held & lost


@drawn(st.lists(st.one_of(SERVICES, KEYS), max_size=12))
def test_incremental_changes_give_the_same_owners_as_a_single_change(changes):
    owners = FrontendOwners()
    for change in changes:
        before, served = settled(owners), served_by(owners)
        if isinstance(change, ServiceKey):
            key, moved = change, owners.change([change], ())
        else:
            key, moved = change.key, owners.change((), [claims_of(change, FACTS)])
        now = settled(owners)
        assert now == settle(owners.claims.values())
        assert set(moved.addresses) == {at for _, at in served ^ served_by(owners)}
        assert moved.cluster_ips == {
            ip for ip, _ in before.cluster_ips.items() ^ now.cluster_ips.items()
        }
        assert others_who_differ(before, now) <= {*moved.services, key}


def served_by(owners):
    return {(p, address) for p in Protocol for address in owners.served(p)}


def others_who_differ(before, now):
    """Return the Services whose owned or lost frontends have changed."""
    frontends = before.holders.keys() | now.holders.keys()
    holders = [(before.holders.get(f), now.holders.get(f)) for f in frontends]
    keys = {c.key for old, new in holders if old is not new for c in (old, new) if c is not None}
    ports = before.lost.keys() | now.lost.keys()
    keys |= {key for key in ports if before.lost.get(key) != now.lost.get(key)}
    return {key.name.service for key in keys}


def test_a_change_reports_only_affected_services():
    till = ServiceKey("shop", "till")
    owners = FrontendOwners()
    owners.change((), claims(service(CART), service(WEB), service(till, cluster_ips=(WEB_IP,))))
    moved = owners.change([CART], ())
    assert (set(moved.addresses), set(moved.services)) == (set(), {WEB})
    moved = owners.change([WEB], ())
    assert (set(moved.addresses), set(moved.services)) == ({ADDRESS.address}, set())


CHANGES = st.lists(st.tuples(st.booleans(), st.sets(st.sampled_from("abc")), KEYS))


@drawn(CHANGES)
def test_a_service_index_contains_added_but_not_discarded_services(changes):
    index, expected = ServiceIndex(), {}
    for comes, places, key in changes:
        (index.add if comes else index.discard)(places, key)
        for place in places:
            there = expected.setdefault(place, set())
            (there.add if comes else there.discard)(key)
    assert {place: set(index[place]) for place in "abc"} == {
        place: expected.get(place, set()) for place in "abc"
    }


def test_addresses_of_a_single_service_share_one_object_in_an_index():
    index = ServiceIndex()
    index.add(["a", "b"], CART)
    assert index["a"] is index["b"]
    assert index.addresses == {"a", "b"}
    index.add(["b"], WEB)
    assert (set(index["a"]), set(index["b"])) == ({CART}, {CART, WEB})


def test_the_cost_of_a_new_cluster_ip_does_not_depend_on_endpoint_ports(monkeypatch):
    looked_up, look_up = [], ServiceIndex.__getitem__

    def counted(index, address):
        looked_up[-1] += 1
        return look_up(index, address)

    monkeypatch.setattr(ServiceIndex, "__getitem__", counted)
    for count in (1, 100):
        ports = [SlicePort("http", 8000 + n, "TCP") for n in range(count)]
        slices = [slice_of(POD_A.ip, key=f"cart-{at.port}", ports=[at]) for at in ports]
        store, planner = store_of(service(), *slices), Planner(NodeFacts())
        looked_up.append(0)
        planner.plan(store.snapshot())
        store.put_service(service(WEB, cluster_ips=(WEB_IP,)))
        looked_up[-1] = 0
        planner.plan(store.snapshot())
    assert looked_up[0] == looked_up[1] > 0


def test_the_effects_of_several_ownership_changes_are_merged():
    till = ServiceKey("shop", "till")
    owners, moved = FrontendOwners(), OwnershipChange(set(), set(), set(), set())
    moved.add(owners.change((), claims(service(CART), service(till, cluster_ips=(WEB_IP,)))))
    moved.add(owners.change([CART], claims(service(WEB, cluster_ips=(WEB_IP,)))))
    assert {address.ip for address in moved.addresses} == {CART_IP, WEB_IP}
    assert (moved.services, moved.node_ports) == ({till}, set())
    assert moved.cluster_ips == {CART_IP, WEB_IP}


def test_removed_services_leave_no_state_in_the_owner_table():
    owners = FrontendOwners()
    both = (service(one, (NODE_PORT,), external_ips=(EXTERNAL_IP,)) for one in (WEB, CART))
    owners.change((), claims(*both))
    assert any(owners.node_ports.values())
    owners.change([WEB], ())
    owners.change([CART], ())
    assert kept_by(owners) == kept_by(FrontendOwners())
    assert not any(owners.node_ports.values())


def test_a_released_cluster_ip_passes_to_the_next_service_that_claims_it():
    owners = FrontendOwners()
    owners.change((), claims(service(WEB), service(CART)))
    assert owners.cluster_ips == {CART_IP: CART}
    assert owners.change([CART], ()).cluster_ips == {CART_IP}
    assert owners.cluster_ips == {CART_IP: WEB}


@pytest.mark.parametrize("is_external_local", [False, True])
@pytest.mark.parametrize(
    ("claimed", "what"),
    [
        pytest.param({"external_ips": ("203.0.113.7",)}, "external IP 203.0.113.7", id="external"),
        pytest.param({"ports": (NODE_PORT,)}, "node port 30080", id="node-port"),
    ],
)
def test_a_lost_address_gets_a_note_beside_served_addresses(claimed, what, is_external_local):
    both = {**claimed, "is_external_local": is_external_local}
    claimants = service(CART, **both), service(WEB, cluster_ips=(WEB_IP,), **both)
    facts = NodeFacts(external_ip_networks=("203.0.113.0/24",), addresses=("198.51.100.1",))
    plan = Planner(facts).plan(snapshot_of(*claimants))
    assert frontends(plan)["shop/web:http"] == ["198.51.100.8:80/TCP"]
    (web,) = [port for port in plan.ports.values() if port.key.name.service == WEB]
    (part,) = plan.ignored
    assert (part.service, part.is_part) == (WEB, True)
    kind, _, number = what.rpartition(" ")
    assert web.notes == (lost_to(object_of(part.cause), kind, number, "shop/cart:http"),)


def test_a_port_without_an_address_is_not_served_in_part():
    web = service(WEB, ports=(HTTP, ServicePort("admin", 81, "TCP")), created=NEW)
    (lost,) = Planner(NodeFacts()).plan(snapshot_of(service(CART, created=OLD), web)).ignored
    assert (lost.port, lost.is_part) == ("http", False)


def test_the_note_on_another_services_external_ip_names_that_service():
    ip = "203.0.113.7"
    planner = Planner(NodeFacts(external_ip_networks=("203.0.113.0/24",)))
    owner, other = service(CART, cluster_ips=(ip,)), service(WEB, created=NEW, external_ips=(ip,))
    plan = planner.plan(store_of(owner, other).snapshot())
    (web,) = [port for port in plan.ports.values() if port.key.name.service == WEB]
    assert web.notes == (lost_as_address(ip, "external IP", ip, str(CART)),)


def test_notes_on_lost_addresses_have_a_fixed_order():
    external = {"external_ips": ("203.0.113.7",)}
    bank = ServiceKey("bank", "till")
    services = [
        service(CART, (NODE_PORT,)),
        service(bank, cluster_ips=("198.51.100.9",), **external),
        service(WEB, (NODE_PORT,), (WEB_IP,), created=NEW, **external),
    ]
    facts = NodeFacts(external_ip_networks=("203.0.113.0/24",), addresses=("198.51.100.1",))
    for in_order in permutations(services):
        planner, store = Planner(facts), store_of()
        for each in in_order:
            say(store, each)
            plan = planner.plan(store.snapshot())
        (web,) = [port for port in plan.ports.values() if port.key.name.service == WEB]
        lost = [object_of(note) for note in web.notes]
        assert lost == ["198.51.100.1:30080/TCP", "203.0.113.7:80/TCP"], in_order


def test_the_older_of_two_services_gets_an_overlapping_range():
    def ranged(key, created, first):
        handling = Handling(port_ranges=(AskedRange("http", first, first + 40),))
        return service(
            key=key,
            created=created,
            handling=handling,
            load_balancer_ips=(LB_IP,),
            cluster_ips=(CART_IP if key is CART else WEB_IP,),
        )

    facts = NodeFacts(port_ranges="all")
    older, younger = (
        claims_of(ranged(key, created, first), facts)
        for key, created, first in ((CART, OLD, 50), (WEB, NEW, 60))
    )
    owners = FrontendOwners()
    owners.change((), [younger])
    assert not owners.lost_by(younger.ports[0].key)
    change = owners.change((), [older])
    assert change.services == {WEB}
    assert LB_IP in change.cluster_ips
    lost = owners.lost_by(younger.ports[0].key)
    ranges = [frontend for frontend in lost if frontend.last]
    assert [str(frontend) for frontend in ranges] == [f"{LB_IP}:60–100/TCP"]
    (kind, number), _ = lost_address(ranges[0], lost[ranges[0]])
    assert (kind, number) == ("load balancer IP", f"{LB_IP}:60–100/TCP")
    assert SocketAddress(LB_IP, 55) in owners.served(Protocol.TCP)
    owners.change([CART], ())
    assert not owners.lost_by(younger.ports[0].key)
    owners.change([WEB], ())
    assert not list(owners.served(Protocol.TCP))


def test_a_range_excludes_ports_claimed_individually_by_other_services():
    handling = Handling(port_ranges=(AskedRange("http", 78, 82),))
    facts, owners = NodeFacts(port_ranges="all"), FrontendOwners()
    web = service(WEB, handling=handling, load_balancer_ips=(LB_IP,))
    owners.change((), [claims_of(web, facts)])
    (claim,) = owners.claims[WEB].ports
    at = [frontend for frontend in claim.frontends if frontend.ip == LB_IP]

    def ports():
        each = list(owners.one_by_one(at))
        assert not any(frontend.last for frontend in each)
        return [frontend.port for frontend in each]

    assert ports() == [80, 78, 79, 81, 82]
    other = service(
        CART,
        ports=(ServicePort("http", 81, "TCP"), ServicePort("udp", 82, "UDP")),
        cluster_ips=(CART_IP,),
        load_balancer_ips=(LB_IP,),
    )
    assert owners.change((), [claims_of(other, facts)]).services == {WEB}
    assert ports() == [80, 78, 79, 82]
    assert not owners.lost_by(claim.key)
    assert owners.change([CART], ()).services == {WEB}
    assert ports() == [80, 78, 79, 81, 82]
