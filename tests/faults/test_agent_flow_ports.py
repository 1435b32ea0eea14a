"""UDP clients whose source ports outnumber the node's ports for flows."""

import contextlib

import pytest

from tests.cluster.waiting import wait_for
from tests.node.clients import Sockets
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed

pytestmark = [pytest.mark.long, pytest.mark.netns]

PORTS = 200
FIRST = 40_000
FLOOD = 250
OTHERS = 10
TARGET = 5353
SYSLOG = Service("syslog", "10.96.0.53", 514, "UDP", target=TARGET)


class World:
    """A node with few ephemeral ports, and an endpoint that never answers."""

    def __init__(self, testbed, stack):
        self.testbed = testbed
        self._stack = stack
        sink = testbed.sandbox.add_pod("sink")
        self._node, sinks = Sockets(testbed.node), Sockets(sink)
        for sockets in (self._node, sinks):
            stack.callback(sockets.close)
        self._server = stack.enter_context(sinks.udp())
        self._server.bind(("", TARGET))
        testbed.serve(with_endpoints(SYSLOG, [str(sink.ip)]))

    def take_ports(self, count):
        """Bind this many of the node's ports in another program."""
        for _ in range(count):
            self._stack.enter_context(self._node.udp()).bind(("", 0))

    def sends(self, client, count):
        """Send a datagram from each of many ports; return how many datagrams had to be repeated."""
        again = 0
        for number in range(count):
            text = f"{client} {number}".encode()
            sender = self.testbed[client].udp(SYSLOG.address)
            refused = self.port["refused"]
            sender.send(text)
            self._server.setblocking(False)

            def has_arrived(text=text):
                with contextlib.suppress(BlockingIOError):
                    return self._server.recv(100) == text
                return False

            def is_known(refused=refused, has_arrived=has_arrived):
                return has_arrived() or self.port["refused"] > refused

            wait_for("the datagram or its refusal", is_known)
            if self.port["refused"] > refused:
                again += 1
                sender.send(text)
                wait_for("the datagram", has_arrived)
        return again

    @property
    def port(self):
        """Return the Service port's status."""
        (port,) = self.testbed.agent.status()["ports"]
        return port


@pytest.fixture
def world(tmp_path):
    flags = "--workers=2", "--preserve-client-address=never"
    with Testbed(tmp_path, "nftables", *flags) as testbed, contextlib.ExitStack() as stack:
        chosen = f"{FIRST} {FIRST + PORTS - 1}"
        testbed.shell(f"sysctl -qw net.ipv4.ip_local_port_range='{chosen}'")
        yield World(testbed, stack)


def test_one_clients_flows_leave_ports_for_other_clients_and_the_node(world):
    assert world.sends("pod", FLOOD) == 0
    assert world.sends("laptop", OTHERS) == 0
    world.take_ports(PORTS // 2)
    assert world.port["evicted"] >= FLOOD + OTHERS - PORTS // 2


def test_flows_evict_each_other_when_other_programs_hold_most_ports(world):
    world.take_ports(PORTS * 3 // 4)
    assert world.sends("pod", PORTS // 2) < PORTS // 4
    world.sends("laptop", OTHERS)
    assert world.port["evicted"]
