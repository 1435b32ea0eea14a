import re

from tests.unit.config.test_ignored import ALL, ALL_FIELDS
from userspace_proxy.config.ignored import FIELDS, FLAGS
from userspace_proxy.config.settings import TABLE

from .settings_pages import configuration, ignored, used_flags


def test_every_flag_and_field_is_in_the_tables() -> None:
    tables = configuration()
    flags = [f"`--{flag}`" for flag in (*FLAGS, *(row.flag for row in TABLE.values()))]
    fields = [f"`{field}`" for field in FIELDS]
    assert [name for name in flags + fields if name not in tables] == []


def test_every_row_has_as_many_cells_as_its_heading() -> None:
    width = 0
    for line in configuration().splitlines():
        cells = line.replace("\\|", "").count("|")
        if line.startswith("|---"):
            width = cells
        elif line.startswith("| `"):
            assert cells == width, line


def test_every_flag_of_kube_proxy_occurs_once() -> None:
    used = re.findall(r"`--([a-z-]+)`(?=[,. ])", used_flags())
    flags = [*used, *re.findall(r"`--([a-z0-9-]+)`", ignored())]
    assert {*ALL} - {"help", "version"} - {*flags} == set()
    assert len(flags) == len({*flags})


def test_every_field_of_kube_proxy_occurs_once() -> None:
    settings = configuration().partition("## kube-proxy's flags")[0]
    used = re.findall(r"`([A-Za-z.]+)`(?! \(ours\))", " ".join(_files(settings)))
    cells = [line.split(" | ")[1] for line in ignored().splitlines()[2:]]
    fields = [*used, *re.findall(r"`([A-Za-z.]+)`", " ".join(cells))]
    assert {*ALL_FIELDS} - {*fields} == set()
    assert len(fields) == len({*fields})


def _files(tables: str) -> list[str]:
    """Return the second column of all rows."""
    return [line.split(" | ")[1] for line in tables.splitlines() if line.startswith("| `")]


def test_flags_that_only_this_proxy_has_are_not_among_kube_proxys() -> None:
    assert "`--steering`" not in used_flags()
    assert "`--log-format`" not in used_flags()
