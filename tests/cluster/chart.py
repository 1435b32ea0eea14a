"""Renders the chart and the plain manifests with helm: ``make manifests``.

charts/userspace-proxy ──helm template──▶ objects, for tests
                                     └──▶ examples/deploy/install.yaml, view.yaml, wake.yaml
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.tools.chart import CHART
from tests.tools.generated import write

from .build import BuildError
from .tools import HELM, ensure, path_of

NAMESPACE = "kube-system"
KUBE_PROXY = Path(__file__).with_name("kubeadm-kube-proxy.yaml")
"""The DaemonSet of kube-proxy before a takeover."""
DEPLOY = CHART.parents[1] / "examples/deploy"
PLACEHOLDERS = ("--set=apiServer.host=api.cluster.example", "--set=clusterCIDR=10.244.0.0/16")
"""The placeholders, besides the image, that a user of the plain manifest replaces."""


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run helm without the user's configuration; the helm binary must have been built."""
    with tempfile.TemporaryDirectory() as home:
        own = {f"HELM_{name}_HOME": home for name in ("CACHE", "CONFIG", "DATA")}
        command = [str(path_of(HELM)), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ | own)


def render(*values: str, release: str = "userspace-proxy") -> str:
    """Return the objects that the chart renders, as YAML.

    Args:
        values: Options of ``helm template``, such as ``--set=steering=local``.
        release: The release's name, from which the objects' names are derived.

    Raises:
        BuildError: helm rejected the values.
    """
    done = run("template", release, CHART, f"--namespace={NAMESPACE}", *values)
    if done.returncode:
        raise BuildError(f"cannot render the chart: {done.stderr.strip()}")
    return done.stdout


def kubeadm_phase(phase: str, daemon_set: Path = KUBE_PROXY, *values: str) -> str:
    """Return the objects of one phase in which kubeadm's kube-proxy is replaced.

    Args:
        phase: take-over, standby or original.
        daemon_set: The file with the DaemonSet before the takeover.
        values: More options of ``helm template``.
    """
    of_phase = (f"--set=kubeadm.phase={phase}", f"--set-file=kubeadm.daemonSet={daemon_set}")
    return render(*of_phase, *values)


def objects_of(text: str) -> dict[tuple[str, str], Any]:
    """Return the objects of a manifest by kind and name."""
    return {(o["kind"], o["metadata"]["name"]): o for o in yaml.safe_load_all(text)}


def _manifest(*values: str) -> str:
    return f"# Made from charts/userspace-proxy: make manifests.\n{render(*PLACEHOLDERS, *values)}"


MANIFESTS: Mapping[Path, Callable[[str], str]] = {
    DEPLOY / "install.yaml": lambda _: _manifest(),
    DEPLOY / "view.yaml": lambda _: _manifest(
        "--set=view.create=true", "--show-only=templates/view.yaml"
    ),
    DEPLOY / "wake.yaml": lambda _: _manifest(
        "--set=wake.namespaces={default}", "--show-only=templates/wake.yaml"
    ),
}
"""The function that renders each plain manifest, in the form of `tests.tools.generated`."""


def main() -> int:
    """Write the plain manifests, after building helm if it is missing; return the exit status."""
    ensure(HELM)
    write(MANIFESTS)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
