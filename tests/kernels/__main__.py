"""Tests the product on Debian's kernels, and writes the results of each machine.

    python -m tests.kernels [--parts=smoke,marked] [--jobs=2] [5.10 newest]

Each kernel's results are in ``<cache>/kernels/results/LABEL-WAY.json``; the console and files of
its machine are in the folder beside that file. docs/kernels.md is generated from these files.
Results of partial runs are in ``results/short``.
"""
# ruff: noqa: T201 - printing what it does is this program's interface.

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.cluster.build import BuildError, cache_root
from tests.tools.clones import CloneError

from . import uml
from .kernels import KERNELS, Kernel, Unpacked, chosen, ensure_kernel
from .machine import MachineError, Way, last_lines, run_machine
from .qemu import best_way
from .root import Root, ensure_root

_PYTEST = (
    "python -m pytest -q --color=no -o cache_dir=/tmp/pytest -p tests.kernels.recorder "
    "--record=/result --timeout=900"
)


def _tried_twice(what: str) -> str:
    """Return a command that runs tests, and then reruns failed tests one at a time."""
    again = f"{_PYTEST} -n 0 --again --last-failed --last-failed-no-failures=none {what}"
    return (
        f"{_PYTEST} -n 2 --dist=loadscope {what}; found=$?; "
        f"[ $found -ne 1 ] || {{ {again}; found=$?; }}; (exit $found)"
    )


COMMANDS = {
    "smoke": "python -m tests.kernels.smoke /result",
    # Pass only these modules, because importing the others takes a minute on an emulated processor.
    "marked": _tried_twice(
        "-m kernel $(grep --files-with-matches mark.kernel tests/node/test_*.py)"
    ),
    "full": _tried_twice("-m 'not long' tests/node"),
}
"""The commands of the parts, in order; marked and full write their results to the same file."""
EXPECTED = {"smoke": ("0",), "marked": ("0", "1"), "full": ("0", "1")}
"""The exit statuses of commands that have reported all failures in their file."""
SECONDS = {"smoke": 1200.0, "marked": 2700.0, "full": 4 * 3600.0}
"""The timeout of each part in seconds: twice its duration on an idle, emulated machine."""


def parts_of(kernel: Kernel, way: Way, labels: Collection[str]) -> tuple[str, ...]:
    """Return a kernel's default parts.

    If the processor is emulated, and this run includes User Mode Linux of the same version, only
    that kernel runs the tests: it takes a quarter of the time.

    Args:
        labels: The labels of all kernels in this run.
    """
    is_left = way.name == "tcg" and f"uml-{kernel.label}" in labels
    return ("smoke",) if is_left else ("smoke", "marked")


def named_parts(words: str) -> list[str]:
    """Return the named parts, in the order of their execution.

    Raises:
        BuildError: There is no such part.
    """
    named = words.split(",")
    if unknown := [word for word in named if word not in COMMANDS]:
        raise BuildError(f"there is no part {unknown[0]!r}: {', '.join(COMMANDS)}")
    return [part for part in COMMANDS if part in named]


def is_short(parts: Collection[str]) -> bool:
    """Return whether a run is partial, so that it must not replace the results of a full run."""
    return "smoke" not in parts or len(parts) == 1


def results_folder() -> Path:
    """Return the folder of results; it may not exist yet."""
    return cache_root() / "kernels" / "results"


def results_of(kernel: Kernel, way: Way, folder: Path) -> dict[str, Any]:
    """Return a machine's results, read from its files; parts that haven't run have no results."""
    smoke = _read(folder / "smoke.json", {"kernel": "", "arch": "", "lacks": {}, "smoke": []})
    nothing: dict[str, Any] = {"passed": 0, "failed": [], "second_tries": [], "left_out": []}
    tests = _read(folder / "tests.json", nothing)
    return {
        "kernel": smoke["kernel"],
        "label": kernel.label,
        "arch": smoke["arch"],
        "way": way.name,
        "userland": kernel.root,
        "lacks": smoke["lacks"],
        "smoke": smoke["smoke"],
        "tests": {part: tests[part] for part in nothing},
    }


def problems(results: Mapping[str, Any]) -> list[str]:
    """Return a line for each failure."""
    rows = [row for row in results["smoke"] if row["outcome"] == "failed"]
    return [*(f"{row['what']}: {row['words']}" for row in rows), *results["tests"]["failed"]]


def _read(path: Path, without: dict[str, Any]) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(path.read_text()) if path.exists() else without
    return read


