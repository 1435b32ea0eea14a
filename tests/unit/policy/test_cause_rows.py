"""Each cause has a row, and a section where readers look it up."""

import re
from pathlib import Path

import pytest

from userspace_proxy.model import CauseCode
from userspace_proxy.policy.cause_rows import DIAL_CAUSES, ROWS, CauseRow, row_of

DOCS = Path(__file__).parents[3] / "docs"


def test_each_cause_has_a_row():
    assert {*ROWS} == {*CauseCode}


def test_each_cause_has_a_section_in_the_docs_and_each_section_is_of_a_cause():
    text = (DOCS / "troubleshooting.md").read_text()
    causes = text.partition("\n## Causes\n")[2].partition("\n## ")[0]
    assert re.findall(r"^### (\S+)$", causes, re.MULTILINE) == [*CauseCode]


def test_the_cause_of_other_errors_is_the_last_one_of_dials():
    assert DIAL_CAUSES[-1] is CauseCode.ENDPOINT_FAILS


def test_the_cause_of_a_newer_proxy_has_a_row_without_exceptions():
    row = row_of(CauseCode("endpoint-sings"))

    assert row == CauseRow()


@pytest.mark.parametrize("code", [code for code, row in ROWS.items() if row.is_unanswered])
def test_an_endpoint_that_does_not_answer_has_accepted(code):
    assert ROWS[code].accepts


def test_texts_have_only_places_that_are_filled():
    places = {"": ("past",), "host": ("outside",), "ip": ("outside", "kubectl")}
    for row in ROWS.values():
        for name in ("past", "outside", "kubectl", "kubectl_of_pod"):
            for place in re.findall(r"\{(\w*)\}", getattr(row, name)):
                of = places.get(place, ("kubectl", "kubectl_of_pod"))
                assert name in of, (name, place)
