"""Finds the programs that the benchmarks need, and builds this repository's Go programs."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.build import Binaries, BuildError, ensure_binaries, find_go
from tests.cluster.kube_proxy import find_kube_proxy
from userspace_proxy.errors import UserspaceProxyError

HERE = Path(__file__).parent

PACKAGES = {
    "wrk": "wrk",
    "haproxy": "haproxy",
    "nginx": "nginx-light",
    "iptables-legacy": "iptables",
    "nft": "nftables",
    "mmdebstrap": "mmdebstrap",
}
"""Debian's package of each program."""

NGINX_STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
"""The module's path in Debian's package libnginx-mod-stream."""

SEARCHED = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


class ToolMissing(UserspaceProxyError):
    """A program is missing, or couldn't be built."""


@dataclass(frozen=True, slots=True)
class Tools:
    """The paths of the built Go programs, and the version of Go that built them."""

    goload: Path
    goproxy: Path
    go_version: str


def find_program(name: str) -> str:
    """Return the path of one of Debian's programs.

    Raises:
        ToolMissing: The program isn't installed; the hint names the package.
    """
    found = shutil.which(name, path=SEARCHED)
    if found is None:
        raise ToolMissing(
            f"cannot run the benchmarks: the program {name} is missing",
            hint=f"apt-get install {PACKAGES[name]}",
        )
    return found


def cache_folder() -> Path:
    """Return the folder for built or downloaded programs, which may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "userspace-proxy" / "benchmarks"


def find_nginx() -> str:
    """Return the path of Debian's nginx, after a check for its module for TCP and UDP.

    Raises:
        ToolMissing: One of them is missing; the hint names the package.
    """
    if not NGINX_STREAM.is_file():
        raise ToolMissing(
            "cannot run the benchmarks: nginx's stream module is missing",
            hint="apt-get install libnginx-mod-stream",
        )
    return find_program("nginx")


def find_kubernetes() -> tuple[Binaries, Path]:
    """Return the programs of a control plane, and kube-proxy; build them if necessary.

    Raises:
        ToolMissing: Go is missing or failed, or kube-proxy's ``nft`` is missing.
    """
    find_program("nft")
    try:
        return ensure_binaries(), find_kube_proxy()
    except BuildError as exc:
        raise ToolMissing(str(exc)) from exc


def build_tools() -> Tools:
    """Return this repository's Go programs; build them if their sources have changed.

    Raises:
        ToolMissing: Go is missing or failed.
    """
    try:
        go = find_go()
    except BuildError as exc:
        raise ToolMissing(str(exc)) from exc
    said = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=True)
    version = said.stdout.strip().removeprefix("go")
    goload, goproxy = (_build(go, HERE / name, version) for name in ("goload", "goproxy"))
    return Tools(goload, goproxy, version)


def _build(go: Path, source: Path, version: str) -> Path:
    """Return a program; build it outside the checkout if its sources or Go have changed."""
    digest = hashlib.sha256(version.encode())
    for path in sorted(source.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    program = cache_folder() / f"{source.name}-{digest.hexdigest()[:12]}"
    if program.is_file():
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    unfinished = program.with_name(f".{program.name}.{os.getpid()}")
    done = subprocess.run(
        [go, "build", "-trimpath", "-o", str(unfinished), "."],
        cwd=source,
        env={**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        unfinished.unlink(missing_ok=True)
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise ToolMissing(f"cannot build benchmarks/{source.name}: {lines[-1]}")
    unfinished.rename(program)
    return program
