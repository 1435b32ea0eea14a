"""Distributions are the same whenever and wherever they are built, or aren't released."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

from userspace_proxy import __version__

from .clones import ROOT, git
from .distributions import DistributionError, build_all, check, compare, hashes

WHEN = 1_700_000_000
AUTHOR = ("-c", "user.name=a", "-c", "user.email=a@example.com")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose only commit is this checkout as it is."""
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
def test_wheels_and_source_distributions_are_built_with_the_commits_time(
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


@pytest.mark.long
def test_a_build_that_depends_on_its_folder_is_refused(repository: Path, tmp_path: Path) -> None:
    other = tmp_path / "repository"
    git(tmp_path, "clone", "--quiet", str(repository), str(other))
    code = "\nfrom pathlib import Path\nPLACE = Path.cwd()\n"
    (other / "hatch_build.py").write_text(
        (other / "hatch_build.py")
        .read_text()
        .replace("def made_texts", f"{code}def made_texts")
        .replace('return {"share/man', 'return {"share/place": str(PLACE), "share/man')
    )
    git(other, *AUTHOR, "commit", "--quiet", "--all", "--message=place")
    built = tmp_path / "built"
    built.mkdir()
    with pytest.raises(DistributionError, match=r"two builds differ: userspace_proxy-.*\.whl$"):
        build_all(built, other)


def test_files_that_differ_or_are_missing_are_named(tmp_path: Path) -> None:
    for folder, texts in (("one", {"a": "1", "b": "2"}), ("other", {"a": "1", "b": "3", "c": "4"})):
        (tmp_path / folder).mkdir()
        for name, text in texts.items():
            (tmp_path / folder / name).write_text(text)
    with pytest.raises(DistributionError, match="two builds differ: b, c"):
        compare(tmp_path / "one", tmp_path / "other")
    assert hashes(tmp_path / "one")["a"][:8] == "6b86b273"


def test_metadata_that_an_index_would_refuse_is_an_error(tmp_path: Path) -> None:
    wheel = tmp_path / "shop-1.0-py3-none-any.whl"
    with ZipFile(wheel, "w") as archive:
        # Without the version.
        archive.writestr("shop-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: shop\n")
        archive.writestr("shop-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
    with pytest.raises(DistributionError, match="twine check: "):
        check([wheel])
