"""Which Services stand where."""

from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.plan.index import ServiceIndex

from ..model.samples import CART, WEB
from .drawn import KEYS

CHANGES = st.lists(st.tuples(st.booleans(), st.sets(st.sampled_from("abc")), KEYS))


@given(CHANGES)
def test_it_contains_the_services_that_were_added_and_not_discarded(changes):
    index, expected = ServiceIndex(), {}
    for comes, places, key in changes:
        (index.add if comes else index.discard)(places, key)
        for place in places:
            there = expected.setdefault(place, set())
            (there.add if comes else there.discard)(key)
    assert {place: set(index[place]) for place in "abc"} == {
        "a": set(),
        "b": set(),
        "c": set(),
    } | expected


def test_a_service_alone_at_many_addresses_is_one_object():
    index = ServiceIndex()
    index.add(["a", "b"], CART)
    assert index["a"] is index["b"]
    index.add(["b"], WEB)
    assert (set(index["a"]), set(index["b"])) == ({CART}, {CART, WEB})
