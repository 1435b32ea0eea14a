"""Scales to zero and back repeatedly under random load, and counts lost connections.

    python -m tests.cluster.resting_cycles --cycles=100

Clients on both nodes dial in bursts. A pause between bursts ends about when the workload is scaled
to zero, because a connection could be lost at that time. Each client sends a line, keeps its
connection open for a while, and sends another line. If a line isn't echoed, the connection is
lost.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests import loopback
from userspace_proxy.agent.rounds.tasks import pause

from . import build
from .control_plane import ControlPlane
from .resting_shop import NAMESPACE, Shop, open_shop
from .rights import grant_wake

Pause = Callable[[float], Awaitable[None]]


@dataclass(slots=True)
class Cycles:
    """The results of a run."""

    cycles: int = 0
    """The number of times that the workload was scaled to zero."""
    served: int = 0
    lost: int = 0
    woke_s: list[float] = field(default_factory=list)
    """Times from the SYN to the first byte, for clients that dialled while there was no pod."""

    def __str__(self) -> str:
        times = sorted(1000 * seconds for seconds in self.woke_s) or [0.0]
        return (
            f"{self.cycles} cycles of sleep and wake: {self.served} connections served, "
            f"{self.lost} lost; from the SYN of a client without a pod to its first byte "
            f"{statistics.median(times):.0f} ms (median), {times[-1]:.0f} ms (longest)"
        )


async def run_cycles(
    shop: Shop, cycles: int, idle_after_s: float, rng: random.Random, pause: Pause = pause
) -> Cycles:
    """Run clients until the workload was scaled to zero ``cycles`` times; return the results."""
    found = Cycles()
    open_: set[asyncio.Task[None]] = set()
    while shop.controllers.ends < cycles:
        # One to five clients dial at random moments, then none dials until about the scale-down.
        for _ in range(rng.randint(1, 5)):
            client = asyncio.create_task(_use(shop, rng, found, pause))
            open_.add(client)
            client.add_done_callback(open_.discard)
            await pause(rng.uniform(0.0, 0.3))
        await pause(idle_after_s + rng.uniform(0.0, 3.0))
    await asyncio.gather(*open_)
    found.cycles = shop.controllers.ends
    return found


async def _use(shop: Shop, rng: random.Random, found: Cycles, pause: Pause) -> None:
    """Connect and send one or two requests; count the client in ``found`` as served or lost."""
    is_asleep = shop.controllers.starts == shop.controllers.ends
    began = time.monotonic()
    try:
        client = await shop.dial(rng.choice(("node-1", "node-2")))
        is_served = await client.ask()
        if is_served and is_asleep:
            found.woke_s.append(time.monotonic() - began)
        await pause(rng.choice((0.0, rng.uniform(0.0, 1.0))))
        is_served = is_served and await client.ask()
        await client.close()
    except OSError:
        is_served = False
    found.served += is_served
    found.lost += not is_served


async def _measure(control_plane: ControlPlane, cycles: int, seed: int) -> Cycles:
    async with open_shop(control_plane, "1s") as shop:
        return await run_cycles(shop, cycles, 1.0, random.Random(seed))


def main() -> int:
    """Print the measurements; return 1 if a connection was lost."""
    parser = argparse.ArgumentParser(description="Sleep and wake under random load.")
    parser.add_argument("--cycles", type=int, default=100)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    binaries = build.ensure_binaries()
    loopback.enter()
    os.environ["NO_PROXY"] = "*"
    with contextlib.ExitStack() as stack:
        control_plane = stack.enter_context(ControlPlane(binaries))
        control_plane.grant_node_proxier()
        grant_wake(control_plane, NAMESPACE)
        found = asyncio.run(_measure(control_plane, given.cycles, given.seed))
    sys.stdout.write(f"{found}\n")
    return 1 if found.lost else 0


if __name__ == "__main__":
    raise SystemExit(main())
