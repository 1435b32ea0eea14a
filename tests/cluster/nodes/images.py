"""Builds the images of the cluster, because there is no registry.

Upstream's tests use a dozen images; agnhost replaces all but two of them.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path

from ..build import BuildError, Write, cache_root, locked, step
from ..image import Image as BuiltImage
from ..image import build_image
from .archive import Image, Layer, write_archive
from .programs import KUBE, Programs

HERE = Path(__file__).parent
REGISTRY = "registry.k8s.io"
PAUSE = f"{REGISTRY}/pause:3.10.2"
E2E = f"{REGISTRY}/e2e-test-images"
# From `e2e.test --list-images` v1.36.3: the images that sig-network's tests start.
AGNHOST_NAMES = (f"{E2E}/agnhost:2.63.0", f"{E2E}/agnhost:2.55")
# These images have no entrypoint, so pods specify a command.
SHELL_NAMES = (
    f"{E2E}/busybox:1.36.1-1",
    f"{E2E}/busybox:1.37.0-1",
    f"{E2E}/glibc-dns-testing:2.0.0",
    f"{REGISTRY}/build-image/distroless-iptables:v0.9.6",
)
WEB_NAMES = (f"{E2E}/nginx:1.15-4", f"{E2E}/nginx:1.27-0")
REGRESSION = f"{E2E}/regression-issue-74839:1.4"
KUBE_PROXY = f"{REGISTRY}/kube-proxy:v1.36.3"
OURS = "userspace-proxy:0.1.0"
"""This proxy's image, under the name that the chart uses."""
KUBE_PROXY_PLACE = "usr/local/bin/kube-proxy"


def ensure_images(programs: Programs, write: Write = sys.stdout.write) -> Path:
    """Return the archive with all images, after building it if it is missing.

    Raises:
        BuildError: A compiler or mmdebstrap is missing, or failed.
    """
    tools = build_image(HERE / "tools", write=write)
    sources = [Path(__file__), HERE / "archive.py", HERE / "pause.c", KUBE / "go.sum"]
    digest = hashlib.sha256(tools.layers[-1].name.encode() + programs.folder.parent.name.encode())
    for source in sources:
        digest.update(source.read_bytes())
    archive = cache_root() / f"images-{digest.hexdigest()[:12]}.tar"
    if archive.is_file():
        return archive
    with locked(cache_root() / "lock", write):
        if not archive.is_file():
            with step("making the images", write), tools.mounted() as root:
                _make(archive, root, programs)
    return archive


def ensure_own_image(write: Write = sys.stdout.write) -> Path:
    """Return the archive with this proxy's image, after building it if its sources have changed.

    It includes the image of pods' sandboxes, so pods need no other one. Older archives are deleted.

    Raises:
        BuildError: Like `build_image`.
    """
    built = build_image(write=write)
    folder = cache_root() / "own-image"
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256("".join(layer.name for layer in built.layers).encode())
    digest.update((HERE / "pause.c").read_bytes())
    archive = folder / f"{digest.hexdigest()[:12]}.tar"
    if not archive.is_file():
        # Keep only the newest archive, because the others were built from older sources.
        for older in folder.iterdir():
            older.unlink()
        _write_own(archive, built)
    return archive


def _write_own(archive: Path, built: BuiltImage) -> None:
    unfinished = archive.with_name(f".{archive.name}.{os.getpid()}")
    pause = unfinished.with_suffix(".pause")
    try:
        _compile(HERE / "pause.c", pause)
        with built.mounted() as root:
            image = Image([OURS], [Layer(root)], built.entrypoint, environment=built.environment)
            write_archive(unfinished, [_pause(pause), image], _goarch())
        unfinished.rename(archive)
    finally:
        pause.unlink(missing_ok=True)
        unfinished.unlink(missing_ok=True)


def _make(archive: Path, root: Path, programs: Programs) -> None:
    unfinished = archive.with_name(f".{archive.name}.{os.getpid()}")
    pause = unfinished.with_suffix(".pause")
    regression = programs["regression-issue-74839"]
    try:
        _compile(HERE / "pause.c", pause)
        debian = Layer(root)
        tools = Layer(
            files={"agnhost": programs["agnhost"], "coredns": programs["coredns"]},
            links={"agnhost-2": "agnhost"},
            folders=["uploads"],
        )
        images = [
            _pause(pause),
            Image(AGNHOST_NAMES, [debian, tools], ["/agnhost"], ["pause"]),
            Image(SHELL_NAMES, [debian, tools], command=["sh"]),
            Image([KUBE_PROXY], [debian, Layer(files={KUBE_PROXY_PLACE: programs["kube-proxy"]})]),
            Image(WEB_NAMES, [debian, tools], ["/agnhost"], ["test-webserver"]),
            Image(
                [REGRESSION],
                [Layer(files={regression.name: regression})],
                [f"/{regression.name}"],
            ),
        ]
        write_archive(unfinished, images, _goarch())
        unfinished.rename(archive)
    finally:
        pause.unlink(missing_ok=True)
        unfinished.unlink(missing_ok=True)


def _pause(binary: Path) -> Image:
    return Image([PAUSE], [Layer(files={"pause": binary})], ["/pause"], user="65535:65535")


def _goarch() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]


def _compile(source: Path, binary: Path) -> None:
    command: list[str | Path] = ["cc", "-Os", "-static", "-o", binary, source]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"cannot compile {source.name}: {done.stderr.strip()}")
