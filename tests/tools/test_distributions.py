"""Distributions that aren't reproducible aren't released."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

from userspace_proxy import __version__

from .clones import ROOT, git
from .distributions import build_all, check

WHEN = 1_700_000_000
AUTHOR = ("-c", "user.name=a", "-c", "user.email=a@example.com")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose only commit is this checkout's current state."""
    root = tmp_path_factory.mktemp("repository")
    for name in git(ROOT, "ls-files", "-z", "--", *COPIED).split("\0")[:-1]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    git(root, "init", "--quiet")
    git(root, "add", "--all", "--force")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_COMMITTER_DATE", f"{WHEN} +0000")
        git(root, *AUTHOR, "commit", "--quiet", "--message=all")
    return root


COPIED = (
    *("userspace_proxy", "kubectl-userspace-proxy", "pytest-userspace-proxy"),
    *("pyproject.toml", "hatch_build.py", "*.md", "LICENSE", ".gitignore"),
)
NAMES = {
    f"{name}-{__version__}{suffix}"
    for name in ("userspace_proxy", "kubectl_userspace_proxy", "pytest_userspace_proxy")
    for suffix in ("-py3-none-any.whl", ".tar.gz")
}


@pytest.mark.long
def test_wheels_and_source_distributions_carry_the_commits_time(
    repository: Path, tmp_path: Path
) -> None:
    files = build_all(tmp_path, repository)
    assert {path.name for path in files} == NAMES
    check(files)
    for path in files:
        if path.suffix == ".whl":
            with ZipFile(path) as archive:
                assert {info.date_time for info in archive.infolist()} == {
                    (2023, 11, 14, 22, 13, 20)
                }
        else:
            with tarfile.open(path) as archive:
                assert {member.mtime for member in archive} == {WHEN}
