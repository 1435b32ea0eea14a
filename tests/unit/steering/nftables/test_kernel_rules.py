"""The elements of the kernel path, and their differences; these tests need no kernel."""

from __future__ import annotations

import sys

import pytest

from userspace_proxy.balance import fill_slots
from userspace_proxy.errors import SteeringError
from userspace_proxy.kernel.netlink.messages import read_all, read_messages, text_in
from userspace_proxy.kernel.nf_tables import writer
from userspace_proxy.model import Frontend, Protocol, SocketAddress
from userspace_proxy.steering.base import Affinity, EndpointChoice, KernelTarget
from userspace_proxy.steering.nftables.choosers import chooser_of
from userspace_proxy.steering.nftables.kernel_rules import (
    NUMBERS_END,
    SETS,
    KernelRules,
    Numbers,
    read_endpoints,
)
from userspace_proxy.steering.nftables.rules import frontend_key

WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
CART = Frontend("10.96.7.2", 80, Protocol.TCP)
WEB_6 = Frontend("fd00:96::1", 80, Protocol.TCP)
A, B, C = (SocketAddress(f"10.244.1.{number}", 8080) for number in (2, 3, 4))
A_6 = SocketAddress("fd00:10::2", 8080)
BOTH, ONE, SIX = (
    KernelTarget(1, (EndpointChoice((A, B)),)),
    KernelTarget(1, (EndpointChoice((A,)),)),
    EndpointChoice((A_6,)),
)


def loaded(**_):
    rules = KernelRules()
    rules.accept(rules.difference({WEB: BOTH, WEB_6: KernelTarget(1, (SIX,))}))
    return rules


def by_set(elements):
    found = {}
    for name, key, value in elements:
        found.setdefault(name, {})[key] = value
    return found


def test_a_frontends_endpoints_round_trip_through_elements():
    assert read_endpoints(by_set(loaded().elements())) == {WEB: (A, B), WEB_6: (A_6,)}


def test_an_endpoint_without_its_frontend_is_not_active():
    elements = by_set(loaded().elements())
    del elements["choices4"]
    assert read_endpoints(elements) == {WEB_6: (A_6,)}


def test_changing_an_endpoint_changes_a_single_element():
    rules = loaded()
    other = KernelTarget(1, (EndpointChoice((A, SocketAddress("10.244.1.9", 8080))),))
    change = rules.difference({WEB: other})
    (removed,), (added,) = change.removed, change.added
    assert (
        removed[:2]
        == added[:2]
        == (
            "endpoints4",
            frontend_key(WEB) + (1).to_bytes(4, sys.byteorder),
        )
    )


def test_a_change_among_5000_services_sharing_a_chain_edits_at_most_five_elements():
    rules = KernelRules()
    many = {Frontend(f"10.97.{n // 250}.{n % 250}", 80, Protocol.TCP): BOTH for n in range(5000)}
    rules.accept(rules.difference(many))
    assert len(rules.choosers) == 1
    (one, *_) = many
    change = rules.difference({one: KernelTarget(1, (EndpointChoice((B, B)),))})
    assert (len(change.removed), len(change.added), change.new_choosers) == (1, 1, {})
    change = rules.difference({one: None})
    # These are the frontend's two elements, and one element for each endpoint.
    assert (len(change.removed), change.added, change.gone_choosers) == (4, set(), {})
    # The fifth element counts connections; it is removed when no rule uses it any more.
    assert len(rules.difference({one: None}, [one]).removed) == 5


def by_hash(*endpoints):
    return KernelTarget(1, (EndpointChoice(fill_slots(endpoints, {})),), by_client=True)


def test_a_change_of_hashed_endpoints_writes_only_moved_slots():
    rules = KernelRules()
    rules.accept(rules.difference({WEB: by_hash(A, B), CART: by_hash(A, B, C)}))
    assert len(rules.choosers) == 1
    change = rules.difference({CART: by_hash(A, B)})
    assert (change.new_choosers, change.gone_choosers) == ({}, {})
    moved = fill_slots((A, B, C), {}).count(C)
    assert len(change.removed) == len(change.added) == moved


