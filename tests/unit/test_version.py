"""Tests of the version text, which contains the commit if known."""

from __future__ import annotations

import runpy
import subprocess
from pathlib import Path

import pytest

from userspace_proxy import __version__, version

FILE = Path(version.__file__)


@pytest.fixture
def package(tmp_path):
    """A package directory that contains only the module ``version``."""
    folder = tmp_path / "userspace_proxy"
    folder.mkdir()
    (folder / "version.py").write_text(FILE.read_text())
    return folder


def words_of(package):
    made = runpy.run_path(str(package / "version.py"))
    return made["format_version"](made["__version__"], made["own_commit"]())


def test_a_commit_recorded_by_the_build_is_shown(package):
    (package / "commit").write_text(f"{'0123456789abcdef'}\n")
    assert words_of(package) == f"{__version__} (commit 0123456789ab)"


def test_the_commit_of_a_checkout_is_shown(package):
    git = ["git", "-C", str(package.parent), "-c", "user.name=a", "-c", "user.email=a@b.test"]
    subprocess.run([*git, "init", "-q"], check=True)
    # This new repository has no commit.
    assert words_of(package) == __version__
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "First"], check=True)
    done = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    assert words_of(package) == f"{__version__} (commit {done.stdout[:12]})"


def test_without_a_commit_only_the_version_is_shown(package):
    assert words_of(package) == __version__
