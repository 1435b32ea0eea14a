import pickle
from math import isnan
from sys import getsizeof

import pytest

from userspace_proxy.status.history import KEPT_MAX, STEPS, Figures, History

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
    """Return a history with these numbers of connections, one sample per step."""
    history = History()
    for n, connections in enumerate(samples):
        history.note((port(connections),), 500.0 + n * step_s)
    return history


def drawn(values):
    """Return rates as text; a dash stands for a missing measurement."""
    return " ".join("-" if isnan(value) else f"{value:g}" for value in values)


def test_a_single_sample_yields_no_rates():
    history = noted(1000)
    assert not history.has_rates
    assert history.rates(KEY) == Figures()
    assert history.minute(KEY) is None


def test_rates_are_computed_per_second_for_each_figure():
    history = History()
    history.note((port(10, 1000, 2000, saved=1, refused=1, resets=1),), 100.0)
    history.note((port(14, 1800, 4000, saved=5, refused=3, resets=2, empty=1),), 102.0)
    assert history.has_rates
    assert history.rates(KEY) == Figures(2, 400, 1000, 2, 2)
    assert history.rates() == Figures(2, 400, 1000, 2, 2)


def test_rates_are_averaged_over_three_seconds():
    assert noted(0, 30, 30, 30).rates(KEY).connections == pytest.approx(10)
    assert noted(0, 30, 30, 30, 30).rates(KEY).connections == 0


def test_rates_of_the_last_minute_are_ordered_from_oldest_to_newest():
    history = noted(*range(100, 0, -1), *range(200))
    minute = history.minute(KEY)
    assert len(minute.connections) == STEPS
    assert set(minute.connections) == {1.0}
    assert noted(0, 5, 5, 6).minute(KEY).connections[-3:] == [5.0, 0.0, 1.0]


def test_a_port_without_traffic_for_a_minute_has_no_series_of_the_last_minute():
    assert noted(0, 7, *[7] * (STEPS - 1)).minute(KEY).connections[0] == 7
    assert noted(0, 7, *[7] * STEPS).minute(KEY) is None


def test_seconds_between_samples_with_traffic_have_a_rate_of_zero():
    history = noted(0, 7, *[7] * (STEPS - 10), 9)
    minute = history.minute(KEY)
    assert [value for value in minute.connections if value > 0] == [7.0, 2.0]


def test_idle_seconds_after_a_minute_of_traffic_are_zero():
    busy = range(STEPS + 1)
    minute = noted(*busy, *[STEPS] * 20, STEPS + 5).minute(KEY)
    assert minute.connections[-22:] == [1.0, *[0.0] * 20, 5.0]


def test_a_sample_covers_the_time_since_the_previous_sample():
    assert noted(0, 50, step_s=5.0).minute(KEY).connections[-5:] == [10.0] * 5


def test_time_without_samples_is_shown_as_a_gap():
    history = noted(0, 5, 5)
    history.note((port(100),), 530.0)
    assert not history.has_rates
    assert history.rates(KEY) == Figures()
    history.note((port(107),), 531.0)
    assert history.has_rates
    assert history.rates(KEY).connections == 7
    assert drawn(history.minute(KEY).connections[-31:]) == f"5 0{' -' * 28} 7"
    assert drawn(history.minute().connections[-31:]) == f"5 0{' -' * 28} 7"


def test_the_time_before_a_service_port_appeared_has_no_values():
    history = History()
    history.note((), 500.0)
    history.note((), 501.0)
    history.note((port(9, 50),), 502.0)
    history.note((port(9, 53),), 503.0)
    assert drawn(history.minute(KEY).received_bytes) == f"{'- ' * 59}3"
    assert history.minute().received_bytes[-2:] == [0.0, 3.0]


def test_after_an_hour_without_samples_the_history_restarts():
    history = noted(0, 50, step_s=3600.0)
    assert not history.has_rates
    assert history.minute() is None
    assert history.ten_minutes() is None


def test_ten_minutes_are_kept_in_steps_of_ten_seconds():
    history = noted(*range(0, 5000, 5), step_s=5.0)
    series = history.ten_minutes(KEY)
    assert len(series.connections) == STEPS
    assert set(series.connections) == {1.0}
    assert history.long_age_s == 5
    assert history.ten_minutes() == series


def test_a_gap_within_a_ten_second_step_makes_the_whole_step_a_gap():
    history = noted(*range(0, 100, 10), step_s=5.0)
    history.note((port(1000),), 565.0)
    history.note((port(1010),), 570.0)
    assert drawn(history.ten_minutes(KEY).connections[-8:]) == "- 2 2 2 2 - - 2"


def test_a_service_port_idle_for_ten_minutes_frees_its_history():
    busy, idle = noted(0, 7, step_s=5.0), noted(0, 7, *[7] * 200, step_s=5.0)
    assert getsizeof(pickle.dumps(idle)) < getsizeof(pickle.dumps(busy)) / 2


def test_with_too_many_service_ports_only_a_minute_of_history_is_kept():
    keys = [make_port(f"web-{n}").plan.key for n in range(KEPT_MAX + 1)]
    history = History()
    for n in range(6):
        some = keys if n > 3 else keys[:1]
        history.record([(key, Figures(n * 5)) for key in some], 500.0 + n * 5)
    assert history.minute(keys[0]).connections[-1] == 1
    assert history.ten_minutes(keys[0]) is None


def test_a_sample_less_than_a_second_after_the_previous_sample_is_skipped():
    history = noted(0, 10, 20, step_s=0.4)
    assert not history.has_rates
    history.note((port(30),), 502.0)
    assert history.rates(KEY).connections == 15


def test_a_decreased_counter_is_counted_from_its_new_value():
    assert noted(1000, 5).rates(KEY).connections == 0
    assert noted(1000, 5, 9).rates(KEY).connections == 2


def test_only_ports_with_recent_traffic_are_busy():
    history = noted(0, 5, 5)
    assert history.is_busy(KEY)
    assert not noted(0, 5, 5, 5, 5).is_busy(KEY)
    assert not history.is_busy(make_port("other").plan.key)


def test_a_removed_port_has_no_rates_but_its_traffic_remains_in_the_sum():
    history = noted(0, 30)
    history.note((), 502.0)
    assert history.minute(KEY) is None
    assert history.minute().connections[-2] == 30
    assert history.rates(KEY) == Figures()
