"""Services that are broken for real in a cluster: every observer names the cause.

    Service, Pod ──▶ kube-apiserver ──▶ kube-controller-manager ──EndpointSlice──▶ agent

The slices are those that the controller writes, except where the mistake is in a hand-written one.
There is no kubelet: the tests write the pods' status, and the sandbox has the pods.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest

from tests.node.broken_services import (
    CASES,
    CLOSING,
    ELSEWHERE,
    NAMESPACE,
    NODE,
    RESETTING,
    SERVING,
    SILENT,
    Case,
    Object,
    Shown,
    ask,
    firewall,
    pod_of,
    service_of,
    slices_of,
)
from tests.node.observers import FIREWALL, Expected, check, expected_of
from tests.node.testbed import Testbed
from userspace_proxy.causes.cause import CauseCode

from .api_world import Api
from .build import Binaries
from .child import Child
from .control_plane import ControlPlane
from .credentials import NODE_PROXIER
from .nodes.programs import Programs
from .waiting import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.netns]

BY_NAME = {case.name: case for case in CASES}
AWAY = Expected("labels", CauseCode.SOURCE_AWAY, "refused", Shown.NODE)
_MERGE = "application/merge-patch+json"


class Cluster:
    """A node whose agent watches an API server, with the controller that writes slices."""

    def __init__(self, testbed: Testbed, control_plane: ControlPlane) -> None:
        self.testbed = testbed
        self.agent = testbed.agent
        self.control_plane = control_plane
        self.api = Api(testbed["node-1"], control_plane)
        self.ip = testbed.ip("pod")
        for name in (NAMESPACE, ELSEWHERE):
            self.api.put("/api/v1/namespaces", {"metadata": {"name": name}})
        # The controller leaves out pods of a node that doesn't exist.
        for name in (NODE, "node-2"):
            self.api.put("/api/v1/nodes", {"metadata": {"name": name}})

    def create(self, case: Case) -> None:
        """Create a case, and wait until the controller has written its slice."""
        if pod := pod_of(case, self.ip):
            self._create("pods", pod)
        for item in slices_of(case, self.ip, has_controllers=True):
            namespace = item["metadata"]["namespace"]
            path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
            self.api.put(path, item)
        self._create("services", service_of(case))
        if case.pod is not None:
            wait_for("the slice", lambda: self._has_slice(case))

    def _create(self, kind: str, item: Object) -> None:
        path = f"/api/v1/namespaces/{NAMESPACE}/{kind}"
        status = {"status": item.pop("status", None)}
        name = item["metadata"]["name"]
        if self.api.ask("GET", f"{path}/{name}") != 200:
            self.api.ask("POST", path, item)
            if status["status"]:
                self.api.ask("PATCH", f"{path}/{name}/status", status, _MERGE)

    def _has_slice(self, case: Case) -> bool:
        """Return whether there is a slice with all endpoints that the Service selects."""
        assert case.pod is not None
        listed = json.loads(
            self.control_plane.kubectl(
                *("get", "endpointslices", "-n", NAMESPACE, "-o", "json"),
                *("-l", f"kubernetes.io/service-name={case.name}"),
            )
        )["items"]
        expected = 1 if case.pod.labels is None else 0
        return any(len(item["endpoints"] or ()) == expected for item in listed)


@pytest.fixture(scope="module")
def cluster(
    cluster_binaries: Binaries,
    node_programs: Programs,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Cluster]:
    """A cluster of one node, whose agent is the least of users."""
    folder = tmp_path_factory.mktemp("agent")
    with contextlib.ExitStack() as stack:
        testbed = Testbed(folder, "nftables", clients=("pod", "node-1", "laptop"))
        stack.callback(testbed.close)
        testbed.pod("pod").serve(None, tcp=SERVING, reset=RESETTING, close=CLOSING, silent=SILENT)
        prefix, ip = testbed.node.prefix, str(testbed.node.ip)
        control_plane = stack.enter_context(
            ControlPlane(cluster_binaries, prefix=prefix, bind_address=ip)
        )
        control_plane.grant_node_proxier()
        controllers = Child(
            [
                node_programs["kube-controller-manager"],
                f"--kubeconfig={control_plane.kubeconfig}",
                "--controllers=endpointslice-controller",
                "--leader-elect=false",
            ],
            folder / "kube-controller-manager.log",
            prefix,
        )
        stack.callback(controllers.kill)
        testbed.agent.source = f"--kubeconfig={control_plane.kubeconfig_for(NODE_PROXIER)}"
        testbed.agent.start_until_ready()
        cluster = Cluster(testbed, control_plane)
        stack.callback(cluster.api.close)
        yield cluster


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_cause_of_a_broken_service_is_named_everywhere(cluster: Cluster, case: Case) -> None:
    if case.needs:
        cluster.create(BY_NAME[case.needs])
    cluster.create(case)
    ask(cluster.agent, cluster.testbed[case.client], case)
    check(cluster.agent, expected_of(case, cluster.ip))


def test_a_firewall_that_drops_packets_is_named_everywhere(
    cluster: Cluster,
) -> None:
    cluster.create(BY_NAME["labels"])
    wait_for("the Service", lambda: bool(cluster.agent.frontends("labels")))
    with firewall(cluster.testbed):
        check(cluster.agent, FIREWALL)


def test_an_api_server_that_is_away_is_named_everywhere(cluster: Cluster) -> None:
    cluster.create(BY_NAME["labels"])
    wait_for("the Service", lambda: bool(cluster.agent.frontends("labels")))
    cluster.control_plane.stop_apiserver()
    check(cluster.agent, AWAY)
    cluster.control_plane.start_apiserver()
    wait_for("its return", lambda: not cluster.agent.status()["source"]["problems"])
