"""Writes the results of each kernel into docs/kernels.md.

Run it as ``python -m tests.kernels.page FOLDER…`` with the folders of both kinds of results.

    results of make kernels ──▶ a column for each kernel ─────┐
    matrix.json ──────────────▶ kernels without some part ────┼──▶ docs/kernels.md
    NEEDS ─────── make docs ──▶ what each part is for ────────┘

Rule 1: the page contains only results of tests that ran on a kernel.
Rule 2: all skipped tests are listed, each with the part that the kernel lacks.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tests.tools.markdown import CENTRED, replace_part, table
from userspace_proxy.kernel.offers import NEEDS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "kernels.md"
TARGET = "kernels"
WAYS = {
    "kvm": "QEMU with KVM",
    "tcg": "QEMU without KVM",
    "uml": "User Mode Linux",
}
SUITES = {"bullseye": "Debian 11", "bookworm": "Debian 12", "trixie": "Debian 13"}
DISTRIBUTIONS = {
    "Debian 11": "5.10",
    "Debian 12": "6.1",
    "Debian 13": "6.12",
    "Ubuntu 22.04": "5.15",
    "Ubuntu 24.04": "6.8",
    "RHEL 9": "5.14",
}
"""The kernel version of each distribution."""
MARKS = {"ok": "✓", "failed": "**✗**", "left out": "–"}
USUAL_ARCH = "x86_64"
NOT_RUN = ""
SKIPPED = "Skipped: "
"""The prefix of a skipped test's reason, unless the reason is a missing part of the kernel."""


@dataclass(frozen=True, slots=True)
class Smoke:
    """The outcome of an action, such as a new user would take."""

    what: str
    outcome: str
    """A key of :data:`MARKS`."""
    words: str

    @property
    def feature(self) -> str:
        """The row of the action: a steering mode, its kernel path, or the demo."""
        name, _, detail = self.what.partition(": ")
        row = name if name == "demo" else f"steering `{name}`"
        return f"kernel path, {row}" if detail.startswith("kernel path") else row


@dataclass(frozen=True, slots=True)
class Run:
    """The results of one kernel."""

    kernel: str
    label: str
    arch: str
    way: str
    userland: str
    lacks: Mapping[str, str]
    smoke: Sequence[Smoke]
    passed: int
    failed: Sequence[str]
    left_out: Sequence[tuple[str, str]]
    """Parts that the kernel lacks, each with a skipped test."""
    second_tries: Sequence[str] = ()
    """Tests that failed at first, and passed when they were run again."""

    @property
    def name(self) -> str:
        """A unique name: the label, an unusual architecture, and User Mode Linux if used."""
        more = [self.arch] * (self.arch != USUAL_ARCH) + ["UML"] * (not self.is_stock)
        return f"{self.label} ({', '.join(more)})" if more else self.label

    @property
    def version(self) -> tuple[int, ...]:
        """The first two numbers of the version, which a distribution doesn't change."""
        return tuple(int(number) for number in self.kernel.split("-")[0].split(".")[:2])

    @property
    def is_stock(self) -> bool:
        return self.way != "uml"

    @property
    def is_green(self) -> bool:
        return not self.failed and all(one.outcome != "failed" for one in self.smoke)

    @property
    def has_tests(self) -> bool:
        return bool(self.passed or self.failed)


@dataclass(frozen=True, slots=True)
class Crippled:
    """The results of one steering mode on a kernel that lacks some part."""

    without: str
    steering: str
    check: str
    """``ok`` or ``error``."""
    run: str
    """``serves``, ``ends`` or ``retries``."""
    words: str

    @property
    def is_wrong(self) -> bool:
        return self.run == "retries" or (self.check == "ok") != (self.run == "serves")


