import pytest

from userspace_proxy.facts import LastMinute
from userspace_proxy.facts.last_minute import MinuteCounts

NOTHING = MinuteCounts()


@pytest.fixture
def last():
    return LastMinute()


def test_the_last_minute_without_failed_clients_reports_nothing(last):
    assert last.failing(0.0) == NOTHING
    last.add(MinuteCounts(1000, 0), 3.0)
    last.add(MinuteCounts(0, 0), 4.0)
    assert last.failing(5.0) == NOTHING


def test_clients_of_the_last_minute_are_summed_without_older_clients(last):
    last.add(MinuteCounts(8, 0), 0.0)
    last.add(MinuteCounts(1, 2), 31.0)
    last.add(MinuteCounts(1, 1), 33.0)
    last.add(MinuteCounts(4, 0), 50.0)
    assert last.failing(59.0) == MinuteCounts(14, 3)
    assert last.failing(60.0) == MinuteCounts(6, 3)
    assert last.failing(89.9) == MinuteCounts(6, 3)
    assert last.failing(93.0) == NOTHING


def test_a_failure_revoked_later_is_not_counted(last):
    last.add(MinuteCounts(4, endpoint_aborts=1, unanswered=1), 1.0)
    last.add(MinuteCounts(unanswered=-1), 62.0)
    last.add(MinuteCounts(1, endpoint_aborts=1), 63.0)
    assert last.failing(64.0) == MinuteCounts(1, 0, 0, 0, 1)


def test_client_aborts_count_only_if_they_occur_at_different_times(last):
    last.add(MinuteCounts(4, client_aborts=3), 1.0)
    assert last.failing(30.0) == NOTHING
    last.add(MinuteCounts(2, 1), 4.0)
    last.add(MinuteCounts(client_aborts=1), 1.5)
    assert last.failing(30.0) == MinuteCounts(6, 1), "aborts at one moment count"
    last.add(MinuteCounts(client_aborts=1), 2.5)
    assert last.failing(30.0) == MinuteCounts(6, 1, 0, 5)
    last.add(MinuteCounts(1, client_aborts=2), 63.0)
    assert last.failing(64.0) == NOTHING, "aborts of a minute ago count"
    last.add(MinuteCounts(1, client_aborts=2), 70.0)
    assert last.failing(71.0) == MinuteCounts(2, 0, 0, 4)
