"""Runs many seeds of a half, in one or several processes, and adds up the oracles' counts."""

from __future__ import annotations

import gc
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice

from .halves import load
from .judgements import Judgements

# The CPU time after which a run counts as endless; a usual one takes 0.05 s.
_MOST_CPU_S = 20.0

Results = tuple[list[tuple[int, str]], dict[str, int]]
"""Each seed with its first violation (empty if there is none), and the oracles' counts."""


def run(half: str, seeds: Iterable[range], jobs: int, at_once: int) -> Iterator[Results]:
    """Run seeds; yield the results in the order of the seeds.

    Args:
        jobs: The number of processes that run the seeds; if it is one, this process runs them.
        at_once: The number of seeds that a process runs before it reports.
    """
    chunks = itertools.chain.from_iterable(_chunks(each, at_once) for each in seeds)
    run_some = partial(run_chunk, half)
    if jobs == 1:
        yield from map(run_some, chunks)
        return
    with ProcessPoolExecutor(jobs) as pool:
        waiting = deque(pool.submit(run_some, chunk) for chunk in islice(chunks, 4 * jobs))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(run_some, chunk) for chunk in islice(chunks, 1))


def run_chunk(name: str, seeds: range) -> Results:
    """Run some seeds of a half; return their violations and the oracles' counts."""
    half = load(name)
    # Import it here, because it imports the product, which may be a mutant.
    from .cpu_limit import no_longer_than

    def run_one(seed: int) -> str:
        world = half.world(half.make_plan(seed))
        with no_longer_than(_MOST_CPU_S):
            found = world.run()
        sums.add(world.judgements)
        return found[0] if found else ""

    results, sums = [], Judgements()
    gc.freeze()
    gc.disable()
    for seed in seeds:
        results.append((seed, run_one(seed)))
        # Most objects of a run are in cycles. Collecting after each run takes half as long as after
        # ten runs, whose memory exceeds the caches. Objects that exist at the next freeze are never
        # freed.
        gc.collect()
    gc.enable()
    return results, sums.counts


def _chunks(seeds: range, size: int) -> Iterator[range]:
    for start in range(0, len(seeds), size):
        yield seeds[start : start + size]
