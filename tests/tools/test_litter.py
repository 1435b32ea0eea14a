"""The check for files that don't belong into the repository."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .litter import BYTES_MAX, problems


def repository(folder: Path, **files: str) -> Path:
    """Return a repository that tracks these files, by names without a suffix."""
    (folder / ".gitignore").write_text("/ignored\n")
    for name, text in files.items():
        (folder / name).write_text(text)
    for command in ("init -q", "add --force ."):
        subprocess.run(["git", *command.split()], cwd=folder, check=True)
    return folder


def test_a_small_file_is_no_problem(tmp_path: Path) -> None:
    assert list(problems(repository(tmp_path, small="x" * BYTES_MAX))) == []


def test_a_tracked_file_that_is_ignored_is_a_problem(tmp_path: Path) -> None:
    assert list(problems(repository(tmp_path, ignored="x"))) == [
        "ignored is tracked, but .gitignore lists it (git rm --cached ignored)"
    ]


def test_a_large_file_is_a_problem(tmp_path: Path) -> None:
    assert list(problems(repository(tmp_path, large="x" * (BYTES_MAX + 1)))) == [
        "large has 500,001 bytes; a tracked file has at most 500,000"
    ]


def test_a_file_that_was_deleted_but_not_committed_is_no_problem(tmp_path: Path) -> None:
    root = repository(tmp_path, gone="x")
    (root / "gone").unlink()
    assert list(problems(root)) == []
