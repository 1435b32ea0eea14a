"""Tests of since when the model takes requests to fail."""

from __future__ import annotations

from .outage import Outage


def test_a_failure_that_may_not_have_been_read_may_have_begun_with_the_next_one() -> None:
    outage = Outage()
    outage.fail(5.0)
    outage.doubt_failure()
    assert not outage.is_certain(9.0)
    outage.begin_attempt()
    outage.fail(10.0)
    outage.begin_attempt()
    outage.fail(20.0)
    assert outage.since == (5.0, 10.0)


def test_a_doubt_leaves_the_beginning_that_an_earlier_attempt_had() -> None:
    outage = Outage()
    outage.fail(1.0)
    outage.begin_attempt()
    outage.fail(5.0)
    outage.doubt_failure()
    outage.begin_attempt()
    outage.fail(10.0)
    assert outage.since == (1.0, 1.0)
