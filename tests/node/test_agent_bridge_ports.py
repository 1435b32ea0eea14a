"""Clients on a node's bridge that have used up their source ports towards an endpoint."""

import contextlib
import html
import socket
import subprocess
import sys

import pytest

from tests.cluster.waiting import wait_for
from tests.node.endpoints import (
    CLUSTER_IPS,
    PORT,
    PROTOCOLS,
    TARGET,
    accept_with_data,
    addresses,
    entries,
    objects,
    open_bridge,
)
from userspace_proxy.policy.locality import FIRST_PORT, LAST_PORT

pytestmark = [pytest.mark.netns, pytest.mark.long]

bridge = pytest.fixture(open_bridge)


def test_a_client_without_tcp_timestamps_uses_up_its_ports_and_is_served_anyway(bridge):
    """Ports in TIME_WAIT can't be used again then; the client ends each connection first."""
    serving = f"""
import socket
with socket.create_server(("", {TARGET + 1}), backlog=128) as server:
    print("serves", flush=True)
    while True:
        accepted, peer = server.accept()
        with accepted:
            if accepted.recv(1):
                accepted.send(peer[0].encode())
                accepted.recv(1)
"""
    dialling = f"""
import collections, socket
seen = collections.Counter()
for _ in range({LAST_PORT - FIRST_PORT + 1 + 500}):
    with socket.create_connection({(CLUSTER_IPS[4].format(10), PORT)}, timeout=60) as dialled:
        dialled.send(b"?")
        seen[dialled.recv(100).decode()] += 1
        # None is open any more when the next one is dialled.
        dialled.shutdown(socket.SHUT_WR)
        dialled.recv(1)
print(*seen)
"""
    testbed, client = bridge.testbed, bridge.testbed["bridge-pod"].host
    testbed.shell("sysctl -qw net.ipv4.tcp_timestamps=0")
    service, *slices = objects("bridged", 10, (bridge.endpoint, "node-1"))
    for piece in slices:
        for port in piece["ports"]:
            port["port"] = TARGET + 1
    bridge.start([service, *slices])
    wait_for("the entry", lambda: entries(testbed) == {"cni0"})
    with contextlib.ExitStack() as stack:
        command = [sys.executable, "-c", serving]
        server = bridge.endpoint.host.popen(command, stdout=subprocess.PIPE)
        stack.enter_context(server)
        stack.callback(server.kill)
        assert server.stdout.readline() == "serves\n"
        dialler = client.popen([sys.executable, "-c", dialling], stdout=subprocess.PIPE)
        stack.enter_context(dialler)
        stack.callback(dialler.kill)
        seen = dialler.communicate(timeout=110)[0].split()
    assert seen[0] == str(client.ip)
    assert len(seen) == 2
    assert seen[1] in addresses(testbed.node)
    assert "tcp_timestamps" in testbed.agent.log()
    assert "tcp_timestamps" in html.unescape(testbed.agent.read("/?q=cause:out-of-client-ports")[1])


class PortUser:
    """A client of one protocol, and what refuses it once no source port is free."""

    def __init__(self, bridge, protocol):
        self.bridge = bridge
        self.protocol = protocol
        self.client = bridge.testbed["bridge-pod"]
        self.server = bridge.endpoint.servers[protocol, 4]
        self.address = (CLUSTER_IPS[4].format(10), PORT)

    @contextlib.contextmanager
    def no_ports_left(self):
        """Bind all source ports on the node."""
        kind = socket.SOCK_STREAM if self.protocol == "TCP" else socket.SOCK_DGRAM
        binding = f"""
import contextlib, socket, sys
held = []
for port in range(61000, 65536):
    held.append(socket.socket(type={int(kind)}))
    # The agent has some already.
    with contextlib.suppress(OSError):
        held[-1].bind(("", port))
print("held", flush=True)
sys.stdin.read()
"""
        process = self.bridge.testbed.node.popen(
            [sys.executable, "-c", binding], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with process:
            assert process.stdout.readline().strip() == "held"
            yield
            process.stdin.close()

    def assert_refused(self):
        """Dial, and wait until the proxy refuses."""
        if self.protocol == "TCP":
            with pytest.raises(ConnectionResetError):
                self._dial()
        else:
            before = self.refused_count()
            self.client.udp(self.address).send(b"question")
            wait_for("a flow that is refused", lambda: self.refused_count() > before)

    def _dial(self):
        """Wait for a byte; a reset may come before connect() returns."""
        with self.client.tcp() as dialling:
            dialling.connect(self.address)
            dialling.recv(1)

    def refused_count(self):
        """Return how many connections or flows were refused."""
        return sum(
            port["refused"]
            for port in self.bridge.testbed.agent.status()["ports"]
            if port["protocol"] == self.protocol
        )

    @contextlib.contextmanager
    def answered(self):
        """Get one answer, and yield the client's address while the connection is open."""
        tcp = self.protocol == "TCP"
        opened = self.client.dial(self.address) if tcp else self.client.udp(self.address)
        opened.send(b"question")
        with contextlib.ExitStack() as stack:
            if tcp:
                accepted, peer = accept_with_data(self.server)
                stack.enter_context(accepted)
                accepted.send(b"answer")
            else:
                _, peer = self.server.recvfrom(100)
                self.server.sendto(b"answer", peer)
            assert opened.recv(100) == b"answer"
            yield peer[0]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_without_a_free_port_the_nodes_address_is_used_if_the_endpoint_has_answered(
    bridge, protocol
):
    """A client that a network policy keeps out may use up its ports, and must stay out."""
    bridge.start()
    wait_for("the client's address", lambda: bridge.seen() == "client")
    user, agent = PortUser(bridge, protocol), bridge.testbed.agent
    # The flow of that look would count as an answer.
    agent.stop()
    agent.start_until_ready()
    wait_for("the entry", lambda: entries(bridge.testbed) == {"cni0"})
    with user.no_ports_left():
        user.assert_refused()
    with user.answered() as seen:
        assert seen == str(user.client.host.ip)
        with user.no_ports_left():
            assert bridge.seen(4, protocol) == "node"
