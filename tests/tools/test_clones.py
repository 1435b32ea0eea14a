"""A clone has what was committed, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from .clones import CloneError, clone, committed_at, git

WHEN = 1_700_000_000


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GIT_COMMITTER_DATE", f"{WHEN} +0000")
    root = tmp_path / "repository"
    git(tmp_path, "init", "--quiet", str(root))
    (root / "a").write_text("a")
    git(root, "add", "a")
    author = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    git(root, *author, "commit", "--quiet", "--message=a")
    return root


def test_a_clone_lacks_what_was_not_committed(repository: Path, tmp_path: Path) -> None:
    (repository / "left-over").write_text("b")
    clone(tmp_path / "clone", repository)
    assert {path.name for path in (tmp_path / "clone").iterdir()} == {".git", "a"}


def test_a_changed_file_is_an_error_that_names_it(repository: Path, tmp_path: Path) -> None:
    (repository / "a").write_text("b")
    with pytest.raises(CloneError, match=r"uncommitted changes.*\n *M a"):
        clone(tmp_path / "clone", repository)


def test_the_time_of_the_last_commit_is_that_of_its_committer(repository: Path) -> None:
    assert committed_at(repository) == WHEN
