"""Tests of a persistent mapping, whose versions share unchanged parts."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.cluster import PersistentMap, differing_keys

KEYS = [("shop", str(n)) for n in range(600)]
"""More keys than the mapping has parts, so that some keys share a part."""

SOME = st.dictionaries(st.sampled_from(KEYS), st.integers(0, 3), max_size=30)
CHANGES = st.lists(st.tuples(SOME, st.lists(st.sampled_from(KEYS), max_size=30)), max_size=6)


@given(CHANGES)
def test_a_persistent_map_equals_a_dictionary_after_the_same_changes(changes):
    have, expected = PersistentMap(), {}
    for put, drop in changes:
        before, kept = have, dict(expected)
        for key in drop:
            expected.pop(key, None)
        expected.update(put)
        have = have.changed(put, drop)
        assert have == expected
        assert (len(have), list(have)) == (len(expected), sorted(expected))
        assert repr(have) == repr(dict(sorted(expected.items())))
        assert before == kept, "the earlier map was changed"


@given(CHANGES)
def test_differing_keys_returns_the_keys_with_different_objects(changes):
    maps, plain = [PersistentMap()], [{}]
    for put, drop in changes:
        fresh = {key: [value] for key, value in put.items()}
        maps.append(maps[-1].changed(fresh, drop))
        plain.append(dict(maps[-1]))
    both = [*zip(maps, plain, strict=True)]
    for have, want in zip(both, reversed(both), strict=True):
        expected = {
            key
            for key in have[1].keys() | want[1].keys()
            if have[1].get(key) is not want[1].get(key)
        }
        assert differing_keys(have[0], want[0]) == expected
        assert differing_keys(have[1], want[0]) == expected


def test_changing_one_of_many_items_copies_only_a_fraction():
    many = PersistentMap().changed({("shop", str(n)): n for n in range(10_000)})
    other = many.changed({KEYS[0]: -1})
    shared = [mine is others for mine, others in zip(many._parts, other._parts, strict=True)]
    assert shared.count(False) == 1
    assert other.differing(many) == {KEYS[0]}


def test_independently_created_maps_share_their_empty_parts():
    one, other = (PersistentMap().changed({KEYS[0]: [1]}) for _ in range(2))
    shared = [mine is others for mine, others in zip(one._parts, other._parts, strict=True)]
    assert shared.count(False) == 1


def test_a_persistent_map_implements_mapping():
    have = PersistentMap().changed({KEYS[0]: 1})
    assert (have[KEYS[0]], have.get(KEYS[1]), have.get(KEYS[1], 7)) == (1, None, 7)
    assert (KEYS[0] in have, KEYS[1] in have) == (True, False)
    assert copy.deepcopy(have) == have == {KEYS[0]: 1}
    with pytest.raises(KeyError):
        have[KEYS[1]]
