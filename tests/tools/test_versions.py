"""Each file that states the version has the version in ``userspace_proxy/version.py``."""

from __future__ import annotations

import re

import pytest

from tests.cluster import build
from userspace_proxy import __version__

from .clones import ROOT, git

# A release or a development version, in the form of a chart or of Python.
_VERSION = r"v?(\d+\.\d+\.\d+[\w.+-]*?)"
STATEMENTS = {
    "image": rf"\buserspace-proxy:{_VERSION}(?=[\s\"'`]|$)",
    "chart": rf"(?m)^(?:appV|v)ersion: {_VERSION}$",
    "label": rf'\bapp\.kubernetes\.io/version: "{_VERSION}"',
    "build": rf"\bARG VERSION={_VERSION}\s",
    "git": rf"/userspace-proxy(?:\.git)?@{_VERSION}(?=[#\s'])",
    "archive": rf"/userspace-proxy/archive/{_VERSION}\.tar\.gz",
    "page": rf"/blob/{_VERSION}/docs/",
    "example": rf"\b(?:TAG|VERSION)={_VERSION}(?=[\s,:)])",
}
PLACES = ("*.md", "*.yml", "*.yaml", "Dockerfile", "Makefile", "tests/cluster/nodes/images.py")


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    # Records of measurements, decisions and releases aren't updated.
    others = (":!docs/adr", ":!CHANGELOG.md", ":!tests/unit", ":!examples/envtest-*")
    paths = git(ROOT, "ls-files", "--", *PLACES, *others).splitlines()
    return {path: (ROOT / path).read_text(encoding="utf-8", errors="replace") for path in paths}


@pytest.mark.parametrize("pattern", STATEMENTS.values(), ids=list(STATEMENTS))
def test_each_stated_version_equals_the_packages_version(
    pattern: str, texts: dict[str, str]
) -> None:
    found = [(path, one) for path, text in texts.items() for one in re.findall(pattern, text)]
    assert found
    assert [(path, one) for path, one in found if one != __version__] == []


def test_the_version_is_valid_for_a_chart_and_a_tag() -> None:
    """SemVer without a suffix has the same form in Python."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def test_each_staging_module_matches_the_kubernetes_release() -> None:
    (kube,) = {target.go_module for target in build.TARGETS if "kubectl" in target.binary}
    (version,) = {target.version for target in build.TARGETS if target.go_module == kube}
    releases = re.findall(r"(?m)^\t(k8s\.io/\S+) => \1 (v\S+)$", (kube / "go.mod").read_text())
    assert {release for _module, release in releases} == {version.replace("v1.", "v0.")}
