"""Checks that each locked package has a wheel for each supported Python and machine.

A node has no compiler, so a package without a wheel couldn't be installed there. Tests on one kind
of machine don't detect that. Run it as ``python -m tests.tools.locked_wheels``; it queries the
index in uv's configuration, and installs nothing.

Rule 1: only python-iptables may lack wheels: it has none, is an extra, and the image's builder
compiles it.
"""
# ruff: noqa: T201 - printing what it finds is this program's interface.

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .clones import ROOT
from .workflows import pythons

MACHINES = ("x86_64", "aarch64")
COMPILED = "python-iptables"
LOCKS = ("requirements.lock", "requirements-image.lock")
# The glibc of Debian 10 and RHEL 8.
_PLATFORM = "manylinux_2_28"


def missing_wheels(lock: Path, versions: list[str]) -> Iterator[str]:
    """Yield one line for each Python and machine for which a locked package has no wheel.

    Args:
        lock: The requirements file, with hashes.
        versions: Python versions, such as ``3.11``.
    """
    for version in versions:
        for machine in MACHINES:
            if cause := _lacks(lock, version, f"{machine}-{_PLATFORM}"):
                yield f"{lock.name}, Python {version}, {machine}: {cause}"


def _lacks(lock: Path, version: str, platform: str) -> str:
    with tempfile.TemporaryDirectory(prefix="userspace-proxy-wheels-") as folder:
        done = subprocess.run(
            [
                sys.executable, "-m", "uv", "pip", "install", "--dry-run", "--quiet", "--no-deps",
                f"--target={folder}", f"--python-version={version}",
                f"--python-platform={platform}", "--only-binary=:all:",
                f"--no-binary={COMPILED}", "--require-hashes", f"--requirements={lock}",
            ],
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
    return " ".join(done.stderr.split()) if done.returncode else ""


def main() -> int:
    """Print the missing wheels; return the exit status."""
    versions = pythons((ROOT / "pyproject.toml").read_text())
    found = [line for lock in LOCKS for line in missing_wheels(ROOT / lock, versions)]
    for line in found:
        print(line, file=sys.stderr)
    if not found:
        print(f"each locked package has wheels for {', '.join(MACHINES)}: {', '.join(versions)}")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
