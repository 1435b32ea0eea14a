"""Fixtures: the programs that ``make build`` built, and a control plane on loopback.

A test run has no network (``tests.loopback``), so it can't build programs whose sources must be
downloaded first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import build
from .control_plane import ControlPlane
from .image import Image, build_image
from .nodes.programs import ALL_TARGETS, Programs, ensure_programs, programs_folder
from .tools import HELM, path_of

BUILT_FOR_TEST_ALL = {
    "node_programs", "coredns_program", "image", "promtool", "helm",
}  # fmt: skip
"""Fixtures whose programs ``make test`` doesn't build."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that need more than a control plane as long, for ``make test-all``."""
    for item in items:
        if not BUILT_FOR_TEST_ALL.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session")
def cluster_binaries() -> build.Binaries:
    """The built etcd, kube-apiserver and kubectl."""
    _need(build.missing_targets())
    return build.ensure_binaries()


@pytest.fixture(scope="session")
def node_programs(cluster_binaries: build.Binaries) -> Programs:
    """The programs of a node, and upstream's tests."""
    if not _is_root():
        pytest.skip("containers of a real kubelet need root")
    _need(build.missing_targets(ALL_TARGETS, programs_folder()))
    return ensure_programs(with_upstream=True)


@pytest.fixture(scope="session")
def coredns_program() -> Path:
    """The built CoreDNS."""
    targets = tuple(target for target in ALL_TARGETS if target.binary == "coredns")
    _need(build.missing_targets(targets, programs_folder()))
    return programs_folder() / "coredns"


@pytest.fixture(scope="session")
def helm() -> None:
    """Require the built helm, which `chart` runs."""
    _need(build.missing_targets((HELM,), path_of(HELM).parent))


@pytest.fixture(scope="session")
def image() -> Image:
    if not _is_root():
        pytest.skip("building the image needs root")
    try:
        return build_image(write=lambda _: None)
    except build.BuildError as error:
        pytest.fail(f"{error} (what it fetches is fetched by: make build)")


def _need(missing: list[build.Target]) -> None:
    if missing:
        pytest.skip(f"no {', '.join(target.binary for target in missing)} (run: make build)")


def _is_root() -> bool:
    """Return whether this user is root outside of a user namespace."""
    users = sum(
        int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines()
    )
    return os.geteuid() == 0 and users > 1


KINDS = (
    "namespaces,nodes,services,endpointslices,pods,configmaps,secrets,serviceaccounts,leases,events,"
    "deployments,replicasets,statefulsets,daemonsets,poddisruptionbudgets,horizontalpodautoscalers,"
    "roles,rolebindings,clusterroles,clusterrolebindings,customresourcedefinitions"
)
"""The kinds of objects that tests create."""


def _objects(control_plane: ControlPlane) -> set[tuple[str, str, str, str]]:
    """Return the API version, kind, namespace and name of all objects of KINDS."""
    items = json.loads(control_plane.kubectl("get", KINDS, "-A", "-o", "json"))["items"]
    found = ((item["apiVersion"], item["kind"], item["metadata"]) for item in items)
    return {(at, kind, data.get("namespace", ""), data["name"]) for at, kind, data in found}


@pytest.fixture(scope="session")
def _shared(cluster_binaries: build.Binaries) -> Iterator[tuple[ControlPlane, Any]]:
    """The control plane, shared because it starts slowly, and its initial objects."""
    with ControlPlane(cluster_binaries) as control_plane:
        yield control_plane, _objects(control_plane)


@pytest.fixture(scope="module")
def control_plane(_shared: tuple[ControlPlane, Any]) -> Iterator[ControlPlane]:
    """The control plane, from which other modules' objects have been deleted."""
    control_plane, own = _shared
    yield control_plane
    made = sorted(_objects(control_plane) - own)
    items = [
        {"apiVersion": at, "kind": kind, "metadata": {"name": name, "namespace": space or None}}
        for at, kind, space, name in made
    ]
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    words = ("--force", "--wait=false", "--ignore-not-found", "-f", "-")
    if items:
        control_plane.kubectl("delete", *words, input=listed)
    # No controller runs, so nothing would finalize a namespace.
    for item in (item for item in items if item["kind"] == "Namespace"):
        path = f"/api/v1/namespaces/{item['metadata']['name']}/finalize"
        control_plane.kubectl("replace", "--raw", path, "-f", "-", input=json.dumps(item))
