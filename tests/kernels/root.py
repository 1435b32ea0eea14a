"""Builds the root disk of a machine: Debian, the locked packages, and the last commit.

    Dockerfile here ──▶ layers ──clone, install, compile──▶ overlay ──mke2fs──▶ ext4

Rule 1: a disk gets its name only when it is complete, and nothing ever writes to it.
Rule 2: the cache has one disk per suite, for the newest requested commit.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.build import BuildError, Write, cache_root, locked, step
from tests.cluster.image import Image, build_image, environment, give_certificates, mount_over
from tests.tools.clones import ROOT, clone, git

_HERE = Path(__file__).parent
_PARTS = ("venv", "demo", "build", "node")
"""Parts of tests/tools/prepare.sh that provide the programs for tests/node."""
DISK_MB = 3000
"""The maximum size of the root in MB; the file is sparse."""
# Nothing should be compiled in a machine, where Python may be ten times slower: neither modules,
# which pip and Debian have compiled, nor the tests, whose assertions pytest rewrites.
_INSTALL = """
    set -eu
    cd /src
    umask 022
    /venv/bin/pip install --quiet --no-index --no-deps --no-build-isolation \
      --editable . --editable ./kubectl-userspace-proxy --editable ./pytest-userspace-proxy
    /venv/bin/python -m compileall -q \
      userspace_proxy kubectl-userspace-proxy pytest-userspace-proxy tests
    /venv/bin/python -m pytest -q -p no:cacheprovider --collect-only tests/node >/dev/null
"""


@dataclass(frozen=True, slots=True)
class Root:
    """A root file system with the commit in ``/src`` and its environment in ``/venv``.

    Args:
        suite: Debian's suite.
        disk: An ext4 image, which isn't changed; machines change only copies, and discard these.
    """

    suite: str
    disk: Path


def ensure_root(suite: str, write: Write = sys.stdout.write) -> Root:
    """Return the root of a suite with the last commit, after building it if necessary.

    Building requires root; using it doesn't.

    Raises:
        BuildError: The root can't be built here.
        CloneError: There are uncommitted changes.
    """
    folder = cache_root() / "kernels" / "roots"
    folder.mkdir(parents=True, exist_ok=True)
    context = _context()
    disk = folder / f"{suite}-{_key(context)}.ext4"
    with locked(folder / f"{suite}.lock", write):
        if not disk.exists():
            image = _build(context, suite, write)
            with step(f"making the root of Debian {suite}", write):
                _make_disk(image, disk)
            for old in set(folder.glob(f"{suite}-*.ext4")) - {disk}:
                # A machine that has opened the old disk can continue to use it.
                old.unlink()
    return Root(suite, disk)


def _context() -> dict[str, str]:
    """Return the files from which the image is built, by name."""
    prepare = (ROOT / "tests/tools/prepare.sh").read_text()
    return {
        "Dockerfile": (_HERE / "Dockerfile").read_text(),
        "packages": "\n".join(packages(prepare)),
        "requirements-dev.lock": (ROOT / "requirements-dev.lock").read_text(),
    }


def _build(context: Mapping[str, str], suite: str, write: Write) -> Image:
    with tempfile.TemporaryDirectory(prefix="userspace-proxy-kernels-") as folder:
        for name, text in context.items():
            Path(folder, name).write_text(text)
        return build_image(Path(folder), {"SUITE": suite}, write)


def packages(prepare: str) -> list[str]:
    """Return the names of the Debian packages in the table of prepare.sh, sorted."""
    rows = (
        line.split()
        for line in prepare.partition("\ntable='\n")[2].partition("\n'\n")[0].splitlines()
    )
    return sorted({name for row in rows if row[1] in _PARTS for name in row[2].split(",")})


def _key(context: Mapping[str, str]) -> str:
    commit = git(ROOT, "rev-parse", "HEAD")
    parts = [commit, _INSTALL, str(DISK_MB), *context.values()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _make_disk(image: Image, disk: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="run-", dir=disk.parent) as name:
        folder = Path(name)
        for part in ("upper", "work", "merged"):
            (folder / part).mkdir()
        (folder / "upper").chmod(0o755)
        clone(folder / "upper/src")
        unfinished = folder / "disk"
        command = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--"]
        script = _script(image, folder, unfinished)
        done = subprocess.run(
            [*command, "/bin/sh", "-c", script, "sh", _INSTALL],
            env=environment() | {"LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            tail = "\n".join(done.stdout.splitlines()[-20:])
            raise BuildError(f"cannot make the root of a machine: {tail}")
        unfinished.rename(disk)


def _script(image: Image, folder: Path, disk: Path) -> str:
    """Return a script that runs its first argument in the root, and writes the root to a disk."""
    merged = folder / "merged"
    mount = mount_over(image.layers, merged, upper=folder / "upper", work=folder / "work")
    return f"""
        set -eu
        {mount}
        mkdir -p "{merged}/proc" "{merged}/sys" "{merged}/dev" "{merged}/run" "{merged}/lib/modules"
        mount -t proc proc "{merged}/proc"
        mount --rbind /dev "{merged}/dev"
        mount -t tmpfs tmpfs "{merged}/run"
        {give_certificates(merged)}
        chroot "{merged}" /bin/sh -c "$1"
        umount --lazy "{merged}/proc" "{merged}/dev" "{merged}/run"
        rm -rf "{merged}"/tmp/* "{merged}"/var/cache/apt/*
        truncate --size={DISK_MB}M "{disk}"
        mke2fs -q -t ext4 -O ^has_journal -E lazy_itable_init=1 -m 0 -d "{merged}" "{disk}"
    """
