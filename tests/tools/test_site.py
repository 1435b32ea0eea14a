"""What makes pages fit the site; the generator itself runs with ``make site`` only."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from .addresses import links_from
from .guide_page import headings
from .site import ROOT, page_text, place_of, write_versions

FILES = "https://code.example/team/project/blob/v1.2.0/"


def links(page: str) -> Callable[[str], str]:
    return links_from(page, "https://code.example/team/project", "v1.2.0")


@pytest.mark.parametrize(
    ("path", "link", "fitted"),
    [
        pytest.param("docs/a.md", "[b](b.md#x)", "[b](b.md#x)", id="page"),
        pytest.param("docs/a.md", "[b](../docs/b.md)", "[b](b.md)", id="long-way-round"),
        pytest.param("docs/a.md", "[b](../ARCHITECTURE.md)", "[b](architecture.md)", id="to-it"),
        pytest.param("ARCHITECTURE.md", "[why](docs/adr)", "[why](decisions.md)", id="decisions"),
        pytest.param("docs/adr/README.md", "[1](1.md)", "[1](adr/1.md)", id="from-the-decisions"),
        pytest.param("docs/adr/1.md", "[all](README.md)", "[all](../decisions.md)", id="to-them"),
        pytest.param("docs/a.md", "[t](../Makefile)", f"[t]({FILES}Makefile)", id="file"),
        pytest.param("docs/a.md", "`[t](../x)`", "`[t](../x)`", id="words-of-code"),
        pytest.param("docs/a.md", "[here](#x)", "[here](#x)", id="same-page"),
        pytest.param("docs/a.md", "see [b.md](b.md)", "see [About b](b.md)", id="title"),
        pytest.param("docs/a.md", "```\n[b](../b)\n```", "```\n[b](../b)\n```", id="code"),
    ],
)
def test_links_fit_the_site(path: str, link: str, fitted: str) -> None:
    assert page_text(link, path, links, {"b.md": "About b"}) == fitted


def test_a_list_may_follow_a_paragraph_at_once() -> None:
    page = "Rejected:\n- one\n  more of it\n- two\n\n1. first\n2. second\n"
    fitted = page_text(page, "docs/a.md", links, {})
    assert fitted == page.replace("Rejected:\n", "Rejected:\n\n")


def test_a_list_may_follow_code_at_once_and_code_stays() -> None:
    page = "  ```\n  a:\n- b\n  ```\n- c\n"
    assert page_text(page, "docs/a.md", links, {}) == page.replace("```\n- c", "```\n\n- c")


def test_every_page_is_in_the_navigation() -> None:
    settings = (ROOT / "mkdocs.yml").read_text()
    pages = [page.name for page in (ROOT / "docs").glob("*.md")] + [place_of("ARCHITECTURE.md")]
    assert [page for page in pages if f"- {page}\n" not in settings] == []


def test_older_versions_stay_and_the_newest_is_shown(tmp_path: Path) -> None:
    for version in ("0.9.0", "0.10.0", "0.10.0.dev0"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "index.html").touch()
    write_versions(tmp_path)
    listed = json.loads((tmp_path / "versions.json").read_text())
    assert [each["version"] for each in listed] == ["0.10.0", "0.10.0.dev0", "0.9.0"]
    assert 'url=0.10.0/"' in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_no_link_of_a_page_outside_of_docs_is_dead(page: str) -> None:
    links = re.findall(r"\]\(([^():\s#]+)(?:#([^()\s]+))?\)", (ROOT / page).read_text())
    dead = [path for path, _ in links if not (ROOT / path).exists()]
    anchors = [(ROOT / path, anchor) for path, anchor in links if anchor and path not in dead]
    dead += [
        f"{path}#{anchor}" for path, anchor in anchors if anchor not in headings(path.read_text())
    ]
    assert dead == []
