"""All nodes of a real cluster in one view of the kubectl plugin, with their problems.

    kubectl userspace-proxy ──▶ API server ──port-forward──▶ kubelet, containerd ──▶ agent's page

There are only two tests, because each worker of a parallel run would create its own cluster for
another test.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, ViewportSize, sync_playwright

from tests.page.conftest import ARGS, require_chromium

from ..build import Binaries
from ..child import Child
from ..objects import Object, made, pod
from ..plugin import write_plugin
from ..waiting import wait_for
from . import prober, release
from .cluster import Cluster
from .images import OURS, ensure_own_image
from .node import ClusterNode
from .programs import Programs

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.netns,
    pytest.mark.timeout(400),
    pytest.mark.usefixtures("helm"),
]

WEB = "default/web"
ADDRESS, PORT = "10.96.7.7", 80
RATE = 5
SCREEN_LINES = 24
VIEWPORT: ViewportSize = {"width": 1280, "height": 900}
FIRST_SCREEN = """() => {
  const shown = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const range = document.createRange();
    range.selectNodeContents(walker.currentNode);
    const place = range.getBoundingClientRect();
    if (place.height && place.bottom <= innerHeight) shown.push(walker.currentNode.data);
  }
  return shown.join(" ").replace(/\\s+/g, " ");
}"""
"""Returns the text of a page that is visible without scrolling."""
TIMEOUT = "--timeout=2s"
"""The timeout of first answers: the time that is lost with a suspended agent."""
VALUES = (
    "--set=steering=nftables",
    "--set=view.create=true",
    # With the default, a rolling update would take a minute per node.
    "--set=minReadySeconds=4",
    "--set=updateStrategy.rollingUpdate.maxSurge=3",
)
PERSON = "person"
RBAC = "rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True)
class Stage:
    """A cluster with the chart's release, a client on each node, and a user of the plugin.

    The user has the chart's roles for people, and no other rights.
    """

    cluster: Cluster
    environment: dict[str, str]

    @property
    def nodes(self) -> list[ClusterNode]:
        return self.cluster.nodes

    def ask(self, *words: str) -> str:
        """Run the plugin; return its output."""
        done = subprocess.run(
            self._command(*words),
            capture_output=True,
            text=True,
            env=os.environ | self.environment,
            timeout=60,
        )
        return done.stdout + done.stderr

    @contextmanager
    def running(self, log: Path, *words: str) -> Iterator[Child]:
        """Run the plugin in the background until the block ends; its output goes to a log."""
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        child = Child(["env", *variables, *self._command(*words)], log)
        try:
            yield child
        finally:
            child.kill()

    def endpoint_on(self, node: ClusterNode) -> IPv4Address:
        """Return the address of the Service web's pod on a node."""
        words = ("get", "pod", f"web-{node.site.name}", "--output=jsonpath={.status.podIP}")
        return IPv4Address(self.cluster.kubectl(*words))

    def is_served(self) -> bool:
        """Return whether ``status`` shows Service web as served on all nodes, and no problem."""
        screen = self.ask("status")
        return bool(re.search(rf"✓ {WEB} .* served on all 3 nodes", screen)) and not (
            re.search("[✕!]", screen)
        )

    def _command(self, *words: str) -> list[str]:
        kubectl = str(self.cluster.control_plane.kubectl_program)
        return [*self.cluster.world.enter_network(), kubectl, "userspace-proxy", *words]


