"""A release's distributions are reproducible."""

from __future__ import annotations

import tarfile
from pathlib import Path
from time import gmtime
from zipfile import ZipFile

import pytest

from userspace_proxy import __version__

from .clones import ROOT, committed_at, git
from .distributions import build_all, check

NAMES = {
    f"{name}-{__version__}{suffix}"
    for name in ("userspace_proxy", "kubectl_userspace_proxy", "pytest_userspace_proxy")
    for suffix in ("-py3-none-any.whl", ".tar.gz")
}


@pytest.mark.long
def test_wheels_and_source_distributions_have_the_commits_time(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    git(ROOT, "clone", "--quiet", "--no-hardlinks", str(ROOT), str(repository))
    when = committed_at(repository)
    files = build_all(tmp_path / "dist", repository)
    assert {path.name for path in files} == NAMES
    check(files)
    for path in files:
        if path.suffix == ".whl":
            with ZipFile(path) as archive:
                # A ZIP archive has no odd seconds.
                assert {info.date_time[:5] for info in archive.infolist()} == {gmtime(when)[:5]}
        else:
            with tarfile.open(path) as archive:
                assert {member.mtime for member in archive} == {when}
