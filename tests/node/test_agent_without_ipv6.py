"""A node without IPv6 serves IPv4, and reports what it can't serve."""

from __future__ import annotations

import pytest

from tests.cluster.waiting import wait_for
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed, steerings

pytestmark = [pytest.mark.long, pytest.mark.netns]

WEB = Service("web", "10.96.0.10")
CART = Service("cart", "10.96.0.11")
DUAL = Service(
    "dual",
    "10.96.0.12",
    more={
        "clusterIPs": ["10.96.0.12", "fd00:96::12"],
        "ipFamilies": ["IPv4", "IPv6"],
        "ipFamilyPolicy": "RequireDualStack",
    },
)
SWITCH = "for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo {} > $f; done"


@pytest.fixture(params=steerings("nftables", "iptables", "local", "local-on-a-node"))
def testbed(request, tmp_path):
    """A node with a pod and without IPv6, whose agent isn't started."""
    with Testbed(tmp_path, request.param) as testbed:
        testbed.add_pods("one", tcp=8080)
        testbed.shell(SWITCH.format(1))
        yield testbed


def is_served(testbed: Testbed, address: tuple[str, int]) -> bool:
    with testbed["pod"].tcp(address[0]) as made:
        made.settimeout(0.3)
        return made.connect_ex(address) == 0


def test_an_agent_without_ipv6_serves_ipv4_from_start_and_after_changes(testbed):
    web, dual, cart = (with_endpoints(s, [testbed.ip("one")]) for s in (WEB, DUAL, CART))
    testbed.serve(web, dual)
    assert is_served(testbed, WEB.address)
    assert is_served(testbed, DUAL.address)
    testbed.edit(web, dual, cart)
    wait_for("the new Service", lambda: is_served(testbed, CART.address), hint=testbed.agent.log)
