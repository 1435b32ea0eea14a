"""The requirements in README and docs/in-tests.md can be installed from a clone or an archive."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

from userspace_proxy import __version__

from .addresses import repository as published
from .clones import ROOT, git, run

pytestmark = pytest.mark.long

README, GUIDE = ROOT / "README.md", ROOT / "docs/in-tests.md"
TAG = f"v{__version__}"


def requirements() -> list[list[str]]:
    """Return each pair of requirements on the pages."""
    command = re.search(r"(?m)^\$ pip install (git\+\S+) '(\S+)'", README.read_text())
    blocks = re.findall(r"```text\n(userspace-proxy @ .*)\n(.*)\n```", GUIDE.read_text())
    assert command
    return [list(command.groups()), *map(list, blocks)]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the last commit with a tag, and the tag's archive at a code host's path."""
    clone = tmp_path_factory.mktemp("published") / "repository"
    git(ROOT, "clone", "--quiet", "--no-hardlinks", str(ROOT), str(clone))
    git(clone, "tag", TAG)
    (clone / "archive").mkdir()
    archive = ("archive", f"--output=archive/{TAG}.tar.gz", "--prefix=repository/", TAG)
    git(clone, *archive)
    return clone


@pytest.mark.parametrize("pair", requirements(), ids=["readme", "git", "archive"])
def test_each_pair_of_requirements_installs_both_distributions(
    pair: list[str], repository: Path, tmp_path: Path
) -> None:
    listed = tmp_path / "requirements.txt"
    # The URL of a requirement with a name must have a host.
    address = repository.as_uri().replace("///", "//localhost/")
    listed.write_text("".join(f"{one.replace(published, address)}\n" for one in pair))
    command = [
        *("env", "--unset=PYTHONWARNINGS", sys.executable, "-m", "pip", "--quiet", "install"),
        # Nothing is downloaded from an index, neither build tools nor dependencies.
        *("--no-index", "--no-deps", "--no-build-isolation", "--no-cache-dir"),
        *(
            "--disable-pip-version-check",
            f"--target={tmp_path / 'site'}",
            f"--requirement={listed}",
        ),
    ]
    subprocess.run(command, check=True, cwd=tmp_path)
    found = {one.name: one for one in distributions(path=[str(tmp_path / "site")])}
    assert found.keys() == {"userspace-proxy", "pytest-userspace-proxy"}
    assert {one.version for one in found.values()} == {__version__}
    direct = json.loads(found["pytest-userspace-proxy"].read_text("direct_url.json") or "")
    assert direct["subdirectory"] == "pytest-userspace-proxy"
    program = "import userspace_proxy, userspace_proxy_testing as kit; print(kit.__file__)"
    site = ["env", f"PYTHONPATH={tmp_path / 'site'}", sys.executable, "-c", program]
    assert run(site, tmp_path).startswith(str(tmp_path))