def make_ready(kernel: Kernel) -> tuple[Unpacked, Way]:
    """Return a kernel, and the fastest way to start it on this machine.

    Raises:
        BuildError: The kernel can't be fetched or built.
        MachineError: The kernel can't be started on this machine.
    """
    if kernel.label in uml.LABELS:
        return uml.ensure_uml(kernel)
    unpacked = ensure_kernel(kernel)
    return unpacked, best_way(unpacked, cache_root() / "kernels")


def try_kernel(
    kernel: Kernel, unpacked: Unpacked, way: Way, parts: Collection[str], target: Path
) -> list[str]:
    """Run parts on one kernel, write the results below a folder, and return the failures."""
    root = ensure_root(kernel.root)
    folder = target / f"{kernel.label}-{way.name}"
    began = time.monotonic()
    failed = _run(unpacked, root, parts, way, folder)
    results = results_of(kernel, way, folder)
    # A machine that was killed early leaves no results; the results of an earlier run are kept.
    if results["kernel"]:
        folder.with_name(f"{folder.name}.json").write_text(json.dumps(results, indent=1) + "\n")
    failed += problems(results)
    _print_summary(results, time.monotonic() - began)
    return failed


def _run(
    unpacked: Unpacked, root: Root, parts: Collection[str], way: Way, folder: Path
) -> list[str]:
    """Run parts in a machine; return a line for each failure that isn't in their results."""
    for old in folder.glob("*"):
        old.unlink()
    commands = [f"{COMMANDS[part]}; echo {part} $? >>/result/statuses" for part in parts]
    seconds = sum(SECONDS[part] for part in parts)
    try:
        run_machine(unpacked, root, "\n".join(commands), way=way, target=folder, timeout=seconds)
    except MachineError as error:
        return [f"{error}"]
    code = (folder / "exit").read_text().strip()
    failed = [f"not ended after {seconds:.0f} s"] if code == "124" else []
    for line in (folder / "statuses").read_text().splitlines():
        part, _, status = line.partition(" ")
        if status not in EXPECTED[part]:
            failed.append(f"{part} ended with {status}; {last_lines(folder / 'console')}")
    return failed


def _print_summary(results: Mapping[str, Any], seconds: float) -> None:
    outcomes = [row["outcome"] for row in results["smoke"]]
    tests = results["tests"]
    print(
        f"Linux {results['label']} ({results['kernel']}, {results['way']}): "
        f"smoke {outcomes.count('ok')} of {len(outcomes)} ok; tests {tests['passed']} passed, "
        f"{len(tests['failed'])} failed, {len(tests['left_out'])} left out, "
        f"{len(tests['second_tries'])} at a second try; {seconds:.0f} s",
        flush=True,
    )


def end_machines(*_: object) -> None:
    """Kill all child processes, for which threads are waiting, and exit."""
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in children.read_text().split():
            # Send SIGKILL, because the parent process of a namespace blocks SIGTERM.
            os.kill(int(pid), signal.SIGKILL)
    sys.exit(1)


def main(words: Sequence[str]) -> int:
    """Test the kernels; return 1 if a test, or a kernel's machine, failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.kernels")
    parser.add_argument("--jobs", type=int, default=2, help="machines at a time")
    parser.add_argument("--root", help="Debian's suite, for all kernels; default: each one's own")
    parser.add_argument("--parts", help=f"of {', '.join(COMMANDS)}; default: what suits the way")
    known = ", ".join(kernel.label for kernel in (*KERNELS, *uml.KERNELS))
    parser.add_argument("kernels", nargs="*", help=f"of {known}; default: all")
    given = parser.parse_args(words)
    try:
        kernels = chosen(given.kernels, (*KERNELS, *uml.KERNELS))
        named = named_parts(given.parts) if given.parts is not None else []
    except BuildError as error:
        parser.error(f"{error}")
    if given.root:
        kernels = [replace(kernel, root=given.root) for kernel in kernels]
    target = results_folder()
    if named and is_short(named):
        target /= "short"
    failed: list[str] = []

    def attempt(one: tuple[Kernel, Unpacked, Way]) -> None:
        kernel, unpacked, way = one
        try:
            parts = named or parts_of(kernel, way, labels)
            lines = try_kernel(kernel, unpacked, way, parts, target)
        except (BuildError, CloneError, MachineError) as error:
            lines = [f"{error}"]
        failed.extend(f"Linux {kernel.label}: {line}" for line in lines)

    signal.signal(signal.SIGTERM, end_machines)
    ready = []
    for kernel in kernels:
        try:
            ready.append((kernel, *make_ready(kernel)))
        except (BuildError, MachineError) as error:
            failed.append(f"Linux {kernel.label}: {error}")
    labels = {kernel.label for kernel, _, _ in ready}
    with ThreadPoolExecutor(given.jobs) as pool:
        [*pool.map(attempt, ready)]
    for line in failed:
        print(f"error: {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
