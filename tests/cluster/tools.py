"""Builds Go programs for tests, in the cache of the other programs.

Can also be run to warm the cache: ``python -m tests.cluster.tools helm``.
"""
# ruff: noqa: T201 - the progress is printed.

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from .build import BuildError, Target, Write, build_missing, cache_root, version_key

_HERE = Path(__file__).parent
_PROMETHEUS = "github.com/prometheus/prometheus"
_HELM = "helm.sh/helm/v3"
_ACTIONLINT = "github.com/rhysd/actionlint"

# promtool checks and tests alert rules. Service discovery, most of its code, is left out.
PROMTOOL = Target(
    "promtool",
    f"{_PROMETHEUS}/cmd/promtool",
    _PROMETHEUS,
    _HERE / "prometheus",
    tags=("remove_all_sd",),
)
# The flags in helm's own Makefile.
HELM = Target(
    "helm",
    f"{_HELM}/cmd/helm",
    _HELM,
    _HERE / "helm",
    kubernetes_in=(f"{_HELM}/pkg/lint/rules", f"{_HELM}/pkg/chartutil"),
)
ACTIONLINT = Target(
    "actionlint", f"{_ACTIONLINT}/cmd/actionlint", _ACTIONLINT, _HERE / "actionlint"
)
# The tests of an example, with its own sources; a first build takes a minute on one core.
ENVTEST_GO = Target(
    "envtest-go.test",
    ".",
    "sigs.k8s.io/controller-runtime",
    _HERE.parents[1] / "examples/envtest-go",
    is_test=True,
)
TOOLS = {target.binary: target for target in (PROMTOOL, HELM, ACTIONLINT, ENVTEST_GO)}


def path_of(tool: Target) -> Path:
    """Return the path of a program; it may not exist yet."""
    folder = version_key((tool,))
    if tool.is_test:
        sources = sorted(tool.go_module.glob("*.go"))
        digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources))
        folder += f"_{digest.hexdigest()[:12]}"
    return cache_root() / folder / "bin" / tool.binary


def ensure(tool: Target, write: Write = sys.stdout.write) -> Path:
    """Return the path of a program, after building it if it is missing.

    Raises:
        BuildError: It can't be built.
    """
    path = path_of(tool)
    build_missing((tool,), path.parent, write)
    return path


def main(names: Sequence[str]) -> int:
    """Build programs, named as in TOOLS, and print their paths; return the exit status."""
    for name in names:
        try:
            print(f"{name} is {ensure(TOOLS[name])}")
        except BuildError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
