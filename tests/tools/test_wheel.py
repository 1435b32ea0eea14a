"""A wheel has the manual page and completions that the commands print."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
PLACES = {
    "share/man/man8/userspace-proxy.8": ("man",),
    "share/bash-completion/completions/userspace-proxy": ("completion", "bash"),
    "share/zsh/site-functions/_userspace-proxy": ("completion", "zsh"),
    "share/fish/vendor_completions.d/userspace-proxy.fish": ("completion", "fish"),
}


def build(target: str, folder: Path, root: Path = ROOT) -> Path:
    """Return the only file that the build backend writes to a folder."""
    command = [sys.executable, "-m", "hatchling", "build", f"--target={target}"]
    run([*command, f"--directory={folder}"], root)
    (built,) = folder.iterdir()
    return built


def run(command: list[str], root: Path = ROOT) -> str:
    """Return what a command prints."""
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


def test_it_has_what_the_commands_print(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        shared = [name for name in archive.namelist() if ".data/" in name]
        found = {name.partition("/data/")[2]: archive.read(name).decode() for name in shared}
    program = [sys.executable, "-m", "userspace_proxy"]
    assert found == {path: run([*program, *words]) for path, words in PLACES.items()}


def test_a_source_distribution_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (root,) = (tmp_path / "unpacked").iterdir()
    assert build("wheel", tmp_path / "wheel", root).read_bytes() == wheel.read_bytes()


def test_the_docs_name_the_places() -> None:
    guide = (ROOT / "docs" / "terminal.md").read_text()
    assert [path for path in PLACES if f"`{path}`" not in guide] == []
