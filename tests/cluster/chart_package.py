"""Packages the chart into ``dist``, and pushes that package to an OCI registry.

Run by ``make chart`` and ``make push-chart CHARTS=oci://HOST/FOLDER``. helm uses docker's login, so
this program needs no password.
"""
# ruff: noqa: T201 - the progress is printed.

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .build import BuildError
from .tools import HELM, ensure

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/userspace-proxy"
DIST = ROOT / "dist"


def package(chart: Path, dist: Path) -> int:
    """Package a chart, and remove all other packages from the folder; return helm's exit status.

    Raises:
        BuildError: helm can't be built.
    """
    for old in dist.glob("*.tgz"):
        old.unlink()
    return _helm("package", chart, f"--destination={dist}")


def push(dist: Path, charts: str, *options: str) -> int:
    """Push the only chart in a folder; return helm's exit status.

    Args:
        dist: The folder.
        charts: The registry's folder for charts: ``oci://HOST/FOLDER``.
        options: Options of helm.

    Raises:
        BuildError: There is no chart, or more than one, or helm can't be built.
    """
    packages = sorted(dist.glob("*.tgz"))
    if len(packages) != 1:
        raise BuildError(f"cannot push a chart: {dist} has {len(packages)} (make chart)")
    return _helm("push", *packages, charts, *options)


def _helm(*words: str | Path) -> int:
    return subprocess.run([ensure(HELM), *words]).returncode


def main(words: Sequence[str]) -> int:
    """Run the command that the arguments name; return the exit status."""
    try:
        match list(words):
            case ["package"]:
                return package(CHART, DIST)
            case ["push", charts] if charts.startswith("oci://"):
                return push(DIST, charts)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("error: name the folder of charts: CHARTS=oci://HOST/FOLDER", file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
