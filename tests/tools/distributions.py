"""Builds a release's wheels and source distributions twice, and checks them.

    clone 1 ──▶ wheel, source distribution ─────────────┐
    clone 2 ──▶ source distribution ──unpacked──▶ wheel ┴─▶ same bytes? ──twine check──▶ dist/

The second build uses another folder and another umask. Run it as ``python -m
tests.tools.distributions``.

Rule 1: the last commit is built, and its time becomes the time of the archives.
"""
# ruff: noqa: T201 - printing what it built is this program's interface.

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from .clones import ROOT, CloneError, clone, committed_at

DIST = ROOT / "dist"
PROJECTS = (".", "kubectl-userspace-proxy", "pytest-userspace-proxy")
_SECOND_UMASK = 0o077


class DistributionError(Exception):
    """A distribution can't be released; the message contains the cause."""


def build_all(folder: Path, root: Path = ROOT) -> list[Path]:
    """Build each wheel and source distribution in an empty folder; return them, sorted.

    Raises:
        CloneError: There are uncommitted changes.
        DistributionError: A build fails, or the second build differs from the first.
    """
    with tempfile.TemporaryDirectory(prefix="userspace-proxy-dist-") as name:
        work = Path(name)
        environment = os.environ | {"SOURCE_DATE_EPOCH": str(committed_at(root))}
        environment.pop("PYTHONPATH", None)
        for number in ("first", "second"):
            clone(work / number, root)
        second = work / "built"
        for project in PROJECTS:
            _build(work / "first" / project, folder, ["sdist", "wheel"], environment)
            built = work / "sdist" / project
            _build(work / "second" / project, built, ["sdist"], environment, _SECOND_UMASK)
            (sdist,) = built.iterdir()
            with tarfile.open(sdist) as archive:
                archive.extractall(work / "unpacked", filter="data")
            unpacked = work / "unpacked" / sdist.name.removesuffix(".tar.gz")
            _build(unpacked, second, ["wheel"], environment, _SECOND_UMASK)
            sdist.rename(second / sdist.name)
            built.rmdir()
        compare(folder, second)
    return sorted(folder.iterdir())


def compare(first: Path, second: Path) -> None:
    """Check that two folders have the same files.

    Raises:
        DistributionError: They differ; the message names the files.
    """
    one, other = hashes(first), hashes(second)
    if differing := sorted(n for n in one.keys() | other.keys() if one.get(n) != other.get(n)):
        raise DistributionError(f"two builds differ: {', '.join(differing)}")


def hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a folder, by its name."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


def check(files: list[Path]) -> None:
    """Check with twine that the metadata is valid and an index can render the readmes.

    Raises:
        DistributionError: twine found a problem.
    """
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DistributionError(f"twine check: {done.stdout}{done.stderr}")


def _build(
    project: Path,
    folder: Path,
    targets: list[str],
    environment: Mapping[str, str],
    umask: int = -1,
) -> None:
    command = [sys.executable, "-m", "hatchling", "build", f"--directory={folder}"]
    done = subprocess.run(
        [*command, *(word for target in targets for word in ("--target", target))],
        cwd=project,
        env=environment,
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DistributionError(f"cannot build {project.name}: {done.stdout}{done.stderr}")


def main() -> int:
    """Build into ``dist/``, from which older distributions are deleted; return the exit status."""
    DIST.mkdir(exist_ok=True)
    for path in (*DIST.glob("*.whl"), *DIST.glob("*.tar.gz")):
        path.unlink()
    with tempfile.TemporaryDirectory(prefix=".built-", dir=DIST) as name:
        try:
            files = build_all(Path(name))
            check(files)
        except (CloneError, DistributionError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        for file, digest in hashes(Path(name)).items():
            Path(name, file).rename(DIST / file)
            print(f"{digest}  dist/{file}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
