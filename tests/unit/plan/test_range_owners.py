"""Tests of which Service owns a port where ranges of several Services overlap."""

import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from userspace_proxy.model import (
    Frontend,
    FrontendKind,
    Handling,
    IPFamily,
    PortKey,
    Protocol,
    Service,
    ServiceKey,
    ServicePort,
    ServicePortName,
    ServiceType,
    Side,
    SocketAddress,
)
from userspace_proxy.model.port_ranges import AskedRange
from userspace_proxy.plan.claims import claims_of
from userspace_proxy.plan.ownership import FrontendOwners
from userspace_proxy.plan.range_owners import RangeOwners
from userspace_proxy.policy import NodeFacts

from ..kept import kept_by

FACTS = NodeFacts(port_ranges="all")
SHARED_IP = "192.0.2.100"
PORTS = range(1, 31)


def a_service(name, created, ports, cluster_ip, balancer=()):
    """Return a Service; ``ports`` are (name, protocol, number, range or None)."""
    return Service(
        ServiceKey("shop", name),
        tuple(ServicePort(n, number, protocol) for n, protocol, number, _ in ports),
        type=ServiceType.LOAD_BALANCER,
        cluster_ips=(cluster_ip,),
        load_balancer_ips=balancer,
        created=created,
        handling=Handling(
            port_ranges=tuple(AskedRange(n, *asked) for n, _, _, asked in ports if asked)
        ),
    )


def owners_of(*services) -> tuple[FrontendOwners, dict]:
    claims = [claims_of(service, FACTS) for service in services]
    owners = FrontendOwners()
    owners.change((), claims)
    return owners, {c.key: c for of in claims for c in of.ports}


def steered(owners, claims) -> dict[tuple[str, str, int], str]:
    """Return the owner of each port: single ports take precedence, as in the kernel's tables."""
    found: dict[tuple[str, str, int], str] = {}
    owned = [
        (frontend, key)
        for key, claim in claims.items()
        for frontend in claim.frontends
        if frontend not in owners.lost_by(key)
    ]
    for frontend, key in sorted(owned, key=lambda one: not one[0].last):
        for port in range(frontend.port, max(frontend.port, frontend.last) + 1):
            at = frontend.ip, str(frontend.protocol), port
            if frontend.last:
                # Served ranges must not overlap, because a kernel map rejects overlaps.
                assert not found.get(at, "single").startswith("range")
                found[at] = f"range {key.name}"
            elif not found.get(at, "range").startswith("single"):
                found[at] = f"single {key.name}"
    return {at: what for at, what in found.items() if at[2] in PORTS}


def model(services) -> dict[tuple[str, str, int], str]:
    """Return the owner of each port by applying the documented rules of ranges literally."""
    given_ranges: dict[tuple[str, str], list[tuple[int, int]]] = {}
    found: dict[tuple[str, str, int], str] = {}
    by_age = sorted(services, key=lambda one: (one.created, one.key))
    for of_ranges in (True, False):
        for kind in ("cluster_ips", "load_balancer_ips"):
            for service in by_age:
                asked = {one.port: one for one in service.handling.port_ranges}
                for port in sorted(service.ports, key=lambda one: one.name):
                    name = f"{service.key}:{port.name}"
                    for ip in getattr(service, kind):
                        if not of_ranges:
                            at = ip, port.protocol, port.port
                            if not found.get(at, "range").startswith("single"):
                                found[at] = f"single {name}"
                        elif one := asked.get(port.name):
                            taken = given_ranges.setdefault((ip, port.protocol), [])
                            if all(one.last < a or b < one.first for a, b in taken):
                                taken.append((one.first, one.last))
                                for number in range(one.first, one.last + 1):
                                    found[ip, port.protocol, number] = f"range {name}"
    return found


@st.composite
def drawn_services(draw) -> Iterator[Service]:
    services = []
    for index in range(2):
        ports = []
        for name, protocol in (("a", "TCP"), ("b", "UDP"), ("c", "UDP")):
            first = draw(st.integers(1, 25))
            last = draw(st.integers(first + 1, 30))
            number = draw(st.integers(first, last))
            has_range = name != "c" and draw(st.booleans())
            if any(p == protocol and n == number for _, p, n, _ in ports):
                continue
            ports.append((name, protocol, number, (first, last) if has_range else None))
        created = draw(st.sampled_from(["2026-01-01", "2026-01-02"]))
        balancer = (SHARED_IP,) if draw(st.booleans()) else ()
        services.append(a_service(f"s{index}", created, ports, f"198.51.100.{index}", balancer))
    return services


@settings(max_examples=300)
@given(drawn_services(), st.booleans())
def test_each_port_has_the_owner_predicted_by_the_model(services, is_reversed):
    ordered = services[::-1] if is_reversed else services
    assert steered(*owners_of(*ordered)) == model(services)


