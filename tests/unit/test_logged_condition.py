"""Tests of logging a condition's begin, each new cause, and its end."""

import logging

import pytest

from userspace_proxy.log_fields import FieldLogger
from userspace_proxy.logged_condition import LoggedCondition

LOG = FieldLogger("userspace_proxy.agent")
BEGINS, ENDS = "nothing is kept: %(cause)s", "all is kept again"


@pytest.fixture
def lines(caplog):
    """Return a function that lists the level and message of each record so far."""
    caplog.set_level(logging.INFO)
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records]


def test_the_start_and_end_of_a_condition_are_logged_once_each(lines):
    condition = LoggedCondition[str](LOG, BEGINS, ENDS)
    for _ in range(2):
        condition.set("disk full")
    for _ in range(2):
        condition.clear()
    assert lines() == [("WARNING", "nothing is kept: disk full"), ("INFO", ENDS)]


def test_a_condition_with_a_different_cause_is_logged_again(lines):
    condition = LoggedCondition[str](LOG, BEGINS, ENDS)
    condition.set("disk full")
    condition.set("read-only")
    assert [line for _, line in lines()] == [
        "nothing is kept: disk full",
        "nothing is kept: read-only",
    ]


def test_each_new_cause_and_the_end_of_the_last_cause_are_logged(lines):
    condition = LoggedCondition[str](LOG, BEGINS, ENDS)
    condition.set("a")
    condition.set("b", "a")
    condition.set("a")
    condition.set()
    assert [line for _, line in lines()] == ["nothing is kept: a", "nothing is kept: b", ENDS]


def test_a_condition_that_recurs_is_logged_again(lines):
    condition = LoggedCondition[str](LOG, BEGINS)
    condition.set("a")
    condition.clear()
    condition.set("a")
    assert [line for _, line in lines()] == ["nothing is kept: a"] * 2


def test_a_condition_is_true_and_printable_while_it_lasts():
    condition = LoggedCondition[str](LOG, BEGINS, ENDS)
    assert (bool(condition), str(condition), condition.now) == (False, "", ())
    condition.set("a", "b")
    assert (bool(condition), str(condition), condition.now) == (True, "a", ("a", "b"))
    condition.set("")
    assert (bool(condition), str(condition), condition.now) == (False, "", ())


def test_a_condition_has_its_own_level_and_fields(caplog):
    caplog.set_level(logging.INFO)
    condition = LoggedCondition[int](
        LOG, "no %(thing)s", "things", fields=lambda n: {"thing": n * "x"}, level=logging.ERROR
    )
    condition.set(3, place="here")
    condition.clear(place="there")
    began, ended = caplog.records
    assert (began.levelname, began.getMessage(), began.thing) == ("ERROR", "no xxx", "xxx")
    assert (ended.levelname, ended.getMessage(), ended.place) == ("INFO", "things", "there")
    assert not hasattr(began, "place")


@pytest.mark.parametrize("log", [LOG, logging.getLogger("plain")], ids=["fields", "plain"])
def test_a_record_about_a_condition_shows_the_location_of_the_call(log, caplog):
    caplog.set_level(logging.INFO)
    condition = LoggedCondition[str](log, "begins", "ends")
    for end in (condition.set, condition.clear):
        condition.set("a")
        end()
    assert [record.filename for record in caplog.records] == ["test_logged_condition.py"] * 4
