"""Numbers of 32 bits."""

import pytest

from userspace_proxy.errors import SteeringError
from userspace_proxy.steering.nftables.numbers import NUMBERS_END, Numbers


def test_numbers_are_consecutive_and_not_given_again():
    numbers = Numbers(1)
    assert [numbers.take(count, list) for count in (1, 3, 1)] == [1, 2, 5]


def test_at_the_end_they_restart_between_those_in_use():
    used = [range(8, 11), range(2, 4), range(4, 5)]
    numbers = Numbers(NUMBERS_END - 4)
    numbers._first = 1
    assert [numbers.take(3, lambda: used) for _ in range(3)] == [NUMBERS_END - 4, 5, 11]
    numbers._next = NUMBERS_END
    numbers._gap_end = NUMBERS_END
    assert [numbers.take(1, lambda: used) for _ in range(5)] == [1, 5, 6, 7, 11]


def test_without_a_gap_there_is_none():
    numbers = Numbers(NUMBERS_END)
    with pytest.raises(SteeringError, match="all numbers are in use"):
        numbers.take(1, lambda: [range(NUMBERS_END)])
