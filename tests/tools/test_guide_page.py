import re

from userspace_proxy.causes.cause import CauseCode

from .guide_page import SOURCE, headings, render

TEXT = SOURCE.read_text(encoding="utf-8")
CAUSES = TEXT.partition("\n## Causes\n")[2].partition("\n## Alerts\n")[0]
SECTIONS = TEXT.partition("\n## Causes\n")[2]


def test_each_cause_has_a_section_and_each_section_a_cause() -> None:
    assert headings(CAUSES) == [str(code) for code in CauseCode]


def test_each_section_states_what_to_do() -> None:
    sections = re.split(r"^### ", SECTIONS, flags=re.MULTILINE)[1:]
    assert [
        section.partition("\n")[0]
        for section in sections
        if "- Do: " not in section and "| what to do |" not in section
    ] == []


def test_each_cause_is_found_by_a_symptom() -> None:
    symptoms = TEXT.partition("\n## By symptom\n")[2].partition("\n## Causes\n")[0]
    linked = set(re.findall(r"\(#([a-z-]+)\)", symptoms))
    assert {str(code) for code in CauseCode} - linked == set()


def test_each_link_within_the_page_leads_to_a_heading() -> None:
    links = set(re.findall(r"\(#([a-z-]+)\)", TEXT))
    assert links - set(headings(TEXT)) == set()
    anchors = re.findall(r'<h[1-3] id="([^"]+)">', render(TEXT))
    assert anchors == headings(TEXT)


def test_a_page_that_is_not_served_is_named_instead_of_linked() -> None:
    page = render(
        "# Title\n\nSee [check.md](check.md#firewalls) and [below](#below).\n\n## Below\n"
        "A [name](services.md#endpoints-by-name).\n"
    )
    assert "See <code>docs/check.md</code> and" in page
    assert "A name (<code>docs/services.md</code>)." in page
    assert '<a href="#below">below</a>' in page
