"""The page keeps the runs."""

from __future__ import annotations

from ..nodes.proxies import REPOSITORY
from .junit import FAILED, PASSED, SKIPPED, Result
from .kept import read_runs
from .report import render
from .run import Run


def run(proxy: str, cni: str = "ptp", families: str = "ipv4", **outcomes: str) -> Run:
    results = tuple(
        Result(name, outcome, 0.0, "" if outcome == PASSED else f"{proxy}; it took: 1/2 s")
        for name, outcome in sorted(outcomes.items())
    )
    return Run(proxy, "services", families, "1a2b+", "v1.36.3", cni, 61.0, results)


def test_what_a_page_shows_of_runs_is_read_again() -> None:
    runs = [
        run("kube-proxy", refuse=PASSED, serve=PASSED, skip=SKIPPED),
        run("nftables", refuse=FAILED, serve=PASSED, skip=SKIPPED),
        run("nftables", "bridge", other=FAILED, serve=PASSED),
        run("nftables-kernel", "bridge", "ipv6", serve=PASSED),
    ]
    assert read_runs(render(runs)) == runs


def test_tests_that_a_former_table_lists_are_read_for_a_table_that_refers_to_it() -> None:
    runs = [run("nftables", families=families, a=PASSED, b=PASSED) for families in ("ipv4", "ipv6")]
    page = render(runs)
    assert page.count("- a\n") == 1
    assert read_runs(page) == runs


def test_columns_that_failed_for_one_reason_share_a_remark() -> None:
    failed = Result("serve", FAILED, 0.0, "no DNS; it took: 1 s")
    runs = [
        Run(proxy, "services", "ipv4", "v1", "v1.36.3", "ptp", 1.0, (failed,))
        for proxy in ("kube-proxy", "nftables")
    ]
    page = render(runs)
    assert "- *serve*: kube-proxy with ptp, nftables with ptp: no DNS; it took: 1 s\n" in page
    assert read_runs(page) == runs


def test_a_run_keeps_the_columns_of_others_in_the_page_of_the_documentation() -> None:
    page = (REPOSITORY / "docs" / "conformance.md").read_text()
    runs = read_runs(page)
    assert render(runs) == page
    more = render([*runs, run("kube-proxy", "bridge", serve=PASSED)])
    assert [one for one in read_runs(more) if one.cni == "ptp" or one.proxy != "kube-proxy"] == runs
