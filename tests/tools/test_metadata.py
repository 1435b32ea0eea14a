"""A package index's view of each distribution: URLs, classifiers and the readme."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from userspace_proxy import __version__

from .addresses import repository, tag_of
from .alerts import RULES
from .clones import CLIENT, KIT, ROOT, git, run
from .fresh_roots import SUITES
from .workflows import pythons

REPOSITORY = repository
TAG = tag_of(__version__)


@pytest.fixture(scope="module", params=[ROOT, CLIENT, KIT], ids=["node", "client", "kit"])
def project(request: pytest.FixtureRequest) -> Path:
    root: Path = request.param
    return root


@pytest.fixture(scope="module")
def metadata(project: Path) -> dict[str, Any]:
    made = run([sys.executable, "-m", "hatchling", "metadata"], project)
    read: dict[str, Any] = json.loads(made)
    return read


def addresses_in(text: str) -> list[str]:
    """Return the targets of links and pictures in rendered Markdown."""
    return re.findall(
        r'(?:href|src)="([^"]*)"', MarkdownIt("commonmark").enable("table").render(text)
    )


def test_a_distribution_names_its_authors_and_links_to_the_repository(
    metadata: dict[str, Any],
) -> None:
    assert metadata["authors"] == [{"name": "The userspace-proxy authors"}]
    assert metadata["urls"] == {
        "Source": REPOSITORY,
        "Documentation": f"{REPOSITORY}/tree/{TAG}/docs",
        "Changelog": f"{REPOSITORY}/blob/{TAG}/CHANGELOG.md",
        "Issues": f"{REPOSITORY}/issues",
    }


def test_classifiers_name_each_python_from_the_oldest_to_the_newest_tested(
    project: Path, metadata: dict[str, Any]
) -> None:
    named = pythons((project / "pyproject.toml").read_text())
    newest = list(SUITES)[-1]
    minors = range(int(named[0].partition(".")[2]), int(newest.partition(".")[2]) + 1)
    assert named == [f"3.{minor}" for minor in minors]
    assert metadata["requires-python"] == f">={named[0]}"


def test_readme_links_are_absolute_and_point_to_files_at_the_tag(metadata: dict[str, Any]) -> None:
    found = addresses_in(metadata["readme"]["text"])
    ours = [each for each in found if each.startswith(REPOSITORY)]
    assert ours
    assert [each for each in found if not re.match(r"https?://", each)] == []
    for each in ours:
        kind, tag, path = each.removeprefix(f"{REPOSITORY}/").partition("#")[0].split("/", 2)
        assert (tag, (ROOT / path).exists()) == (TAG, True), each
        assert kind == ("tree" if (ROOT / path).is_dir() else "raw" if "images" in path else "blob")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("[b](docs/)", "[b](R/tree/T/docs)", id="folder"),
        pytest.param("`[a](b)`\n```\n[a](b)\n```\n", "`[a](b)`\n```\n[a](b)\n```\n", id="code"),
    ],
)
def test_folder_links_become_absolute_but_links_in_code_do_not(text: str, expected: str) -> None:
    build = runpy.run_path(str(ROOT / "hatch_build.py"))
    assert build["with_links"](text, build["links_from"]("README.md", "R", "T")) == expected


def test_the_repository_url_appears_only_in_commands_and_one_generated_file() -> None:
    host_and_path = REPOSITORY.partition("://")[2]
    found = git(ROOT, "grep", "--files-with-matches", "--fixed-strings", host_and_path)
    commands = ["README.md", "docs/in-tests.md"]
    assert found.split() == [*commands, str(RULES.relative_to(ROOT)), "pyproject.toml"]
    for page in commands:
        text = (ROOT / page).read_text()
        assert set(re.findall(r"https://[^\s/]+/[^\s/]+/userspace-proxy", text)) == {REPOSITORY}
