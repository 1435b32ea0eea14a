"""Each wheel is complete; `test_distributions` builds it from its source distribution, too."""

from __future__ import annotations

import runpy
import sys
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

from userspace_proxy import __version__
from userspace_proxy.cli.command_table import COMMANDS, SUMMARY
from userspace_proxy.cli.man import man_page
from userspace_proxy.cli.plugin_commands import all_commands

from .clones import CLIENT, KIT, ROOT, build, run

pytestmark = pytest.mark.long

SHELLS = runpy.run_path(str(ROOT / "hatch_build.py"))["COMPLETIONS"]
MAN = "share/man/man8/userspace-proxy.8"
PLUGIN_MAN = "share/man/man8/kubectl-userspace-proxy.8"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Path]:
    """The wheel of each distribution, by its folder."""
    return {
        project: build("wheel", tmp_path_factory.mktemp("wheel"), project)
        for project in (ROOT, CLIENT, KIT)
    }


@pytest.fixture(scope="module")
def wheel(wheels: dict[Path, Path]) -> Path:
    return wheels[ROOT]


def test_a_wheel_contains_its_own_manual_page_and_completions_of_all_commands(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        shared = [name for name in archive.namelist() if ".data/" in name]
        found = {name.partition("/data/")[2]: archive.read(name).decode() for name in shared}
    own = tuple(COMMANDS.values())
    assert found == {MAN: man_page(SUMMARY, own), **SHELLS}


def test_the_clients_wheel_contains_the_manual_page_of_its_commands(
    wheels: dict[Path, Path],
) -> None:
    with ZipFile(wheels[CLIENT]) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(PLUGIN_MAN))
        page = archive.read(name).decode()
    others = all_commands(COMMANDS).keys() - COMMANDS.keys() - {"demo", "sandbox"}
    titles = {line[5:-1] for line in page.splitlines() if line.startswith(".SS ")}
    assert titles == others == {"nodes", "dashboard", "report", "forward"}


def test_bash_loads_the_commands_of_all_distributions() -> None:
    text = next(text for path, text in SHELLS.items() if "bash" in path)
    program = f'userspace-proxy() {{ {sys.executable} -m userspace_proxy "$@"; }}\n'
    line = 'COMP_LINE="userspace-proxy no" COMP_POINT=18\n_userspace_proxy\n'
    script = f'{program}{text}{line}printf "%s\\n" "${{COMPREPLY[@]}}"; complete -p userspace-proxy'
    found = run(["bash", "--norc", "-c", script])
    assert found.splitlines() == ["nodes", "complete -F _userspace_proxy userspace-proxy"]


def test_a_wheel_records_its_commit(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        assert archive.read("userspace_proxy/commit").decode() == run(["git", "rev-parse", "HEAD"])


def test_no_file_is_in_two_wheels(wheels: dict[Path, Path]) -> None:
    version = f"-{__version__}"
    assert {project: tops_of(wheel) for project, wheel in wheels.items()} == {
        ROOT: {
            "userspace_proxy",
            f"userspace_proxy{version}.dist-info",
            f"userspace_proxy{version}.data",
        },
        CLIENT: {
            "userspace_proxy_kubectl",
            f"kubectl_userspace_proxy{version}.dist-info",
            f"kubectl_userspace_proxy{version}.data",
        },
        KIT: {"userspace_proxy_testing", f"pytest_userspace_proxy{version}.dist-info"},
    }


def tops_of(wheel: Path) -> set[str]:
    with ZipFile(wheel) as archive:
        return {name.partition("/")[0] for name in archive.namelist()}


@pytest.mark.parametrize("project", [CLIENT, KIT], ids=["client", "kit"])
def test_client_and_kit_wheels_require_the_proxy_of_the_same_version(
    project: Path, wheels: dict[Path, Path]
) -> None:
    with ZipFile(wheels[project]) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    assert metadata["Version"] == __version__
    assert f"userspace-proxy=={__version__}" in metadata.get_all("Requires-Dist", ())


def test_the_docs_name_the_installation_paths() -> None:
    guide = (ROOT / "docs" / "terminal.md").read_text()
    assert [path for path in (MAN, PLUGIN_MAN, *SHELLS) if f"`{path}`" not in guide] == []
