import pytest

from userspace_proxy.status.history import SECONDS, Figures, History

from .views import make_port

KEY = make_port("web").plan.key


def port(connections=0, received=0, sent=0, **changes):
    return make_port(
        "web",
        connections=connections,
        received_bytes=received,
        sent_bytes=sent,
        **changes,
    )


def noted(*samples, step_s=1.0):
    """Return a history of samples at that distance, each a number of connections."""
    history = History()
    for n, connections in enumerate(samples):
        history.note((port(connections),), 500.0 + n * step_s)
    return history


def test_one_sample_gives_no_rates():
    history = noted(1000)
    assert not history.has_rates
    assert history.rates(KEY) == Figures()
    assert history.minute(KEY) is None


def test_rates_are_per_second_and_of_each_figure():
    history = History()
    history.note((port(10, 1000, 2000, saved=1, refused=1, resets=1),), 100.0)
    history.note((port(14, 1800, 4000, saved=5, refused=3, resets=2, empty=1),), 102.0)
    assert history.has_rates
    assert history.rates(KEY) == Figures(2, 400, 1000, 2, 2)
    assert history.rates() == Figures(2, 400, 1000, 2, 2)


def test_rates_are_averages_of_three_seconds():
    assert noted(0, 30, 30, 30).rates(KEY).connections == pytest.approx(10)
    assert noted(0, 30, 30, 30, 30).rates(KEY).connections == 0


def test_a_minute_is_kept_the_oldest_first():
    history = noted(*range(100, 0, -1), *range(200))
    minute = history.minute(KEY)
    assert len(minute.connections) == SECONDS
    assert set(minute.connections) == {1.0}
    assert noted(0, 5, 5, 6).minute(KEY).connections[-3:] == [5.0, 0.0, 1.0]


def test_what_was_carried_a_minute_ago_is_forgotten():
    assert noted(0, 7, *[7] * (SECONDS - 1)).minute(KEY).connections[0] == 7
    assert noted(0, 7, *[7] * SECONDS).minute(KEY) is None


def test_seconds_without_traffic_between_are_zero():
    history = noted(0, 7, *[7] * (SECONDS - 10), 9)
    minute = history.minute(KEY)
    assert [value for value in minute.connections if value] == [7.0, 2.0]


def test_a_sample_covers_all_the_time_since_the_last_one():
    assert noted(0, 50, step_s=5.0).minute(KEY).connections[-5:] == [10.0] * 5


def test_after_a_minute_without_samples_the_history_begins_again():
    history = noted(0, 50, step_s=SECONDS)
    assert not history.has_rates
    assert history.minute() is None


def test_a_second_sample_within_a_second_waits_for_the_next():
    history = noted(0, 10, 20, step_s=0.4)
    assert not history.has_rates
    history.note((port(30),), 502.0)
    assert history.rates(KEY).connections == 15


def test_a_counter_that_fell_begins_again():
    assert noted(1000, 5).rates(KEY).connections == 5


def test_only_ports_that_carry_something_are_busy():
    history = noted(0, 5, 5)
    assert history.is_busy(KEY)
    assert not noted(0, 5, 5, 5, 5).is_busy(KEY)
    assert not history.is_busy(make_port("other").plan.key)


def test_former_ports_are_forgotten_and_their_traffic_stays_in_the_sum():
    history = noted(0, 30)
    history.note((), 502.0)
    assert history.minute(KEY) is None
    assert history.minute().connections[-2] == 30
    assert history.rates(KEY) == Figures()
