"""The report of the files that a change edits, on a small repository."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from .touched import report, touched_files

KIT = "pytest-userspace-proxy/userspace_proxy_testing"
FIGURES, PORT, ERRORS, FAKE = (
    "userspace_proxy/facts/figures.py",
    "userspace_proxy/facts/deep/port.py",
    "userspace_proxy/errors.py",
    f"{KIT}/fakes/steering.py",
)
TEST = "tests/unit/test_errors.py"


def git(root: Path, *arguments: str) -> None:
    author = ("-c", "user.name=Alice", "-c", "user.email=alice@example.com")
    subprocess.run(["git", *author, *arguments], cwd=root, check=True)


def commit(root: Path, files: Mapping[str, str]) -> None:
    """Commit these files, and what else has changed."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    git(root, "add", "--all")
    git(root, "commit", "-q", "-m", "Change files")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository whose branch ``base`` has one commit."""
    git(tmp_path, "init", "-q", "-b", "base")
    commit(tmp_path, {name: f"{name}\n" for name in (FIGURES, PORT, ERRORS, FAKE, TEST)})
    git(tmp_path, "checkout", "-q", "-b", "feature")
    return tmp_path


def test_edited_files_of_both_packages_count_but_no_added_ones(root: Path) -> None:
    commit(root, {FIGURES: "new\n", FAKE: "new\n", TEST: "new\n"})
    commit(root, {"userspace_proxy/facts/more.py": "", "docs/facts.md": ""})
    assert touched_files(root, "base") == [FAKE, FIGURES]


def test_what_is_not_committed_counts(root: Path) -> None:
    (root / FIGURES).write_text("new\n")
    assert touched_files(root, "base") == [FIGURES]


def test_deleted_and_renamed_files_count_by_their_old_names(root: Path) -> None:
    git(root, "rm", "-q", ERRORS)
    git(root, "mv", PORT, "userspace_proxy/facts/port.py")
    commit(root, {})
    assert touched_files(root, "base") == [ERRORS, PORT]


def test_a_file_that_is_as_before_does_not_count(root: Path) -> None:
    commit(root, {FIGURES: "new\n"})
    commit(root, {FIGURES: f"{FIGURES}\n"})
    assert touched_files(root, "base") == []


def test_commits_that_only_the_base_has_do_not_count(root: Path) -> None:
    commit(root, {FIGURES: "new\n"})
    git(root, "checkout", "-q", "base")
    commit(root, {ERRORS: "new\n"})
    git(root, "checkout", "-q", "feature")
    assert touched_files(root, "base") == [FIGURES]


def test_an_unknown_base_is_an_error(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        touched_files(root, "nowhere")
    assert "nowhere" in capfd.readouterr().err


def test_the_report_is_by_package_with_counts() -> None:
    assert list(report([FAKE, FIGURES, PORT, ERRORS])) == [
        f"{KIT}/fakes: 1",
        f"  {FAKE}",
        "userspace_proxy: 1",
        f"  {ERRORS}",
        "userspace_proxy/facts: 2",
        f"  {PORT}",
        f"  {FIGURES}",
        "existing files: 4, packages: 3",
    ]


def test_a_change_of_no_file_has_a_report() -> None:
    assert list(report([])) == ["existing files: 0, packages: 0"]
