"""Tests of adding, expiring, evicting and restoring affinity entries."""

import pytest

from userspace_proxy.balance.affinity import ENTRY_BYTES, MAX_ENTRIES, AffinityTable, AffinityTables

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
def test_a_lookup_returns_the_clients_endpoint_if_it_is_usable(client, usable, now, expected):
    table = AffinityTable(timeout_s=10800)
    table.remember(ALICE, POD_A, now=0.0)
    assert table.lookup(client, usable, now) == expected


def test_looking_up_an_affinity_entry_does_not_prolong_the_entry():
    table = AffinityTable(timeout_s=60)
    table.remember(ALICE, POD_A, now=0.0)
    assert table.lookup(ALICE, {POD_A}, now=59.0) == POD_A
    assert table.lookup(ALICE, {POD_A}, now=60.0) is None


def test_a_new_client_replaces_the_least_recently_used_affinity_entry():
    table = AffinityTable(timeout_s=60, tables=AffinityTables(2))
    table.remember(ALICE, POD_A, now=0.0)
    table.remember(BOB, POD_A, now=1.0)
    table.remember(ALICE, POD_A, now=2.0)
    table.remember(CAROL, POD_A, now=3.0)
    pinned = {who: table.lookup(who, {POD_A}, now=4.0) for who in (ALICE, BOB, CAROL)}
    assert pinned == {ALICE: POD_A, BOB: None, CAROL: POD_A}


def test_affinity_entries_of_a_previous_process_expire_from_their_last_use():
    former, table = AffinityTable(timeout_s=60), AffinityTable(timeout_s=60)
    former.remember(ALICE, POD_A, now=1000.0)
    former.remember(BOB, POD_A, now=1010.0)
    # BOB has connected to this process in the meantime.
    table.remember(BOB, POD_B, now=5.0)
    table.restore(former.each(now=1020.0), now=10.0)
    usable = {POD_A, POD_B}
    assert table.lookup(ALICE, usable, now=49.9) == POD_A
    assert table.lookup(BOB, usable, now=64.9) == POD_B
    assert table.lookup(ALICE, usable, now=50.0) is None


@pytest.mark.parametrize("order", [1, -1])
def test_the_most_recently_used_entry_of_two_previous_processes_is_kept(order):
    """A process may hold an outdated entry of a client that moved to another endpoint."""
    table = AffinityTable(timeout_s=60)
    for entries in [[(ALICE, POD_A, 30.0)], [(ALICE, POD_B, 10.0)]][::order]:
        table.restore(entries, now=0.0)
    assert list(table.each(now=0.0)) == [(ALICE, POD_B, 10.0)]


def test_an_entry_that_replaces_an_older_entry_is_not_evicted_first():
    table = AffinityTable(timeout_s=60, tables=AffinityTables(2))
    table.restore([(BOB, POD_A, 50.0), (ALICE, POD_A, 55.0)], now=0.0)
    table.restore([(ALICE, POD_B, 1.0)], now=0.0)
    table.remember(CAROL, POD_A, now=0.0)
    assert {client for client, _, _ in table.each(now=0.0)} == {ALICE, CAROL}


def test_affinity_entries_can_change_during_iteration():
    table = AffinityTable(timeout_s=60)
    for now, client in enumerate((ALICE, BOB, CAROL)):
        table.remember(client, POD_A, now)
    entries = table.each(now=3.0)
    assert next(entries) == (CAROL, POD_A, 1.0)
    table.lookup(BOB, {POD_B}, now=4.0)
    table.remember(ALICE, POD_B, now=5.0)
    table.remember("203.0.113.9", POD_A, now=6.0)
    assert list(entries) == [(ALICE, POD_B, 0.0)]


def test_a_restored_affinity_entry_is_not_newer_than_now():
    table = AffinityTable(timeout_s=60)
    table.restore([(ALICE, POD_A, -1e9)], now=0.0)
    assert table.lookup(ALICE, {POD_A}, now=60.0) is None


def clients(table):
    """Return the clients with an affinity entry, the most recently used one first."""
    return [client for client, _, _ in table.each(now=0.0)]


@pytest.fixture
def tables():
    return AffinityTables(max_entries=6)


@pytest.fixture
def large(tables):
    """A Service port with four of six affinity entries."""
    table = AffinityTable(60, tables)
    for n in range(4):
        table.remember(f"203.0.113.{n}", POD_A, now=n)
    return table


def test_at_the_limit_the_largest_table_evicts_its_longest_unused_entry(tables, large):
    small = AffinityTable(60, tables)
    for client in (ALICE, BOB, CAROL):
        small.remember(client, POD_B, now=10.0)
    assert clients(small) == [CAROL, BOB, ALICE]
    assert clients(large) == ["203.0.113.3", "203.0.113.2", "203.0.113.1"]
    assert len(tables) == 6


def test_a_flooded_table_evicts_only_its_own_affinity_entries(tables, large):
    small = AffinityTable(60, tables)
    small.remember(ALICE, POD_B, now=0.0)
    for n in range(100):
        large.remember(f"198.51.100.{n}", POD_A, now=n)
        assert len(tables) <= 6
    assert clients(small) == [ALICE]
    assert len(large) == 5


def test_restored_affinity_entries_evict_only_from_a_larger_table(tables, large):
    former, small = AffinityTable(60), AffinityTable(60, tables)
    for n in range(9):
        former.remember(f"198.51.100.{n}", POD_B, now=n)
    small.restore(former.each(now=9.0), now=9.0)
    assert len(small) == len(large) == 3
    assert clients(small) == clients(former)[:3]


def test_removed_affinity_entries_free_capacity(tables, large):
    large.lookup("203.0.113.3", {POD_B}, now=4.0)
    assert len(tables) == 3
    large.clear()
    large.clear()
    assert len(tables) == 0
    small = AffinityTable(60, tables)
    for n in range(6):
        small.remember(f"198.51.100.{n}", POD_B, now=n)
    assert len(small) == 6


def test_free_evicts_entries_from_the_largest_affinity_tables(tables, large):
    small = AffinityTable(60, tables)
    small.remember(ALICE, POD_B, now=0.0)
    assert tables.free(2 * ENTRY_BYTES + 1) == 3 * ENTRY_BYTES
    assert (len(large), len(small)) == (1, 1)
    assert tables.free(100 * ENTRY_BYTES) == 2 * ENTRY_BYTES
    assert tables.free(ENTRY_BYTES) == 0
    assert len(tables) == len(large) == len(small) == 0


def test_a_single_call_of_free_evicts_only_part_of_many_affinity_entries():
    tables = AffinityTables()
    table = AffinityTable(60, tables)
    for n in range(10_000):
        table.remember(str(n), POD_A, now=0.0)
    assert 0 < tables.free(MAX_ENTRIES * ENTRY_BYTES) < 10_000 * ENTRY_BYTES
    assert len(table) > 0


def test_a_shared_affinity_table_exists_while_a_port_uses_it():
    tables = AffinityTables()
    table = tables.join("shop/sip", "a port", 60)
    assert tables.join("shop/sip", "another port", 60) is table
    table.remember(ALICE, POD_A, now=0.0)
    tables.leave("shop/sip", "a port")
    assert len(tables) == 1
    tables.leave("shop/sip", "another port")
    tables.leave("shop/sip", "another port")
    assert len(tables) == 0
    assert tables.join("shop/sip", "a port", 60) is not table
