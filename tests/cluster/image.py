"""Builds the container image without a container engine: its Dockerfile, step by step.

    debian:trixie-slim ──mmdebstrap──▶ layer ──RUN, COPY──▶ layer ──▶ … ──▶ one root filesystem

Each step is an overlay over the earlier steps, run with chroot in its own mount namespace. It is
cached under a key derived from all its inputs, so a second build reuses unchanged layers.

Rule 1: a layer gets its key as a name only when it is complete.
Rule 2: a build needs root, overlayfs, and access to packages for apt and pip.

Can also be run: ``python -m tests.cluster.image root.tar`` writes the root filesystem, and prints
the labels and the sizes of the layers, as a registry has them.
"""
# ruff: noqa: T201 - the progress is printed.

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.tools.clones import ROOT, committed_at, git
from userspace_proxy import __version__

from .build import BuildError, Write, cache_root
from .dockerfile import Copy, Run, Stage, files_of, read_dockerfile

DEBIAN = re.compile(r"debian:(?P<suite>[a-z]+)-slim")
"""Base images that can't be pulled here; mmdebstrap replaces them by the Debian suite."""
NOTHING = "scratch"
"""The empty base."""
# debootstrap, which makes the official images, merges /usr. Otherwise apt would install the package
# usrmerge, and with it all of Perl: 47 MB that the official images don't have.
_MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"
# Files that Debian's slim images omit. Source: debuerreotype, scripts/.slimify-excludes, -includes.
_SLIM = (
    *(
        f"path-exclude=/usr/share/{part}/*"
        for part in ("doc", "groff", "info", "linda", "lintian/overrides", "locale", "man")
    ),
    "path-include=/usr/share/doc/*/copyright",
    "path-include=/usr/share/locale/locale.alias",
)
# apt doesn't keep downloads, as in the official images.
_APT = """\
APT::Keep-Downloaded-Packages "false";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
"""
# The package lists of these suites expire after a week, even if a mirror has no newer ones.
# Only tests run in these roots; the lists' signatures are still verified.
_UNRELEASED = ("forky", "sid")
_OLD_LISTS = 'Acquire::Check-Valid-Until "false"'
# pip's index settings that are passed to a build; settings with paths of this machine are omitted.
_PASSED_ON = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_DEFAULT_TIMEOUT")
_CERTIFICATES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_STEP_DEADLINE_S = 900.0
_AGE_S = 14 * 86_400


@dataclass(frozen=True, slots=True)
class Size:
    """The size of one or more layers in bytes.

    Args:
        unpacked: The size as a tar.
        compressed: The size as a gzipped tar, the form in which registries store and send it.
    """

    unpacked: int
    compressed: int

    def __str__(self) -> str:
        return f"{self.unpacked / 1e6:.1f} MB unpacked, {self.compressed / 1e6:.1f} MB compressed"


@dataclass(frozen=True, slots=True)
class Image:
    """A built image.

    Args:
        layers: Read-only folders, the lowest first.
        entrypoint: A container's command.
        environment: A container's variables.
        labels: The image's labels.
    """

    layers: tuple[Path, ...]
    entrypoint: tuple[str, ...]
    environment: Mapping[str, str]
    labels: Mapping[str, str]

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Path]:
        """Mount the root filesystem read-only within the block."""
        folder = Path(tempfile.mkdtemp(prefix="userspace-proxy-image-"))
        # Without an upper folder, overlayfs requires two lower folders.
        lower = [*reversed(self.layers), _empty_folder()]
        try:
            _do(["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={_joined(lower)}", folder])
            try:
                yield folder
            finally:
                _do(["umount", folder])
        finally:
            folder.rmdir()

    def sizes(self) -> list[Size]:
        return [_size_of(layer) for layer in self.layers]

    def write_tar(self, path: Path) -> None:
        """Write the whole root filesystem as one tar, like the layer of an image."""
        with self.mounted() as folder:
            _do(
                [
                    "tar",
                    "--create",
                    f"--file={path}",
                    "--numeric-owner",
                    f"--directory={folder}",
                    ".",
                ]
            )


