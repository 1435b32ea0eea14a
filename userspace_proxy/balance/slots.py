"""Assigns an endpoint to each of a fixed number of slots, for rules that map a hash to a slot.

    endpoint A draws slots  17  3 90 …      a slot belongs to the endpoint that draws it first:
    endpoint B draws slots   3 41 17 …      17 to A, 3 to B

Rule 1: the slots that an endpoint draws, and their order, depend only on the endpoint. If an
endpoint is removed, only its own slots move, spread over all other endpoints; if an endpoint is
added, slots move only to that endpoint.
Rule 2: there are only a few slot counts, because changing the count moves nearly all clients.
Rule 3: the draws are part of the interface: changing them moves clients during an upgrade.

This is rendezvous hashing, as in :mod:`.source_hash`, at a cost that hardly depends on the number
of endpoints: 0.2 ms for 128 slots, 9 ms for 4096.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from hashlib import shake_128

from ..model import DEFAULT_WEIGHT, SocketAddress

# The numbers of slots to choose from; a slot takes 60 to 90 bytes in the kernel. With 8 slots per
# endpoint, the standard deviation of an endpoint's share is a quarter of the share; with three
# endpoints it is a tenth.
_FEW, _MORE, _MOST = 128, 1024, 4096
_PER_ENDPOINT = 8
_NUMBER_BYTES, _NUMBERS = 4, 1 << 32


def fill_slots(
    endpoints: Sequence[SocketAddress],
    weights: Mapping[SocketAddress, int],
    *,
    is_coarse: bool = False,
) -> tuple[SocketAddress, ...]:
    """Return the endpoint of each slot; the same arguments give the same slots on every node.

    Args:
        endpoints: At least one endpoint.
        weights: Endpoints without an entry have the default weight; if empty, all weights are
            equal.
        is_coarse: Whether to use only as many slots as unweighted endpoints need.
    """
    count = count_slots(len(endpoints), is_weighted=bool(weights) and not is_coarse)
    return _fill(count, tuple((one, weights.get(one, DEFAULT_WEIGHT)) for one in endpoints))


# Cache the result, because a sync round requests the same slots several times.
@functools.lru_cache(maxsize=256)
def _fill(count: int, weighted: tuple[tuple[SocketAddress, int], ...]) -> tuple[SocketAddress, ...]:
    of = dict(weighted)
    # In one of 150 cases, some slot hasn't been drawn by then, and the loop continues.
    until = count * (math.log(count) + 5) / sum(of.values())
    while True:
        owners = _first(of, count, until)
        if len(owners) == count:
            return tuple([owners[slot] for slot in range(count)])
        until *= 2


def count_slots(endpoints: int, *, is_weighted: bool) -> int:
    """Return the number of slots for a number of endpoints.

    Args:
        is_weighted: Whether shares may differ, which needs the largest number of slots.
    """
    if is_weighted:
        # Small shares need many slots, and a changed weight must not change the slot count.
        return _MOST
    wanted = endpoints * _PER_ENDPOINT
    return next((count for count in (_FEW, _MORE) if count >= wanted), _MOST)


def _first(
    weights: Mapping[SocketAddress, int], count: int, until: float
) -> dict[int, SocketAddress]:
    """Return, for each slot drawn before ``until``, the endpoint that drew it first."""
    owners: dict[int, SocketAddress] = {}
    times = [until] * count
    for endpoint, weight in weights.items():
        for slot, time in _draws(endpoint, weight, count, math.ceil(until * weight)):
            if time < times[slot]:
                times[slot], owners[slot] = time, endpoint
    return owners


def _draws(
    endpoint: SocketAddress, weight: int, count: int, how_many: int
) -> Iterator[tuple[int, float]]:
    """Yield the slots that an endpoint draws, each with its time: a draw per step of 1 / weight."""
    drawn = shake_128(str(endpoint).encode()).digest(how_many * _NUMBER_BYTES)
    for step, number in enumerate(struct.unpack(f"<{how_many}I", drawn)):
        # The lower bits choose the slot, all bits the moment within the step.
        yield number % count, (step + number / _NUMBERS) / weight
