"""``make e2e``: runs the selected groups, and writes each run into docs/conformance.md."""
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
from .kept import read_runs
from .report import COLUMNS, render
from .run import Run, run_group, run_name

PAGE = REPOSITORY / "docs" / "conformance.md"


def main() -> int:
    """Run the groups of the command line; return 1 if a test failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.upstream")
    parser.add_argument("--proxy", choices=PROXIES, action="append", help="default: all columns")
    parser.add_argument("--group", choices=GROUPS, action="append", help="default: all but ci")
    parser.add_argument("--cni", choices=CNIS, action="append", help="default: both")
    parser.add_argument("--families", choices=FAMILIES, help="default: those of each group")
    parser.add_argument(
        "--page-only", action="store_true", help="render the page anew, run nothing"
    )
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
    if options.page_only:
        write_page()
        return 0
    try:
        failures = sum(_run(proxy, *cluster, cni) for cluster, cni, proxy in runs)
    except (BuildError, AssertionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 1 if failures else 0


def clusters_of(groups: Collection[str], families: Collection[str]) -> Iterator[tuple[str, str]]:
    for group in groups:
        for name in GROUPS[group].families:
            if name in families:
                yield group, name


def write_page(*new: Run) -> None:
    """Write runs into docs/conformance.md; a run replaces the earlier run in its column."""
    runs = {_name(run): run for run in (*read_runs(PAGE.read_text()), *new)}
    PAGE.write_text(render(runs.values()))
    print(f"written: {PAGE.relative_to(REPOSITORY)}")


def _name(run: Run) -> str:
    return run_name(run.proxy, run.group, run.families, run.cni)


def _run(proxy: str, group: str, families: str, cni: str) -> int:
    """Run one group in one kind of cluster; return the number of failed tests."""
    folder = cache_root() / "conformance" / run_name(proxy, group, families, cni)
    folder.mkdir(parents=True, exist_ok=True)
    run = run_group(proxy, group, families, cni, folder)
    print(f"  {run.passed} passed, {len(run.failed)} failed in {run.seconds:.0f} s ({folder})")
    for result in run.failed:
        print(f"  failed: {result.name}: {result.reason}")
    write_page(run)
    return len(run.failed)


if __name__ == "__main__":
    raise SystemExit(main())
