import pytest

from userspace_proxy.balance import SlowStart

from ..model.samples import POD_A, POD_B


@pytest.mark.parametrize(
    ("seconds", "share"),
    [(0.0, 0.1), (1.0, 0.1), (5.0, 0.5), (9.0, 0.9), (10.0, None), (99.0, None)],
)
def test_a_share_grows_in_a_line_from_a_floor_until_it_is_full(seconds, share):
    start = SlowStart(10.0)
    start.begin([POD_A], 100.0)
    assert start.shares(100.0 + seconds).get(POD_A) == share
    assert bool(start) is (share is not None)


def test_it_begins_again():
    start = SlowStart(10.0)
    start.begin([POD_A, POD_B], 0.0)
    start.begin([POD_A], 5.0)
    assert start.shares(5.0) == {POD_A: 0.1, POD_B: 0.5}


def test_an_endpoint_that_is_gone_is_forgotten():
    start = SlowStart(10.0)
    start.begin([POD_A, POD_B], 0.0)
    start.keep({POD_B})
    assert start.shares(5.0) == {POD_B: 0.5}


def test_without_a_time_shares_are_full():
    start = SlowStart()
    start.begin([POD_A], 0.0)
    assert not start
    assert start.shares(0.0) == {}
