"""Builds the Go example for envtest as a test binary, in the cache of the other programs.

Can also be run to warm the cache: ``python -m tests.cluster.envtest_go``. A first build takes a
minute on one core.
"""
# ruff: noqa: T201 - the progress is printed.

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from .build import BuildError, Target, Write, build_missing, cache_root, version_key

EXAMPLE = Path(__file__).parents[2] / "examples" / "envtest-go"

TARGET = Target("envtest-go.test", ".", "sigs.k8s.io/controller-runtime", EXAMPLE, is_test=True)


def example_path() -> Path:
    """Return the path of the example's test binary; it may not exist yet."""
    digest = hashlib.sha256()
    for source in sorted(EXAMPLE.glob("*.go")):
        digest.update(source.read_bytes())
    folder = f"{version_key((TARGET,))}_{digest.hexdigest()[:12]}"
    return cache_root() / folder / "bin" / TARGET.binary


def ensure_example(write: Write = sys.stdout.write) -> Path:
    """Return the example's test binary, after building it if it is missing.

    Raises:
        BuildError: It can't be built.
    """
    path = example_path()
    build_missing((TARGET,), path.parent, write)
    return path


def main() -> int:
    """Build the test binary if it is missing, and print its path."""
    try:
        path = ensure_example()
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"the tests of {EXAMPLE.name} are {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
