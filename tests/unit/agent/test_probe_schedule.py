"""When endpoints are probed, with time and jitter passed in."""

import pytest

from userspace_proxy.agent.probe_schedule import EVERY_S, GAP_S, ProbeSchedule
from userspace_proxy.model import SocketAddress

A, B = (SocketAddress(f"10.244.1.{number}", 8080) for number in (1, 2))
MANY = [SocketAddress(f"10.{n // 65536}.{n // 256 % 256}.{n % 256}", 80) for n in range(30_000)]


def probe_all(schedule, until, *, room=512, failing=()):
    """Return how often each endpoint is probed; each probe ends at once."""
    counts = dict.fromkeys(schedule._due, 0)
    now = 0.0
    while now < until:
        for endpoint in schedule.take(now, room):
            counts[endpoint] += 1
            schedule.finished(endpoint, now, has_failed=endpoint in failing)
        now = schedule.next_at(now)
    return counts


def test_a_new_endpoint_is_probed_at_once_and_then_after_each_interval():
    schedule = ProbeSchedule(lambda: 0.5)
    schedule.add(A, 10.0)
    assert schedule.take(10.0, 512) == [A]
    assert schedule.take(1_000.0, 512) == [], "its probe is under way"
    assert schedule.next_at(10.0) is None
    schedule.finished(A, 10.25, has_failed=False)
    assert schedule.next_at(10.25) == 10.25 + EVERY_S
    assert schedule.take(10.2 + EVERY_S, 512) == []
    assert schedule.take(10.25 + EVERY_S, 512) == [A]


@pytest.mark.parametrize(("drawn", "interval"), [(0.0, 1.0), (0.5, 1.5), (0.999999, 2.0)])
def test_intervals_are_drawn_between_one_and_two_seconds(drawn, interval):
    schedule = ProbeSchedule(lambda: drawn)
    schedule.add(A, 0.0)
    schedule.take(0.0, 512)
    schedule.finished(A, 0.0, has_failed=False)
    assert schedule.next_at(0.0) == pytest.approx(interval, abs=0.001)


def test_an_endpoint_that_is_discarded_is_probed_no_more_also_if_its_probe_ends_later():
    schedule = ProbeSchedule(lambda: 0.5)
    for endpoint in (A, B):
        schedule.add(endpoint, 0.0)
    schedule.discard(B)
    schedule.discard(B)
    assert schedule.take(0.0, 512) == [A]
    schedule.discard(A)
    schedule.finished(A, 0.0, has_failed=False)
    assert schedule.take(100.0, 512) == []
    assert len(schedule) == 0


def test_thirty_thousand_endpoints_are_probed_within_the_budget_each_as_often():
    schedule = ProbeSchedule(lambda: 0.5, per_second=2_000)
    for endpoint in MANY:
        schedule.add(endpoint, 0.0)
    assert schedule.interval_s == 15.0
    counts = probe_all(schedule, 40.0)
    assert sum(counts.values()) <= 2_000 * 40 + 100
    assert set(counts.values()) <= {2, 3}


def test_an_endpoint_that_fails_keeps_the_short_interval():
    schedule = ProbeSchedule(lambda: 0.5, per_second=2_000)
    for endpoint in MANY:
        schedule.add(endpoint, 0.0)
    counts = probe_all(schedule, 31.0, failing=MANY[:1])
    assert counts[MANY[0]] >= 10


def test_after_a_pause_no_more_probes_begin_at_once_than_in_a_twentieth_of_a_second():
    schedule = ProbeSchedule(lambda: 0.5, per_second=2_000)
    for endpoint in MANY:
        schedule.add(endpoint, 0.0)
    assert len(schedule.take(3_600.0, 512)) == 100
    assert schedule.take(3_600.0, 512) == []
    assert len(schedule.take(3_600.0 + GAP_S, 512)) in (19, 20)


def test_no_more_probes_begin_than_there_is_room_for():
    schedule = ProbeSchedule(lambda: 0.5)
    for endpoint in MANY[:10]:
        schedule.add(endpoint, 0.0)
    assert len(schedule.take(0.0, 3)) == 3
    assert schedule.take(1.0, 0) == []
    assert schedule.next_at(1.0) == 1.0 + GAP_S
