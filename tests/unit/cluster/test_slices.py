"""Tests of the slices of a Service, of which a change copies only a few runs."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.cluster.slices import NO_SLICES, Slices

from ..model.samples import slice_of


def item(number, *ips):
    return slice_of(*ips, key=f"cart-{number:06}")


def of(*numbers):
    return NO_SLICES.changed({one.key: one for one in map(item, numbers)})


CHANGES = st.dictionaries(
    st.integers(0, 30).map(lambda number: item(number).key), st.sampled_from([None, "a", "b"])
)


@given(st.lists(CHANGES, max_size=20), st.sampled_from([4, 8, 512]))
def test_slices_of_a_service_equal_a_dictionary_after_the_same_changes(changes, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("userspace_proxy.cluster.slices._RUN_MAX", most)
        expected, slices = {}, NO_SLICES
        for change in changes:
            before, earlier = dict(expected), slices
            made = {k: v and slice_of(v, key=k.name) for k, v in change.items()}
            expected = {k: v for k, v in (expected | made).items() if v is not None}
            slices = slices.changed(made)
            assert slices == tuple(expected[key] for key in sorted(expected))
            assert (slices is earlier) == (expected == before)
            assert slices.endpoint_count == len(slices) == len(expected)
            differing = {(old or new).key for old, new in earlier.differing(slices)}
            keys = before.keys() | expected.keys()
            assert differing == {key for key in keys if before.get(key) != expected.get(key)}


@pytest.mark.parametrize("endpoints", [0, 100])
def test_changing_one_of_many_slices_visits_few_other_slices(endpoints):
    count = 40_000 // (1 + endpoints)
    ips = [f"10.0.0.{n}" for n in range(endpoints)]
    slices = Slices.of(item(number, *ips) for number in range(count))
    new = item(count // 2, "192.0.2.1")
    changed, read = slices.changed({new.key: new}), []
    for some in (slices, changed):
        some.derive(read.extend)
    assert len(read) <= count + 512
    assert list(slices.differing(changed)) == [(slices[count // 2], new)]
    assert len(changed.runs) <= 1.1 * len(slices.runs)


def test_runs_of_slices_that_deletions_have_shrunk_are_merged():
    numbers = list(range(2_000))
    slices = of(*numbers)
    random.Random(1).shuffle(numbers)
    for number in numbers[10:]:
        slices = slices.changed({item(number).key: None})
    assert len(slices) == 10
    assert len(slices.runs) <= 2


def test_derived_results_are_cached_for_many_slices_but_not_for_few():
    few, many = of(1), of(*range(600))
    assert few.derive(list)[0] is not few.derive(list)[0]
    assert many.derive(list)[0] is many.derive(list)[0]
