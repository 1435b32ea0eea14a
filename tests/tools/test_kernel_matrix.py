"""The matrix of crippled kernels: what counts as a fault, and how it is printed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from tests.kernels.crippled import STEERINGS, Cell
from tests.kernels.matrix import MATRIX, judged, table

REASON = (
    "cannot steer by nftables: this kernel lacks nat (modprobe nft_nat) "
    "(--steering=iptables works here)"
)


def cell(check: str, run: str, words: str = "") -> Cell:
    return Cell("nft_nat", "nftables", check, run, words, 1.0, 2.0, 2.0)


def mapping(check: str, run: str, words: str = "") -> dict[str, Any]:
    made = cell(check, run, words)
    return asdict(made) | {"fault": made.fault()}


@pytest.mark.parametrize(
    ("seen", "fault"),
    [
        pytest.param(cell("ok", "serves"), "", id="serves"),
        pytest.param(cell("error", "ends", REASON), "", id="ends with its reason"),
        pytest.param(cell("ok", "ends", REASON), "check says ok, run ends", id="only run fails"),
        pytest.param(
            cell("error", "serves"), "check says error, run serves", id="only check fails"
        ),
        pytest.param(
            cell("error", "retries", REASON), "it neither serves nor ends", id="retries for ever"
        ),
        pytest.param(
            Cell("nft_nat", "nftables", "error", "ends", REASON, 11.0, 12.0, 2.0),
            "it ends after 11 s",
            id="tries for long",
        ),
        pytest.param(
            Cell("nft_nat", "nftables", "error", "ends", REASON, 1.0, 31.0, 2.0),
            "it ends after 31 s, check after 2 s",
            id="sleeps between retries",
        ),
        pytest.param(
            Cell("nft_nat", "nftables", "error", "ends", REASON, 9.0, 31.0, 20.0),
            "",
            id="slow machine",
        ),
        pytest.param(
            cell("error", "ends", "cannot steer by nftables (--steering=iptables works here)"),
            "its words don't name what is missing, and a steering",
            id="names no part",
        ),
        pytest.param(
            cell("error", "ends", "cannot steer by nftables: this kernel lacks nat (nft_nat)"),
            "its words don't name what is missing, and a steering",
            id="names no way out",
        ),
        pytest.param(
            cell("error", "ends", "WARNING endpoints see this node's address"),
            "its words don't name what is missing, and a steering",
            id="names another cause",
        ),
    ],
)
def test_check_and_run_agree_and_the_end_has_a_reason(seen: Cell, fault: str) -> None:
    assert seen.fault() == fault


def test_a_steering_serves_where_all_that_it_needs_is_there() -> None:
    ended, served = mapping("error", "ends", REASON), mapping("ok", "serves")
    assert judged([ended, served], ()) == [ended | {"fault": "it should serve"}, served]
    assert judged([ended, served], ("nftables",)) == [ended, served | {"fault": "it cannot serve"}]


def test_the_table_marks_faults_and_names_them() -> None:
    retries = mapping("error", "retries", REASON) | {"steering": "auto"}
    assert table([retries, mapping("ok", "serves")]) == [
        f"{'without':<46}" + "".join(f"{name:<10}" for name in STEERINGS),
        f"{'nft_nat':<46}{'retries!':<10}{'serves':<10}" + "-         " * 3,
        f"! nft_nat, auto: it neither serves nor ends: {REASON}",
    ]


def test_each_kernel_of_the_matrix_breaks_known_steerings() -> None:
    assert len({without.name for without in MATRIX}) == len(MATRIX)
    assert {name for without in MATRIX for name in without.breaks} < {*STEERINGS}
