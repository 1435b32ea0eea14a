"""When endpoints are probed; time and jitter are passed in."""

import heapq

import pytest

from userspace_proxy.model import ServiceKey, SocketAddress
from userspace_proxy.plane.probe_schedule import EVERY_S, GAP_S, SILENT_S, ProbeSchedule

A, B = (SocketAddress(f"10.244.1.{number}", 8080) for number in (1, 2))
MANY = [SocketAddress(f"10.{n // 65536}.{n // 256 % 256}.{n % 256}", 80) for n in range(10_000)]
WEB, CART, BIG = (ServiceKey(*name) for name in (("shop", "web"), ("shop", "cart"), ("x", "big")))
ROOM = 512


@pytest.fixture
def schedule():
    return ProbeSchedule(lambda: 0.5)


def add(schedule, service, *endpoints):
    for endpoint in endpoints:
        schedule.add(endpoint, service)


def probe_all(schedule, until, *, refusing=(), silent=()):
    """Return the times of each endpoint's probes; a probe of a silent endpoint takes 1 s."""
    begun = {endpoint: [] for endpoint in schedule._endpoints}
    silent, ends, now = set(silent), [], 0.0
    while now < until:
        while ends and ends[0][0] <= now:
            schedule.finished(heapq.heappop(ends)[1], now, has_failed=True)
        for endpoint in schedule.take(now, ROOM - len(ends)):
            begun[endpoint].append(now)
            if endpoint in silent:
                heapq.heappush(ends, (now + 1.0, endpoint))
            else:
                schedule.finished(endpoint, now, has_failed=endpoint in refusing)
        at = schedule.next_at(now)
        now = min(ends[0][0] if ends else until, until if at is None else at)
    return begun


def longest_pause(times, until):
    return max(b - a for a, b in zip(times, [*times[1:], until], strict=True))


def test_a_new_endpoint_is_probed_immediately_and_then_periodically(schedule):
    add(schedule, WEB, A)
    assert schedule.take(10.0, ROOM) == [A]
    assert schedule.take(1_000.0, ROOM) == [], "the probe of A is in progress"
    assert schedule.next_at(10.0) is None
    schedule.finished(A, 10.25, has_failed=False)
    assert schedule.next_at(10.25) == 10.25 + EVERY_S
    assert schedule.take(10.2 + EVERY_S, ROOM) == []
    assert schedule.take(10.25 + EVERY_S, ROOM) == [A]


@pytest.mark.parametrize(("drawn", "interval"), [(0.0, 1.0), (0.5, 1.5), (0.999999, 2.0)])
def test_probe_intervals_are_drawn_between_one_and_two_seconds(drawn, interval):
    schedule = ProbeSchedule(lambda: drawn)
    add(schedule, WEB, A)
    schedule.take(0.0, ROOM)
    schedule.finished(A, 0.0, has_failed=False)
    assert schedule.next_at(0.0) == pytest.approx(interval, abs=0.001)


def test_an_endpoint_discarded_during_a_probe_is_not_probed_again(schedule):
    add(schedule, WEB, A, B)
    schedule.discard(B, WEB)
    assert schedule.take(0.0, ROOM) == [A]
    schedule.discard(A, WEB)
    schedule.finished(A, 0.0, has_failed=False)
    assert schedule.take(100.0, ROOM) == []
    assert len(schedule) == 0
    assert A not in schedule


def test_an_endpoint_discarded_during_its_probe_occupies_no_probe_slot(schedule):
    for second in range(ROOM):
        add(schedule, WEB, A)
        assert schedule.take(float(second), ROOM) == [A]
        schedule.discard(A, WEB)


def test_an_endpoint_is_probed_once_for_all_its_services_and_ports(schedule):
    add(schedule, WEB, A, A)
    add(schedule, CART, A)
    assert schedule.take(0.0, ROOM) == [A]
    schedule.finished(A, 0.0, has_failed=False)
    schedule.discard(A, WEB)
    schedule.discard(A, CART)
    assert schedule.take(EVERY_S, ROOM) == [A]
    schedule.discard(A, WEB)
    schedule.finished(A, EVERY_S, has_failed=False)
    assert schedule.next_at(EVERY_S) is None


def test_endpoints_share_the_probe_budget_equally():
    schedule = ProbeSchedule(lambda: 0.5, per_second=200)
    for number, endpoint in enumerate(MANY[:3_000]):
        add(schedule, ServiceKey("shop", f"web-{number // 3}"), endpoint)
    begun = probe_all(schedule, 40.0)
    counts = [len(times) for times in begun.values()]
    assert sum(counts) <= 200 * 40 + 10
    assert set(counts) <= {2, 3}
    assert schedule.interval_s == pytest.approx(15.0, rel=0.05)


