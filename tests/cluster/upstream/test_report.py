"""The page that is written from the runs."""

from __future__ import annotations

from .junit import FAILED, PASSED, SKIPPED, Result
from .report import render
from .run import Run, explain


def run(
    proxy: str,
    cni: str = "ptp",
    *,
    families: str = "ipv4",
    group: str = "services",
    **outcomes: str,
) -> Run:
    results = tuple(
        Result(f"[sig-network] Services {name} [Conformance]", outcome, 1, "it said | no")
        for name, outcome in outcomes.items()
    )
    return Run(proxy, group, families, "v1", "v1.36.3", cni, 61.4, results)


def rows(page: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith(("|", "- "))]


def test_kube_proxy_is_the_first_column_and_a_test_a_row_unless_it_passed_everywhere() -> None:
    ours = run("nftables", serve=PASSED, refuse=FAILED, skip=SKIPPED)
    theirs = run("kube-proxy", serve=PASSED, refuse=PASSED, skip=SKIPPED)
    page = render([ours, theirs])
    assert rows(page) == [
        "|  | kube-proxy, mode nftables | userspace-proxy, steering nftables |",
        "|---|:-:|:-:|",
        "| version | `v1` | `v1` |",
        "| Kubernetes | `v1.36.3` | `v1.36.3` |",
        "| pods connected by | `ptp` | `ptp` |",
        "| **passed** | 2 of 2 | 1 of 2 |",
        "| duration | 61 s | 61 s |",
        "| Services refuse | ✓ | **✗** |",
        "| Services skip | – | – |",
        "- Services serve",
        "- *Services refuse*: nftables with ptp: it said / no",
        "- *Services skip*: kube-proxy with ptp, nftables with ptp: it said / no",
    ]


def test_groups_that_were_not_run_have_no_column_and_the_selection_for_ci_no_table() -> None:
    page = render([run("nftables", serve=PASSED)])
    assert rows(page)[0] == "|  | userspace-proxy, steering nftables |"
    assert page.count("## ") == 1
    assert "every change" not in page


def test_each_way_to_connect_pods_has_a_column() -> None:
    page = render([run("nftables", "bridge", serve=PASSED), run("nftables", serve=FAILED)])
    assert rows(page)[4:] == [
        "| pods connected by | `ptp` | `bridge` |",
        "| **passed** | 0 of 1 | 1 of 1 |",
        "| duration | 61 s | 61 s |",
        "| Services serve | **✗** | ✓ |",
        "- *Services serve*: nftables with ptp: it said / no",
    ]


def test_each_set_of_families_has_a_table() -> None:
    page = render(
        [
            run("nftables", serve=PASSED),
            run("nftables", families="ipv6", serve=PASSED),
            run("nftables", families="dual", group="dual-stack", serve=PASSED),
        ]
    )
    headings = [line for line in page.splitlines() if line.startswith("## ")]
    assert headings == ["## Services", "## Services over IPv6", "## Dual stack"]
    assert page.count("| **passed** | 1 of 1 |") == 3


def test_tests_that_differ_by_their_provider_have_rows_of_their_own() -> None:
    page = render([run("nftables", **{"resolve": PASSED, "resolve [Provider:GCE]": SKIPPED})])
    assert rows(page)[6:9] == [
        "| duration | 61 s |",
        "| Services resolve [Provider:GCE] | – |",
        "- Services resolve",
    ]
    assert "| **passed** | 1 of 1 |" in rows(page)


def test_our_words_replace_upstreams_reason() -> None:
    failed = Result("DNS should work [Provider:GCE]", FAILED, 1, "it said no")
    assert explain(failed).reason.startswith("Asks for Google's DNS servers")
    other = Result("DNS should work", FAILED, 1, "it said no")
    assert explain(other) == other
