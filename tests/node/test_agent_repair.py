"""Other programs replace the rules of a node: the agent restores its own; no connection ends."""

from __future__ import annotations

import contextlib
import functools

import pytest
from load import EchoConnection

from tests.cluster.waiting import wait_for
from tests.node.clients import http_get
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed

pytestmark = pytest.mark.netns

WEB = Service("web", "10.96.0.10")
ECHO = Service("echo", "10.96.0.7", 7, target=7)


@pytest.fixture(scope="module")
def testbeds(tmp_path_factory):
    """Yield a function that returns the node of a steering mode, created on first use."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def made(steering):
            testbed = stack.enter_context(Testbed(tmp_path_factory.mktemp("agent"), steering))
            ips = testbed.add_pods("one", tcp=8080, echo=7)
            testbed.serve(*(with_endpoints(service, ips) for service in (WEB, ECHO)))
            return testbed

        yield made


@pytest.fixture
def testbed(request, testbeds):
    """A node that serves by rules."""
    return testbeds(request.param)


# Programs replace whole tables, while people change single rules: with its iptables backend,
# firewalld flushes all tables and writes its own rules; with nftables it recreates only its own
# table. Distributions' nftables service begins with a flush of everything.
RESTARTS = {
    "iptables": {
        "flush-all": "for table in filter nat mangle raw; do iptables-legacy -t $table -F; done",
        "firewalld": "printf '%s\\n' '*nat' COMMIT '*filter' ':INPUT_direct -' "
        "'-A INPUT -j INPUT_direct' "
        "'-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT' COMMIT "
        "| iptables-legacy-restore",
    },
    "nftables": {
        "nftables-service": "echo 'flush ruleset; table inet filter { chain input { "
        "type filter hook input priority filter; policy accept; }; }' | nft -f -",
        "firewalld": "echo 'table inet firewalld; delete table inet firewalld; "
        "table inet firewalld { chain filter_INPUT { "
        "type filter hook input priority filter + 10; policy accept; "
        "ct state { established, related } accept; ct status dnat accept; }; }' | nft -f -",
        "our-table": "nft delete table inet userspace-proxy",
    },
}
# No other program can change a table with an owner; without one, connections may be reset until the
# repair.
NEED_OWNER = {
    "iptables": ("flush-all", "firewalld"),
    "nftables": ("nftables-service", "our-table"),
}


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("testbed", "restart"),
    [
        pytest.param(
            steering,
            script,
            id=f"{steering}-{name}",
            marks=[pytest.mark.needs("table owner")] if name in NEED_OWNER[steering] else [],
        )
        for steering, restarts in RESTARTS.items()
        for name, script in restarts.items()
    ],
    indirect=["testbed"],
)
def test_a_firewall_restart_ends_no_connection_and_new_connections_are_admitted(testbed, restart):
    clients = testbed.clients.values()
    with contextlib.ExitStack() as stack:
        connections = [
            stack.enter_context(EchoConnection(client.dial(ECHO.address))) for client in clients
        ]
        for one in connections:
            one.wait_for_answers()
        testbed.shell(restart)
        wait_for("new connections", lambda: all(map(is_served, clients)))
        for one in connections:
            one.wait_for_answers()
    assert [one.broken for one in connections] == [""] * len(connections)
    assert [one.retransmitted for one in connections] == [0] * len(connections)


def is_served(client):
    with client.tcp() as sock:
        sock.settimeout(0.2)
        try:
            return http_get(sock, WEB.address, "/")[1].strip() == "one"
        except OSError:
            return False
