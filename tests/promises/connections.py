"""Annotations that affect open connections and waiting clients."""

from __future__ import annotations

import socket

import pytest

from tests.cluster.waiting import wait_for

from .specs import HOLD, MAX_CONNECTIONS, ON_REMOVAL, PATH, PRIORITY, At, Port, Spec
from .udp import say
from .world import World

HELD = Spec("held", ["10.96.8.2", "fd00:10:96::82"], annotations={HOLD: "1m"})
LIMITED = Spec("limited", ["10.96.8.3", "fd00:10:96::83"], annotations={MAX_CONNECTIONS: "1"})
HELD_FLOWS = Spec(
    "held-flows", ["10.96.8.5", "fd00:10:96::85"], [Port(80, "UDP")], annotations={HOLD: "1m"}
)
REQUEST = b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n"
# The proxy can close only connections that it relays, not connections on the kernel path.
ON_USERSPACE = {PATH: "userspace"}
ENDED = Spec("ended", ["10.96.8.1", "fd00:10:96::81"], annotations=ON_USERSPACE)
FLOWING = Spec("leaving-flows", ["10.96.8.4"], [Port(80, "UDP")], annotations=ON_USERSPACE)
V4_AND_V6 = pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])


class TestConnections:
    """The effects of this proxy's annotations."""

    @V4_AND_V6
    def test_a_service_annotation_closes_connections_to_an_endpoint_that_becomes_unready(
        self, world: World, v6: bool
    ) -> None:
        """Source: kubernetes#108523: clients would stay connected to a demoted primary."""
        ended = ENDED.but(annotations=ENDED.annotations | {ON_REMOVAL: "1s"})
        one, two = world.pods("one", "two", v6=v6)
        world.put(ENDED.at(one))
        address = (ENDED.ips[v6], 80)
        sock = world.testbed["pod"].dial(address)
        world.put(ENDED.at(two, At(one, ready=False)))
        assert world.who("pod", address) == "two"
        world.put(ended.at(two, At(one, ready=False)))
        with pytest.raises(ConnectionResetError):
            read_to_end(sock)
        wait_for(
            "the connection to be counted",
            lambda: sum(port["ended_by_removal"] for port in world.shown("ended")) == 1,
        )
        world.delete(ended)

    @V4_AND_V6
    def test_clients_leave_a_server_that_becomes_a_standby(self, world: World, v6: bool) -> None:
        """Source: kubernetes#108523: a controller swaps the priorities of two servers."""
        one, two = ([At(ip)] for ip in world.pods("one", "two", v6=v6))
        active, standby = {PRIORITY: "0"}, {PRIORITY: "1"}
        pair = ENDED.but(annotations={ON_REMOVAL: "1s"}, slices=[one, two])
        world.put(pair.but(preferences=[active, standby]))
        address = (ENDED.ips[v6], 80)
        sock = world.testbed["pod"].dial(address)
        assert world.all_of("pod", address) == {"one"}
        world.put(pair.but(preferences=[standby, active]))
        assert world.all_of("pod", address) == {"two"}
        with pytest.raises(ConnectionResetError):
            read_to_end(sock)
        world.delete(pair)

    def test_flows_to_a_serving_terminating_pod_continue(self, world: World) -> None:
        """Source: KEP-5989, kubernetes#134143: SIP over UDP needs the answers of one server."""
        flowing = FLOWING.but(annotations={ON_REMOVAL: "60s"})
        one, two = world.pods("one", "two")
        world.put(flowing.at(one))
        sock = world.udp("pod", FLOWING.address)
        assert say(sock) == "one"
        world.put(flowing.at(two, At(one, ready=False, serving=True, terminating=True)))
        assert say(sock) == "one"
        assert world.who("pod", FLOWING.address, "UDP") == "two"
        world.put(flowing.at(two))
        assert say(sock) == "two"
        world.delete(flowing)

    @V4_AND_V6
    def test_with_hold_a_connection_waits_for_the_first_endpoint(
        self, world: World, v6: bool
    ) -> None:
        """This isn't part of Kubernetes; OpenShift's unidling does the same."""
        world.put(HELD)
        asked = [client.dial((HELD.ips[v6], 80)) for client in world.testbed.clients.values()]
        for sock in asked:
            sock.sendall(REQUEST)
        wait_until_waiting(world, HELD, len(asked))
        world.put(HELD.at(*world.pods("one", v6=v6)))
        assert [read_to_end(sock).split()[-1] for sock in asked] == [b"one"] * len(asked)
        world.delete(HELD)

    @V4_AND_V6
    def test_with_hold_first_datagrams_wait_for_an_endpoint(self, world: World, v6: bool) -> None:
        """This isn't part of Kubernetes."""
        world.put(HELD_FLOWS)
        sock = world.udp("pod", (HELD_FLOWS.ips[v6], 80))
        sock.send(b"who?")
        wait_until_waiting(world, HELD_FLOWS, 1)
        world.put(HELD_FLOWS.at(*world.pods("one", v6=v6)))
        assert sock.recv(100).split(b":")[0] == b"one"
        world.delete(HELD_FLOWS)

    @V4_AND_V6
    def test_connections_beyond_the_endpoint_limit_wait_for_other_connections_to_end(
        self, world: World, v6: bool
    ) -> None:
        """This isn't part of Kubernetes; HAProxy's maxconn does the same."""
        world.put(LIMITED.at(*world.pods("one", v6=v6)))
        address = (LIMITED.ips[v6], 80)
        # Each of two workers opens at most one connection to the endpoint, so ten or more wait.
        dialled = [world.testbed["pod"].dial(address) for _ in range(12)]
        wait_for("some to wait", lambda: waiting(world, LIMITED) >= 10)
        for sock in dialled:
            sock.sendall(REQUEST)
        for sock in dialled:
            assert read_to_end(sock).split()[-1] == b"one"
            sock.close()
        assert waiting(world, LIMITED) == 0
        world.delete(LIMITED)


def waiting(world: World, spec: Spec) -> int:
    """Return the number of clients that wait for a Service."""
    return sum(port["waits"]["waiting"] for port in world.shown(spec.name))


def wait_until_waiting(world: World, spec: Spec, count: int) -> None:
    """Wait until this many clients wait for a Service."""
    wait_for(f"{count} to wait", lambda: waiting(world, spec) == count)


def read_to_end(sock: socket.socket) -> bytes:
    """Return the bytes that a connection receives until it is closed."""
    data = b""
    while some := sock.recv(4096):
        data += some
    return data