def test_thousands_of_silent_endpoints_do_not_delay_probes_of_another_service(schedule):
    silent = MANY[:10_000]
    add(schedule, BIG, *silent)
    add(schedule, WEB, A, B)
    begun = probe_all(schedule, 60.0, silent=silent)
    assert max(longest_pause(begun[endpoint], 60.0) for endpoint in (A, B)) < 1.1 * EVERY_S
    assert schedule.interval_s == pytest.approx(EVERY_S, rel=0.1)
    assert all(begun.values()), "silent endpoints are probed, too"


def test_a_large_service_does_not_delay_probes_of_an_endpoint_that_it_shares(schedule):
    add(schedule, BIG, A, *MANY[:6_000])
    add(schedule, WEB, A)
    begun = probe_all(schedule, 20.0)
    assert longest_pause(begun[A], 20.0) < 1.1 * EVERY_S


def begin_all(schedule, until):
    """Return the endpoints whose probes begin in this time if no probe finishes."""
    found = []
    for step in range(int(until * 10)):
        found += schedule.take(step / 10, ROOM - len(found))
    return found


def test_concurrent_probes_of_a_namespace_leave_room_for_other_namespaces(schedule):
    for number, endpoint in enumerate(MANY[:1_000]):
        add(schedule, ServiceKey("x", f"big-{number}"), endpoint)
    found = begin_all(schedule, 10.0)
    assert len(found) == ROOM // 2
    add(schedule, WEB, A, B)
    assert schedule.take(10.0, ROOM - len(found)) == [A, B]


def test_concurrent_probes_of_a_service_leave_room_for_its_namespace(schedule):
    add(schedule, BIG, *MANY[:1_000])
    found = begin_all(schedule, 10.0)
    assert len(found) == ROOM // 3 + 1
    small = ServiceKey(BIG.namespace, "small")
    add(schedule, small, A, B)
    assert schedule.take(10.0, ROOM - len(found)) == [A, B]


def test_a_namespace_exceeding_the_probe_budget_delays_no_other_namespace():
    schedule = ProbeSchedule(lambda: 0.5, per_second=200)
    for number, endpoint in enumerate(MANY[:1_000]):
        add(schedule, ServiceKey("x", f"big-{number}"), endpoint)
    add(schedule, WEB, A)
    begun = probe_all(schedule, 20.0)
    assert longest_pause(begun[A], 20.0) < 1.1 * EVERY_S
    assert {len(begun[endpoint]) for endpoint in MANY[:1_000]} <= {3, 4}


@pytest.mark.parametrize("has_answered", [True, False])
def test_a_probe_interval_doubles_up_to_30_s_until_the_endpoint_answers(schedule, has_answered):
    add(schedule, WEB, A)
    schedule.take(0.0, ROOM)
    now, intervals = 0.0, []
    for _ in range(7):
        schedule.finished(A, now, has_failed=True)
        intervals.append(schedule.next_at(now) - now)
        now += intervals[-1]
        schedule.take(now, ROOM)
    assert intervals == [1.5, 3.0, 6.0, 12.0, 24.0, SILENT_S, SILENT_S]
    schedule.finished(A, now, has_failed=not has_answered)
    assert schedule.next_at(now) - now == (EVERY_S if has_answered else SILENT_S)


def test_a_silent_endpoint_added_to_a_service_is_probed_immediately(schedule):
    add(schedule, BIG, A)
    now = 0.0
    for _ in range(6):
        assert schedule.take(now, ROOM) == [A]
        schedule.finished(A, now, has_failed=True)
        now = schedule.next_at(now)
    add(schedule, WEB, A)
    assert schedule.take(now - 20.0, ROOM) == [A]


def test_the_measured_probe_interval_covers_only_healthy_endpoints(schedule):
    assert schedule.interval_s == 0.0
    add(schedule, WEB, A, B)
    schedule.take(0.0, ROOM)
    schedule.finished(A, 0.0, has_failed=False)
    schedule.finished(B, 0.0, has_failed=True)
    assert schedule.take(4.0, ROOM) == [A, B]
    assert schedule.interval_s == 4.0
    schedule.finished(A, 4.0, has_failed=True)
    assert schedule.interval_s == 0.0
    schedule.finished(B, 4.0, has_failed=False)
    schedule.take(6.0, ROOM)
    assert schedule.interval_s == 2.0
    schedule.discard(B, WEB)
    assert schedule.interval_s == 0.0


def test_a_burst_of_probes_after_a_pause_is_limited_to_50_ms_of_the_budget(schedule):
    add(schedule, WEB, *MANY[:1_000])
    assert len(schedule.take(3_600.0, ROOM)) == 100
    assert schedule.take(3_600.0, ROOM) == []
    assert len(schedule.take(3_600.0 + GAP_S, ROOM)) in (19, 20)


def test_the_schedule_starts_no_more_probes_than_there_is_room_for(schedule):
    for number in range(10):
        add(schedule, ServiceKey(f"shop-{number}", "web"), MANY[number])
    assert len(schedule.take(0.0, 3)) == 3
    assert schedule.take(1.0, 0) == []
    assert schedule.next_at(1.0) == 1.0 + GAP_S
