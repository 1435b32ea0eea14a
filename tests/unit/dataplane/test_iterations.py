import pytest

from userspace_proxy.dataplane.iterations import ITERATION_BOUNDS_S, LoopIterations


@pytest.mark.parametrize(
    ("seconds", "place"),
    [
        pytest.param(0.0001, 0, id="quick"),
        pytest.param(0.001, 0, id="on-the-first-bound"),
        pytest.param(0.0011, 1, id="above-it"),
        pytest.param(0.02, ITERATION_BOUNDS_S.index(0.02), id="on-another-bound"),
        pytest.param(9.0, len(ITERATION_BOUNDS_S), id="beyond-all"),
    ],
)
def test_an_iteration_is_counted_by_the_first_bound_that_it_keeps(seconds, place):
    iterations = LoopIterations()
    iterations.add(seconds)
    assert [index for index, count in enumerate(iterations.counts()) if count] == [place]


def test_counts_and_seconds_are_of_all_turns():
    iterations = LoopIterations()
    for seconds in (0.0005, 0.25, 0.0005, 3.0):
        iterations.add(seconds)
    assert (sum(iterations.counts()), iterations.counts()[0]) == (4, 2)
    assert iterations.seconds == pytest.approx(3.251)
