"""Fetches a newer HAProxy than this machine's: Debian's package of a later suite, in a cache.

    mmdebstrap ──▶ <cache>/userspace-proxy/benchmarks/haproxy-SUITE-VERSION/usr/sbin/haproxy, …

The package and its dependencies are unpacked, not installed. HAProxy runs with the dynamic loader
and the libraries of that folder, so it needs no chroot. The folder gets its name when it is
complete, and is used until it is removed.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .tools import ToolMissing, cache_folder, find_program

SUITES = ("sid", "trixie")
"""The first suite that provides HAProxy is used. apt rejects sid if the mirror is weeks old."""

FETCH_S = 600.0


@dataclass(frozen=True, slots=True)
class NewerHAProxy:
    """A HAProxy in the cache.

    Args:
        root: The folder in which it was unpacked.
        suite: Debian's suite.
    """

    root: Path
    suite: str

    @property
    def version(self) -> str:
        """Debian's version of the package."""
        return self.root.name.removeprefix(_prefix(self.suite))

    @property
    def command(self) -> list[str]:
        """The command that runs HAProxy, without its flags."""
        return _command(self.root)

    def __str__(self) -> str:
        return f"{self.version}, Debian {self.suite}"


def cached_haproxy() -> NewerHAProxy | None:
    """Return the HAProxy in the cache; None if there is none."""
    for suite in SUITES:
        for root in sorted(cache_folder().glob(f"{_prefix(suite)}*")):
            return NewerHAProxy(root, suite)
    return None


def find_newer_haproxy() -> NewerHAProxy:
    """Return the HAProxy in the cache; fetch it if there is none.

    Raises:
        ToolMissing: No suite provides it; the message contains the reasons.
    """
    if found := cached_haproxy():
        return found
    reasons = []
    for suite in SUITES:
        try:
            return _fetch(suite)
        except ToolMissing as exc:
            reasons.append(f"{suite}: {exc}")
    raise ToolMissing(f"cannot fetch a newer HAProxy: {'; '.join(reasons)}")


def _fetch(suite: str) -> NewerHAProxy:
    mmdebstrap = find_program("mmdebstrap")
    print(f"fetching HAProxy of Debian {suite}", flush=True)
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=".haproxy-", dir=cache_folder(), ignore_cleanup_errors=True
    ) as folder:
        root = Path(folder, "root")
        _run([mmdebstrap, "--variant=extract", "--include=haproxy", suite, str(root)])
        said = _run([*_command(root), "-v"])
        found = re.search(r"^HAProxy version (\S+)", said)
        if found is None:
            raise ToolMissing(f"its version is unknown: {said.partition(chr(10))[0]}")
        target = cache_folder() / f"{_prefix(suite)}{found[1]}"
        root.rename(target)
    return NewerHAProxy(target, suite)


def _command(root: Path) -> list[str]:
    loaders = sorted(root.glob("usr/lib*/ld-linux*.so.*"))
    libraries = sorted(root.glob("usr/lib/*/libc.so.6"))
    if not (loaders and libraries):
        raise ToolMissing("its package for this kind of machine has no loader or no libraries")
    return [
        str(loaders[0]),
        "--inhibit-cache",
        "--library-path",
        str(libraries[0].parent),
        str(root / "usr/sbin/haproxy"),
    ]


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=FETCH_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise ToolMissing(str(exc)) from exc
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("E: ")]
        cause = errors[0][3:] if errors else done.stderr.strip().rpartition("\n")[2]
        raise ToolMissing(cause or f"{command[0]} failed with status {done.returncode}")
    return done.stdout


def _prefix(suite: str) -> str:
    return f"haproxy-{suite}-"