@pytest.fixture(scope="module")
def stage(
    cluster_binaries: Binaries, node_programs: Programs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Three nodes with the chart's DaemonSet, each with a client of the Service web."""
    folder = tmp_path_factory.mktemp("person")
    with Cluster(cluster_binaries, node_programs, ensure_own_image(), None) as cluster:
        release.deploy(cluster, *VALUES)
        stage = Stage(cluster, {**rights_of_a_person(cluster, folder), "NO_PROXY": "*"})
        webs = [web(node.site.name) for node in cluster.nodes]
        cluster.control_plane.apply(*webs, service("web", clusterIP=ADDRESS))
        release.wait_until_ready(cluster)
        cluster.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
        with ExitStack() as stack:
            for node in cluster.nodes:
                stack.callback(client(node).kill)
            wait_for("all nodes to be served", stage.is_served, deadline_s=60)
            yield stage


def rights_of_a_person(cluster: Cluster, folder: Path) -> dict[str, str]:
    """Create a user with the chart's roles for people, and the plugin; return its environment."""
    write_plugin(folder)
    account = {"kind": "ServiceAccount", "name": PERSON, "namespace": "default"}
    bindings = []
    places: dict[str, Any] = {"Role": {"namespace": release.NAMESPACE}, "ClusterRole": {}}
    for kind, place in places.items():
        binding = made(f"{kind}Binding", PERSON, version=f"{RBAC}/v1", **place)
        role = {"apiGroup": RBAC, "kind": kind, "name": f"{release.NAME}-view"}
        bindings.append({**binding, "roleRef": role, "subjects": [account]})
    cluster.control_plane.apply(made("ServiceAccount", PERSON), *bindings)
    kubeconfig = folder / "config"
    cluster.control_plane.write_kubeconfig(kubeconfig, cluster.kubectl("create", "token", PERSON))
    path = f"{folder}:{os.environ['PATH']}"
    return {"PATH": path, "KUBECONFIG": str(kubeconfig), "HOME": str(folder)}


def web(node: str) -> Object:
    """Return a pod that answers the prober's requests."""
    command = ["busybox", "httpd", "-f", "-p", "8080", "-h", "/etc"]
    container = {"name": "web", "image": OURS, "command": command}
    return pod(f"web-{node}", container, labels={"app": "web"}, nodeName=node)


def service(name: str, **spec: object) -> Object:
    ports = [{"port": PORT, "targetPort": 8080}]
    return made("Service", name, {"selector": {"app": "web"}, "ports": ports, **spec})


def client(node: ClusterNode) -> Child:
    """Start a client on a node that connects continuously to the Service web."""
    words = [sys.executable, prober.__file__, ADDRESS, str(PORT), str(RATE)]
    return Child(words, node.folder / "client.log", node.holder.enter_network())


def assert_named(stage: Stage, *words: str, causes: Sequence[str]) -> None:
    """Wait until the first lines of a command, as many as fit on a screen, match all patterns."""
    seen: list[str] = []

    def is_named() -> bool:
        first = "\n".join(stage.ask(*words).splitlines()[:SCREEN_LINES])
        seen.append(first)
        return all(re.search(one, first) for one in causes)

    wait_for(f"{causes} of {words}", is_named, deadline_s=60, hint=lambda: seen[-1])


@contextmanager
def browser(stage: Stage, folder: Path) -> Iterator[Page]:
    """Run Chromium in the cluster's network, and yield a page of it."""
    program = folder / "chromium"
    words = [*stage.cluster.world.enter_network(), require_chromium()]
    program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    program.chmod(0o755)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=str(program), args=ARGS, headless=True
        )
        try:
            yield chromium.new_page(viewport=VIEWPORT)
        finally:
            chromium.close()


def test_three_faults_on_three_nodes_appear_on_the_first_screen(
    stage: Stage, tmp_path: Path
) -> None:
    cut, losing, stopped = stage.nodes
    endpoint = stage.endpoint_on(cut)
    with ExitStack() as stack:
        page = stack.enter_context(browser(stage, tmp_path))
        stack.enter_context(release.cut_off(stage.cluster, cut))
        stage.cluster.control_plane.apply(service("late"))
        stack.enter_context(release.losing(stage.cluster, losing, endpoint))
        stack.enter_context(release.stopped(stopped))
        its_page = f"http://127.0.0.1:10249/?service={WEB}"
        wait_for(
            "node-2 to meet that",
            lambda: (
                "does not answer" in losing.holder.run("curl", "-s", "--noproxy", "*", its_page)
            ),
        )
        # After a minute, the agent itself reports that it can't read from the API server.
        cut_off = "behind the API server by more than 2 s: default/late|reading from the API server"
        causes = (
            rf"node-1\b[^\n]*\s+(?:{cut_off})",
            f"node-2 can't reach {endpoint}:8080: it does not answer",
            r"node-3\b[^\n]*\s+no answer within 2 s",
        )
        for command in ("nodes", "status"):
            assert_named(stage, command, TIMEOUT, causes=causes)
        lacking = r"not as planned on node-1\b[^\n]*\s+✕ it lacks default/late"
        assert_named(stage, "explain", "late", "--node=node-1", causes=[lacking])
        assert_shown(stage, page, tmp_path / "log", causes)


def assert_shown(stage: Stage, page: Page, log: Path, causes: Sequence[str]) -> None:
    """Wait until the dashboard, without scrolling, matches all these patterns."""

    def shown() -> str:
        return str(page.evaluate(FIRST_SCREEN))

    with stage.running(log, "dashboard", "--no-open", TIMEOUT) as dashboard:
        page.goto(dashboard.wait_for_output(r"(http://\S+)\s")[1])
        wait_for("the faults", lambda: all(re.search(one, shown()) for one in causes), hint=shown)


def test_a_watch_shows_missing_agents_and_rolling_updates(stage: Stage, tmp_path: Path) -> None:
    with stage.running(tmp_path / "log", "nodes", "--watch") as watch:
        with release.without_agent(stage.cluster, stage.nodes[2]):
            cause = r"node-3\b[^\n]*\s+no agent"
            for command in ("nodes", "status"):
                assert_named(stage, command, causes=[cause])
            watch.wait_for_output(cause)
        with release.updating(stage.cluster):
            watch.wait_for_output("2 agents run there")
        release.wait_until_ready(stage.cluster)
        watch.wait_for_output("^3 nodes$", since=len(watch.output()))
        assert watch.status is None
        shown = "--output=jsonpath={.items[*].status.containerStatuses[*].restartCount}"
        pods = ("get", "pods", f"--selector=app.kubernetes.io/name={release.NAME}", shown)
        counts = stage.cluster.kubectl("-n", release.NAMESPACE, *pods).split()
        assert set(counts) == {"0"}, "an old container that exits takes the node back"
