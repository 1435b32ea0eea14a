"""Tries the product on Debian's kernels, and writes what each machine showed.

    python -m tests.kernels [--smoke] [--full] [--jobs=2] ["5.10 6.12"]

Each kernel's results are in ``<cache>/kernels/results/LABEL-WAY.json``, and what its machine
printed in the folder beside it. docs/kernels.md is made from these files.
"""
# ruff: noqa: T201 - printing what it does is this program's interface.

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.cluster.build import BuildError, cache_root
from tests.tools.clones import CloneError

from .kernels import KERNELS, Kernel, chosen, ensure_kernel
from .machine import MachineError, run_machine
from .qemu import best_way
from .root import ensure_root

SMOKE_S = 600.0


def results_folder() -> Path:
    """Return where the results are; it may not exist yet."""
    return cache_root() / "kernels" / "results"


def try_kernel(kernel: Kernel) -> dict[str, Any]:
    """Run what was asked for on one kernel; return its results, which are in a file then."""
    unpacked, root = ensure_kernel(kernel), ensure_root(kernel.root)
    way = best_way(unpacked, cache_root() / "kernels")
    name = f"{kernel.label}-{way.name}"
    target = results_folder() / name
    began = time.monotonic()
    run_machine(
        unpacked,
        root,
        "python -m tests.kernels.smoke /result",
        way=way,
        target=target,
        timeout=SMOKE_S,
    )
    said = json.loads((target / "smoke.json").read_text())
    results = {
        "kernel": said["kernel"],
        "label": kernel.label,
        "arch": said["arch"],
        "way": way.name,
        "userland": kernel.root,
        "lacks": said["lacks"],
        "smoke": said["smoke"],
        "tests": {"passed": 0, "failed": [], "left_out": []},
    }
    target.with_name(f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"Linux {kernel.label} ({said['kernel']}, {way.name}): {time.monotonic() - began:.0f} s")
    return results


def problems(results: dict[str, Any]) -> list[str]:
    """Return a line for each thing that didn't work."""
    smoke = (f"{r['what']}: {r['words']}" for r in results["smoke"] if r["outcome"] == "failed")
    return [*smoke, *results["tests"]["failed"]]


def main(words: Sequence[str]) -> int:
    """Try the kernels; return 1 if something didn't work on one."""
    parser = argparse.ArgumentParser(prog="python -m tests.kernels")
    parser.add_argument("--jobs", type=int, default=2, help="machines at a time")
    labels = ", ".join(kernel.label for kernel in KERNELS)
    parser.add_argument("kernels", nargs="?", default="", help=f"of {labels}; default: all")
    given = parser.parse_args(words)
    failed: list[str] = []

    def attempt(kernel: Kernel) -> None:
        try:
            failed.extend(f"Linux {kernel.label}: {line}" for line in problems(try_kernel(kernel)))
        except (BuildError, CloneError, MachineError) as error:
            failed.append(f"Linux {kernel.label}: {error}")

    try:
        kernels = chosen(given.kernels)
    except BuildError as error:
        failed.append(f"{error}")
    else:
        with ThreadPoolExecutor(given.jobs) as pool:
            [*pool.map(attempt, kernels)]
    for line in failed:
        print(f"error: {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
