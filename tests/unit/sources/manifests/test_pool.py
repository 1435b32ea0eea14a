"""Allocation of a pool's values to names."""

from __future__ import annotations

import pytest

from userspace_proxy.sources.manifests import pool as pool_module
from userspace_proxy.sources.manifests.cluster_ips import ClusterIPRange
from userspace_proxy.sources.manifests.pool import NAMES_MAX, Pool, low_band


def pool(count: int, low: int = 0) -> Pool[int]:
    return Pool(count, low, lambda number: number)


def test_allocated_values_depend_only_on_the_names_and_not_on_their_order():
    allocated = pool(1000).allocate("abc", taken=())
    assert pool(1000).allocate("cba", taken=()) == allocated
    assert pool(1000).allocate("abcdefgh", taken=()).items() >= allocated.items()


def test_a_value_that_is_in_use_moves_only_the_name_it_was_allocated_to():
    before = pool(1000).allocate("abc", taken=())
    after = pool(1000).allocate("abc", taken={before["b"]})
    assert after == {**before, "b": before["b"] + 1}


def test_the_first_of_two_colliding_names_is_allocated_the_value():
    # With 23 names and 100 values, some collide (the birthday paradox).
    names_of: dict[int, list[str]] = {}
    for name in (f"name-{n:02}" for n in range(23)):
        [value] = pool(100).allocate([name], taken=()).values()
        names_of.setdefault(value, []).append(name)
    value, (first, second) = next(item for item in names_of.items() if len(item[1]) == 2)
    assert pool(100).allocate([second, first], taken=()) == {
        first: value,
        second: (value + 1) % 100,
    }


def test_if_values_run_out_the_last_names_receive_no_value():
    assert pool(2).allocate("dabc", taken=()).keys() == {"a", "b"}


def test_values_of_the_low_band_are_allocated_last():
    of_ten = pool(10, low=4)
    names = "abcdefghij"
    assert set(of_ten.allocate(names[:6], taken=()).values()) == set(range(4, 10))
    assert set(of_ten.allocate(names, taken=()).values()) == set(range(10))


def test_names_beyond_the_cache_size_keep_their_values():
    """The caches of hashes and addresses are bounded; evicted values are computed again."""
    addresses = ClusterIPRange("10.64.0.0/10").pool
    few = [f"shop/{number:06}" for number in range(100)]
    before = addresses.allocate(few, taken=())
    many = addresses.allocate((f"shop/{number:06}" for number in range(2 * NAMES_MAX)), taken=())
    assert len(set(many.values())) == 2 * NAMES_MAX
    assert {name: many[name] for name in few} == before == addresses.allocate(few, taken=())
    for cache in (addresses.value_at, pool_module._number_of):
        assert cache.cache_info().currsize == NAMES_MAX


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        pytest.param(16, 0, id="small"),
        pytest.param(17, 16, id="at-least-16"),
        pytest.param(2768, 86, id="node-ports"),
        pytest.param(1 << 20, 128, id="at-most"),
    ],
)
def test_the_low_band_is_a_bounded_share_of_the_values(count, expected):
    assert low_band(count, share=32, most=128) == expected
