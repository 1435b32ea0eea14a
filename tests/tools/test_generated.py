"""Generated files are up to date and complete: tables, pages, schema and alerts."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urldefrag

import msgspec
import pytest

from tests.unit.config.test_ignored import ALL, ALL_FIELDS
from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.config.ignored import FIELDS, FLAGS
from userspace_proxy.config.settings import TABLE
from userspace_proxy.facts import StatusFacts
from userspace_proxy.facts.connection import ConnectionFacts
from userspace_proxy.facts.edges import EdgesFacts
from userspace_proxy_testing import record

from .addresses import repository
from .alerts import REASON, RULES, alerts_of
from .api_pages import make_schema
from .api_pages import make_tables as api_tables
from .generated import FILES
from .guide_page import SOURCE, headings, render
from .record_pages import PAGE, make_tables
from .settings_pages import configuration, ignored, used_flags

GUIDE_TEXT = SOURCE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("path", "make"), [pytest.param(*item, id=item[0].name) for item in FILES.items()]
)
def test_a_generated_file_is_up_to_date(path: Path, make: Callable[[str], str]) -> None:
    text = path.read_text(encoding="utf-8")
    assert make(text) == text, "renew it: make docs"


@pytest.mark.parametrize("answer", [StatusFacts, ConnectionFacts, EdgesFacts])
def test_each_field_of_a_response_is_described(answer: type[msgspec.Struct]) -> None:
    part = make_schema()["$defs"][answer.__name__]
    assert tuple(part["properties"]) == answer.__struct_fields__
    assert all(field.get("description") for field in part["properties"].values())


def test_each_schema_reference_resolves_and_each_definition_is_used() -> None:
    schema = make_schema()
    text = msgspec.json.encode(schema).decode()
    names = {part.partition('"')[0] for part in text.split('"#/$defs/')[1:]}
    # These two types are separate answers.
    assert names | {"ConnectionFacts", "EdgesFacts"} == schema["$defs"].keys()


def test_every_response_field_is_required() -> None:
    for name, part in make_schema()["$defs"].items():
        assert part.get("required", []) == list(part.get("properties", ())), name


def test_each_field_is_described_once_and_listed_in_each_object() -> None:
    schema = make_schema()
    sections = {part.partition("\n")[0]: part for part in api_tables(schema).split("### ") if part}
    for name, part in schema["$defs"].items():
        section = sections[name.removesuffix("Facts")]
        assert [f for f in part.get("properties", ()) if f"`{f}`" not in section] == []
    assert "As in [Port](#port): `active`, `stalled`" in sections["Endpoint"]
    assert "| `refused` |" not in sections["Totals"]


def test_every_flag_and_field_appears_in_the_tables() -> None:
    tables = configuration()
    flags = [f"`--{flag}`" for flag in (*FLAGS, *(row.flag for row in TABLE.values()))]
    fields = [f"`{field}`" for field in FIELDS]
    assert [name for name in flags + fields if name not in tables] == []


def test_every_kube_proxy_flag_appears_once() -> None:
    used = re.findall(r"`--([a-z-]+)`(?=[,. ])", used_flags())
    flags = [*used, *re.findall(r"`--([a-z0-9-]+)`", ignored())]
    assert {*ALL} - {"help", "version"} - {*flags} == set()
    assert len(flags) == len({*flags})


def test_every_kube_proxy_field_appears_once() -> None:
    settings = configuration().partition("## kube-proxy's flags")[0]
    used = re.findall(r"`([A-Za-z.]+)`(?! \(ours\))", " ".join(_files(settings)))
    cells = [line.split(" | ")[1] for line in ignored().splitlines()[2:]]
    fields = [*used, *re.findall(r"`([A-Za-z.]+)`", " ".join(cells))]
    assert {*ALL_FIELDS} - {*fields} == set()
    assert len(fields) == len({*fields})


def _files(tables: str) -> list[str]:
    """Return the second column of all rows."""
    return [line.split(" | ")[1] for line in tables.splitlines() if line.startswith("| `")]


def test_each_record_type_has_a_table_with_described_fields() -> None:
    text = make_tables()
    parts = {name for name in vars(record) if name.startswith("Recorded")}
    assert parts <= set(re.findall(r"(?m)^### (\w+)$", text))
    rows = re.findall(r"(?m)^\| `.*", text)
    assert rows
    assert [row for row in rows if row.endswith("|  |")] == []


def test_each_link_points_to_a_heading_on_the_page_or_in_api_md() -> None:
    found = set(re.findall(r"\]\((\S*)#(\w+)\)", make_tables()))
    assert {page for page, _ in found} == {"", "api.md"}
    for page, anchor in found:
        path = PAGE.parent / page if page else PAGE
        assert anchor in headings(path.read_text())


CAUSES = GUIDE_TEXT.partition("\n## Causes\n")[2].partition("\n## Alerts\n")[0]
SECTIONS = GUIDE_TEXT.partition("\n## Causes\n")[2]


def test_causes_and_documentation_sections_match() -> None:
    assert headings(CAUSES) == [str(code) for code in CauseCode]


def test_each_section_contains_a_remedy() -> None:
    sections = re.split(r"^### ", SECTIONS, flags=re.MULTILINE)[1:]
    assert [
        section.partition("\n")[0]
        for section in sections
        if "- Do: " not in section and "| what to do |" not in section
    ] == []


def test_each_cause_is_linked_from_a_symptom() -> None:
    symptoms = GUIDE_TEXT.partition("\n## By symptom\n")[2].partition("\n## Causes\n")[0]
    linked = set(re.findall(r"\(#([a-z-]+)\)", symptoms))
    assert {str(code) for code in CauseCode} - linked == set()


def test_each_link_within_the_page_points_to_a_heading() -> None:
    links = set(re.findall(r"\(#([a-z-]+)\)", GUIDE_TEXT))
    assert links - set(headings(GUIDE_TEXT)) == set()
    anchors = re.findall(r'<h[1-3] id="([^"]+)">', render(GUIDE_TEXT))
    assert anchors == headings(GUIDE_TEXT)


ALERTS = list(alerts_of(RULES.read_text(encoding="utf-8")))


def test_each_runbook_url_points_to_an_existing_section() -> None:
    sections = set(headings(GUIDE_TEXT))
    causes = set(map(str, CauseCode))
    for alert in ALERTS:
        address, section = urldefrag(alert["annotations"]["runbook_url"])
        assert address.startswith(repository + "/"), alert["alert"]
        assert address.endswith("/docs/troubleshooting.md"), alert["alert"]
        found = causes if section == REASON else {section}
        assert found <= sections, alert["alert"]


def test_alert_sections_follow_the_order_of_the_rules() -> None:
    part = GUIDE_TEXT.partition("\n## Alerts\n")[2]
    assert headings(part) == [alert["alert"].lower() for alert in ALERTS]
