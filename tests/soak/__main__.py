"""Runs a soak (``make soak``), prints a table, and exits with 1 if a limit is exceeded.

A run of at least an hour with all changes writes docs/soak.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from benchmarks.machine import describe_host, load_average
from tests.cluster.nodes.programs import kubernetes_version
from tests.node.load import pass_time

from .holdings import Holdings
from .report import SideReport, page_of, problems, render
from .requests import Change, figures_of
from .sides import Side
from .site import Site

PAGE = Path(__file__).resolve().parents[2] / "docs" / "soak.md"
SOAK_S = 3600.0
RATE = 250.0
WARM_S = 5.0
# Seconds for releasing descriptors, memory and conntrack entries; a UDP flow with several queries
# is kept for two minutes.
SETTLE_S = 150.0
# The interval of checks. Each check opens a connection, whose conntrack entry stays for three
# seconds.
SETTLE_EVERY_S = 5.0
FLAGS = ("--workers=2", "--take-over", "--drain-timeout=20s")


def soak(site: Site, seconds: float, rate: float, names: Sequence[str]) -> list[SideReport]:
    """Run all changes in turn under load; return the reports of both sides.

    Args:
        site: The site, on which both sides serve.
        seconds: The minimum duration; a round of changes that has begun is completed.
        rate: New connections per second on each side.
        names: The changes to make.
    """
    _warm_up(site, rate)
    before = [_settled(side, None) for side in site.sides]
    for side in site.sides:
        side.start_load(rate)
    until = time.monotonic() + seconds
    made: list[Change] = []
    memory: list[list[int]] = [[] for _ in site.sides]
    for name in cycle(names):
        made.append(Change(name, time.time()))
        site.changes[name]()
        if name == names[-1]:
            for side, samples in zip(site.sides, memory, strict=True):
                samples.append(side.memory_bytes())
            if time.monotonic() >= until:
                break
    figures = [figures_of(side.stop_load(), made, side.kills) for side in site.sides]
    # Only this proxy is judged, so wait only for its resources.
    after = [_settled(site.ours, before[0]), _settled(site.theirs, None)]
    titles = [side.title for side in site.sides]
    return list(map(SideReport, titles, figures, before, after, memory))


def _warm_up(site: Site, rate: float) -> None:
    """Run the load for a short time: resources that are acquired only once aren't a leak."""
    for side in site.sides:
        side.start_load(rate)
    pass_time(WARM_S)
    for side in site.sides:
        failed = [request for request in side.stop_load() if request.has_failed]
        assert not failed, f"{side.title} doesn't serve: {failed[:3]}"


def _settled(side: Side, before: Holdings | None) -> Holdings:
    """Return a side's resources once they equal the earlier resources, or at the deadline."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        pass_time(SETTLE_EVERY_S)
        held = side.holdings()
        is_settled = held.is_idle and (before is None or not list(held.leaks(before)))
        if is_settled or time.monotonic() >= deadline:
            return held


def main() -> int:
    """Run a soak; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--seconds", type=float, default=SOAK_S)
    parser.add_argument("--rate", type=float, default=RATE, help="new connections a second")
    parser.add_argument("--changes", help="by name, comma-separated; by default all")
    arguments = parser.parse_args()
    machine = {
        **describe_host(),
        "kube-proxy": kubernetes_version(),
        "load average before (1 and 5 minutes)": load_average(),
    }
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, Site(Path(folder), FLAGS) as site:
        names = arguments.changes.split(",") if arguments.changes else list(site.changes)
        if unknown := set(names) - site.changes.keys():
            parser.error(f"no such change: {', '.join(unknown)}")
        reports = soak(site, arguments.seconds, arguments.rate, names)
    sys.stdout.write(render(reports))
    if arguments.seconds >= SOAK_S and not arguments.changes:
        PAGE.write_text(page_of(reports, machine, arguments.rate), encoding="utf-8")
    broken = problems(reports)
    for problem in broken:
        sys.stdout.write(f"FAILED: {problem}\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
