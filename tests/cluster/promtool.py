"""Builds promtool, which checks and tests alert rules, into the cache of the other programs.

Runs alone too, to warm the cache: ``python -m tests.cluster.promtool``. A first build takes two
minutes of one core; the binary has 54 MB.
"""
# ruff: noqa: T201 - printing what it does is this program's interface.

from __future__ import annotations

import sys
from pathlib import Path

from .build import BuildError, Target, Write, build_missing, cache_root, version_key

_PROMETHEUS = "github.com/prometheus/prometheus"

TARGET = Target(
    "promtool",
    f"{_PROMETHEUS}/cmd/promtool",
    _PROMETHEUS,
    Path(__file__).parent / "prometheus",
    # It needs no service discovery, which is most of the code.
    tags=("remove_all_sd",),
)


def promtool_path() -> Path:
    """Return where promtool is, or will be once it is built."""
    return cache_root() / version_key((TARGET,)) / "bin" / TARGET.binary


def ensure_promtool(write: Write = sys.stdout.write) -> Path:
    """Return promtool, after building it if it is missing.

    Raises:
        BuildError: It can't be built.
    """
    path = promtool_path()
    build_missing((TARGET,), path.parent, write)
    return path


def main() -> int:
    """Build it if it is missing, and print where it is."""
    try:
        path = ensure_promtool()
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"promtool is {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
