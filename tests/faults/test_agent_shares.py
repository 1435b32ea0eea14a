"""One client that holds every connection of a node, and another client that comes."""

import time

import pytest

from tests.cluster.waiting import wait_for
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed

from .test_agent_loops import LimitedAgent, descriptors

pytestmark = [pytest.mark.long, pytest.mark.netns]

IDLE = 460
# Half a second without progress, and time that a busy machine takes.
AT_ONCE_S = 2.0
WEB, CART = Service("web", "10.96.0.10"), Service("cart", "10.96.0.20")


class ThousandDescriptors(LimitedAgent):
    """An agent with as many descriptors as many a service manager gives."""

    limit = 1000


@pytest.fixture
def testbed(tmp_path):
    """A node whose agent has 1,000 descriptors in each process."""
    with Testbed(tmp_path, "nftables", "--workers=1", agent=ThousandDescriptors) as testbed:
        (ip,) = testbed.add_pods("web", tcp=8080)
        testbed.serve(*(with_endpoints(service, [ip]) for service in (WEB, CART)))
        yield testbed


def test_one_clients_idle_connections_keep_no_other_from_another_service(testbed):
    before = descriptors(testbed.agent)
    for _ in range(IDLE):
        testbed["pod"].dial(WEB.address)
    wait_for("the limit", lambda: descriptors(testbed.agent) > before + 2 * (IDLE - 40))
    began = time.monotonic()
    assert testbed["laptop"].get(CART.address) == "web"
    assert time.monotonic() - began < AT_ONCE_S
