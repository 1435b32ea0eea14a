"""Writes images as archives for containerd: layers, a configuration and a list of names.

folder, files ──▶ layer.tar ──┐
entrypoint ────▶ config.json ─┴─▶ manifest.json ──▶ <name>.tar   (docker-archive)
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layer:
    """A whole folder, or some files by their paths in the image, or both."""

    folder: Path | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    """Symbolic links, as path and target."""
    folders: Sequence[str] = ()
    """Empty folders to which all users may write."""

    def write(self, path: Path) -> str:
        """Write the layer as a tar; return the tar's SHA-256 in hexadecimal."""
        with tarfile.open(path, "w") as tar:
            if self.folder is not None:
                tar.add(self.folder, arcname=".", filter=_unless_device)
            for place in self.folders:
                made = tarfile.TarInfo(place)
                made.type, made.mode = tarfile.DIRTYPE, 0o1777
                tar.addfile(made)
            for place, source in self.files.items():
                tar.add(source, arcname=place, filter=_unless_device)
            for place, target in self.links.items():
                link = tarfile.TarInfo(place)
                link.type, link.linkname = tarfile.SYMTYPE, target
                tar.addfile(link)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class Image:
    """An image: its names, layers and configuration."""

    names: Sequence[str]
    """Names with registry and tag; one image may have several."""
    layers: Sequence[Layer]
    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    user: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


def write_archive(path: Path, images: Sequence[Image], architecture: str) -> None:
    """Write one archive with all these images; a shared layer is included once."""
    written: dict[int, tuple[str, str]] = {}
    manifest = []
    with tarfile.open(path, "w") as archive:
        for image in images:
            for layer in image.layers:
                if id(layer) not in written:
                    part = path.with_name(f".{path.name}.layer")
                    digest = layer.write(part)
                    archive.add(part, arcname=f"{digest}.tar")
                    part.unlink()
                    written[id(layer)] = (digest, f"{digest}.tar")
            digests = [written[id(layer)] for layer in image.layers]
            config = _config(image, [digest for digest, _ in digests], architecture)
            name = f"{hashlib.sha256(config).hexdigest()}.json"
            _add_bytes(archive, name, config)
            manifest.append(
                {"Config": name, "RepoTags": list(image.names), "Layers": [n for _, n in digests]}
            )
        _add_bytes(archive, "manifest.json", json.dumps(manifest).encode())


def _config(image: Image, digests: Sequence[str], architecture: str) -> bytes:
    path = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    environment = [f"{name}={value}" for name, value in (path | dict(image.environment)).items()]
    run = {"Env": environment, "Entrypoint": list(image.entrypoint), "Cmd": list(image.command)}
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": run | ({"User": image.user} if image.user else {}),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
    }
    return json.dumps(config).encode()


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def _unless_device(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Return an archive's entry; None for a device, because a container has its own devices."""
    return None if info.ischr() or info.isblk() else info
