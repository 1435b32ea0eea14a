"""The page that is written from the runs."""

from __future__ import annotations

from .junit import FAILED, PASSED, SKIPPED, Result
from .report import render
from .run import Run


def run(proxy: str, **outcomes: str) -> Run:
    results = tuple(
        Result(f"[sig-network] Services {name} [Conformance]", outcome, 1, "it said | no")
        for name, outcome in outcomes.items()
    )
    return Run(proxy, "services", "v1", "v1.36.3", "ptp", 61.4, results)


def rows(page: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith(("|", "- "))]


def test_each_test_is_a_row_and_kube_proxy_the_first_column() -> None:
    ours = run("nftables", serve=PASSED, refuse=FAILED, skip=SKIPPED)
    theirs = run("kube-proxy", serve=PASSED, refuse=PASSED, skip=SKIPPED)
    page = render({("nftables", "services"): ours, ("kube-proxy", "services"): theirs})
    assert rows(page) == [
        "|  | kube-proxy, mode nftables | userspace-proxy, steering nftables |",
        "| --- | :-: | :-: |",
        "| version | `v1` | `v1` |",
        "| pods connected by | `ptp` | `ptp` |",
        "| **passed** | 2 of 2 | 1 of 2 |",
        "| duration | 61 s | 61 s |",
        "| Services refuse | ✓ | **✗** |",
        "| Services serve | ✓ | ✓ |",
        "| Services skip | – | – |",
        "- *Services refuse*: nftables: it said / no",
        "- *Services skip*: kube-proxy: it said / no; nftables: it said / no",
    ]


def test_what_was_not_run_has_no_column_and_the_choice_for_ci_no_table() -> None:
    page = render({("nftables", "services"): run("nftables", serve=PASSED)})
    assert rows(page)[0] == "|  | userspace-proxy, steering nftables |"
    assert page.count("## ") == 1
    assert "every change" not in page