def test_a_frontend_is_counted_from_its_first_endpoint_until_removed():
    rules = KernelRules()
    counter = ("counted4", frontend_key(WEB), b"")
    for target, is_added in ((BOTH, True), (ONE, False), (None, False), (ONE, False)):
        change = rules.difference({WEB: target})
        assert (counter in change.added, counter in change.removed) == (is_added, False)
        rules.accept(change)
        assert counter in set(rules.elements())
    change = rules.difference({WEB: None}, [WEB, CART])
    assert (change.uncounted, counter in change.removed) == ({WEB}, True)
    rules.accept(change)
    assert set(rules.elements()) == set()


def test_a_chain_is_removed_with_its_last_frontend():
    rules = loaded()
    rules.accept(rules.difference({CART: BOTH}))
    change = rules.difference({WEB: ONE})
    assert change.gone_choosers == {}
    rules.accept(change)
    change = rules.difference({CART: None})
    assert [*change.gone_choosers] == [chooser_of(WEB, BOTH)]
    rules.accept(change)
    assert read_endpoints(by_set(set(rules.elements()))) == {WEB: (A,), WEB_6: (A_6,)}


def test_a_frontend_off_the_kernel_path_keeps_only_its_counter():
    rules = loaded()
    rules.accept(
        rules.difference({WEB: KernelTarget(1, BOTH.choices, is_on=False), WEB_6: KernelTarget(1)})
    )
    names = sorted(name for name, _, _ in set(rules.elements()))
    assert (names, rules.choosers) == (["counted4", "counted6"], {})


def test_unchanged_targets_result_in_no_differences():
    assert not loaded().difference({WEB: BOTH, CART: None}).targets


def test_a_difference_that_is_not_accepted_changes_nothing():
    rules = loaded()
    before = set(rules.elements())
    rules.difference({WEB: None, CART: ONE})
    assert set(rules.elements()) == before


def test_the_element_of_a_frontend_is_removed_first_and_added_last():
    rules = loaded()
    elements = set(rules.elements())
    table = writer.TableWriter("t")
    table.change_elements(SETS, elements, elements)
    messages = [message for block in table.messages for message in read_messages(block)]
    names = [text_in(read_all(one.body, 4), writer.SET_NAME) for one in messages]
    used = [name for name in SETS if name in names]
    assert names == [*used, *reversed(used)]
    assert [one.kind == writer.DELETE_ELEMENT for one in messages] == [True] * 8 + [False] * 8


PINNED = Affinity("shop/web", 60)


def pinned(*endpoints):
    return KernelTarget(1, (EndpointChoice(endpoints),), PINNED)


def pins_of(rules, target):
    return rules.choosers[chooser_of(WEB, target)].pins


def test_with_affinity_an_endpoints_number_is_stable_and_not_reused():
    rules = KernelRules()
    rules.accept(rules.difference({WEB: pinned(A, B)}))
    first = pins_of(rules, pinned(A, B))
    rules.accept(rules.difference({WEB: pinned(B)}))
    assert pins_of(rules, pinned(B)) == {B: first[B]}
    rules.accept(rules.difference({WEB: pinned(A, B)}))
    again = pins_of(rules, pinned(A, B))
    assert again[B] == first[B]
    assert again[A] not in first.values()
    rules.accept(rules.difference({WEB: None}, [WEB]))
    assert (set(rules.elements()), rules.choosers) == (set(), {})


def test_frontends_with_the_same_affinity_name_share_their_entries():
    rules = KernelRules()
    other = KernelTarget(1, pinned(A, B).choices, Affinity("shop/cart", 60))
    change = rules.difference({WEB: pinned(A, B), CART: pinned(A, B)})
    assert len(change.new_choosers) == 1
    rules.accept(change)
    change = rules.difference({CART: other})
    (chain,) = change.new_choosers.values()
    assert set(chain.pins.values()).isdisjoint(pins_of(rules, pinned(A, B)).values())
    rules.accept(change)
    assert len(rules.choosers) == 2


def test_endpoint_numbers_wrap_around_and_skip_numbers_in_use():
    rules = KernelRules()
    rules.accept(rules.difference({WEB: pinned(A, B)}))
    kept = rules.choosers[chooser_of(WEB, pinned(A, B))]
    rules._numbers._next = NUMBERS_END - 1
    for number in range(3, 9):
        target = pinned(A, B, SocketAddress(f"10.244.2.{number}", 8080))
        other = KernelTarget(1, target.choices, Affinity("shop/cart", 60))
        rules.accept(rules.difference({CART: other}))
        chain = rules.choosers[chooser_of(CART, other)]
        assert not {kept.number, *kept.pins.values()} & {chain.number, *chain.pins.values()}
        assert len({chain.number, *chain.pins.values()}) == 4