def read_results(folders: Iterable[Path]) -> tuple[list[Run], list[Crippled]]:
    """Return the runs, the oldest kernel first, and the results of kernels that lack a part.

    Raises:
        ValueError: No kernel has results.
    """
    runs, crippled = [], []
    for path in sorted(path for folder in folders for path in folder.glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(document, list):
            names = [field.name for field in fields(Crippled)]
            crippled += [Crippled(*(cell[name] for name in names)) for cell in document]
        elif document["kernel"]:
            runs.append(_run_of(document))
    if not runs:
        raise ValueError("no kernel has results")
    return sorted(runs, key=lambda run: (run.version, run.is_stock, run.arch)), crippled


def _run_of(document: Mapping[str, Any]) -> Run:
    tests = document["tests"]
    return Run(
        kernel=document["kernel"],
        label=document["label"],
        arch=document["arch"],
        way=document["way"],
        userland=document["userland"],
        lacks=document["lacks"],
        smoke=[
            Smoke(one["what"], one["outcome"], " ".join(one["words"].split()))
            for one in document["smoke"]
        ],
        passed=tests["passed"],
        failed=tests["failed"],
        left_out=[(part, test) for part, test in tests["left_out"]],
        second_tries=tests["second_tries"],
    )


def with_needs(page: str) -> str:
    """Return the page with the purpose of each part of the kernel, for ``make docs``."""
    # Parts without which nothing fails yet are only probed for later use.
    needs = ((name, need) for name, need in NEEDS.items() if need.fails)
    rows = [[name, need.fails, need.instead, need.brings] for name, need in needs]
    return replace_part(page, table(["part", "without it fails", "instead", "brought by"], rows))


def with_results(page: str, runs: Sequence[Run], crippled: Sequence[Crippled]) -> str:
    """Return the page with the results."""
    parts = [_columns(runs), *_lists(runs), "## Distributions", _distributions(runs)]
    if crippled:
        parts += ["## Kernels without a part", *_crippled(crippled)]
    return replace_part(page, "\n\n".join(parts), TARGET)


def _columns(runs: Sequence[Run]) -> str:
    def row(name: str, cell: Callable[[Run], str]) -> list[str]:
        return [name, *map(cell, runs)]

    def smoke(feature: str) -> Callable[[Run], str]:
        return lambda run: _mark({one.outcome for one in run.smoke if one.feature == feature})

    features = _first(one.feature for run in runs for one in run.smoke)
    rows = [
        row("kernel", lambda run: f"`{run.kernel}`"),
        row("machine", lambda run: run.arch),
        row("run by", lambda run: WAYS[run.way]),
        row("programs of", lambda run: SUITES.get(run.userland, run.userland)),
        *(row(feature, smoke(feature)) for feature in features),
        row("tests that depend on the kernel", _count),
    ]
    return table(["", *(run.name for run in runs)], rows, others=CENTRED)


def _mark(outcomes: Container[str]) -> str:
    """Return a mark for the worst of several outcomes."""
    return next((MARKS[one] for one in ("failed", "ok", "left out") if one in outcomes), NOT_RUN)


def _count(run: Run) -> str:
    count = run.passed + len(run.failed)
    if not count:
        return NOT_RUN
    parts = [f"{run.passed} of {count}"]
    if run.second_tries:
        parts.append(f"{len(run.second_tries)} at a second try")
    if run.left_out:
        parts.append(f"{len(run.left_out)} left out")
    return ", ".join(parts)


def _lists(runs: Sequence[Run]) -> Iterator[str]:
    """Yield a list of failures, and a list of skipped tests and missing parts; no empty list."""
    failed = [
        line
        for run in runs
        for line in (
            *(f"- {run.name}, {s.what}: {s.words}" for s in run.smoke if s.outcome == "failed"),
            *(f"- {run.name}: `{_short(test)}`" for test in run.failed),
        )
    ]
    if failed:
        yield "\n".join(["Failed:", "", *failed])
    left_out = [
        f"- {run.name}, {s.what}: {s.words}"
        for run in runs
        for s in run.smoke
        if s.outcome == "left out"
    ]
    by_part: dict[str, dict[str, list[str]]] = {}
    for run in runs:
        for part in run.lacks:
            by_part.setdefault(part, {})[run.name] = []
        for part, test in run.left_out:
            by_part.setdefault(part, {}).setdefault(run.name, []).append(_short(test))
    for part, tests in by_part.items():
        line = f"- {', '.join(tests)}: {part if part.startswith(SKIPPED) else f'no {part}'}"
        names = _first(name for of_run in tests.values() for name in of_run)
        left_out.append(f"{line}: {', '.join(f'`{name}`' for name in names)}" if names else line)
    if left_out:
        yield "\n".join(["Left out, or missing:", "", *left_out])


def _distributions(runs: Sequence[Run]) -> str:
    stock = [run for run in runs if run.is_stock]
    rows = []
    for name, version in DISTRIBUTIONS.items():
        number = tuple(map(int, version.split(".")))
        same = [run for run in stock if run.version == number]
        if same:
            works = "works" if any(run.has_tests for run in same) else "smoke works"
            was_run = works if all(run.is_green for run in same) else "**has failures**"
            lost = _first(_loses(part) for run in same for part in run.lacks)
            rows.append([name, version, was_run, "; ".join(filter(None, lost)) or "nothing"])
        else:
            rows.append([name, version, _between(number, stock), "`userspace-proxy check` says"])
    return table(["distribution", "kernel", "run", "what is lost"], rows)


def _between(number: tuple[int, ...], runs: Iterable[Run]) -> str:
    green = [run for run in runs if run.is_green]
    versions = {run.version for run in green}
    older = max((one for one in versions if one < number), default=None)
    newer = min((one for one in versions if one > number), default=None)
    if older is None or newer is None:
        return "not run"
    tested = {run.version for run in green if run.has_tests}
    both = f"{_dotted(older)} and {_dotted(newer)}"
    return (
        f"not run; {both} work" if {older, newer} <= tested else f"not run; smoke works on {both}"
    )


def _loses(part: str) -> str:
    return NEEDS[part].fails if part in NEEDS else part


def _crippled(cells: Sequence[Crippled]) -> Iterator[str]:
    """Yield an introduction, a table (kernels × steering modes), and a list of faults, if any."""
    steerings = _first(cell.steering for cell in cells)
    seen = {(cell.without, cell.steering): cell for cell in cells}
    wrong = [cell for cell in cells if cell.is_wrong]

    def text(without: str, steering: str) -> str:
        cell = seen.get((without, steering))
        if cell is None:
            return NOT_RUN
        return f"**{cell.run}**" if cell.is_wrong else cell.run

    yield (
        "What `run` does where some modules are missing; *ends*: within ten seconds, with the "
        "reason, which `check` names, too."
    )
    yield table(
        ["without", *(f"`{steering}`" for steering in steerings)],
        [
            [without, *(text(without, steering) for steering in steerings)]
            for without in _first(cell.without for cell in cells)
        ],
    )
    if wrong:
        lines = (
            f"- without {cell.without}, `{cell.steering}`: `check` says {cell.check}: {cell.words}"
            for cell in wrong
        )
        yield "\n".join(["But:", "", *lines])


def _first(values: Iterable[str]) -> list[str]:
    """Return each value once, in the order of first occurrence."""
    return list(dict.fromkeys(values))


def _short(test: str) -> str:
    return test.rpartition("/")[2]


def _dotted(version: Iterable[int]) -> str:
    return ".".join(map(str, version))


def main() -> None:
    results = read_results(map(Path, sys.argv[1:]))
    page = with_results(PAGE.read_text(encoding="utf-8"), *results)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
