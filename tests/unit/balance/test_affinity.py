"""Pins: when a client has one, and when not any more."""

import pytest

from userspace_proxy.balance.affinity import AffinityTable

from ..model.samples import ALICE, BOB, CAROL, POD_A, POD_B


@pytest.mark.parametrize(
    ("client", "usable", "now", "expected"),
    [
        pytest.param(ALICE, {POD_A, POD_B}, 0.0, POD_A, id="pinned"),
        pytest.param(ALICE, {POD_A, POD_B}, 10799.9, POD_A, id="still-pinned"),
        pytest.param(ALICE, {POD_A, POD_B}, 10800.0, None, id="timed-out"),
        pytest.param(ALICE, {POD_B}, 1.0, None, id="endpoint-gone"),
        pytest.param(BOB, {POD_A, POD_B}, 1.0, None, id="never-seen"),
    ],
)
def test_lookup(client, usable, now, expected):
    table = AffinityTable(timeout_s=10800, max_clients=2)
    table.pin(ALICE, POD_A, now=0.0)
    assert table.lookup(client, usable, now) == expected


def test_the_timeout_counts_from_the_last_use():
    table = AffinityTable(timeout_s=60)
    table.pin(ALICE, POD_A, now=0.0)
    table.pin(ALICE, POD_A, now=59.0)
    assert table.lookup(ALICE, {POD_A}, now=118.9) == POD_A
    assert table.lookup(ALICE, {POD_A}, now=119.0) is None


def test_a_lookup_does_not_count_as_a_use():
    table = AffinityTable(timeout_s=60)
    table.pin(ALICE, POD_A, now=0.0)
    assert table.lookup(ALICE, {POD_A}, now=59.0) == POD_A
    assert table.lookup(ALICE, {POD_A}, now=60.0) is None


def test_a_client_can_be_pinned_to_another_endpoint():
    table = AffinityTable(timeout_s=60)
    table.pin(ALICE, POD_A, now=0.0)
    table.pin(ALICE, POD_B, now=1.0)
    assert table.lookup(ALICE, {POD_A, POD_B}, now=2.0) == POD_B
    assert len(table) == 1


@pytest.mark.parametrize(
    ("usable", "now"),
    [
        pytest.param({POD_A}, 60.0, id="timed-out"),
        pytest.param({POD_B}, 1.0, id="endpoint-gone"),
    ],
)
def test_a_pin_to_an_unusable_endpoint_is_forgotten(usable, now):
    table = AffinityTable(timeout_s=60)
    table.pin(ALICE, POD_A, now=0.0)
    table.lookup(ALICE, usable, now)
    assert len(table) == 0


def test_a_new_client_replaces_the_longest_unused_one():
    table = AffinityTable(timeout_s=60, max_clients=2)
    table.pin(ALICE, POD_A, now=0.0)
    table.pin(BOB, POD_A, now=1.0)
    table.pin(ALICE, POD_A, now=2.0)
    table.pin(CAROL, POD_A, now=3.0)
    pinned = {who: table.lookup(who, {POD_A}, now=4.0) for who in (ALICE, BOB, CAROL)}
    assert pinned == {ALICE: POD_A, BOB: None, CAROL: POD_A}


def test_the_table_never_grows_beyond_its_bound():
    table = AffinityTable(timeout_s=60, max_clients=10)
    for n in range(100):
        table.pin(f"203.0.113.{n}", POD_A, now=n)
        assert len(table) <= 10


def test_a_new_timeout_applies_to_existing_pins():
    table = AffinityTable(timeout_s=10800)
    table.pin(ALICE, POD_A, now=0.0)
    table.timeout_s = 60
    assert table.lookup(ALICE, {POD_A}, now=61.0) is None


def test_pins_of_a_former_process_count_from_their_last_use():
    former, table = AffinityTable(timeout_s=60), AffinityTable(timeout_s=60)
    former.pin(ALICE, POD_A, now=1000.0)
    former.pin(BOB, POD_A, now=1010.0)
    # It has been seen since.
    table.pin(BOB, POD_B, now=5.0)
    table.restore(former.list(now=1020.0), now=10.0)
    usable = {POD_A, POD_B}
    assert table.lookup(ALICE, usable, now=49.9) == POD_A
    assert table.lookup(BOB, usable, now=64.9) == POD_B
    assert table.lookup(ALICE, usable, now=50.0) is None


def test_former_pins_make_way_first():
    former, table = AffinityTable(timeout_s=60), AffinityTable(timeout_s=60, max_clients=2)
    former.pin(ALICE, POD_A, now=0.0)
    former.pin(BOB, POD_A, now=0.0)
    table.pin(CAROL, POD_B, now=0.0)
    table.restore(former.list(now=0.0), now=0.0)
    kept = [client for client, _, _ in table.list(now=0.0)]
    assert kept == [BOB, CAROL]
