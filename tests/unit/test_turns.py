"""Tests of which party has the next turn, regardless of how much others request."""

from operator import itemgetter

import pytest

from userspace_proxy import turns
from userspace_proxy.turns import Turns


def order(given, **waiting):
    items = [(party, one) for party, own in waiting.items() for one in own]
    return "".join(one for _, one in given.order(items, itemgetter(0)))


def test_every_party_has_a_turn_before_any_party_has_a_second_turn():
    assert order(Turns(), a="123", b="x", c="yz") == "1xy2z3"


def test_the_party_waiting_longest_is_next():
    given = Turns()
    assert order(given, a="1", b="x") == "1x"
    assert order(given, b="y", a="2", c="z") == "z2y"


def test_a_value_that_is_not_taken_uses_up_no_turn():
    given = Turns()
    assert next(given.order("axb", str)) == "a"
    assert order(given, a="2", x="3", b="4") == "342"


def test_only_a_bounded_number_of_parties_is_remembered(monkeypatch):
    monkeypatch.setattr(turns, "PARTIES_MAX", 2)
    given = Turns()
    assert order(given, a="1", b="2", c="3") == "123"
    assert order(given, c="3", b="2", a="1") == "123", "a is remembered"


def test_a_party_waits_longer_after_each_long_turn():
    given, waits, now = Turns(), [], 0.0
    for _ in range(5):
        given.took("a", 1.0, now)
        waits.append(given.due("a", now) - now - 1.0)
        now = given.due("a", now)
    assert waits == [1.0, 2.0, 4.0, 8.0, 8.0]
    assert given.due("b", now) == now


def test_the_wait_after_a_long_turn_decreases_over_time():
    given = Turns()
    given.took("a", 1.0, 0.0)
    given.took("a", 1.0, 2.0)
    given.forget(6.9)
    given.took("a", 0.1, 6.9)
    assert given.due("a", 6.9) == pytest.approx(6.9 + 0.1 + 0.8)
    given.forget(60.0)
    given.took("a", 1.0, 60.0)
    assert given.due("a", 60.0) == 62.0
