"""Seats for names."""

from __future__ import annotations

import pytest

from userspace_proxy.sources import pool
from userspace_proxy.sources.pool import Pool, low_band


def seats(count: int, low: int = 0) -> Pool[int]:
    return Pool(count, low, lambda number: number)


def test_who_has_a_seat_keeps_it_and_the_named_ones_come_first():
    of_four = seats(4)
    first = of_four.allocate("ab", taken=())
    assert of_four.allocate("abc", taken=()).items() >= first.items()
    second = of_four.allocate("ab", taken={first["a"]})
    assert second["b"] == first["b"]
    assert second["a"] != first["a"]


def test_who_went_away_gets_the_seat_again():
    of_four = seats(4)
    before = of_four.allocate("abc", taken=())
    of_four.allocate("cd", taken=())
    assert of_four.allocate("abcd", taken=()).items() >= before.items()


def test_the_seat_of_who_went_away_is_given_when_no_other_is_left():
    of_two = seats(2)
    before = of_two.allocate("ab", taken=())
    assert of_two.allocate("ac", taken=()) == {"a": before["a"], "c": before["b"]}
    assert of_two.allocate("abc", taken=()) == {"a": before["a"], "c": before["b"]}


def test_seats_of_those_that_went_away_are_remembered_in_order_up_to_a_bound(monkeypatch):
    monkeypatch.setattr(pool, "ABSENT_MAX", 2)
    many = seats(1000)
    for name in "abcd":
        many.allocate(name, taken=())
    assert list(many.given) == ["b", "c", "d"]


def test_what_was_given_before_a_restart_is_given_again_and_nothing_twice():
    of_ten = seats(10)
    of_ten.remember({"a": 7, "b": 7, "c": 3})
    assert of_ten.given == {"a": 7, "c": 3}
    now = of_ten.allocate("abc", taken=())
    assert (now["a"], now["c"]) == (7, 3)
    assert now["b"] not in (3, 7)


def test_the_lower_band_is_given_out_last():
    of_ten = seats(10, low=4)
    names = "abcdefghij"
    assert set(of_ten.allocate(names[:6], taken=()).values()) == set(range(4, 10))
    assert set(of_ten.allocate(names, taken=()).values()) == set(range(10))


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        pytest.param(16, 0, id="small"),
        pytest.param(17, 16, id="at-least-16"),
        pytest.param(2768, 86, id="node-ports"),
        pytest.param(1 << 20, 128, id="at-most"),
    ],
)
def test_how_many_are_left_for_people_to_name(count, expected):
    assert low_band(count, share=32, most=128) == expected


def test_seats_of_those_that_went_away_are_given_once():
    of_two = seats(2)
    of_two.remember({"x": 0, "y": 1})
    assert sorted(of_two.allocate("ab", taken=()).values()) == [0, 1]
