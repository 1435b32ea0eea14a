from collections.abc import Callable

import pytest

from tests.unit.config.test_ignored import ALL, ALL_FIELDS
from userspace_proxy.config.ignored import FIELDS, FLAGS
from userspace_proxy.config.settings import TABLE

from .settings_pages import configuration, kube_proxy


def test_every_flag_and_field_is_in_the_tables() -> None:
    tables = configuration()
    flags = [f"`--{flag}`" for flag in (*FLAGS, *(row.flag for row in TABLE.values()))]
    fields = [f"`{field}`" for field in FIELDS]
    assert [name for name in flags + fields if name not in tables] == []


@pytest.mark.parametrize("tables", [configuration, kube_proxy])
def test_every_row_has_as_many_cells_as_its_heading(tables: Callable[[], str]) -> None:
    width = 0
    for line in tables().splitlines():
        cells = line.replace("\\|", "").count("|")
        if line.startswith("|---"):
            width = cells
        elif line.startswith("| `"):
            assert cells == width, line


def test_every_flag_and_field_of_kube_proxy_has_one_row() -> None:
    lines = kube_proxy().splitlines()
    rows = [line.split("`")[1] for line in lines if line.startswith("| `")]
    flags = {f"--{flag}" for flag in ALL} - {"--help", "--version"}
    assert {*flags, *ALL_FIELDS} - {*rows} == set()
    assert len(rows) == len({*rows})


def test_flags_that_only_this_proxy_has_are_not_among_kube_proxys() -> None:
    assert "| `--steering`" not in kube_proxy()
    assert "| `--log-format`" not in kube_proxy()
