"""Tests of which holders of a limited resource get less than they request."""

from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from userspace_proxy.shares import Amounts, BySize, Shares


class One(NamedTuple):
    """A holder of a share."""

    namespace: str
    name: str


def amounts(text):
    """Return the amounts of holders: ``a/x=3 b/y=1``."""
    pairs = (pair.split("=") for pair in text.split())
    return {One(*name.split("/")): int(amount) for name, amount in pairs}


def text_of(holders):
    return " ".join(sorted("/".join(holder) for holder in holders))


@pytest.mark.parametrize(
    ("bounds", "wanted", "left_out"),
    [
        pytest.param({}, "a/x=99 b/y=99", "", id="no-bound"),
        pytest.param({"of_namespace": 9}, "a/x=4 a/y=5 b/x=9", "", id="at-the-bound"),
        pytest.param({"of_namespace": 9}, "a/x=4 a/y=6 b/x=9", "a/y", id="the-largest"),
        pytest.param({"of_namespace": 9}, "a/x=3 a/y=3 a/z=4", "a/z", id="only-the-largest"),
        pytest.param({"of_namespace": 9}, "a/x=4 a/y=4 a/z=4", "a/z", id="the-last-of-equals"),
        pytest.param({"of_namespace": 9}, "a/x=10 a/y=11", "a/x a/y", id="larger-than-all"),
        pytest.param({"of_node": 9}, "a/x=4 a/y=5", "", id="namespace-with-all-of-the-node"),
        pytest.param({"of_node": 9}, "a/x=4 a/y=5 b/x=1", "a/y", id="small-namespace-unaffected"),
        pytest.param({"of_node": 9}, "a/x=4 b/x=5 b/y=4", "b/x", id="an-equal-share-is-kept"),
        pytest.param({"of_node": 9}, "a/x=7 b/x=2 b/y=3", "b/y", id="room-that-a-namespace-leaves"),
        pytest.param({"of_node": 9, "of_namespace": 4}, "a/x=2 a/y=9 b/x=4", "a/y", id="both"),
    ],
)
def test_small_amounts_are_granted_first_and_namespaces_share_equally(bounds, wanted, left_out):
    shares = Shares(**bounds)
    assert text_of(shares.change(amounts(wanted))) == left_out
    assert text_of(one for one in amounts(wanted) if shares.is_left_out(one)) == left_out


@pytest.mark.parametrize(
    ("wanted", "granted"),
    [
        pytest.param("a/x=2 a/y=5", "a/x=2 a/y=2", id="the-last-part-of-a-namespace"),
        pytest.param("a/x=4 b/x=4 b/y=1", "a/x=3 b/x=2 b/y=1", id="the-last-part-of-the-node"),
    ],
)
def test_divisible_amounts_are_granted_up_to_the_remaining_room(wanted, granted):
    shares = Shares(of_namespace=4, of_node=6, are_divisible=True)
    shares.change(amounts(wanted))
    assert {one: shares.granted(one) for one in amounts(wanted)} == amounts(granted)


def test_amounts_are_summed_by_group_without_zero_amounts():
    given = Amounts()
    for group, holder, amount in ("ax3", "ay4", "bx1", "ax0", "ay2", "bx0", "cx0"):
        given.put(group, holder, int(amount))
    assert (given.total, given.of_group, given.holders) == (2, {"a": 2}, {"a": {"y": 2}})
    assert (given.of("a", "y"), given.of("c", "x")) == (2, 0)


def test_the_largest_holders_are_listed_in_order_of_reaching_the_maximum():
    given, largest = BySize(), []
    for holder, amount in ("a1", "b2", "c2", "b1", "a2", "c0", "a0", "b0"):
        given.put(holder, int(amount))
        largest.append(f"{given.most}{''.join(given.largest)}" if given.amounts else "")
    assert largest == ["1a", "2b", "2bc", "2c", "2ca", "2a", "1b", ""]
    assert (given.most, given.total, given.amounts) == (0, 0, {})


HOLDERS = [One(namespace, name) for namespace in "abc" for name in "xyz"]
CHANGES = st.lists(st.dictionaries(st.sampled_from(HOLDERS), st.integers(0, 6)), max_size=8)
BOUNDS = st.fixed_dictionaries({}, optional=dict.fromkeys(("of_namespace", "of_node"), st.just(9)))


@settings(max_examples=200)
@given(BOUNDS, st.booleans(), CHANGES)
# A change in one namespace ends the shortage of all namespaces.
@example({"of_node": 9}, False, [{HOLDERS[0]: 6, HOLDERS[3]: 6}, {HOLDERS[3]: 0}])
def test_shares_depend_only_on_current_amounts(bounds, are_divisible, steps):
    shares = Shares(**bounds, are_divisible=are_divisible)
    wanted = dict.fromkeys(HOLDERS, 0)
    for step in steps:
        before = {one: (shares.granted(one), shares.is_left_out(one)) for one in HOLDERS}
        moved = shares.change(step)
        wanted |= step
        anew = Shares(**bounds, are_divisible=are_divisible)
        anew.change(wanted)
        for one in HOLDERS:
            now = shares.granted(one), shares.is_left_out(one)
            assert now == (anew.granted(one), anew.is_left_out(one))
            if one in step:
                assert (one in moved) is (now[1] is not before[one][1])
            else:
                assert (one in moved) is (now != before[one])
