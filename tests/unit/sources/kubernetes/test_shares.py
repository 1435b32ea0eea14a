"""The shares of namespaces, which limit how many objects are kept."""

from __future__ import annotations

from userspace_proxy.sources.kubernetes.shares import OBJECT_BYTES, Excess, ObjectShares

BIG, SMALL = "big", "small"


def test_a_full_namespace_does_not_use_the_share_of_other_namespaces():
    shares = ObjectShares(80)
    assert [shares.take((BIG, name), 38) for name in "abc"] == [True, True, False]
    assert (shares.is_open((BIG, "a")), shares.is_open((BIG, "d"))) == (True, False)
    assert shares.take((SMALL, "a"), 80)
    assert shares.kept() == {(BIG, "a"), (BIG, "b"), (SMALL, "a")}


def test_an_object_of_an_earlier_run_keeps_its_share_until_it_is_measured():
    shares = ObjectShares(3 * OBJECT_BYTES)
    shares.keep((BIG, "a"))
    shares.keep((BIG, "a"))
    assert shares.take((BIG, "b"), 2 * OBJECT_BYTES)
    assert not shares.take((BIG, "c"), OBJECT_BYTES)
    assert shares.take((BIG, "a"), OBJECT_BYTES)
    shares.drop((BIG, "a"))
    assert shares.take((BIG, "c"), OBJECT_BYTES)


def test_a_full_namespace_is_reopened_once_an_eighth_is_free():
    shares = ObjectShares(80)
    for name in ("a", "b", "c", "d", "e"):
        shares.take((BIG, name), 18)
    shares.count(BIG, 1, 100)
    assert (shares.has_full, shares.has_room) == (True, False)
    assert shares.take((BIG, "a"), 17)
    assert not shares.is_open((BIG, "e"))
    shares.drop((BIG, "a"))
    assert shares.is_open((BIG, "e"))
    assert (shares.has_full, shares.has_room) == (False, True)


def test_a_full_namespace_reopens_after_its_objects_shrink():
    shares = ObjectShares(80)
    shares.take((BIG, "a"), 79)
    assert not shares.take((BIG, "b"), 20)
    shares.count(BIG, 1, 100)
    assert shares.take((BIG, "a"), 71)
    assert (shares.has_full, shares.has_room) == (True, False)
    assert shares.take((BIG, "a"), 20)
    assert (shares.has_full, shares.has_room) == (False, True)
    assert [shares.take((SMALL, name), 40) for name in "abc"] == [True, True, False]
    assert (shares.has_full, shares.has_room) == (True, True)


def test_the_number_of_omitted_objects_is_counted_and_never_negative():
    shares = ObjectShares(80)
    shares.take((BIG, "a"), 80)
    shares.count(BIG, 2, 200)
    shares.count(BIG, -1, -150)
    assert list(shares.left_out()) == [(BIG, Excess(1, 50))]
    shares.count(BIG, -1, -150)
    assert list(shares.left_out()) == []
    shares.set_left_out({BIG: Excess(7, 70)})
    assert list(shares.left_out()) == [(BIG, Excess(7, 70))]
    shares.set_left_out({})
    assert list(shares.left_out()) == []


def test_a_namespace_without_objects_has_no_state():
    shares = ObjectShares(80)
    shares.take((BIG, "a"), 10)
    shares.take((BIG, "b"), 100)
    shares.drop((BIG, "a"))
    assert not any((shares._kept.holders, shares._full, shares._left_out))
