"""Builds toxiproxy-cli, a client of toxiproxy in Go, into the cache of the other programs.

Runs alone too, to warm the cache: ``python -m tests.cluster.toxiproxy_cli``. A first build takes a
minute of one core; the binary has 11 MB.
"""
# ruff: noqa: T201 - printing what it does is this program's interface.

from __future__ import annotations

import sys
from pathlib import Path

from .build import BuildError, Target, Write, build_missing, cache_root, version_key

_TOXIPROXY = "github.com/Shopify/toxiproxy/v2"

TARGET = Target(
    "toxiproxy-cli", f"{_TOXIPROXY}/cmd/cli", _TOXIPROXY, Path(__file__).parent / "toxiproxy"
)


def toxiproxy_cli_path() -> Path:
    """Return where toxiproxy-cli is, or will be once it is built."""
    return cache_root() / version_key((TARGET,)) / "bin" / TARGET.binary


def ensure_toxiproxy_cli(write: Write = sys.stdout.write) -> Path:
    """Return toxiproxy-cli, after building it if it is missing.

    Raises:
        BuildError: It can't be built.
    """
    path = toxiproxy_cli_path()
    build_missing((TARGET,), path.parent, write)
    return path


def main() -> int:
    """Build it if it is missing, and print where it is."""
    try:
        path = ensure_toxiproxy_cli()
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"toxiproxy-cli is {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
