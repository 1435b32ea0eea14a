"""Runs seeds: ``python -m tests.simulation --seeds=1000 --jobs=2``, or ``--seed=7`` for one.

With ``--half=control`` they are those of the control half.

Prints a line for each seed that fails, then the first one's plan made smaller, and its trace.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice

from .halves import PACKAGES, load, mutants

# At a time, for one process.
_CHUNK = 50
_LINES = 44
_MOST_SHOWN = 20


def main() -> int:
    """Run seeds; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--half", choices=PACKAGES, default="data", help="what to simulate")
    parser.add_argument("--seeds", type=int, default=500, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="run this one, and print its trace")
    parser.add_argument("--whole", action="store_true", help="don't make the plan smaller")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--mutant", default="", help="with the product broken: see mutants")
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Sets of addresses have an order of their own otherwise.
        arguments = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        os.execve(sys.executable, arguments, {**os.environ, "PYTHONHASHSEED": "0"})
    if options.mutant:
        from .mutants import install

        install(mutants(options.half)[options.mutant])
    half: str = options.half
    if options.seed is not None:
        return explain(half, options.seed, is_whole=options.whole)
    began, failed, done = time.monotonic(), [], 0
    for part in _results(half, options.first, options.seeds, options.jobs):
        done += len(part)
        for seed, violation in part:
            if violation:
                failed.append(seed)
                if len(failed) <= _MOST_SHOWN or options.mutant:
                    sys.stdout.write(f"seed {seed}: {violation}\n")
                    sys.stdout.flush()
    took = time.monotonic() - began
    sys.stdout.write(
        f"{half}: {done} seeds in {took:.1f} s ({done / took:.0f} a second), {len(failed)} failed\n"
    )
    if failed and not options.mutant:
        explain(half, failed[0])
    return 1 if failed else 0


def _results(half: str, first: int, count: int, jobs: int) -> Iterator[list[tuple[int, str]]]:
    chunks = [range(n, min(n + _CHUNK, first + count)) for n in range(first, first + count, _CHUNK)]
    run = partial(run_chunk, half)
    if jobs == 1:
        yield from map(run, chunks)
        return
    with ProcessPoolExecutor(jobs) as pool:
        rest = iter(chunks)
        waiting = deque(pool.submit(run, chunk) for chunk in islice(rest, 4 * jobs))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(run, chunk) for chunk in islice(rest, 1))


def run_chunk(name: str, seeds: range) -> list[tuple[int, str]]:
    """Run some seeds of a half; return each with its first violation; empty: there is none."""
    half = load(name)
    results = []
    # Most of what a run leaves is in cycles, so it is collected in one go.
    gc.freeze()
    gc.disable()
    for seed in seeds:
        found = half.world(half.make_plan(seed)).run()
        results.append((seed, found[0] if found else ""))
        if seed % 10 == 0:
            gc.collect()
    gc.enable()
    return results


def explain(name: str, seed: int, *, is_whole: bool = False) -> int:
    """Print what a seed does, made smaller if it fails; return the exit status."""
    half = load(name)
    from .shrinking import shrink

    plan = half.make_plan(seed)
    found = half.world(plan).run()
    if found and not is_whole:
        plan = shrink(plan, lambda smaller: half.world(smaller).run(), half.smaller_plans)
    world = half.world(plan, is_traced=True)
    found = world.run()
    out = sys.stdout.write
    out(f"\nseed {seed}: {', '.join(sorted(plan.features))}\n")
    for line in half.describe(plan):
        out(f"{line}\n")
    shown = world.trace if is_whole else world.trace[-_LINES:]
    if len(shown) < len(world.trace):
        out(f"  … {len(world.trace) - len(shown)} lines before\n")
    for when, text in shown:
        out(f"{when - world.began:10.4f}  {text}\n")
    for violation in found[:5]:
        out(f"violated: {violation}\n")
    if found:
        out(f"replay with: make simulate HALF={name} SEED={seed}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
