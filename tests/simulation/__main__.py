"""Runs seeds: ``python -m tests.simulation --seeds=1000 --jobs=2``, or ``--seed=7`` for one.

With ``--half=node`` whole nodes are simulated. Prints a line for each seed that fails, and the
shrunk plan and the sequence of events of the first seed with each kind of violation.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from .campaign import run
from .drawn_mutants import named
from .halves import PACKAGES, load
from .judgements import table, unused
from .seeds import revision, seeds_of

# The number of seeds that a process runs before it reports.
_CHUNK = 50
_MOST_SHOWN = 20
_MOST_EXPLAINED = 3
# A campaign of at least this many seeds fails if an oracle has never judged.
_MANY = 1000


def main() -> int:
    """Run seeds; return the exit status."""
    options = _parser().parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # With randomized hashes, sets of addresses would have a random order.
        arguments = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        os.execve(sys.executable, arguments, {**os.environ, "PYTHONHASHSEED": "0"})
    if options.mutant:
        from .mutants import install

        install(named(options.mutant))
    if options.seed is not None:
        from .explaining import explain

        return explain(options.half, options.seed, is_whole=options.whole)
    seeds = [range(options.first, options.first + options.seeds)]
    if options.tested:
        of = revision()
        seeds = seeds_of(options.half, of)
        sys.stdout.write(f"{options.half}: seeds of {of[:12]}: {_shown(seeds)}\n")
    return campaign(options, seeds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--half", choices=PACKAGES, default="data", help="what to simulate")
    add("--seeds", type=int, default=500, help="how many")
    add("--first", type=int, default=0, help="the first of them")
    add("--tested", action="store_true", help="instead, those of this commit")
    add("--seed", type=int, help="run this one, and print who did what")
    add("--whole", action="store_true", help="don't make the plan smaller, and print all lines")
    add("--jobs", type=int, default=1, help="processes")
    add(
        "--mutant",
        default="",
        help="with the product changed: a label of mutants, such as plane.orders/3",
    )
    add("--until-found", action="store_true", help="stop at the first that fails")
    add("--table", action="store_true", help="show how often each oracle judged")
    return parser


def campaign(options: argparse.Namespace, seeds: Sequence[range]) -> int:
    """Run seeds of a half, and print their violations; return the exit status."""
    half: str = options.half
    began, failed, done = time.monotonic(), dict[int, str](), 0
    judged = Counter[str]()
    for part, counts in run(half, seeds, options.jobs, 1 if options.until_found else _CHUNK):
        done += len(part)
        judged.update(counts)
        for seed, violation in part:
            if violation:
                failed[seed] = violation
                if len(failed) <= _MOST_SHOWN or options.mutant:
                    sys.stdout.write(f"seed {seed}: {violation}\n")
                    sys.stdout.flush()
        if failed and options.until_found:
            break
    took = time.monotonic() - began
    sys.stdout.write(
        f"{half}: {done} seeds in {took:.1f} s ({done / took:.0f} a second), {len(failed)} failed\n"
    )
    if options.table:
        sys.stdout.writelines(f"{line}\n" for line in table(judged))
    idle = unused(load(half).oracles, judged) if done >= _MANY else []
    if idle:
        sys.stdout.write(f"never judged: {', '.join(idle)}\n")
    if failed and not options.mutant:
        _explain(half, failed)
    return 1 if failed or idle else 0


def _explain(half: str, failed: Mapping[int, str]) -> None:
    """Print the shrunk plan and the events of the first seed with each kind of violation."""
    from .explaining import explain
    from .shrinking import kind_of

    first_ones: dict[str, int] = {}
    for seed, violation in failed.items():
        first_ones.setdefault(kind_of(violation), seed)
    for seed in list(first_ones.values())[:_MOST_EXPLAINED]:
        explain(half, seed)


def _shown(seeds: Sequence[range]) -> str:
    return ", ".join(f"{each.start} to {each.stop - 1}" for each in seeds if each)


if __name__ == "__main__":
    sys.exit(main())
