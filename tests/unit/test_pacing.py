"""Tests of limiting work to a share of the time, and of delays that double."""

import pytest

from userspace_proxy.pacing import Pacing, backoff_s


@pytest.mark.parametrize(
    ("took_s", "due"),
    [
        pytest.param(0.01, 101.0, id="interval"),
        pytest.param(0.5, 102.0, id="share-of-the-time"),
        pytest.param(9.0, 105.0, id="limit"),
    ],
)
def test_the_pause_after_work_follows_its_duration_between_two_limits(took_s, due):
    pacing = Pacing(0.25, every_s=1.0, longest_s=5.0)
    pacing.note(100.0, 100.0 + took_s)
    assert pacing.due == due


@pytest.mark.parametrize(
    ("failures", "waits_s"),
    [(-1, 0.0), (0, 0.0), (1, 0.1), (2, 0.2), (6, 3.2), (7, 5.0), (10_000, 5.0)],
)
@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_waits_double_with_each_failure_up_to_a_limit_before_the_jitter(failures, waits_s, jitter):
    assert backoff_s(failures, 0.1, 5.0, jitter=jitter) == pytest.approx(waits_s * (1 + jitter))
