"""Tests of remembering a bounded number of client–endpoint pairs for a minute."""

from __future__ import annotations

from userspace_proxy.balance.client_endpoint_pairs import PairCounts, Pairs
from userspace_proxy.model import SocketAddress

ALICE, BOB = "10.1.0.1", "10.1.0.2"
POD_A, POD_B = SocketAddress("10.0.0.1", 80), SocketAddress("10.0.0.2", 80)


def test_a_pair_is_remembered_for_a_minute_after_it_was_last_noted():
    pairs = Pairs()
    pairs.note(ALICE, POD_A, 0)
    assert pairs.has(ALICE, POD_A, 59.9)
    pairs.note(ALICE, POD_A, 30)
    assert pairs.has(ALICE, POD_A, 89.9)
    assert not pairs.has(ALICE, POD_A, 90)
    assert pairs.until == {}


def test_a_pair_exists_until_it_is_removed_as_often_as_it_was_added():
    counts = PairCounts()
    for _ in range(2):
        counts.add(ALICE, POD_A)
    counts.remove(ALICE, POD_A)
    assert counts.has(ALICE, POD_A)
    assert not counts.has(BOB, POD_A)
    assert not counts.has(ALICE, POD_B)
    counts.remove(ALICE, POD_A)
    assert not counts.has(ALICE, POD_A)
    assert counts._counts == {}


def test_a_pair_with_another_client_or_endpoint_is_not_remembered():
    pairs = Pairs()
    pairs.note(ALICE, POD_A, 0)
    assert not pairs.has(BOB, POD_A, 0)
    assert not pairs.has(ALICE, POD_B, 0)


def test_the_least_recently_noted_pairs_are_removed_at_the_limit():
    pairs = Pairs()
    for number in range(4096):
        pairs.note(str(number), POD_A, 0)
    pairs.note("1", POD_A, 1)
    for client in (ALICE, BOB):
        pairs.note(client, POD_A, 2)
    remembered = [pairs.has(client, POD_A, 2) for client in ("0", "1", "2", "3")]
    assert remembered == [False, True, False, True]
