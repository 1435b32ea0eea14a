from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.errors import SteeringError
from userspace_proxy.model import Frontend, Protocol, own_network
from userspace_proxy.steering.local.desired import (
    REFUSED,
    DesiredState,
    StateChange,
)

from ...kept import kept_by

WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
WEB_TLS = Frontend("10.96.7.1", 443, Protocol.TCP)
CART = Frontend("10.96.7.2", 80, Protocol.TCP)
WEB_6 = Frontend("fd00:96::1", 80, Protocol.TCP)
LOOPBACK = Frontend("127.0.0.9", 80, Protocol.TCP)
RANGES = ("10.96.0.0/16", "fd00:96::/112")


def test_the_address_of_a_new_frontend_is_routed_and_the_frontend_is_admitted():
    assert DesiredState().change({WEB: 80, WEB_6: 80}) == StateChange(
        added_networks={"10.96.7.1/32", "fd00:96::1/128"}, added_frontends={WEB, WEB_6}
    )


def test_an_address_stays_routed_while_a_frontend_uses_it():
    desired = DesiredState()
    before = kept_by(desired)
    desired.change({WEB: 80, WEB_TLS: 443})
    assert desired.change({WEB: None}) == StateChange(removed_frontends={WEB})
    assert desired.change({WEB_TLS: None}) == StateChange(
        removed_networks={"10.96.7.1/32"}, removed_frontends={WEB_TLS}
    )
    assert kept_by(desired) == before


def test_the_address_of_a_refused_frontend_is_routed_but_its_clients_are_not_admitted():
    assert DesiredState().change({WEB: REFUSED}) == StateChange(added_networks={"10.96.7.1/32"})


def test_an_unchanged_desired_state_results_in_no_changes():
    desired = DesiredState()
    desired.change({WEB: 80})
    assert desired.change({WEB: 80, CART: None}) == StateChange()


def test_an_address_removed_and_added_by_one_change_stays_routed():
    desired = DesiredState()
    desired.change({WEB: 80})
    affected = {WEB: None, WEB_TLS: 443}
    assert desired.change(affected) == StateChange(
        removed_frontends={WEB}, added_frontends={WEB_TLS}
    )


def test_loopback_addresses_need_neither_route_nor_guard():
    desired = DesiredState()
    assert desired.change({LOOPBACK: 80}) == StateChange()
    assert not desired.is_routed(LOOPBACK.ip)


def test_addresses_in_ranges_are_not_routed_individually():
    desired = DesiredState((*RANGES, "127.0.0.0/8"))
    assert desired.ranges == RANGES
    assert desired.change({WEB: 80, WEB_6: 80}) == StateChange(added_frontends={WEB, WEB_6})
    assert desired.is_in_ranges(WEB.ip)
    assert not desired.is_in_ranges("10.97.0.1")


def test_the_nodes_own_addresses_are_neither_routed_nor_guarded():
    desired = DesiredState()
    desired.change({WEB: 80, CART: 80})
    desired.set_node_networks(["10.96.7.1/32"])
    assert (desired.networks, desired.admitted) == ({"10.96.7.2/32"}, {CART})
    assert desired.ports == {WEB: 80, CART: 80}
    assert desired.is_affected_by("10.96.7.1/32")
    assert desired.is_affected_by("10.96.7.2/32")
    assert not desired.is_affected_by("10.96.7.3/32")
    desired.set_node_networks([])
    assert desired.admitted == {WEB, CART}
    assert desired.change({WEB: None, CART: None}).removed_networks == {
        "10.96.7.1/32",
        "10.96.7.2/32",
    }


def test_frontends_in_networks_that_cannot_be_routed_are_unsteered_with_the_cause():
    desired = DesiredState(["10.96.0.0/16"])
    desired.change({WEB: 80, WEB_6: 80, LOOPBACK: 80, CART: 80})
    desired.set_node_networks({own_network(CART.ip)})
    assert desired.unsteered() == {}
    desired.refused = {
        "10.96.0.0/16": SteeringError("another route"),
        own_network(WEB_6.ip): SteeringError("IPv6 is switched off", hint="sysctl"),
    }
    assert desired.unsteered() == {WEB: "another route", WEB_6: "IPv6 is switched off (sysctl)"}


FRONTENDS = [
    Frontend(ip, port, protocol)
    for ip in ("10.96.7.1", "10.96.7.2", "fd00:96::1", "127.0.0.9")
    for port in (53, 80)
    for protocol in Protocol
]
PORTS = st.dictionaries(
    st.sampled_from(FRONTENDS), st.sampled_from([None, REFUSED, 80, 81]), max_size=9
)


@given(changes=st.lists(PORTS, max_size=5))
def test_incremental_changes_result_in_the_same_state_as_a_single_change(changes):
    desired, outcome = DesiredState(), {}
    networks, admitted = set(), set()
    for affected in changes:
        change = desired.change(affected)
        networks = (networks | change.added_networks) - change.removed_networks
        admitted = (admitted | change.added_frontends) - change.removed_frontends
        outcome |= affected
    fresh = DesiredState()
    fresh.change({frontend: port for frontend, port in outcome.items() if port is not None})
    assert desired.ports == fresh.ports
    assert desired.networks == fresh.networks == networks
    assert desired.admitted == fresh.admitted == admitted
