"""UDP clients with a fixed source port reach current endpoints, not removed ones."""

from __future__ import annotations

import itertools
import socket

import pytest

from .specs import ELSEWHERE, At, Port, Spec
from .world import Address, World, eventually

WITH_NODE_PORT = Port(53, "UDP", node_port=30160)
FLOWING = Spec("flowing", ["10.96.8.1"], [WITH_NODE_PORT], more={"type": "NodePort"})
MOVE_S = 2.0
_numbers = itertools.count()


def say(sock: socket.socket) -> str:
    """Send a datagram from a fixed port; return the pod that answers, or the error."""
    text = f"question {next(_numbers)}".encode()
    sock.settimeout(0.1)
    try:
        sock.send(text)
        while not (answer := sock.recv(2048)).endswith(text):
            pass
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "silence"
    return answer.partition(b":")[0].decode()


class TestUdp:
    """Flows whose endpoints change. Source: e2e conntrack.go."""

    @pytest.fixture
    def socks(self, world: World) -> list[socket.socket]:
        """The sockets of all clients, which sent datagrams before any endpoint existed."""
        world.put(FLOWING)
        ats: tuple[Address, ...] = (FLOWING.address, (world.ip("node-1"), 30160))
        socks = [world.udp(client, at) for client in world.testbed.clients for at in ats]
        assert [say(sock) for sock in socks] == ["refused"] * len(socks)
        return socks

    def test_udp_clients_with_a_fixed_port_follow_the_endpoints_within_two_seconds(
        self, world: World, socks: list[socket.socket]
    ) -> None:
        """Source: e2e "should be able to preserve UDP traffic when server pod cycles …"."""
        for name in ("one", "two", "", "three"):
            world.write(FLOWING.at(*(world.pods(name) if name else ())))
            self._turn_to(name or "refused", socks)

    def test_udp_clients_with_a_fixed_port_follow_a_target_port_and_a_recreated_service(
        self, world: World, socks: list[socket.socket]
    ) -> None:
        world.write(FLOWING.at(*world.pods("one")))
        self._turn_to("one", socks)
        new = FLOWING.but(ports=[Port(53, "UDP", target=8081, node_port=30160)])
        world.write(new.at(*world.pods("one")))
        self._turn_to("one-new", socks)
        world.delete(FLOWING)
        eventually(
            "one-new is asked", False, lambda: "one-new" in map(say, socks), deadline_s=MOVE_S
        )
        world.write(FLOWING.at(*world.pods("two")))
        self._turn_to("two", socks)

    def _turn_to(self, who: str, socks: list[socket.socket]) -> None:
        eventually(who, {who}, lambda: {say(sock) for sock in socks}, deadline_s=MOVE_S)

    def test_external_local_without_local_endpoints_ends_outside_flows(self, world: World) -> None:
        """Source: e2e "should be able to preserve UDP traffic when initial unready …"."""
        at = (world.ip("node-1"), 30160)
        world.put(FLOWING.at(*world.pods("one")))
        sock = world.udp("laptop", at)
        assert say(sock) == "one"
        local = FLOWING.but(more={"type": "NodePort", "externalTrafficPolicy": "Local"})
        world.write(local.at(At(world.ip("one"), node=ELSEWHERE)))
        eventually("silence", "silence", lambda: say(sock), deadline_s=MOVE_S)
        world.write(local.at(*world.pods("two")))
        eventually("service", "two", lambda: say(sock), deadline_s=MOVE_S)
