"""Tests that slots are the same on each node, and that a change moves few of them."""

from collections import Counter

import pytest

from userspace_proxy.balance import count_slots, fill_slots
from userspace_proxy.model import SocketAddress

from ..model.samples import POD_A, POD_B, POD_C

PODS = tuple(SocketAddress(f"10.244.1.{number}", 8080) for number in range(10))


def moved(before, after):
    """Return the old and the new endpoint of each changed slot."""
    return [(one, other) for one, other in zip(before, after, strict=True) if one != other]


def test_slot_assignments_are_stable_across_versions():
    """Otherwise clients would move during an upgrade, or differ between nodes of two versions."""
    names = {POD_A: "A", POD_B: "B", POD_C: "C"}
    assert "".join(names[pod] for pod in fill_slots((POD_A, POD_B, POD_C), {})) == (
        "ACCAAABAACACBBCCAAAACABBBABABABBCCBCBCACCACCBBBBBBCBACBBBBACABAA"
        "ACBCBBAACAACBAABBBBBCAABCBAAABBCBBCAAACABBBBBACBBBAACABBCACCCBCC"
    )


def test_slots_filled_for_the_same_endpoints_and_weights_are_reused():
    assert fill_slots(PODS, {POD_A: 3}) is fill_slots(PODS, {POD_A: 3})


def test_slots_do_not_depend_on_the_order_of_endpoints():
    assert fill_slots(PODS, {}) == fill_slots(PODS[::-1], {})


@pytest.mark.parametrize(
    ("endpoints", "slots"), [(1, 128), (16, 128), (17, 1024), (128, 1024), (129, 4096)]
)
def test_the_number_of_slots_grows_in_a_few_steps(endpoints, slots):
    pods = [SocketAddress(f"10.244.2.{number}", 8080) for number in range(endpoints)]
    found = fill_slots(pods, {})
    assert len(found) == slots
    assert set(found) == set(pods)


def test_slots_are_spread_evenly_over_endpoints():
    counts = Counter(fill_slots(PODS, {}))
    assert all(7 <= counts[pod] <= 19 for pod in PODS)


def test_removing_an_endpoint_spreads_only_its_slots_over_other_endpoints():
    before, after = fill_slots(PODS, {}), fill_slots(PODS[1:], {})
    assert {one for one, _ in moved(before, after)} == {PODS[0]}
    assert len({other for _, other in moved(before, after)}) > len(PODS) / 3


def test_shares_of_slots_match_even_small_weights():
    counts = Counter(fill_slots(PODS[:4], {PODS[0]: 1200, PODS[1]: 288, PODS[2]: 12}))
    assert counts.total() == 4096
    assert abs(counts[PODS[0]] - 3072) < 100
    assert abs(counts[PODS[2]] - 31) < 15
    assert abs(counts[PODS[3]] - 256) < 60, "the default weight is 100"


def test_a_growing_weight_moves_slots_only_to_its_endpoint():
    before = fill_slots(PODS[:4], {PODS[2]: 10})
    after = fill_slots(PODS[:4], {PODS[2]: 50})
    assert {other for _, other in moved(before, after)} == {PODS[2]}


def test_slots_are_drawn_until_each_slot_has_an_endpoint():
    # For this endpoint, the usual number of draws leaves a slot empty.
    lonely = SocketAddress("10.244.3.123", 8080)
    assert fill_slots((lonely,), {}) == (lonely,) * 128


def test_the_counted_slots_equal_the_filled_slots():
    for count, is_weighted in ((2, False), (17, False), (2, True)):
        weights = dict.fromkeys(PODS[:1], 3) if is_weighted else {}
        pods = [SocketAddress(f"10.244.2.{number}", 8080) for number in range(count)]
        assert count_slots(count, is_weighted=is_weighted) == len(fill_slots(pods, weights))
        coarse = fill_slots(pods, weights, is_coarse=True)
        assert len(coarse) == count_slots(count, is_weighted=False)
