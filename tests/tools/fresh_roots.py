"""Runs parts of the tests on the Pythons of Debian's newer suites, each in a root of its own.

    debian:SUITE-slim ──Dockerfile here──▶ root ──clone of the last commit──▶ make unit node

Rule 1: what runs is the last commit, as a clone: nothing of this checkout's environment.
Rule 2: the virtual environment stays in the cache; all else that a run writes is removed.

``python -m tests.tools.pythons --python=3.14 unit node``; it needs root, as the image's build does.
"""
# ruff: noqa: T201 - printing what it does is this program's interface.

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.build import BuildError, cache_root
from tests.cluster.image import Image, build_image, environment, give_certificates

from .clones import CloneError, clone

SUITES = {"3.13": "trixie", "3.14": "forky"}
"""Debian's suites by their Python; that of ``make test`` is the machine's, usually the oldest."""

_HERE = Path(__file__).parent
# Not below /tmp, which tests may hide.
_CLONE = "/src"
_DISK = "/var/tmp"


def run_parts(version: str, parts: Sequence[str]) -> int:
    """Run targets of the Makefile on a Python; return the exit status of make.

    Args:
        version: One of ``SUITES``.
        parts: Such as ``unit``, or variables of the Makefile.

    Raises:
        BuildError: The root can't be made.
        CloneError: There are uncommitted changes.
    """
    suite = SUITES[version]
    image = build_image(_HERE, {"SUITE": suite})
    kept = cache_root() / "pythons" / suite
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="userspace-proxy-python-", dir=_DISK) as folder:
        for name in ("upper", "work", "tmp", "merged"):
            Path(folder, name).mkdir()
        Path(folder, "tmp").chmod(0o1777)
        clone(Path(folder, "clone"))
        command = ["make", "--keep-going", "PYTHON=python3", *parts]
        print(f"Python {version} of Debian {suite}: {shlex.join(command)}", flush=True)
        return subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--",
             "/bin/sh", "-c", _script(image, Path(folder), kept), "sh", *command],
            env=environment() | {"CI": "true", "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            check=False,
        ).returncode  # fmt: skip


def _script(image: Image, folder: Path, kept: Path) -> str:
    """Return what makes the root and runs the arguments in it.

    The root is exchanged: in a chroot the kernel forbids user namespaces, which tests need.
    """
    merged = folder / "merged"
    lower = ":".join(str(layer) for layer in reversed(image.layers))
    return f"""
        set -eu
        mount -t overlay overlay \
          -o "lowerdir={lower},upperdir={folder}/upper,workdir={folder}/work" "{merged}"
        cd "{merged}"
        mount -t proc proc proc
        mount --rbind /dev dev
        mount --rbind /sys sys
        mount -t tmpfs tmpfs run
        mount --bind /etc/resolv.conf etc/resolv.conf
        {give_certificates(merged)}
        mount --bind "{folder}/tmp" tmp
        mkdir -p ".{_CLONE}"
        mount --bind "{folder}/clone" ".{_CLONE}"
        mkdir ".{_CLONE}/.venv"
        mount --bind "{kept}" ".{_CLONE}/.venv"
        pivot_root . mnt
        umount --lazy /mnt
        cd {_CLONE}
        exec "$@"
    """


def main(words: Sequence[str]) -> int:
    """Run the parts on each Python, and return 1 if any failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.pythons")
    parser.add_argument("--python", choices=SUITES, action="append", help="default: each")
    parser.add_argument("parts", nargs="+", help="targets of the Makefile")
    given = parser.parse_args(words)
    try:
        failed = [
            version for version in given.python or SUITES if run_parts(version, given.parts) != 0
        ]
    except (BuildError, CloneError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if failed:
        print(f"error: tests failed on Python {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
