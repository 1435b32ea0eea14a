from pathlib import Path

import pytest

from userspace_proxy.config.docs import BEGIN, END, put_into, render_tables
from userspace_proxy.config.ignored import FIELDS, FLAGS
from userspace_proxy.config.settings import TABLE

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_the_page_says_what_the_code_does():
    page = PAGE.read_text(encoding="utf-8")
    assert put_into(page) == page, (
        "renew it: python -m userspace_proxy.config.docs docs/configuration.md"
    )


def test_every_flag_and_field_is_in_the_tables():
    tables = render_tables()
    flags = [f"`--{flag}`" for flag in (*FLAGS, *(row.flag for row in TABLE.values()))]
    fields = [f"`{field}`" for field in FIELDS]
    assert [name for name in flags + fields if name not in tables] == []


def test_every_row_has_as_many_cells_as_its_heading():
    width = 0
    for line in render_tables().splitlines():
        cells = line.replace("\\|", "").count("|")
        if line.startswith("|---"):
            width = cells
        elif line.startswith("| `"):
            assert cells == width, line


def test_what_stands_around_the_tables_stays():
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert put_into(page) == f"before\n{render_tables()}after\n"


def test_a_page_without_marks_is_refused():
    with pytest.raises(ValueError, match="no markers"):
        put_into("text")
