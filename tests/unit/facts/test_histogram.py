import pytest

from userspace_proxy.facts import ITERATION_BOUNDS_S, TIMES_BOUNDS_S, Durations


@pytest.mark.parametrize(
    ("seconds", "place"),
    [
        pytest.param(0.0001, 0, id="quick"),
        pytest.param(0.001, 0, id="on-the-first-bound"),
        pytest.param(0.0011, 1, id="above-a-bound"),
        pytest.param(0.02, ITERATION_BOUNDS_S.index(0.02), id="on-another-bound"),
        pytest.param(9.0, len(ITERATION_BOUNDS_S), id="beyond-all"),
    ],
)
def test_a_duration_is_counted_at_the_first_bound_not_exceeded(seconds, place):
    durations = Durations(ITERATION_BOUNDS_S)
    durations.add(seconds)
    assert [index for index, count in enumerate(durations.counts()) if count] == [place]


def test_a_histogram_counts_and_sums_all_durations():
    durations = Durations(ITERATION_BOUNDS_S)
    for seconds in (0.0005, 0.25, 0.0005, 3.0):
        durations.add(seconds)
    assert (sum(durations.counts()), durations.counts()[0]) == (4, 2)
    assert durations.seconds == pytest.approx(3.251)


def test_merged_histograms_equal_the_histogram_of_all_durations():
    whole, merged = Durations(TIMES_BOUNDS_S), Durations(TIMES_BOUNDS_S)
    for seconds in [(0.0005, 0.25), (), (0.002, 99.0, 0.0005)]:
        part = Durations(TIMES_BOUNDS_S)
        for each in seconds:
            part.add(each)
            whole.add(each)
        merged.merge(part.counts(), part.seconds)
        assert merged.counts() == whole.counts()
        assert merged.seconds == pytest.approx(whole.seconds)
    assert sum(merged.counts()) == merged.count == 5
