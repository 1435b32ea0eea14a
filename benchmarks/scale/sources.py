"""The sources of Services: a folder of manifests, or a real etcd and kube-apiserver."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

from tests.cluster.build import Binaries, version_key
from tests.cluster.control_plane import ControlPlane
from tests.cluster.credentials import ADMIN, NODE_PROXIER, token_of
from userspace_proxy_testing.sandbox import SandboxNode

from .command_process import CommandProcess
from .objects import NAMESPACES, SERVICE_CIDR, WATCHED, Object, Spec, all_objects

SERVICES_A_FILE = 100
_NAMED = "namespaces"


def write_manifests(folder: Path, specs: Sequence[Spec], *, form: str) -> None:
    """Write Services and slices, a hundred Services per file, as YAML documents or JSON lists."""
    folder.mkdir()
    for first in range(0, len(specs), SERVICES_A_FILE):
        objects = list(all_objects(specs[first : first + SERVICES_A_FILE]))
        path = folder / f"services-{first:05}.{form}"
        if form == "json":
            path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
        else:
            dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
            path.write_text(yaml.dump_all(objects, Dumper=dumper, sort_keys=False))


def write_manifest(path: Path, objects: Sequence[Object]) -> None:
    """Write objects to one file as YAML, atomically."""
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.write_text(yaml.dump_all(objects, sort_keys=False))
    unfinished.replace(path)


class Cluster:
    """An etcd and a kube-apiserver on a separate node, which contain all Services.

    Writing 20,000 objects through the API server takes a minute, so etcd's data is kept for later
    runs, under a name that depends on versions and objects.

    Args:
        binaries: The programs of the control plane.
        node: The node on which it runs.
        specs: The Services.
        folder: An existing folder for its files.
    """

    def __init__(
        self, binaries: Binaries, node: SandboxNode, specs: Sequence[Spec], folder: Path
    ) -> None:
        self._binaries, self._node, self._folder = binaries, node, folder
        kept = _kept_folder(specs)
        if not kept.is_dir():
            self._make(kept, specs)
        data = folder / "etcd"
        shutil.copytree(kept, data)
        self.control_plane = self._start(data)
        self.control_plane.grant_node_proxier()
        self.writer = self._writer(self.control_plane)
        for path in ("/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices"):
            (key, value), *_ = WATCHED.items()
            self.writer.do("watch", path=f"{path}?labelSelector={key}%3D{value}")

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of the node's agent."""
        return self.control_plane.kubeconfig_for(NODE_PROXIER)

    def close(self) -> None:
        """Stop the control plane."""
        self.writer.close()
        self.control_plane.stop()

    def _make(self, kept: Path, specs: Sequence[Spec]) -> None:
        print(f"writing {len(specs):,} Services through the API server … ", end="", flush=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        data = kept.with_name(f".{kept.name}.{os.getpid()}")
        control_plane = self._start(data)
        writer = None
        try:
            writer = self._writer(control_plane)
            seconds = 0.0
            for name, lines in (
                (_NAMED, _namespace_requests()),
                ("objects", _requests(specs)),
            ):
                requests = self._folder / name
                requests.write_text("\n".join(lines))
                seconds = writer.do("fill", requests=str(requests))["seconds"]
            print(f"{seconds:.0f} s", flush=True)
        finally:
            if writer is not None:
                writer.close()
            control_plane.stop()
        data.rename(kept)

    def _start(self, data: Path) -> ControlPlane:
        control_plane = ControlPlane(
            self._binaries,
            prefix=self._node.prefix,
            bind_address=str(self._node.ip),
            service_cidr=SERVICE_CIDR,
            etcd_data=data,
        )
        control_plane.start()
        return control_plane

    def _writer(self, control_plane: ControlPlane) -> CommandProcess:
        address = control_plane.server.removeprefix("https://")
        ca = str(control_plane.ca_file)
        return CommandProcess(self._node, "benchmarks.scale.writer", address, ca, token_of(ADMIN))


def _kept_folder(specs: Sequence[Spec]) -> Path:
    digest = hashlib.sha256(version_key().encode())
    for item in all_objects(specs):
        digest.update(json.dumps(item).encode())
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = f"etcd-{len(specs)}-{digest.hexdigest()[:12]}"
    return base / "userspace-proxy" / "benchmarks" / name


def _namespace_requests() -> list[str]:
    return [
        f"/api/v1/namespaces\t{json.dumps({'metadata': {'name': name}})}" for name in NAMESPACES
    ]


def _requests(specs: Sequence[Spec]) -> list[str]:
    lines = []
    for spec in specs:
        collection = spec.slice_path.rpartition("/")[0]
        lines.append(f"{spec.service_path}\t{json.dumps(spec.service())}")
        lines.append(f"{collection}\t{json.dumps(spec.slice())}")
    return lines
