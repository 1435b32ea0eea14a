"""Tests of how often a line about a lasting condition may be logged."""

from __future__ import annotations

import pytest

from userspace_proxy.log_limit import LogLimit


@pytest.mark.parametrize("start", [0.0, 5.0, 1e6], ids=["boot", "soon-after", "long-after"])
def test_the_first_line_about_a_condition_may_always_be_logged(start):
    assert LogLimit().take(start)


def test_a_second_line_about_a_condition_may_be_logged_after_a_minute():
    limit = LogLimit()
    assert [limit.take(now) for now in (100.0, 101.0, 159.9, 160.0, 219.9, 220.0)] == [
        *(True, False, False),
        *(True, False, True),
    ]


def test_several_lines_a_minute_are_allowed_and_left_counts_the_remaining_lines():
    limit = LogLimit(2)
    taken = [(limit.take(now), limit.left) for now in (100.0, 101.0, 102.0, 160.0)]
    assert taken == [(True, 1), (True, 0), (False, 0), (True, 1)]


def test_a_condition_that_restarts_is_logged_immediately():
    limit = LogLimit()
    limit.take(100.0)
    limit.forget()
    assert limit.take(101.0)
