"""``make e2e``: runs what is asked for, and writes docs/conformance.md from all that was run."""
# ruff: noqa: T201 - printing is this program's interface.

from __future__ import annotations

import argparse
import os
import sys

from ..build import BuildError, cache_root
from ..nodes.proxies import PROXIES, REPOSITORY
from .groups import CNIS, GROUPS
from .report import COLUMNS, render
from .run import Run, run_group

PAGE = REPOSITORY / "docs" / "conformance.md"


def main() -> int:
    """Run what the command line asks for; 1 if a test failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.upstream")
    parser.add_argument("--proxy", choices=PROXIES, action="append", help="default: all columns")
    parser.add_argument("--group", choices=GROUPS, action="append", help="default: all but ci")
    parser.add_argument("--cni", choices=CNIS, action="append", help="default: both")
    parser.add_argument("--page-only", action="store_true", help="write the page, run nothing")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("error: a cluster needs root, for its nodes have real containers", file=sys.stderr)
        return 1
    groups = options.group or [name for name in GROUPS if name != "ci"]
    proxies = options.proxy or list(COLUMNS)
    failures = 0
    try:
        if not options.page_only:
            for group in groups:
                for cni in options.cni or CNIS:
                    failures += sum(_run(proxy, group, cni) for proxy in proxies)
    except (BuildError, AssertionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    write_page()
    return 1 if failures else 0


def write_page() -> None:
    """Write docs/conformance.md anew from the runs that were kept."""
    kept = [Run.read(p, g, cni) for p in PROXIES for g in GROUPS for cni in CNIS]
    PAGE.write_text(render([run for run in kept if run is not None]))
    print(f"written: {PAGE.relative_to(REPOSITORY)}")


def _run(proxy: str, group: str, cni: str) -> int:
    """Run one group with one proxy and one CNI; return how many tests failed."""
    folder = cache_root() / "conformance" / f"{group}-{proxy}-{cni}"
    folder.mkdir(parents=True, exist_ok=True)
    run = run_group(proxy, group, GROUPS[group], cni, folder)
    run.write()
    print(f"  {run.passed} passed, {len(run.failed)} failed in {run.seconds:.0f} s ({folder})")
    for result in run.failed:
        print(f"  failed: {result.name}: {result.reason}")
    return len(run.failed)


if __name__ == "__main__":
    raise SystemExit(main())
