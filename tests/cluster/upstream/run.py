"""Runs a group of upstream's tests with a Service proxy, in a new cluster."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from tests.tools.clones import git

from ..build import Write, ensure_binaries
from ..nodes.cluster import Cluster
from ..nodes.families import FAMILIES
from ..nodes.images import ensure_images
from ..nodes.programs import Programs, ensure_programs, kubernetes_version
from ..nodes.proxies import PROXIES, REPOSITORY
from .groups import FAILED, GROUPS, PASSED, Group, Result, read_results

REASONS = {
    r"\[Provider:GCE\]": "Asks for Google's DNS servers, which no machine has but theirs.",
}
"""Why a test can't pass or proves nothing, in one sentence, by a pattern of its name; for both
proxies."""
# No group takes half as long, even with a proxy that does nothing.
TIMEOUT_S = 3600


@dataclass(frozen=True, slots=True)
class Run:
    """The results of a group with one proxy."""

    proxy: str
    """A key of `PROXIES`."""
    group: str
    """A key of `GROUPS`."""
    families: str
    """A key of `FAMILIES`."""
    version: str
    """The tested version of the proxy: a commit or a release."""
    kubernetes: str
    cni: str
    """The plugin that connected the pods."""
    seconds: float
    results: tuple[Result, ...]

    @property
    def passed(self) -> int:
        return sum(result.outcome == PASSED for result in self.results)

    @property
    def failed(self) -> list[Result]:
        return [result for result in self.results if result.outcome == FAILED]


def run_group(
    proxy: str, name: str, families: str, cni: str, folder: Path, write: Write = sys.stdout.write
) -> Run:
    """Create a cluster, run the tests, and stop the cluster.

    Args:
        proxy: A key of `PROXIES`.
        name: A key of `GROUPS`.
        families: A key of `FAMILIES`.
        cni: The plugin that connects pods.
        folder: The folder for ginkgo's output, its report, and the proxies' logs.
        write: Called with the progress.

    Raises:
        AssertionError: The cluster didn't start, or ginkgo wrote no report.
    """
    group = GROUPS[name]
    programs = ensure_programs(write, with_upstream=True)
    images = ensure_images(programs, write)
    cluster = Cluster(
        ensure_binaries(write),
        programs,
        images,
        PROXIES[proxy],
        nodes=group.nodes,
        cni=cni,
        families=FAMILIES[families],
    )
    with cluster:
        where = f"{group.nodes} nodes, {families}, pods by {cni}"
        write(f"{PROXIES[proxy].title}: {group.title} on {where}\n")
        began = time.monotonic()
        results = run_tests(cluster, programs, group, folder)
        seconds = time.monotonic() - began
        for node in cluster.nodes:
            log = (node.folder / "proxy.log").read_bytes()
            (folder / f"{node.site.name}.proxy.log").write_bytes(log)
    explained = tuple(explain(result) for result in results)
    version = kubernetes_version() if proxy.startswith("kube-proxy") else commit()
    return Run(proxy, name, families, version, kubernetes_version(), cni, seconds, explained)


def explain(result: Result) -> Result:
    """Return a result; if it didn't pass, a matching reason in REASONS replaces its reason."""
    if result.outcome == PASSED:
        return result
    whys = (why for what, why in REASONS.items() if re.search(what, result.name))
    return replace(result, reason=next(whys, result.reason))


def run_tests(cluster: Cluster, programs: Programs, group: Group, folder: Path) -> list[Result]:
    """Run a group's tests in a ready cluster; return their results.

    Raises:
        AssertionError: There is no report; the error contains the end of ginkgo's output.
    """
    kubeconfig = cluster.control_plane.kubeconfig
    output, report = folder / "output.log", folder / "junit.xml"
    report.unlink(missing_ok=True)
    ginkgo: list[str | Path] = [
        *(programs["ginkgo"], "--no-color", f"--procs={group.processes}"),
        *(f"--timeout={TIMEOUT_S}s", "--output-interceptor-mode=none"),
        *(f"--focus={group.focus}", f"--skip={'|'.join(group.skip)}"),
        *(f"--output-dir={folder}", f"--junit-report={report.name}"),
        *(programs["e2e.test"], "--", f"--kubeconfig={kubeconfig}", "--provider=skeleton"),
        f"--kubectl-path={cluster.control_plane.kubectl_program}",
        f"--num-nodes={group.nodes}",
    ]
    with output.open("wb") as log:
        subprocess.run(
            [*cluster.world.enter(), "env", "NO_PROXY=*", f"KUBECONFIG={kubeconfig}", *ginkgo],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    last = "\n".join(output.read_text(errors="replace").splitlines()[-20:])
    assert report.is_file(), f"upstream's tests didn't run: {last}"
    return read_results(report)


def commit() -> str:
    """Return the commit of this checkout, marked if the proxy has uncommitted changes."""
    commit = git(REPOSITORY, "rev-parse", "--short=12", "HEAD")
    return commit + ("+" if git(REPOSITORY, "status", "--porcelain", "userspace_proxy") else "")


def run_name(proxy: str, group: str, families: str, cni: str) -> str:
    """Return the name of a run's files in the cache."""
    return f"{group}-{families}-{proxy}-{cni}"
