"""``python -m benchmarks``: measures, prints the goals, and writes docs/benchmarks.md."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from tests.cluster.child import ControlPlaneError
from tests.cluster.waiting import DeadlineExceededError
from userspace_proxy.errors import UserspaceProxyError

from .loads import LOADS, WrkLoad, with_needed
from .machine import describe_machine
from .newer_haproxy import cached_haproxy
from .peers import HAProxyOfNewerDebian
from .report import details_of, goals_of, write_report
from .runner import open_ways, raise_descriptor_limit, run_rounds
from .samples import Samples, load_samples
from .tools import ToolMissing, build_tools, find_program
from .ways import WAYS

PAGE = Path("docs/benchmarks.md")
QUICK_SECONDS = 1.0
CALM = 1.0
"""The maximum load average of an otherwise idle machine."""


def main() -> int:
    """Run the benchmarks; return the exit status."""
    options = _parse(sys.argv[1:])
    # On SIGTERM, exit normally, so that the namespaces are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        samples = load_samples(options.render) if options.render else _run(options)
    except (UserspaceProxyError, ControlPlaneError, DeadlineExceededError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 1
    if options.raw:
        samples.save(options.raw)
    if options.output:
        write_report(samples, options.output)
        print(f"wrote {options.output}")
    print(details_of(samples))
    print(goals_of(samples))
    return 0


def _run(options: argparse.Namespace) -> Samples:
    began = time.monotonic()
    loads = with_needed(options.only)
    # Report what is missing before starting anything.
    if any(isinstance(load, WrkLoad) for load in loads):
        find_program("wrk")
    keys = list(_available(options.candidates))
    find_program("iptables-legacy")
    tools = build_tools()
    raise_descriptor_limit()
    if os.getloadavg()[0] > CALM:
        print("the machine is busy with other work: these figures will not be worth much")
    samples = Samples(machine=describe_machine(tools))
    if HAProxyOfNewerDebian.key in options.candidates:
        newer = cached_haproxy()
        samples.machine["newer HAProxy"] = str(newer or "left out: it could not be fetched")
    with open_ways(keys, tools) as ways:
        run_rounds(ways, loads, samples, rounds=options.rounds, seconds=options.seconds)
    took = time.monotonic() - began
    samples.machine["run"] = (
        f"{options.rounds} rounds, {options.seconds:g} s for each load, {took / 60:.0f} minutes"
    )
    print(f"measured for {took:.0f} s")
    return samples


def _available(keys: Sequence[str]) -> Iterator[str]:
    """Yield the ways whose programs are installed; print the names of the others.

    Raises:
        ToolMissing: A program of a way that isn't optional is missing.
    """
    for key in keys:
        try:
            WAYS[key].find_programs()
        except ToolMissing as exc:
            if not WAYS[key].is_optional:
                raise
            print(f"{key} is left out: {exc}", flush=True)
            continue
        yield key


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of all loads (default 5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of one load (default 2)")
    parser.add_argument("--only", type=keys_of(LOADS), default=list(LOADS), help=",".join(LOADS))
    parser.add_argument(
        "--candidates",
        type=keys_of(WAYS),
        default=list(WAYS),
        help=",".join(WAYS),
    )
    parser.add_argument(
        "--quick", action="store_true", help="one round of 1 s; prints, and writes no page"
    )
    parser.add_argument("--output", type=Path, help=f"the page to write (default {PAGE})")
    parser.add_argument("--raw", type=Path, help="write all samples as JSON, for --render")
    parser.add_argument("--render", type=Path, help="measure nothing, write the page of a --raw")
    options = parser.parse_args(words)
    if options.quick:
        options.rounds, options.seconds = 1, QUICK_SECONDS
    elif options.output is None and options.only == list(LOADS):
        options.output = PAGE
    return options


def keys_of(known: Collection[str]) -> Callable[[str], list[str]]:
    """Return an argparse type that splits known words at commas."""

    def split(text: str) -> list[str]:
        keys = text.split(",")
        for key in keys:
            if key not in known:
                raise argparse.ArgumentTypeError(f"{key} is none of {','.join(known)}")
        return keys

    return split


if __name__ == "__main__":
    sys.exit(main())