class Walked(dict):
    """A dict of choosers that counts how often all of them are visited."""

    walks = 0

    def items(self):
        self.walks += 1
        return super().items()


def test_a_change_with_affinity_does_not_visit_other_services():
    rules = KernelRules()
    rules.accept(rules.difference({WEB: pinned(A, B)}))
    rules.choosers = Walked(rules.choosers)
    other = KernelTarget(1, pinned(A, B).choices, Affinity("shop/cart", 60))
    rules.accept(rules.difference({CART: other}))
    rules.accept(rules.difference({CART: None}))
    assert rules.choosers.walks == 0
    assert len(pins_of(rules, pinned(A, B))) == 2


def test_endpoint_numbers_are_consecutive_and_not_reused():
    numbers = Numbers(1)
    assert [numbers.take(count, list) for count in (1, 3, 1)] == [1, 2, 5]


def test_after_wrapping_around_new_numbers_fill_gaps_between_ranges_in_use():
    used = [range(8, 11), range(2, 4), range(4, 5)]
    numbers = Numbers(NUMBERS_END - 4)
    numbers._first = 1
    assert [numbers.take(3, lambda: used) for _ in range(3)] == [NUMBERS_END - 4, 5, 11]
    numbers._next = NUMBERS_END
    numbers._gap_end = NUMBERS_END
    assert [numbers.take(1, lambda: used) for _ in range(5)] == [1, 5, 6, 7, 11]


def test_taking_a_number_while_all_are_in_use_is_an_error():
    numbers = Numbers(NUMBERS_END)
    with pytest.raises(SteeringError, match="all numbers are in use"):
        numbers.take(1, lambda: [range(NUMBERS_END)])


def test_frontends_added_together_with_shared_affinity_share_endpoint_numbers():
    both = KernelTarget(36001, (EndpointChoice((A, B)),), Affinity("shop/web", 60))
    local = KernelTarget(36001, (EndpointChoice((B,)),), Affinity("shop/web", 60))
    change = KernelRules().difference({WEB: both, CART: local})
    first, second = change.new_choosers.values()
    assert second.pins == {B: first.pins[B]}


RTP = Frontend("10.96.7.1", 10000, Protocol.UDP, last=20000)
A_RTP, B_RTP = (SocketAddress(one.ip, 10000) for one in (A, B))
SIP_PODS = Affinity("shop/sip (all ports)", 60, is_of_pods=True)


def test_a_range_round_trips_through_elements_of_the_sets_for_ranges():
    rules = KernelRules()
    rules.accept(rules.difference({RTP: KernelTarget(1, (EndpointChoice((A_RTP, B_RTP)),))}))
    elements = by_set(rules.elements())
    assert {name: len(some) for name, some in elements.items()} == {
        "counted_ranges4": 1,
        "ranged4": 1,
        "range_choices4": 1,
        "range_endpoints4": 2,
    }
    assert read_endpoints(elements) == {RTP: (A_RTP, B_RTP)}


def test_ports_that_share_affinity_have_one_number_for_each_pod():
    rules = KernelRules()
    single = KernelTarget(1, (EndpointChoice((A, B)),), SIP_PODS)
    ranged = KernelTarget(2, (EndpointChoice((B_RTP, A_RTP)),), SIP_PODS)
    rules.accept(rules.difference({WEB: single}))
    rules.accept(rules.difference({RTP: ranged}))
    (of_single, of_range) = (
        rules.choosers[chooser_of(frontend, target)].pins
        for frontend, target in ((WEB, single), (RTP, ranged))
    )
    assert (of_single[A], of_single[B]) == (of_range[A_RTP], of_range[B_RTP])


def test_endpoints_with_one_address_and_different_ports_have_separate_numbers():
    rules = KernelRules()
    second = SocketAddress(A.ip, A.port + 1)
    target = KernelTarget(1, (EndpointChoice((A, second)),), SIP_PODS)
    other = KernelTarget(1, (EndpointChoice((A_RTP, SocketAddress(A.ip, 10001))),), SIP_PODS)
    rules.accept(rules.difference({WEB: target, RTP: other}))
    for chain in rules.choosers.values():
        assert len(set(chain.pins.values())) == 2
