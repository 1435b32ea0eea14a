"""``make e2e``: runs what is asked for, and writes docs/conformance.md from all that was run."""
# ruff: noqa: T201 - printing is this program's interface.

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Collection, Iterator
from itertools import product

from ..build import BuildError, cache_root
from ..nodes.families import FAMILIES
from ..nodes.proxies import PROXIES, REPOSITORY
from .groups import CNIS, GROUPS
from .report import COLUMNS, render
from .run import Run, run_group, run_name

PAGE = REPOSITORY / "docs" / "conformance.md"


def main() -> int:
    """Run what the command line asks for; 1 if a test failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.upstream")
    parser.add_argument("--proxy", choices=PROXIES, action="append", help="default: all columns")
    parser.add_argument("--group", choices=GROUPS, action="append", help="default: all but ci")
    parser.add_argument("--cni", choices=CNIS, action="append", help="default: both")
    parser.add_argument("--families", choices=FAMILIES, help="default: those of each group")
    parser.add_argument("--page-only", action="store_true", help="write the page, run nothing")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("error: a cluster needs root, for its nodes have real containers", file=sys.stderr)
        return 1
    groups = options.group or [name for name in GROUPS if name != "ci"]
    chosen = list(clusters_of(groups, [options.families] if options.families else FAMILIES))
    if not chosen:
        print(f"error: {', '.join(groups)}: not with {options.families}", file=sys.stderr)
        return 1
    runs = product(chosen, options.cni or CNIS, options.proxy or COLUMNS)
    failures = 0
    try:
        if not options.page_only:
            failures = sum(_run(proxy, *cluster, cni) for cluster, cni, proxy in runs)
    except (BuildError, AssertionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    write_page()
    return 1 if failures else 0


def clusters_of(groups: Collection[str], families: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield each group with each of its families that was asked for."""
    for group in groups:
        for name in GROUPS[group].families:
            if name in families:
                yield group, name


def write_page() -> None:
    """Write docs/conformance.md anew from the runs that were kept."""
    keys = product(PROXIES, clusters_of(GROUPS, FAMILIES), CNIS)
    kept = [Run.read(run_name(proxy, *cluster, cni)) for proxy, cluster, cni in keys]
    PAGE.write_text(render([run for run in kept if run is not None]))
    print(f"written: {PAGE.relative_to(REPOSITORY)}")


def _run(proxy: str, group: str, families: str, cni: str) -> int:
    """Run one group in one kind of cluster; return how many tests failed."""
    folder = cache_root() / "conformance" / run_name(proxy, group, families, cni)
    folder.mkdir(parents=True, exist_ok=True)
    run = run_group(proxy, group, families, cni, folder)
    run.write()
    print(f"  {run.passed} passed, {len(run.failed)} failed in {run.seconds:.0f} s ({folder})")
    for result in run.failed:
        print(f"  failed: {result.name}: {result.reason}")
    return len(run.failed)


if __name__ == "__main__":
    raise SystemExit(main())
