"""Measures the cost of a pick, for each strategy without weights and with equal weights.

``python -m benchmarks.picks`` takes about eight seconds of CPU time, and needs no privileges. The
two forms take turns of a few milliseconds; a figure is the fastest turn's CPU time, on which a busy
machine has the least influence. ADR 0051 contains the figures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container

from userspace_proxy.balance import Strategy, Weights
from userspace_proxy.dataplane.balancers import make_strategy
from userspace_proxy.model import Balance, SocketAddress

STRATEGIES = (
    Balance.ROUND_ROBIN,
    Balance.RANDOM,
    Balance.LEAST_CONNECTIONS,
    Balance.POWER_OF_TWO_CHOICES,
)
COUNTS = (3, 10, 100)
TURNS = 40
TURN_S = 0.004


def main() -> None:
    print(f"{'ns a pick':46} {'plain':>8} {'weighted':>9} {'ratio':>6}")
    for balance in STRATEGIES:
        for count in COUNTS:
            for what, skips in (("", 0), (", one ejected", 1)):
                plain, weighted = compare(balance, count, skips)
                name = f"{balance}, {count} endpoints{what}"
                print(f"{name:46} {plain:8.0f} {weighted:9.0f} {weighted / plain:6.2f}")


def compare(balance: Balance, count: int, skips: int) -> tuple[float, float]:
    """Return the nanoseconds per pick of the plain and of the weighted strategy."""
    endpoints = tuple(SocketAddress(f"10.244.0.{n}", 8080) for n in range(1, count + 1))
    skip = frozenset(endpoints[count // 2 :][:skips]) or None
    # A third of the endpoints are idle.
    load = {endpoint: index % 3 for index, endpoint in enumerate(endpoints)}.__getitem__
    equal = Weights(dict.fromkeys(endpoints, 7))
    forms = [make_strategy(balance, weights, lambda: load, 0) for weights in (Weights(), equal)]
    batches = [batch_for(form, endpoints, skip) for form in forms]
    figures: list[list[float]] = [[], []]
    for _ in range(TURNS):
        for form, batch, found in zip(forms, batches, figures, strict=True):
            found.append(timed(form, endpoints, skip, batch))
    plain, weighted = map(min, figures)
    return plain, weighted


def batch_for(
    form: Strategy, endpoints: tuple[SocketAddress, ...], skip: Container[SocketAddress] | None
) -> int:
    """Return the number of picks that fill a turn."""
    return max(1, round(TURN_S * 1e9 / timed(form, endpoints, skip, 500)))


def timed(
    form: Strategy,
    endpoints: tuple[SocketAddress, ...],
    skip: Container[SocketAddress] | None,
    batch: int,
) -> float:
    """Return the nanoseconds of CPU time per pick."""
    pick: Callable[..., SocketAddress | None] = form.pick
    began = time.thread_time_ns()
    for _ in range(batch):
        pick(endpoints, "10.244.1.1", skip=skip)
    return (time.thread_time_ns() - began) / batch


if __name__ == "__main__":
    main()