@settings(max_examples=100)
@given(drawn_services(), drawn_services())
def test_the_owner_does_not_depend_on_earlier_claims(before, services):
    claims = [claims_of(service, FACTS) for service in services]
    owners, _ = owners_of(*before)
    gone = [one.key for one in before]
    owners.change(gone, ())
    assert kept_by(owners) == kept_by(FrontendOwners())
    for one in claims:
        owners.change((), [one])
    again, _ = owners_of(*before)
    again.change((), claims)
    found = {c.key: c for of in claims for c in of.ports}
    assert steered(owners, found) == steered(again, found) == model(services)


OLDER = a_service("older", "2026-01-01", [("a", "UDP", 5, (1, 10))], "198.51.100.1", (SHARED_IP,))
YOUNGER = a_service(
    "younger", "2026-01-02", [("b", "UDP", 12, (10, 20))], "198.51.100.2", (SHARED_IP,)
)


def test_the_older_service_gets_a_range_and_the_younger_service_only_its_port():
    owners, claims = owners_of(YOUNGER, OLDER)
    lost = {str(f): str(c.get("holder")) for k in claims for f, c in owners.lost_by(k).items()}
    assert lost == {f"{SHARED_IP}:10–20/UDP": "shop/older:a"}
    assert steered(owners, claims)[SHARED_IP, "UDP", 12] == "single shop/younger:b"


def test_a_range_is_served_after_the_older_service_is_removed():
    owners, _ = owners_of(YOUNGER, OLDER)
    change = owners.change([OLDER.key], ())
    assert YOUNGER.key in change.services
    assert not any(owners.lost_by(claim.key) for claim in owners.claims[YOUNGER.key].ports)


def test_a_change_affects_only_services_with_changed_ranges():
    apart = a_service(
        "apart", "2026-01-03", [("c", "UDP", 25, (21, 30))], "198.51.100.3", (SHARED_IP,)
    )
    owners, _ = owners_of(OLDER, YOUNGER)
    assert owners.change((), [claims_of(apart, FACTS)]).services == set()
    assert owners.change([OLDER.key], ()).services == {YOUNGER.key}
    assert owners.change((), [claims_of(OLDER, FACTS)]).services == {YOUNGER.key}
    (lost,) = owners.lost_by(owners.claims[YOUNGER.key].ports[0].key).values()
    assert lost.get("holder") == "shop/older:a"
    # Adding a claim again evaluates its ranges again.
    assert owners.change((), [claims_of(YOUNGER, FACTS)]).services == set()
    assert owners.lost_by(owners.claims[YOUNGER.key].ports[0].key)


def test_only_ports_claimed_singly_or_in_a_served_range_are_service_addresses():
    owners, _ = owners_of(OLDER, YOUNGER)
    served = owners.served(Protocol.UDP)
    assert [SocketAddress(SHARED_IP, n) in served for n in (10, 11, 12)] == [True, False, True]


def test_twenty_thousand_ranges_at_an_address_are_decided_within_two_seconds():
    claim = claims_of(OLDER, FACTS).ports[0]
    ranges = RangeOwners(lambda frontend, _claim: (frontend.port,))
    for first in range(1, 60_001, 3):
        ranges.add(Frontend(SHARED_IP, first, Protocol.UDP, last=first + 1), claim)
    (place,) = ranges.take_affected()
    begin = time.thread_time()
    assert all(lost_to is None for _, _, lost_to in ranges.decide(place))
    assert not list(ranges.decide(place))
    assert time.thread_time() - begin < 2.0


@pytest.mark.parametrize(
    ("address", "is_served"),
    [
        (SocketAddress(SHARED_IP, 1), True),
        (SocketAddress(SHARED_IP, 10), True),
        (SocketAddress(SHARED_IP, 11), False),
        (SocketAddress("198.51.100.9", 5), False),
    ],
)
def test_an_endpoint_within_a_served_range_is_a_service_address(address, is_served):
    owners, _ = owners_of(OLDER)
    served = owners.served(Protocol.UDP)
    assert (address in served) is is_served
    assert list(served) == [one for one in served if one.port == 5]
    assert len(served) == 2


def test_discarding_an_unknown_claim_has_no_effect():
    ranges = RangeOwners(lambda _frontend, claim: (claim.created,))
    claim = claims_of(OLDER, FACTS).ports[0]
    ranges.discard(Frontend("192.0.2.1", 1, Protocol.UDP, FrontendKind.CLUSTER_IP, 5), claim)
    assert not ranges
    assert not ranges.take_affected()
    assert claim.key == PortKey(ServicePortName("shop", "older", "a"), IPFamily.IPV4, Side.ALL)


def test_served_addresses_do_not_contain_an_address_as_text():
    owners, _ = owners_of(OLDER)
    assert "192.0.2.100:5" not in owners.served(Protocol.UDP)
