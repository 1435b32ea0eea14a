"""Builds helm, which renders and checks the chart, into the cache of the other programs.

Runs alone too, to warm the cache: ``python -m tests.cluster.helm``.
"""
# ruff: noqa: T201 - printing what it does is this program's interface.

from __future__ import annotations

import sys
from pathlib import Path

from .build import BuildError, Target, Write, build_missing, cache_root, version_key

_HELM = "helm.sh/helm/v3"

TARGET = Target("helm", f"{_HELM}/cmd/helm", _HELM, Path(__file__).parent / "helm")


def helm_path() -> Path:
    """Return where helm is, or will be once it is built."""
    return cache_root() / version_key((TARGET,)) / "bin" / TARGET.binary


def ensure_helm(write: Write = sys.stdout.write) -> Path:
    """Return helm, after building it if it is missing.

    Raises:
        BuildError: It can't be built.
    """
    path = helm_path()
    build_missing((TARGET,), path.parent, write)
    return path


def main() -> int:
    """Build it if it is missing, and print where it is."""
    try:
        path = ensure_helm()
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"helm is {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
