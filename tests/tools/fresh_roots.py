"""Runs commands on fresh minimal Debian systems with only a clone, git, make and Python.

    debian:SUITE-slim ──Dockerfile here──▶ root ──clone of the last commit──▶ command, command, …

Rule 1: commands run in a clone of the last commit, without this checkout's environment.
Rule 2: the root and pip's downloads stay in the cache, except for wheels that pip has built. All
other files that a run writes below the root are removed.
Rule 3: processes have their own PID namespace, which ends with the command.

``python -m tests.tools.fresh_roots --suite=trixie 'make test' 'make test'``; it needs root, like
building the image. The commands of a suite run one after another until one fails; then the next
suite runs.
"""
# ruff: noqa: T201 - printing what it does is this program's interface.

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.build import BuildError, cache_root
from tests.cluster.image import Image, build_image, environment, give_certificates, mount_over

from .clones import CloneError, clone

SUITES = {"3.11": "bookworm", "3.13": "trixie", "3.14": "forky"}
"""Debian's suites by their Python version: oldstable, stable, testing."""

_HERE = Path(__file__).parent
# This isn't below /tmp, which tests may hide.
_CLONE = "/src"


def run_commands(suite: str, commands: Sequence[str]) -> str | None:
    """Run shell commands in a clone in a new root; return the command that failed, or None.

    Args:
        suite: One of ``SUITES``.
        commands: The commands, run in order until one fails.

    Raises:
        BuildError: The root can't be built.
        CloneError: There are uncommitted changes.
    """
    image = build_image(_HERE, {"SUITE": suite})
    kept = cache_root() / "fresh-roots"
    fetched = kept / suite
    fetched.mkdir(parents=True, exist_ok=True)
    # If the wheel stayed in the cache, a missing compiler would go unnoticed.
    shutil.rmtree(fetched / "wheels", ignore_errors=True)
    # Next to the image's layers, because not every file system supports an overlay's upper folder.
    with tempfile.TemporaryDirectory(prefix="run-", dir=kept) as folder:
        for name in ("upper", "work", "tmp", "merged"):
            Path(folder, name).mkdir()
        Path(folder, "tmp").chmod(0o1777)
        clone(Path(folder, "clone"))
        for command in commands:
            print(f"Debian {suite}: {command}", flush=True)
            began = time.monotonic()
            done = subprocess.run(
                ["unshare", "--mount", "--ipc", "--pid", "--fork", "--kill-child", "--",
                 "/bin/sh", "-c", _script(image, Path(folder), fetched), "sh", command],
                env=environment() | {"CI": "true", "LANG": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                check=False,
            )  # fmt: skip
            seconds = time.monotonic() - began
            print(f"Debian {suite}: {command}: exit {done.returncode}, {seconds:.0f} s", flush=True)
            if done.returncode:
                return command
    return None


def _script(image: Image, folder: Path, fetched: Path) -> str:
    """Return the script that mounts the root and runs the first argument in it.

    It uses pivot_root, because the kernel forbids user namespaces in a chroot, and tests need them.
    """
    merged = folder / "merged"
    mount = mount_over(image.layers, merged, upper=folder / "upper", work=folder / "work")
    return f"""
        set -eu
        {mount}
        cd "{merged}"
        mount -t proc proc proc
        mount --rbind /dev dev
        mount -t tmpfs tmpfs dev/shm
        mount --rbind /sys sys
        mount -t tmpfs tmpfs run
        mount --bind /etc/resolv.conf etc/resolv.conf
        {give_certificates(merged)}
        mount --bind "{folder}/tmp" tmp
        mkdir -p ".{_CLONE}" root/.cache/pip
        mount --bind "{folder}/clone" ".{_CLONE}"
        mount --bind "{fetched}" root/.cache/pip
        pivot_root . mnt
        umount --lazy /mnt
        cd {_CLONE}
        exec /bin/sh -c "$1"
    """


def main(words: Sequence[str]) -> int:
    """Run the commands in each root; return 1 if any failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.fresh_roots")
    parser.add_argument("--suite", choices=SUITES.values(), action="append", help="default: each")
    parser.add_argument("commands", nargs="+", help="such as 'make test'")
    given = parser.parse_args(words)
    # SIGTERM raises an exception, which stops processes and unmounts file systems.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    failed = []
    for suite in given.suite or SUITES.values():
        try:
            if command := run_commands(suite, given.commands):
                failed.append(f"{command} failed on Debian {suite}")
        except (BuildError, CloneError) as error:
            failed.append(f"{error} (Debian {suite})")
    for line in failed:
        print(f"error: {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
