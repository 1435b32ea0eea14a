import pytest

from userspace_proxy.balance import SlowStart, Weights

from ..model.samples import POD_A, POD_B


def test_endpoints_without_a_weight_have_the_default_weight():
    weights = Weights({POD_A: 5})
    assert (weights.of(POD_A), weights.of(POD_B)) == (5, 100)
    assert weights
    assert not Weights()


def test_the_version_of_weights_increases_only_with_a_change():
    weights = Weights({POD_A: 5})
    weights.configure({POD_A: 5})
    assert weights.version == 0
    weights.configure({POD_A: 6})
    assert (weights.version, weights.of(POD_A)) == (1, 6)


def test_weights_grow_during_slow_start():
    weights = Weights({POD_A: 200}, 50.0)
    assert weights.may_grow
    weights.begin([POD_A], 100.0)
    assert (weights.of(POD_A), weights.of(POD_B)) == (20, 100)
    versions = []
    for now in (100.5, 101.0, 125.0, 150.0, 160.0):
        weights.grow(now)
        versions.append(weights.version)
    assert versions == [1, 2, 3, 4, 4], "no change after the slow start"
    assert weights.of(POD_A) == 200


def test_disabling_slow_start_restores_full_weights_immediately():
    weights = Weights({}, 50.0)
    weights.begin([POD_A], 100.0)
    weights.configure({})
    assert (weights.of(POD_A), weights.may_grow) == (100, False)
    assert not weights


def test_the_slow_start_of_a_removed_endpoint_does_not_affect_its_weight():
    weights = Weights({}, 50.0)
    weights.begin([POD_A], 100.0)
    weights.keep([POD_B])
    weights.grow(101.0)
    assert weights.of(POD_A) == 100


@pytest.mark.parametrize(
    ("seconds", "share"),
    [(0.0, 0.1), (1.0, 0.1), (5.0, 0.5), (9.0, 0.9), (10.0, None), (99.0, None)],
)
def test_the_share_in_slow_start_grows_linearly_from_a_floor_until_full(seconds, share):
    start = SlowStart(10.0)
    start.begin([POD_A], 100.0)
    assert start.shares(100.0 + seconds).get(POD_A) == share
    assert bool(start) is (share is not None)


def test_a_full_share_stays_full_when_slow_start_is_lengthened():
    start = SlowStart(10.0)
    start.begin([POD_A], 0.0)
    start.begin([POD_B], 5.0)
    start.change(20.0, 11.0)
    assert start.shares(11.0) == {POD_B: 0.3}


@pytest.mark.parametrize("is_asked", [False, True])
def test_a_full_weight_stays_full_when_slow_start_is_lengthened(is_asked):
    configured = {POD_A: 2, POD_B: 3}
    weights = Weights(configured, 4.0)
    weights.begin([POD_A], 0.0)
    if is_asked:
        weights.grow(5.0)
    weights.configure(configured, 10.0, 5.0)
    weights.begin([POD_B], 5.0)
    assert (weights.of(POD_A), weights.of(POD_B)) == (2, pytest.approx(0.3))


def test_slow_start_can_begin_again_for_an_endpoint():
    start = SlowStart(10.0)
    start.begin([POD_A, POD_B], 0.0)
    start.begin([POD_A], 5.0)
    assert start.shares(5.0) == {POD_A: 0.1, POD_B: 0.5}


def test_the_slow_start_of_a_removed_endpoint_ends():
    start = SlowStart(10.0)
    start.begin([POD_A, POD_B], 0.0)
    start.keep({POD_B})
    assert start.shares(5.0) == {POD_B: 0.5}


def test_all_shares_are_full_without_a_slow_start_time():
    start = SlowStart()
    start.begin([POD_A], 0.0)
    assert not start
    assert start.shares(0.0) == {}
