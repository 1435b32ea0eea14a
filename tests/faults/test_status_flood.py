"""Silent connections to the health port: probes are answered, and descriptors come back."""

from pathlib import Path

import pytest

from tests.cluster.waiting import wait_for
from tests.node.agents import HEALTH
from tests.node.clients import http_get
from tests.node.manifests import Service
from tests.node.testbed import Testbed

pytestmark = [pytest.mark.long, pytest.mark.netns]

WEB = Service("web", "10.96.0.10")
# More than the limit of either kind of client.
AT_ONCE = 200
ROUNDS = 20
PER_ROUND = 20


@pytest.fixture(scope="module")
def testbed(tmp_path_factory):
    """A node with an agent, as on a cluster; its health port is open to all."""
    with Testbed(tmp_path_factory.mktemp("agent"), "nftables") as testbed:
        testbed.serve(WEB)
        yield testbed


@pytest.fixture
def probe(testbed):
    """Ask for /livez at the node's address; a client that gets no response in time fails."""
    address = (str(testbed.node.ip), HEALTH)

    def probe(name):
        client = testbed[name]
        return http_get(client.tcp(), address, "/livez")[0]

    yield probe
    testbed.hang_up()


def descriptors(testbed):
    return len(list(Path(f"/proc/{testbed.agent.pid}/fd").iterdir()))


def test_many_silent_connections_at_once_keep_no_probe_from_its_answer(testbed, probe):
    address = (str(testbed.node.ip), HEALTH)
    assert probe("laptop") == 200
    before = descriptors(testbed)
    for _ in range(AT_ONCE):
        testbed["pod"].dial(address)
    assert [probe("node-1"), probe("laptop")] == [200, 200]
    wait_for("the descriptors of silent connections", lambda: descriptors(testbed) <= before)


def test_a_lasting_flood_of_silent_connections_keeps_no_probe_from_its_answer(testbed, probe):
    address = (str(testbed.node.ip), HEALTH)
    answers = []
    for _ in range(ROUNDS):
        for _ in range(PER_ROUND):
            testbed["pod"].dial(address)
        answers += [probe("node-1"), probe("laptop")]
    assert answers == [200] * ROUNDS * 2
