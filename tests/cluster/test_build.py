"""Where the control plane's binaries come from; nothing is built here."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from . import build

KUBE, ETCD = build.TARGETS[1], build.TARGETS[0]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no KUBEBUILDER_ASSETS."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return tmp_path


def put_go(folder: Path, version: str) -> None:
    """Put a Go on the PATH ``folder`` that only knows its version."""
    go = folder / "go"
    go.write_text(f"#!/bin/sh\necho 'go version go{version} linux/amd64'\n")
    go.chmod(0o755)


def test_the_version_is_the_one_that_go_mod_requires() -> None:
    go_mod = "require (\n\texample.org/web/v2 v2.0.1\n\texample.org/web v1.2.3 // indirect\n)\n"
    assert build.required_version(go_mod, "example.org/web") == "v1.2.3"


def test_each_staging_module_is_of_the_same_release_as_kubernetes() -> None:
    go_mod = (KUBE.go_module / "go.mod").read_text()
    releases = set(re.findall(r"^\t(k8s\.io/\S+) => \1 (v\S+)$", go_mod, re.MULTILINE))
    assert {version for _module, version in releases} == {KUBE.version.replace("v1.", "v0.")}


def test_the_key_changes_with_go_sum(tmp_path: Path) -> None:
    for name in ("go.mod", "go.sum"):
        shutil.copy(ETCD.go_module / name, tmp_path)
    copied = replace(ETCD, go_module=tmp_path)
    assert build.version_key((copied,)) == build.version_key((ETCD,))
    (tmp_path / "go.sum").write_text("another module\n")
    assert build.version_key((copied,)) != build.version_key((ETCD,))


def test_given_assets_are_used_and_nothing_is_built(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for target in build.TARGETS:
        (cache / target.binary).touch()
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(cache))
    written: list[str] = []
    assert build.ensure_binaries(written.append) == build.Binaries(cache)
    assert written == []


def test_assets_that_lack_a_binary_are_refused_by_name(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache / "etcd").touch()
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(cache))
    with pytest.raises(build.BuildError, match="it has no kube-apiserver, kubectl"):
        build.ensure_binaries()


def test_a_go_that_is_new_enough_is_taken_from_the_path(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_go(cache, "1.26.0")
    monkeypatch.setenv("PATH", str(cache))
    assert build.find_go() == cache / "go"


def test_without_go_the_error_names_what_was_found_and_the_remedy(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_go(cache, "1.19.8")
    monkeypatch.setenv("PATH", str(cache))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(build.NoGoError, match=r"go, version 1\.19, .*set KUBEBUILDER_ASSETS"):
        build.find_go(lambda _text: None)
