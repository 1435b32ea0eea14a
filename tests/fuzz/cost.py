"""Checks that a parser's CPU time is below a bound that is linear in the input's length.

    seconds ≤ fixed + per byte · bytes      the minimum of several tries: a busy machine only adds

Parsers block the event loop, so an input that takes a second is an outage. A quadratic parser
passes any test with small inputs, which ``stretched`` therefore lengthens.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import NamedTuple

LONG_BYTES = 16 << 10
_TRIES = 3


class Bound(NamedTuple):
    """The CPU time that a parser's inputs may take, even with the fuzzer's instrumentation."""

    fixed_s: float = 0.05
    per_byte_s: float = 20e-6

    def of(self, size: int) -> float:
        """Return the limit in seconds for an input of this size."""
        return self.fixed_s + self.per_byte_s * size


DEFAULT = Bound()


def check_cost(parse: Callable[[bytes], object], data: bytes, bound: Bound = DEFAULT) -> None:
    """Parse an input; fail if every try takes longer than the bound."""
    limit, least = bound.of(len(data)), float("inf")
    for _ in range(_TRIES):
        began = time.thread_time()
        parse(data)
        least = min(least, time.thread_time() - began)
        if least <= limit:
            return
        gc.collect()
    raise AssertionError(f"{len(data):,} bytes took {least:.3f} s of CPU, at most {limit:.3f}")


def stretched(data: bytes, start: int, end: int) -> bytes:
    """Return an input whose part from ``start`` to ``end`` is repeated until the input is long."""
    part = data[start:end]
    count = max(1, (LONG_BYTES - len(data)) // max(1, len(part)))
    return data[:start] + part * count + data[end:]
