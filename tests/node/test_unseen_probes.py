"""Dials of the proxy and of ``explain --probe`` are invisible to servers that count clients."""

import contextlib
import os
import sys

import pytest

from tests.cluster.waiting import wait_for
from tests.node.counting_servers import GREETING, LOGIN, WELCOME, CountingServer
from tests.node.endpoints import CLUSTER_IPS, PORT, TARGET, VERSIONS, objects
from tests.node.testbed import Testbed
from tests.processes import started
from userspace_proxy.kernel.offers import FOR_KERNEL_PATH

pytestmark = [pytest.mark.netns, pytest.mark.long, pytest.mark.needs(*FOR_KERNEL_PATH)]

PATHS = {"db": "auto", "plain": "userspace"}
PROBES = 8
"""Some more than two endpoints need that are probed every 1 to 2 s."""
EXPLAIN = (sys.executable, "-m", "userspace_proxy", "explain")


@pytest.fixture
def testbed(tmp_path):
    with Testbed(tmp_path, "nftables", "--workers=1", clients=["pod"]) as testbed:
        yield testbed


@pytest.fixture
def server(testbed):
    """Serve two Services with the same server as their endpoint: the agent probes only one."""
    with contextlib.closing(CountingServer(testbed.sandbox.add_pod("database"), TARGET)) as server:
        documents = []
        for number, (name, path) in enumerate(PATHS.items(), 10):
            made = list(objects(name, number, (server, "node-1")))
            made[0]["metadata"]["annotations"] = {"userspace-proxy.io/path": path}
            documents += made
        testbed.agent.manifests.write_objects(documents)
        testbed.agent.start_until_ready()
        yield server


@contextlib.contextmanager
def busy_processors():
    """Run twice as many programs as there are processors, with a higher priority than the proxy."""
    command = (sys.executable, "-c", "while True: pass")
    with contextlib.ExitStack() as stack:
        for _ in range(2 * len(os.sched_getaffinity(0))):
            stack.enter_context(started(command))
        yield


def probes(agent):
    """Return how many probes have begun, and how many have failed."""
    node = agent.status()["probes"]
    return node["sent"], node["failed"]


@pytest.mark.parametrize(
    "load",
    [
        pytest.param(contextlib.nullcontext, id="idle"),
        pytest.param(busy_processors, id="busy"),
    ],
)
def test_no_probe_completes_a_handshake(testbed, server, load):
    with load():
        wait_for("probes", lambda: probes(testbed.agent)[0] >= PROBES, hint=testbed.agent.log)
        for name in PATHS:
            done = testbed.agent.run(command=[*EXPLAIN, f"shop/{name}", "--probe"])
            assert "accepts a connection after" in done.stdout
    assert probes(testbed.agent)[1] == 0
    assert (server.accepted, server.aborted) == ([], [])
    # The server does count clients: it accepts a client of each Service and family.
    for number in range(10, 10 + len(PATHS)):
        for version in VERSIONS:
            with testbed["pod"].dial((CLUSTER_IPS[version].format(number), PORT)) as client:
                assert client.recv(100) == GREETING
                client.sendall(LOGIN)
                assert client.recv(100) == WELCOME
    assert len(server.accepted) == len(PATHS) * len(VERSIONS)
    assert server.aborted == []
