"""The request that follows each response of a server."""

from __future__ import annotations

import pytest

from userspace_proxy.sources.kubernetes.position import Position


def listed(at: str = "1000") -> Position:
    position = Position()
    assert position.page_done(at, "")
    return position


def test_the_first_list_accepts_any_revision_and_the_watch_starts_there():
    position = Position()
    assert position.needs_list
    assert position.list_query() == {"limit": "500", "resourceVersion": "0"}
    assert position.page_done("1000", "")
    assert not position.needs_list
    assert position.watch_query(450) == {
        "watch": "1",
        "allowWatchBookmarks": "true",
        "resourceVersion": "1000",
        "timeoutSeconds": "450",
    }


def test_a_watch_starts_at_the_revision_of_the_first_page_of_a_list():
    position = Position()
    assert not position.page_done("1000", "a")
    assert position.list_query() == {"limit": "500", "continue": "a"}
    assert not position.page_done("1000", "b")
    assert position.page_done("1005", "")
    assert position.watch_query(1)["resourceVersion"] == "1000"


def test_the_next_watch_continues_after_the_last_received_revision():
    position = listed()
    position.advance("1007")
    position.advance(None)
    position.advance("")
    assert position.watch_query(1)["resourceVersion"] == "1007"


@pytest.mark.parametrize(
    ("last", "version", "goes_on"),
    [
        pytest.param("1007", "1008", True, id="next"),
        pytest.param("1007", "1007", True, id="same"),
        pytest.param("999", "1000", True, id="longer"),
        pytest.param("1007", "510", False, id="older"),
        pytest.param("b", "a", True, id="not-numbers"),
    ],
)
def test_only_an_older_revision_requires_a_list_of_the_newest_state(last, version, goes_on):
    position = listed(last)
    assert position.advance(version) is goes_on
    position.watch_expired()
    is_newest = position.list_query() == {"limit": "500"}
    assert is_newest is not goes_on


def test_a_watch_reported_twice_as_expired_causes_a_single_list_at_least_as_new():
    position = listed()
    position.advance("1007")
    position.watch_expired()
    position.watch_expired()
    assert position.needs_list
    assert position.list_query() == {
        "limit": "500",
        "resourceVersion": "1007",
        "resourceVersionMatch": "NotOlderThan",
    }
    assert position.restarts == 1


def test_a_list_at_an_unavailable_revision_is_followed_by_a_list_of_the_newest_state():
    position = listed()
    position.watch_expired()
    assert position.list_expired()
    assert position.list_query() == {"limit": "500"}
    assert not position.list_expired()


def test_an_aborted_list_restarts_with_its_first_page():
    position = Position()
    position.page_done("1000", "a")
    position.list_aborted()
    assert position.list_query() == {"limit": "500", "resourceVersion": "0"}
