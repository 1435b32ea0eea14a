"""Tests that products computed together equal the products computed one by one."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.balance.bulk_products import Lanes, factor_of

NUMBERS = st.integers(0, 2**64 - 1)
FACTOR = 0x9E3779B97F4A7C15


def product(one: int, other: int) -> int:
    return ((one ^ other) * FACTOR) % 2**64


@given(NUMBERS, st.lists(NUMBERS, min_size=1, max_size=200))
def test_bulk_products_equal_the_products_of_each_number(number, others):
    expected = [product(number, other) for other in others]
    lanes = Lanes(others)
    assert lanes.products(number).tolist() == expected
    assert lanes.highest(number) == max(expected)


@pytest.mark.parametrize("count", [1, 2, 40, 41, 42, 63, 64, 65, 127, 129, 1_000, 10_000])
def test_bulk_products_and_their_maximum_are_correct_for_any_count(count):
    draw = random.Random(count)
    others = [draw.getrandbits(64) for _ in range(count)]
    lanes = Lanes(others)
    for number in (0, 2**64 - 1, *(draw.getrandbits(64) for _ in range(20))):
        expected = [product(number, other) for other in others]
        assert lanes.products(number).tolist() == expected
        assert lanes.highest(number) == max(expected)


@given(NUMBERS, NUMBERS)
def test_a_factor_can_be_recovered_from_its_product(number, other):
    assert factor_of(product(number, other), number) == other


def test_an_empty_list_has_no_products():
    assert Lanes(()).products(7).tolist() == []
