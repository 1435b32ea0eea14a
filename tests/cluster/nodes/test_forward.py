"""`forward` with a real API server, kubelet and containerd: names, balancing and failover."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import started

from ..build import Binaries
from ..child import Child
from ..objects import deployment, made
from ..waiting import wait_for
from . import forward_client
from .clients import NETEXEC
from .cluster import Cluster
from .families import FAMILIES
from .images import ensure_images
from .programs import Programs

pytestmark = [pytest.mark.cluster, pytest.mark.netns, pytest.mark.timeout(400)]

WEB = "web.shop.svc.cluster.local"

PORTS = [
    {"name": "http", "port": 80, "targetPort": 8080},
    {"name": "udp", "port": 81, "targetPort": 8081, "protocol": "UDP"},
]
OBJECTS = [
    made("Namespace", "shop"),
    deployment(NETEXEC, 2, namespace="shop"),
    made("Service", "web", {"selector": {"app": "web"}, "ports": PORTS}, namespace="shop"),
]

Address = tuple[str, int]


class Client:
    """The client in the world, which can dial the loopback address on which `forward` listens."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, **wanted: Any) -> Any:
        """Send a line of JSON to the client, and return its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps(wanted)}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


class Forward:
    """A running `userspace-proxy forward` of the namespace shop."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.log = folder / "forward.log"
        command = [sys.executable, "-m", "userspace_proxy", "forward", "--namespace=shop"]
        kubeconfig = f"--kubeconfig={cluster.control_plane.kubeconfig}"
        self.child = Child([*command, kubeconfig], self.log, cluster.world.enter_network())

    def shows(self, pattern: str) -> re.Match[str]:
        """Wait until a pattern matches the command's output; return the match."""
        return self.child.wait_for_output(pattern)

    @property
    def web(self) -> Address:
        """The address that the command prints for the Service ``web``."""
        found = self.shows(r"^  web\.shop:80 +(\S+):(\d+) +2 pods$")
        return found[1], int(found[2])

    @property
    def dns(self) -> Address:
        """The address of the DNS server that the command prints."""
        found = self.shows(r"dig @(\S+) -p (\d+) ")
        return found[1], int(found[2])


@pytest.fixture(scope="module", params=["ipv4", "ipv6"])
def cluster(
    request: pytest.FixtureRequest, cluster_binaries: Binaries, node_programs: Programs
) -> Iterator[Cluster]:
    """One node without a Service proxy, and two pods."""
    images, families = ensure_images(node_programs), FAMILIES[request.param]
    with Cluster(
        cluster_binaries, node_programs, images, None, nodes=1, families=families
    ) as cluster:
        cluster.control_plane.apply(*OBJECTS)
        yield cluster


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client]:
    command = [sys.executable, "-m", forward_client.__name__]
    with started([*cluster.world.enter_network(), *command]) as process:
        yield Client(process)


@pytest.fixture
def forward(cluster: Cluster, tmp_path: Path) -> Iterator[Forward]:
    cluster.kubectl("-n", "shop", "rollout", "status", "deployment/web", "--timeout=100s")
    wait_for("two endpoints", lambda: len(pods(cluster)) == 2)
    forward = Forward(cluster, tmp_path)
    yield forward
    forward.child.kill()


def pods(cluster: Cluster) -> dict[str, str]:
    """Return the addresses of the ready pods by name, from the EndpointSlice."""
    slices = json.loads(cluster.kubectl("-n", "shop", "get", "endpointslices", "-o", "json"))
    return {
        endpoint["targetRef"]["name"]: endpoint["addresses"][0]
        for item in slices["items"]
        for endpoint in item.get("endpoints") or []
        if endpoint["conditions"]["ready"]
    }


def test_a_service_is_reachable_by_name_and_at_the_printed_address(
    cluster: Cluster, client: Client, forward: Forward
) -> None:
    names = set(pods(cluster))
    assert tuple(client.ask(dns=forward.dns, name=WEB)) == forward.web
    answers = client.ask(at=forward.web, count=10)
    assert set(answers) == names
    assert [answers.count(name) for name in names] == [5, 5]
    forward.shows(r"^  web\.shop:81/UDP +port-forwards carry TCP only$")
    body = client.ask(at=forward.web, get="/echo?msg=" + "x" * 60_000)
    assert body == "x" * 60_000


def delete_pod(cluster: Cluster, client: Client, name: str) -> None:
    """Delete a pod without a grace period; the kubelet stops it soon afterwards."""
    del client
    cluster.kubectl("-n", "shop", "delete", "pod", name, "--grace-period=0", "--force", "--wait=0")


def crash_pod(cluster: Cluster, client: Client, name: str) -> None:
    """Crash a pod's process; the pod isn't deleted, and its port refuses connections."""
    assert client.ask(at=(pods(cluster)[name], 8080), get="/exit?code=1").startswith("error")


# A kubelet opens a stream to a pod that has just crashed, and reports only later that nothing
# listens, so a request sent in the meantime is lost.
@pytest.mark.parametrize(
    ("end", "most"), [(delete_pod, 0), (crash_pod, 1)], ids=["deleted", "crashed"]
)
def test_a_crashed_pod_fails_at_most_one_request_and_a_deleted_pod_none(
    cluster: Cluster,
    client: Client,
    forward: Forward,
    end: Callable[[Cluster, Client, str], None],
    most: int,
) -> None:
    at = forward.web
    before = sorted(pods(cluster))
    assert set(client.ask(at=at, count=4)) == set(before)
    victim, other = before
    end(cluster, client, victim)
    failed: list[str] = []

    def answers() -> set[str]:
        found = client.ask(at=at, count=40)
        failed.extend(answer for answer in found if answer.startswith("error"))
        assert len(failed) <= most, forward.log.read_text()
        return set(found).difference(failed)

    assert other in answers()
    wait_for("two pods to answer again", lambda: len(answers()) == 2 == len(pods(cluster)))