def build_image(
    context: Path = ROOT,
    arguments: Mapping[str, str] | None = None,
    write: Write = sys.stdout.write,
) -> Image:
    """Build and return the image of a folder's Dockerfile, reusing cached layers.

    Args:
        context: The folder with Dockerfile and, if it needs one, .dockerignore.
        arguments: Values of ``--build-arg``.
        write: Called with the progress, a line per step that isn't cached.

    Raises:
        BuildError: A step failed; the error contains the end of its output.
    """
    if os.geteuid() != 0:
        raise BuildError("cannot build the image: mounting needs root")
    stages = read_dockerfile((context / "Dockerfile").read_text(), arguments)
    ignore = context / ".dockerignore"
    ignored = ignore.read_text().splitlines() if ignore.is_file() else []
    built: dict[str, tuple[Path, ...]] = {}
    cache = cache_root() / "image"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        # Only one build runs at a time; the kernel releases the lock when that process dies.
        fcntl.flock(lock, fcntl.LOCK_EX)
        for stage in stages:
            layers = built.get(stage.base) or (_base(stage.base, cache, write),)
            for step in stage.steps:
                layers = (*layers, _layer(step, layers, context, ignored, built, write))
            built[stage.name] = layers
    last: Stage = stages[-1]
    return Image(built[last.name], last.entrypoint, last.environment, last.labels)


def _base(name: str, cache: Path, write: Write) -> Path:
    """Return the layer that replaces an image from a registry, building it if it isn't cached."""
    if name == NOTHING:
        folder = cache / _key(name)
        folder.mkdir(exist_ok=True)
        return folder
    known = DEBIAN.fullmatch(name)
    if known is None:
        raise BuildError(f"cannot begin with {name}: known are debian:SUITE-slim and {NOTHING}")
    # An unreleased suite changes within weeks, so its layer expires.
    weeks = [str(int(time.time() / _AGE_S))] if known["suite"] in _UNRELEASED else []
    folder = cache / _key("base", platform.machine(), name, _MERGED_USR, *_SLIM, _APT, *weeks)
    if not folder.is_dir():
        write(f"FROM {name}, by mmdebstrap\n")
        suite = known["suite"]
        options = [f"--hook-dir={_MERGED_USR}", *(f"--dpkgopt={option}" for option in _SLIM)]
        if suite in _UNRELEASED:
            options.append(f"--aptopt={_OLD_LISTS}")
        with _unfinished(folder) as unfinished:
            _do(["mmdebstrap", "--quiet", "--variant=minbase", *options, suite, unfinished])
            # RUN steps bind-mount the host's resolv.conf here, so the file must exist.
            resolver = unfinished / "etc/resolv.conf"
            resolver.unlink(missing_ok=True)
            resolver.touch()
            (unfinished / "etc/apt/apt.conf.d/docker-clean").write_text(_APT)
    return folder


def _layer(
    step: Run | Copy,
    below: Sequence[Path],
    context: Path,
    ignored: Sequence[str],
    built: Mapping[str, tuple[Path, ...]],
    write: Write,
) -> Path:
    """Return the layer of a step on top of other layers, building it if it isn't cached."""
    if isinstance(step, Copy) and not step.stage:
        parts = [f"COPY {step}", *_digests(step, context, ignored)]
    else:
        stage = built[step.stage][-1].name if isinstance(step, Copy) else ""
        parts = [f"{step} {stage}"]
    folder = below[-1].parent / _key(below[-1].name, *parts)
    if folder.is_dir():
        # Record the time of use: cache eviction removes the least recently used layers.
        os.utime(folder)
        return folder
    with _unfinished(folder) as unfinished:
        if isinstance(step, Run):
            write(f"RUN {' '.join(step.command.split())}\n")
            _run(step, below, unfinished)
        elif step.stage:
            write(f"COPY {' '.join(step.sources)} {step.target}, of {step.stage}\n")
            _copy_from_stage(step, built[step.stage], unfinished)
        else:
            write(f"COPY {' '.join(step.sources)} {step.target}\n")
            _copy_from_context(step, context, ignored, unfinished)
    return folder


def _run(step: Run, below: Sequence[Path], upper: Path) -> None:
    """Run a command in the current root filesystem; its changes are written to ``upper``."""
    with tempfile.TemporaryDirectory(prefix=".work-", dir=upper.parent) as work:
        merged, room = Path(work, "merged"), Path(work, "room")
        merged.mkdir()
        room.mkdir()
        script = f"""
            set -eu
            {mount_over(below, merged, upper=upper, work=room)}
            mount -t proc proc "{merged}/proc"
            mount --rbind /dev "{merged}/dev"
            mount -t tmpfs tmpfs "{merged}/run"
            mount --bind /etc/resolv.conf "{merged}/etc/resolv.conf"
            {give_certificates(merged)}
            exec chroot "{merged}" /bin/sh -c 'mkdir -p "$0" && cd "$0" && eval "$1"' "$1" "$2"
        """
        _do(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--",
             "/bin/sh", "-c", script, "sh", step.folder, step.command],
            environment() | dict(step.environment),
        )  # fmt: skip


