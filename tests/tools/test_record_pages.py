from __future__ import annotations

import re

from userspace_proxy_testing import record

from .guide_page import headings
from .record_pages import PAGE, make_tables


def test_each_part_of_a_record_has_a_table_and_each_field_a_description() -> None:
    text = make_tables()
    parts = {name for name in vars(record) if name.startswith("Recorded")}
    assert parts <= set(re.findall(r"(?m)^### (\w+)$", text))
    rows = re.findall(r"(?m)^\| `.*", text)
    assert rows
    assert [row for row in rows if row.endswith("|  |")] == []


def test_each_link_leads_to_a_table_on_the_page_or_in_that_of_the_api() -> None:
    found = set(re.findall(r"\]\((\S*)#(\w+)\)", make_tables()))
    assert {page for page, _ in found} == {"", "api.md"}
    for page, anchor in found:
        path = PAGE.parent / page if page else PAGE
        assert anchor in headings(path.read_text())
