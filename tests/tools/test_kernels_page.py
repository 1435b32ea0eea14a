import json
from pathlib import Path
from typing import Any

import pytest

from tests.kernels import page
from tests.tools.markdown import marked
from userspace_proxy.kernel.offers import NEEDS

EMPTY = f"before\n{marked('Not run yet.', 'kernels')}\nafter\n"


def smoke(what: str, outcome: str = "ok", words: str = "") -> dict[str, object]:
    return {"what": what, "outcome": outcome, "seconds": 3.5, "words": words}


DEBIAN_11: dict[str, Any] = {
    "kernel": "5.10.0-35-amd64",
    "label": "5.10",
    "arch": "x86_64",
    "way": "tcg",
    "userland": "bookworm",
    "lacks": {"table owner": "Invalid argument"},
    "smoke": [smoke("nftables: start"), smoke("demo: start", "left out", "too slow")],
    "tests": {
        "passed": 59,
        "failed": [],
        "second_tries": ["tests/node/test_a.py::test_slow"],
        "left_out": [["table owner", "tests/node/test_kept.py::test_an_owned_table"]],
    },
}
DEBIAN_12 = DEBIAN_11 | {"kernel": "6.1.0-9-amd64", "label": "6.1", "lacks": {}}
NO_TESTS = {"passed": 0, "failed": [], "second_tries": [], "left_out": []}
NEWEST = DEBIAN_11 | {
    "kernel": "7.3.4-amd64",
    "label": "newest",
    "arch": "aarch64",
    "way": "kvm",
    "lacks": {},
    "smoke": [smoke("nftables: kernel path TCP from a pod", "failed", "timed out")],
    "tests": NO_TESTS | {"failed": ["tests/node/test_check.py::test_all"]},
}


def page_of(folder: Path, *documents: object) -> str:
    for number, document in enumerate(documents):
        (folder / f"{number}.json").write_text(json.dumps(document), encoding="utf-8")
    return page.with_results(EMPTY, *page.read_results([folder]))


def test_a_kernel_is_a_column_and_what_failed_or_was_left_out_is_named(tmp_path: Path) -> None:
    text = page_of(tmp_path, NEWEST, DEBIAN_11)
    columns, failed, _, left_out, _, *_ = text.split("\n\n")[1:]
    assert columns.splitlines() == [
        "|  | 5.10 | newest (aarch64) |",
        "|---|:-:|:-:|",
        "| kernel | `5.10.0-35-amd64` | `7.3.4-amd64` |",
        "| machine | x86_64 | aarch64 |",
        "| run by | QEMU without KVM | QEMU with KVM |",
        "| programs of | Debian 12 | Debian 12 |",
        "| steering `nftables` | ✓ |  |",
        "| demo | – |  |",
        "| kernel path, steering `nftables` |  | **✗** |",
        "| tests that depend on the kernel | 59 of 59, 1 at a second try, 1 left out | 0 of 1 |",
    ]
    assert failed == "Failed:"
    assert "- newest (aarch64), nftables: kernel path TCP from a pod: timed out\n" in text
    assert "- newest (aarch64): `test_check.py::test_all`\n" in text
    assert left_out == "Left out, or missing:"
    assert "- 5.10, demo: start: too slow\n" in text
    assert "- 5.10: no table owner: `test_kept.py::test_an_owned_table`\n" in text


def test_a_distribution_has_what_its_kernel_loses_or_that_it_was_not_run(tmp_path: Path) -> None:
    uml = DEBIAN_11 | {"kernel": "6.12.1", "way": "uml"}
    text = page_of(tmp_path, DEBIAN_12, DEBIAN_11, uml)
    assert f"| Debian 11 | 5.10 | works | {NEEDS['table owner'].fails} |" in text
    assert "| Debian 12 | 6.1 | works | nothing |" in text
    asked = "`userspace-proxy check` says"
    assert f"| RHEL 9 | 5.14 | not run; 5.10 and 6.1 work | {asked} |" in text
    assert f"| Debian 13 | 6.12 | not run | {asked} |" in text


@pytest.mark.parametrize(
    ("changed", "debian_12", "between"),
    [
        ({"tests": NO_TESTS}, "smoke works", "not run; smoke works on 5.10 and 6.1"),
        ({"smoke": NEWEST["smoke"]}, "**has failures**", "not run"),
    ],
)
def test_a_kernel_works_only_if_its_tests_were_run_and_nothing_failed(
    changed: dict[str, Any], debian_12: str, between: str, tmp_path: Path
) -> None:
    text = page_of(tmp_path, DEBIAN_12 | changed, DEBIAN_11)
    assert f"| Debian 12 | 6.1 | {debian_12} |" in text
    assert f"| RHEL 9 | 5.14 | {between} |" in text


def test_crippled_kernels_are_rows_and_what_is_wrong_is_told(tmp_path: Path) -> None:
    said = {"words": "lacks nat", "seconds": 2.0, "fault": ""}
    cells = [("nftables", "error", "serves"), ("auto", "ok", "serves")]
    matrix = [
        {"without": "nft_nat", "steering": steering, "check": check, "run": run} | said
        for steering, check, run in cells
    ]
    assert (
        "| without | `nftables` | `auto` |\n"
        "|---|---|---|\n"
        "| nft_nat | **serves** | serves |\n"
        "\n"
        "But:\n"
        "\n"
        "- without nft_nat, `nftables`: `check` says error: lacks nat\n"
    ) in page_of(tmp_path, DEBIAN_11, matrix)
