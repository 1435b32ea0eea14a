"""Tests of how long ejections last, how they end, and which connection is a probe."""

from importlib.resources import files

import pytest

from userspace_proxy.balance.ejection import FIRST_S, LONGEST_S, PROBE_S, Ejections

from ..model.samples import POD_A, POD_B


@pytest.fixture
def ejections():
    """Ejections in which POD_A is ejected from 0 s to 5 s."""
    ejections = Ejections()
    ejections.failed(POD_A, now=0.0)
    return ejections


def probe_fails(ejections, now):
    ejections.picked(POD_A, now)
    return ejections.failed(POD_A, now)


def test_each_change_of_an_endpoints_availability_is_reported_once():
    told = []
    ejections = Ejections(lambda endpoint, is_out: told.append((endpoint, is_out)))
    ejections.failed(POD_A, now=0.0)
    ejections.failed(POD_A, now=1.0)
    assert told == [(POD_A, True)]
    ejections.out(now=5.0)
    assert told == [(POD_A, True), (POD_A, False)]
    ejections.picked(POD_A, now=5.0)
    ejections.answered(POD_A)
    assert told[2:] == [(POD_A, True), (POD_A, False)]


def test_only_the_first_failure_starts_an_ejection():
    ejections = Ejections()
    assert ejections.failed(POD_A, now=0.0)
    assert not ejections.failed(POD_A, now=0.5)
    assert ejections.failed(POD_B, now=0.5)


def test_each_failed_probe_doubles_the_ejection_up_to_60_s(ejections):
    now, lengths = 0.0, []
    for _ in range(6):
        lengths.append(ejections.left_s([POD_A], now)[POD_A])
        now += lengths[-1]
        assert ejections.out(now) == set()
        assert probe_fails(ejections, now)
    assert lengths == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]


def test_the_bpf_hooks_use_the_proxys_ejection_times():
    source = files("userspace_proxy.steering.socket_lb").joinpath("socket_lb.bpf.c").read_text()
    assert f"{FIRST_S=:g}, {LONGEST_S=:g}, {PROBE_S=:g}".replace("=", " = ") in source


def test_a_failed_probe_extends_the_ejection(ejections):
    probe_fails(ejections, now=5.0)
    assert ejections.out(now=14.9) == {POD_A}
    assert ejections.out(now=15.0) == set()


def test_only_one_connection_at_a_time_probes_an_ejected_endpoint(ejections):
    ejections.picked(POD_A, now=5.0)
    assert ejections.out(now=5.0) == {POD_A}


def test_a_pick_before_the_probe_time_is_not_a_probe(ejections):
    ejections.picked(POD_A, now=4.0)
    assert ejections.out(now=5.0) == set()


def test_an_answered_probe_ends_the_ejection(ejections):
    ejections.picked(POD_A, now=5.0)
    assert ejections.answered(POD_A)
    assert not ejections
    assert ejections.out(now=5.0) == set()


def test_a_probe_without_a_result_is_replaced(ejections):
    ejections.picked(POD_A, now=5.0)
    assert ejections.out(now=5.0 + PROBE_S - 0.1) == {POD_A}
    assert ejections.out(now=5.0 + PROBE_S) == set()
    ejections.picked(POD_A, now=9.0)
    assert ejections.out(now=9.0) == {POD_A}


def test_picking_a_healthy_endpoint_does_not_change_ejections(ejections):
    ejections.picked(POD_B, now=6.0)
    assert ejections.out(now=6.0) == set()


def test_the_ejection_of_an_endpoint_removed_from_the_plan_ends(ejections):
    ejections.failed(POD_B, now=0.0)
    ejections.keep({POD_B})
    assert ejections.out(now=1.0) == {POD_B}


def test_left_s_returns_the_remaining_time_of_the_requested_endpoints(ejections):
    ejections.failed(POD_B, now=2.0)
    assert ejections.left_s([POD_A, POD_B], now=6.0) == {POD_A: 0.0, POD_B: 1.0}
    assert ejections.left_s([POD_B], now=6.0) == {POD_B: 1.0}


def test_a_silent_endpoint_is_skipped_for_a_second_after_each_failure_or_dial():
    ejections = Ejections()
    assert not ejections.is_quiet(POD_A, now=0.0)
    ejections.failed(POD_A, now=0.0, is_silent=True)
    assert ejections.is_quiet(POD_A, now=0.9)
    assert not ejections.is_quiet(POD_A, now=1.0)
    ejections.picked(POD_A, now=1.0)
    assert ejections.is_quiet(POD_A, now=1.9)
    assert not ejections.is_quiet(POD_A, now=2.0)
    ejections.failed(POD_A, now=4.0, is_silent=True)
    assert ejections.is_quiet(POD_A, now=4.9)
    ejections.answered(POD_A)
    assert not ejections.is_quiet(POD_A, now=4.9)


def test_an_endpoint_that_refuses_is_not_marked_as_silent(ejections):
    assert not ejections.is_quiet(POD_A, now=0.0)
    ejections.failed(POD_A, now=0.5, is_silent=True)
    assert ejections.is_quiet(POD_A, now=0.5)
    ejections.failed(POD_A, now=0.6)
    assert not ejections.is_quiet(POD_A, now=0.6)
