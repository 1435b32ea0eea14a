"""Each distribution's wheel is what its source distribution makes, and contains what it should."""

from __future__ import annotations

import tarfile
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

from userspace_proxy import __version__
from userspace_proxy.cli.command_table import COMMANDS, SUMMARY
from userspace_proxy.cli.completion import completion_script
from userspace_proxy.cli.man import man_page

from .clones import KIT, ROOT, build, run

pytestmark = pytest.mark.long

SHELLS = {
    "share/bash-completion/completions/userspace-proxy": "bash",
    "share/zsh/site-functions/_userspace-proxy": "zsh",
    "share/fish/vendor_completions.d/userspace-proxy.fish": "fish",
}
MAN = "share/man/man8/userspace-proxy.8"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def kit_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("kit"), KIT)


def test_it_has_the_manual_page_and_completions_of_its_own_commands(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        shared = [name for name in archive.namelist() if ".data/" in name]
        found = {name.partition("/data/")[2]: archive.read(name).decode() for name in shared}
    own = tuple(COMMANDS.values())
    texts = {path: completion_script(shell, own) for path, shell in SHELLS.items()}
    assert found == {MAN: man_page(SUMMARY, own), **texts}


def test_it_has_the_commit(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        assert archive.read("userspace_proxy/commit").decode() == run(["git", "rev-parse", "HEAD"])


def test_no_file_is_in_both_wheels(wheel: Path, kit_wheel: Path) -> None:
    with ZipFile(wheel) as node, ZipFile(kit_wheel) as kit:
        tops = [{name.partition("/")[0] for name in each.namelist()} for each in (node, kit)]
    version = f"-{__version__}"
    assert tops == [
        {
            "userspace_proxy",
            f"userspace_proxy{version}.dist-info",
            f"userspace_proxy{version}.data",
        },
        {"userspace_proxy_testing", f"pytest_userspace_proxy{version}.dist-info"},
    ]


def test_the_kit_requires_the_proxy_of_its_own_version(kit_wheel: Path) -> None:
    with ZipFile(kit_wheel) as archive:
        name = f"pytest_userspace_proxy-{__version__}.dist-info/METADATA"
        metadata = Parser().parsestr(archive.read(name).decode())
    assert metadata["Version"] == __version__
    assert f"userspace-proxy=={__version__}" in metadata.get_all("Requires-Dist", ())


@pytest.mark.parametrize("project", [ROOT, KIT], ids=["node", "kit"])
def test_a_source_distribution_makes_the_same_wheel(
    project: Path, wheel: Path, kit_wheel: Path, tmp_path: Path
) -> None:
    with tarfile.open(build("sdist", tmp_path / "sdist", project)) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (root,) = (tmp_path / "unpacked").iterdir()
    expected = wheel if project is ROOT else kit_wheel
    assert build("wheel", tmp_path / "wheel", root).read_bytes() == expected.read_bytes()


def test_the_docs_name_the_places() -> None:
    guide = (ROOT / "docs" / "terminal.md").read_text()
    assert [path for path in (MAN, *SHELLS) if f"`{path}`" not in guide] == []
