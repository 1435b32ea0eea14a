"""A full conntrack table is reported once a minute, and once more when it is no longer full."""

import pytest

from userspace_proxy.agent.rounds.component import OwnAddresses
from userspace_proxy.agent.watchers.tracking import TrackingWatch, exempt_ports
from userspace_proxy.facts import StatusFacts, TrackingFacts
from userspace_proxy.kernel.tracking import TrackingTable

EMPTY = TrackingTable(10, 1000)
FULL = TrackingTable(995, 1000, 7)
LINE = "conntrack table is full, so new connections may fail (raise net.netfilter.nf_conntrack_max)"


class Node:
    """A conntrack table and a clock that a test sets."""

    def __init__(self):
        self.table, self.now, self.reported = EMPTY, 0.0, []
        self.watch = TrackingWatch(
            self.reported.append, read=lambda: self.table, clock=lambda: self.now
        )

    def look(self, table, now):
        self.table, self.now = table, now
        self.watch.look()


@pytest.fixture
def node():
    return Node()


def test_a_full_conntrack_table_is_logged_once_a_minute_and_counts_as_one_event(node, caplog):
    for second in range(121):
        node.look(FULL, float(second))
    assert node.watch.is_full
    assert caplog.messages == [LINE] * 3
    assert (caplog.records[0].entries, caplog.records[0].limit, caplog.records[0].drops) == FULL
    (happening,) = node.reported
    assert happening.reason == "ConntrackTableFull"
    assert "(995 of 1,000 entries)" in happening.note


def test_only_drops_since_the_conntrack_table_became_full_count(node):
    node.look(FULL, 0.0)
    assert not node.watch.is_dropping, "the kernel replaces entries, or dropped before"
    node.look(FULL, 1.0)
    assert not node.watch.is_dropping
    node.look(FULL._replace(drops=8), 2.0)
    node.look(FULL._replace(drops=8), 3.0)
    assert node.watch.is_dropping
    node.look(EMPTY._replace(drops=8), 4.0)
    assert not node.watch.is_dropping


def test_recovery_is_logged_once_the_conntrack_table_has_room(node, caplog):
    caplog.set_level("INFO")
    node.look(FULL, 0.0)
    node.look(TrackingTable(950, 1000), 1.0)
    assert node.watch.is_full
    node.look(EMPTY, 2.0)
    node.look(EMPTY, 3.0)
    assert not node.watch.is_full
    assert [r.getMessage() for r in caplog.records][1:] == ["conntrack table is no longer full"]
    node.look(FULL, 4.0)
    assert caplog.messages[2:] == [LINE]


def test_a_node_without_connection_tracking_has_no_full_table(node):
    node.look(TrackingTable(), 0.0)
    assert (node.watch.table, node.watch.is_full) == (TrackingTable(), False)


def test_ports_are_exempt_from_tracking_only_if_a_status_address_is_open():
    assert exempt_ports(OwnAddresses(), None) is None
    assert exempt_ports(OwnAddresses(admin=("127.0.0.1", 10249)), "canary") is not None


def test_the_last_reading_of_the_conntrack_table_is_shown(node):
    facts = StatusFacts()
    node.look(FULL, 0.0)
    node.watch.show(facts)
    assert facts.tracking == TrackingFacts(995, 1000, 7, is_full=True)