def mount_over(layers: Sequence[Path], merged: Path, *, upper: Path, work: Path) -> str:
    """Return the command that mounts a writable root filesystem on a folder.

    Args:
        layers: Its layers, the lowest first.
        upper: The folder for changes.
        work: An empty folder next to it."""
    options = f"lowerdir={_joined(reversed(layers))},upperdir={upper},workdir={work}"
    return f'mount -t overlay overlay -o "{options}" "{merged}"'


def environment() -> dict[str, str]:
    """Return the environment of a command in a root filesystem; it mainly has package indexes."""
    seen = {"PATH": _PATH, "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive"}
    seen |= {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    if any(name in os.environ for name in _CERTIFICATES):
        seen |= dict.fromkeys(_CERTIFICATES, "/run/certificates")
    return seen


def give_certificates(merged: Path) -> str:
    """Return the command that copies the CA certificates trusted by this machine's pip, if any."""
    named = next((os.environ[name] for name in _CERTIFICATES if name in os.environ), "")
    return f'cp "{named}" "{merged}/run/certificates"' if named else ""


def _copy_from_context(step: Copy, context: Path, ignored: Sequence[str], upper: Path) -> None:
    for source in step.sources:
        whole = context / source
        for path in files_of(context, source, ignored):
            # COPY copies a folder's content, not the folder itself.
            place = path.relative_to(whole).as_posix() if whole.is_dir() else path.name
            is_folder = whole.is_dir() or step.target.endswith("/")
            target = upper / step.target.strip("/") / (place if is_folder else "")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            target.chmod(0o755 if os.access(path, os.X_OK) else 0o644)


def _copy_from_stage(step: Copy, layers: Sequence[Path], upper: Path) -> None:
    """Copy a file or folder from an earlier stage."""
    image = Image(tuple(layers), (), {}, {})
    with image.mounted() as folder:
        for source in step.sources:
            target = upper / step.target.strip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            _do(["cp", "--archive", "--no-target-directory", folder / source.strip("/"), target])


def _digests(step: Copy, context: Path, ignored: Sequence[str]) -> Iterator[str]:
    for source in step.sources:
        for path in files_of(context, source, ignored):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            yield f"{path.relative_to(context)} {os.access(path, os.X_OK)} {digest}"


def _size_of(layer: Path) -> Size:
    command = ["tar", "--create", "--numeric-owner", f"--directory={layer}", "."]
    unpacked = compressed = 0
    # The compression level of registries' clients, with a gzip header.
    gzip = zlib.compressobj(6, wbits=31)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as tar:
        assert tar.stdout is not None
        while part := tar.stdout.read(1 << 20):
            unpacked += len(part)
            compressed += len(gzip.compress(part))
    if tar.returncode:
        raise BuildError(f"cannot measure {layer}: tar failed")
    return Size(unpacked, compressed + len(gzip.flush()))


def total(sizes: Sequence[Size]) -> Size:
    """Return the total size of several layers."""
    return Size(sum(size.unpacked for size in sizes), sum(size.compressed for size in sizes))


def _key(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _joined(folders: Sequence[Path] | Iterator[Path]) -> str:
    return ":".join(str(folder) for folder in folders)


def _empty_folder() -> Path:
    folder = cache_root() / "image" / "empty"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def _unfinished(folder: Path) -> Iterator[Path]:
    """Yield a folder; at the end of the block it gets its final name, or is removed on failure."""
    unfinished = Path(tempfile.mkdtemp(prefix=".layer-", dir=folder.parent))
    # All users must be able to enter the image's root, which is the top folder of a layer.
    unfinished.chmod(0o755)
    try:
        yield unfinished
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _do(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
    try:
        done = subprocess.run(
            command,
            env=None if environment is None else dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_STEP_DEADLINE_S,
        )
    except FileNotFoundError as exc:
        raise BuildError(f"cannot build the image: {command[0]} is missing") from exc
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-20:])
        raise BuildError(f"cannot build the image: {command[-1]}: {tail}")


def release_arguments() -> dict[str, str]:
    """Return the values of ``--build-arg`` for the last commit."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return {
        "VERSION": __version__,
        "REVISION": git(ROOT, "rev-parse", "HEAD"),
        "CREATED": datetime.fromtimestamp(committed_at(), UTC).isoformat(),
        "SOURCE": project["tool"]["userspace-proxy"]["repository"],
    }


def main(words: Sequence[str]) -> int:
    """Build the image, and write its root filesystem to each path; return the exit status."""
    try:
        image = build_image(arguments=release_arguments())
        for word in words:
            image.write_tar(Path(word))
        sizes = image.sizes()
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name, value in image.labels.items():
        print(f"{name}={value}")
    print(f"entrypoint {' '.join(image.entrypoint)}, {len(image.layers)} layers:")
    for layer, size in zip(image.layers, sizes, strict=True):
        print(f"{layer}: {size}")
    print(f"all: {total(sizes)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
