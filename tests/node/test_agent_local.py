"""Local steering as a node's own: what daemons of the node, clients and others notice of it."""

from __future__ import annotations

import contextlib
import socket

import pytest

from tests.cluster.waiting import wait_for
from tests.node.manifests import Service, with_endpoints
from tests.node.steerings import steerings
from tests.node.testbed import CLIENTS, Testbed

pytestmark = pytest.mark.netns

WEB = Service("web", "10.96.0.10")
DNS = Service("dns", "10.96.0.53", 53, "UDP", target=53)
NOBODY = Service("nobody", "10.96.0.30")
DAEMON = 2222


@pytest.fixture(scope="module", params=steerings("local", "local-on-a-node"))
def testbed(request, tmp_path_factory):
    """A node with daemons on all addresses, and an agent that steers by routes."""
    folder = tmp_path_factory.mktemp("agent")
    with (
        Testbed(folder, request.param, clients=CLIENTS) as testbed,
        contextlib.ExitStack() as daemons,
    ):
        for made in daemons_of(testbed):
            daemons.enter_context(made)
        ips = testbed.add_pods("one", tcp=8080, udp=53)
        testbed.serve(with_endpoints(WEB, ips), with_endpoints(DNS, ips), NOBODY)
        yield testbed


def daemons_of(testbed):
    for ip in ("0.0.0.0", "::"):
        made = testbed["node-1"].tcp(ip)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ip == "::":
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((ip, DAEMON))
        made.listen()
        yield made


def test_services_are_served_to_all_clients(testbed):
    for name, client in testbed.clients.items():
        assert client.get(WEB.address) == "one", name
        assert client.asks(DNS.address) == "one: hello", name


def test_daemons_of_the_node_are_not_at_service_addresses(testbed):
    reached = [
        (name, service.name)
        for name, client in testbed.clients.items()
        for service in (WEB, DNS, NOBODY)
        if is_reached(client, (service.address[0], DAEMON))
    ]
    assert reached == []
    assert is_reached(testbed["node-1"], (str(testbed.node.ip), DAEMON))


def is_reached(client, address) -> bool:
    with client.tcp(address[0]) as made:
        made.settimeout(0.3)
        return made.connect_ex(address) == 0


def test_a_flush_is_repaired(testbed):
    testbed.shell(
        "ip route flush table local proto 117;nft delete table inet userspace-proxy/local || true"
    )
    client = testbed["laptop"]
    wait_for("the repair", lambda: is_reached(client, WEB.address), hint=testbed.agent.log)
    assert not is_reached(client, (WEB.address[0], DAEMON))


def test_without_nftables_one_line_states_what_is_missing_on_a_node(tmp_path):
    with Testbed(tmp_path, "local-without-nftables", clients=("laptop",)) as testbed:
        before = testbed.kernel()
        done = testbed.agent.run()
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == (
            "error: cannot steer by local: this kernel lacks nf_tables (modprobe nf_tables, "
            "CONFIG_NF_TABLES) (--steering=iptables works here)"
        )
        assert testbed.kernel() == before
