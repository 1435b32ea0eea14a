import pytest

from userspace_proxy.dataplane.workers.messages import GroupReport, OpenGroup
from userspace_proxy.dataplane.workers.shared_group import SharedGroup
from userspace_proxy.model import SocketAddress

POD_A, POD_B, POD_C = (SocketAddress(f"10.0.0.{number}", 80) for number in (1, 2, 3))
ONE, TWO = 0, 1


@pytest.fixture
def group():
    return SharedGroup(7, "shop/web:http", [POD_A, POD_B], affinity_timeout_s=60.0)


def told(*endpoints, refused=0, ejected=()):
    """Return a report as it arrives: of lists."""
    return GroupReport(
        7,
        refused,
        0,
        0,
        0,
        [[list(address), *counted] for address, *counted in endpoints],
        [[list(address), left] for address, left in ejected],
    )


def test_a_worker_learns_all_that_there_is_to_know(group):
    assert group.opening() == OpenGroup(7, "shop/web:http", (POD_A, POD_B), 60.0)


def test_what_workers_tell_is_added_up(group):
    group.add(ONE, told((POD_A, 1, 2, 3, 4, 5), refused=1), 0.0)
    group.add(TWO, told((POD_A, 10, 20, 30, 40, 50), (POD_B, 0, 1, 0, 0, 0), refused=2), 0.0)
    pod_a = group.counters_of(POD_A)
    assert (pod_a.active, pod_a.connections, pod_a.failures) == (11, 22, 33)
    assert (pod_a.received_bytes, pod_a.sent_bytes) == (44, 55)
    assert group.totals().connections == 23
    assert group.counters.refused == 3


def test_a_worker_that_ends_takes_its_open_connections_along_and_nothing_else(group):
    group.add(ONE, told((POD_A, 3, 3, 0, 70, 7)), 0.0)
    group.add(ONE, told((POD_A, -1, 0, 0, 0, 0)), 0.0)
    group.add(TWO, told((POD_A, 5, 5, 0, 0, 0)), 0.0)
    group.worker_ended(ONE)
    group.worker_ended(ONE)
    pod_a = group.counters_of(POD_A)
    assert (pod_a.active, pod_a.connections, pod_a.received_bytes) == (5, 8, 70)


def test_an_endpoint_is_ejected_as_long_as_any_worker_says(group):
    group.add(ONE, told(ejected=[(POD_A, 5.0)]), 100.0)
    group.add(TWO, told(ejected=[(POD_A, 9.0), (POD_B, 1.0)]), 100.0)
    assert group.ejected(102.0) == {POD_A: 7.0, POD_B: 0.0}
    group.add(TWO, told(), 102.0)
    assert group.ejected(102.0) == {POD_A: 3.0}
    group.worker_ended(ONE)
    assert group.ejected(102.0) == {}


def test_an_endpoint_that_has_left_is_not_ejected(group):
    group.add(ONE, told(ejected=[(POD_C, 5.0)]), 0.0)
    assert group.ejected(0.0) == {}
