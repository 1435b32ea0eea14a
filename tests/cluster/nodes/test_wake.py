"""A Deployment at zero that wakes for its first clients, as docs/scale-to-zero.md describes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.processes import started

from ..build import Binaries
from ..objects import deployment, made
from ..rights import grant_wake
from ..waiting import wait_for
from .clients import NETEXEC
from .cluster import Cluster
from .images import ensure_images
from .node import ClusterNode
from .programs import Programs
from .proxies import PROXIES

pytestmark = [pytest.mark.cluster, pytest.mark.netns, pytest.mark.timeout(400)]


ANNOTATIONS = {
    "userspace-proxy.io/hold": "120s",
    "userspace-proxy.io/wake": "deployment/web",
}
PORTS = [{"port": 80, "targetPort": 8080}]
SERVICE = made(
    "Service", "web", {"selector": {"app": "web"}, "ports": PORTS}, annotations=ANNOTATIONS
)


@pytest.fixture(scope="module", params=["nftables"])
def cluster(
    request: pytest.FixtureRequest, cluster_binaries: Binaries, node_programs: Programs
) -> Iterator[Cluster]:
    """Two nodes, a Deployment without replicas, and its Service."""
    images, proxy = ensure_images(node_programs), PROXIES[request.param]
    with Cluster(cluster_binaries, node_programs, images, proxy, nodes=2) as cluster:
        cluster.control_plane.apply(deployment(NETEXEC, 0), SERVICE)
        yield cluster


@pytest.fixture
def role(cluster: Cluster) -> None:
    """Grant what the page says, to the user that the agents of this cluster have."""
    grant_wake(cluster.control_plane)


@pytest.fixture
def address(cluster: Cluster) -> Iterator[str]:
    """The Service's address; each test begins and ends with the Deployment at zero."""
    cluster.kubectl("annotate", "service", "web", "userspace-proxy.io/idle-after-")
    cluster.kubectl("scale", "deployment/web", "--replicas=0")
    cluster.kubectl("wait", "--for=delete", "pod", "--selector=app=web", "--timeout=100s")
    wait_for("the Service to have no endpoints", lambda: endpoints(cluster) == [])
    yield get(cluster, "service/web")["spec"]["clusterIP"]
    cluster.kubectl("scale", "deployment/web", "--replicas=0")


def get(cluster: Cluster, what: str) -> Any:
    return json.loads(cluster.kubectl("get", what, "-o", "json"))


def endpoints(cluster: Cluster) -> list[str]:
    slices = get(cluster, "endpointslices")["items"]
    return [
        ip
        for item in slices
        if item["metadata"]["labels"].get("kubernetes.io/service-name") == "web"
        for endpoint in item.get("endpoints") or []
        for ip in endpoint["addresses"]
    ]


@contextmanager
def client(node: ClusterNode, address: str) -> Iterator[Callable[[], str]]:
    """Start a client on a node that asks the Service for its pod; yields what waits for that."""
    command = ["curl", "-sS", "--max-time", "110", f"http://{address}/hostname"]
    with started([*node.holder.enter_network(), *command]) as process:
        yield lambda: process.communicate(timeout=120)[0]


def happenings(cluster: Cluster, reason: str) -> list[Any]:
    return [item for item in get(cluster, "events")["items"] if item["reason"] == reason]


def status(cluster: Cluster, node: ClusterNode, path: str) -> str:
    command = [*node.holder.enter_network(), "curl", "-sS", f"http://127.0.0.1:10249{path}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.usefixtures("role")
def test_the_first_clients_of_two_nodes_wake_a_deployment_once_and_are_served(
    cluster: Cluster, address: str
) -> None:
    scaled = len(happenings(cluster, "ScalingReplicaSet"))
    first, second = cluster.nodes
    with client(first, address) as one, client(second, address) as two:
        answers = [one(), two()]
    (pod,) = get(cluster, "pods")["items"]
    assert answers == [pod["metadata"]["name"]] * 2
    assert get(cluster, "deployment/web")["spec"]["replicas"] == 1
    # Scaled down before the test, and up once.
    assert len(happenings(cluster, "ScalingReplicaSet")) - scaled <= 1
    # An agent records an Event after the fact.
    needed = wait_for("the Events", lambda: happenings(cluster, "NeedPods"))
    assert {event["type"] for event in needed} == {"Normal"}
    assert {event["message"] for event in needed} == {"The service-port default/web needs pods."}
    for node in cluster.nodes:
        assert json.loads(status(cluster, node, "/api/v1/demand"))["demand"]["default"]["web"] >= 1
