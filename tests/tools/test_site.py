"""The site has every page and version; only ``make site`` runs the generator itself."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from .guide_page import headings
from .site import ROOT, place_of, write_versions


def test_every_page_is_listed_in_the_navigation() -> None:
    settings = (ROOT / "mkdocs.yml").read_text()
    pages = [page.name for page in (ROOT / "docs").glob("*.md")] + [place_of("ARCHITECTURE.md")]
    assert [page for page in pages if f"- {page}\n" not in settings] == []


def test_all_versions_are_listed_and_the_newest_is_the_default(tmp_path: Path) -> None:
    for version in ("0.9.0", "0.10.0", "0.10.0.dev0"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "index.html").touch()
    write_versions(tmp_path)
    listed = json.loads((tmp_path / "versions.json").read_text())
    assert [each["version"] for each in listed] == ["0.10.0", "0.10.0.dev0", "0.9.0"]
    assert 'url=0.10.0/"' in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_pages_outside_docs_have_no_dead_links(page: str) -> None:
    links = re.findall(r"\]\(([^():\s#]+)(?:#([^()\s]+))?\)", (ROOT / page).read_text())
    dead = [path for path, _ in links if not (ROOT / path).exists()]
    anchors = [(ROOT / path, anchor) for path, anchor in links if anchor and path not in dead]
    dead += [
        f"{path}#{anchor}" for path, anchor in anchors if anchor not in headings(path.read_text())
    ]
    assert dead == []
