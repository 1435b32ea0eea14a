"""Builds actionlint, which lints the workflows, into the cache of the other programs.

Runs alone too, to warm the cache: ``python -m tests.cluster.actionlint``. A first build takes some
seconds of one core; the binary has 6 MB.
"""
# ruff: noqa: T201 - printing what it does is this program's interface.

from __future__ import annotations

import sys
from pathlib import Path

from .build import BuildError, Target, Write, build_missing, cache_root, version_key

_ACTIONLINT = "github.com/rhysd/actionlint"

TARGET = Target(
    "actionlint", f"{_ACTIONLINT}/cmd/actionlint", _ACTIONLINT, Path(__file__).parent / "actionlint"
)


def actionlint_path() -> Path:
    """Return where actionlint is, or will be once it is built."""
    return cache_root() / version_key((TARGET,)) / "bin" / TARGET.binary


def ensure_actionlint(write: Write = sys.stdout.write) -> Path:
    """Return actionlint, after building it if it is missing.

    Raises:
        BuildError: It can't be built.
    """
    path = actionlint_path()
    build_missing((TARGET,), path.parent, write)
    return path


def main() -> int:
    """Build it if it is missing, and print where it is."""
    try:
        path = ensure_actionlint()
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"actionlint is {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
